"""A component's contract at one size and precision in one call, for a plugin's tests."""

from typing import Any

import torch

from attent_kit.interfaces import Alignment, Discriminator, Segmentor, Task, Translator
from attent_kit.registry import Registry
from attent_kit.testing import adaptation, alignments, general, networks, volumes, waiting
from attent_kit.testing.subject import FOUR_ORGANS, NO_OPTIONS, PlainOptions, Subject, images
from attent_kit.testing.trial import Recorder, Trial


def check_translator(component: type[Translator], options: PlainOptions = NO_OPTIONS, task: Task = FOUR_ORGANS) -> None:
    """Same shape, values in [-1, 1], any size of 32 or more, gradients, one answer in eval mode."""
    subject = _subject(Translator, component, options)
    network = component(subject.config, task)
    for batch, height, width in ((2, 64, 64), (1, 37, 45)):
        x = images(batch, task, height, width)
        networks.translated(network, x, network(x))
    networks.encoder_shows(subject)
    _gradients(network, x)
    networks.repeats(network, x)


def check_segmentor(component: type[Segmentor], options: PlainOptions = NO_OPTIONS, task: Task = FOUR_ORGANS) -> None:
    """Logits at input resolution, gradients, one answer in eval mode; channels and stride of the features and whether there
    is an auxiliary head as declared."""
    subject = _subject(Segmentor, component, options)
    network = component(subject.config, task)
    depth = networks.DEPTH if component.dims == 3 else None
    for batch, height, width in ((2, 64, 64), (2, 37, 45)):
        x = images(batch, task, height, width, depth)
        networks.segmented(network, x, network(x), task)
    _gradients(network, x)
    networks.repeats(network, x)


def check_discriminator(component: type[Discriminator], options: PlainOptions = NO_OPTIONS, channels: int = 5) -> None:
    """Logits [B, heads, h, w] for one head and for two, gradients to the image, one answer in eval mode."""
    subject = _subject(Discriminator, component, options)
    for heads in (1, 2):
        network = component(subject.config, channels, heads)
        x = torch.rand(2, channels, 64, 64)
        networks.judged(network, x, network(x), heads)
        _gradients(network, x)
    networks.repeats(network, x)


def check_alignment(
    component: type[Alignment],
    options: PlainOptions = NO_OPTIONS,
    task: Task = FOUR_ORGANS,
    size: int = 64,
    precision: str = "32-true",
    batch_size: int = 2,
    registry: Registry | None = None,
) -> None:
    """Ownership, one step of every stage, prediction, resuming from a copied state, terms that can be turned off, steps that
    can be captured unless it declares otherwise, and partial labels and volumes if it takes them, as the engine relies on
    them."""
    subject = _subject(Alignment, component, options, registry)
    alignments.terms_turn_off(subject)
    alignments.partial_labels_as_declared(subject)
    volumes.volumes_as_declared(subject)
    waiting.capturable_as_declared(subject)
    trial = Trial(subject, task, size, precision, batch_size)
    alignments.ownership(trial)
    alignments.has_some(trial)
    returned: set[str] = set()
    for number, stage in enumerate(trial.stages):
        alignments.declared(stage, trial.optimizers)
        recorder = Recorder(trial.alignment, trial.optimizers, trial.update)
        losses = trial.step(stage, number, update=recorder)
        alignments.losses_of(stage, losses)
        alignments.moving(stage, recorder)
        returned |= set(losses)
    alignments.watched(trial, returned)
    for height, width in ((size, size), (size - 3, size + 5)):
        alignments.answers(trial, height, width)
    alignments.repeats(trial)
    alignments.views(trial)
    alignments.predicts_with(trial)
    adaptation.checked(trial)
    twin = alignments.twin_of(trial)
    alignments.goes_on(trial, twin)
    alignments.same_prediction(trial, twin)


def _subject(interface: Any, component: Any, options: PlainOptions, registry: Registry | None = None) -> Subject:
    """The component with its options, both well formed."""
    more: dict[str, Any] = {} if registry is None else {"registry": registry}
    subject = Subject(interface.kind, component, options, **more)
    general.documented(subject)
    general.options_written(subject)
    return subject


def _gradients(network: torch.nn.Module, x: torch.Tensor) -> None:
    """The image and some parameter have a gradient."""
    x = x.clone().requires_grad_()
    sum((t.float().square().mean() for t in networks.tensors(network(x))), x.new_zeros(())).backward()
    name = type(network).__name__
    assert x.grad is not None and x.grad.abs().sum() > 0, f"{name} gives no gradient to its image."
    parameters = list(network.parameters())
    assert not parameters or any(p.grad is not None for p in parameters), f"{name}: no parameter has a gradient."
