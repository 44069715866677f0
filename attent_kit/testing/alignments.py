"""What the engine relies on in a method, one function per claim. Each docstring says what a failure means and how to fix
it; the AssertionError says what was found."""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from attent_kit.build import Builder, configure
from attent_kit.config import merge
from attent_kit.engine.run.assemble import (
    load_network_states,
    load_optimizer_states,
    network_states,
    optimizer_states,
    owned,
    unwrapped,
)
from attent_kit.engine.run.predict import segment_slices
from attent_kit.interfaces import Batch, Segmentor, Stage, Task
from attent_kit.objectives import class_of
from attent_kit.testing.subject import (
    FOUR_ORGANS,
    Subject,
    images,
    organless_batch,
    partial_batch,
    unlabelled_batch,
)
from attent_kit.testing.trial import Draw, Recorder, Trial, differing, random_batch, values

SPENT = ("backward through the graph a second time", "modified by an inplace operation")
"""PyTorch's words for a graph that is used after an update."""


def stages_declared(subject: Subject) -> None:
    """The engine reads a stage's length, its optimizers and its schedules before it trains. Return at least one Stage, with
    steps and a batch size of 1 or more, optimizers that `optimizers()` has, and multipliers that are not negative. A method that
    is source_free may have none."""
    trial = Trial(subject)
    has_some(trial)
    for stage in trial.stages:
        declared(stage, trial.optimizers)


def has_some(trial: Trial) -> None:
    """That there is a stage."""
    trained = trial.stages or trial.alignment.source_free
    assert trained, f"{trial.subject.called} has no stage: return at least one, or declare source_free."


def declared(stage: Stage, optimizers: Mapping[str, object]) -> None:
    """The claim of `stages_declared` for one stage."""
    where = f"stage '{stage.name}'"
    assert stage.steps >= 1 and stage.batch_size >= 1, f"{where}: steps and batch_size must be 1 or more."
    unknown = set(stage.trains) - set(optimizers)
    assert not unknown, f"{where} trains {sorted(unknown)}, which optimizers() does not return."
    by_name = stage.schedule if isinstance(stage.schedule, Mapping) else dict.fromkeys(stage.trains, stage.schedule)
    lacking = set(stage.trains) - set(by_name)
    assert not lacking, f"{where}: there is no schedule for {sorted(lacking)}: give one for each of `trains`."
    rates = [schedule(f) for schedule in by_name.values() for f in (0.0, 0.5, 1.0)]
    assert min(rates) >= 0, f"{where}: a learning rate would be negative."


def owned_once(subject: Subject) -> None:
    """A parameter without an optimizer never learns, and one with two moves twice per step. Give every trainable parameter
    to exactly one optimizer, or set requires_grad_(False) on those that should stay."""
    trial = Trial(subject)
    ownership(trial)


def ownership(trial: Trial) -> None:
    """The claim of `owned_once`."""
    owners: dict[int, list[str]] = {}
    for name, optimizer in trial.optimizers.items():
        for parameter in owned(optimizer):
            owners.setdefault(id(parameter), []).append(name)
    for name, parameter in trial.alignment.named_parameters():
        names = owners.get(id(parameter), [])
        if parameter.requires_grad:
            assert len(names) == 1, (
                f"parameter {name} is owned by {', '.join(names) or 'no optimizer'}: each trainable parameter needs exactly one."
            )


def finite_losses(subject: Subject) -> None:
    """What a step returns is logged, and a run stops when it is not finite. Return every loss by name as a scalar
    tensor on the device, and look for a logarithm of 0, a division by 0, or a rate that is too high."""
    trial = Trial(subject)
    claims = (("x_s", "uses_source_images"), ("x_t", "uses_target_images"))
    unused = [(x, claim) for x, claim in claims if not getattr(trial.alignment, claim)]
    why = "".join(f" {x} is NaN here, since it declares {claim} = False." for x, claim in unused)
    for stage in trial.stages:
        for number in range(2):
            losses_of(stage, trial.step(stage, number), why)


def losses_of(stage: Stage, losses: object, why: str = "") -> None:
    """The claim of `finite_losses` for one step; `why` is what may explain that it does not hold."""
    where = f"stage '{stage.name}'"
    assert isinstance(losses, Mapping) and losses, f"{where}: return the losses by name, so that they can be logged."
    for name, loss in losses.items():
        assert isinstance(loss, Tensor) and loss.ndim == 0, f"{where}: loss {name} is not a scalar tensor."
        assert torch.isfinite(loss), f"{where}: loss {name} is {loss.item()}.{why}"


def trains_move(subject: Subject) -> None:
    """An optimizer that a stage names in `trains` but that moves nothing points to a loss without a gradient, often one detach()
    too many, or to a forgotten update. Call update(NAME, loss) for each, or leave the name out of `trains`."""
    trial = Trial(subject)
    for stage in trial.stages:
        recorder = Recorder(trial.alignment, trial.optimizers, trial.update)
        trial.step(stage, update=recorder)
        moving(stage, recorder)


def moving(stage: Stage, recorder: Recorder) -> None:
    """The claim of `trains_move` after one step."""
    where = f"stage '{stage.name}'"
    for name in stage.trains:
        assert recorder.moved.get(name), f"{where} says that it trains {name}, but no update moved what {name} owns."
    stray = set(recorder.moved) - set(stage.trains)
    assert not stray, f"{where} updates {sorted(stray)} without naming it in `trains`."


def others_stay(subject: Subject) -> None:
    """Parameters that no optimizer of the stage owns must not move. Change weights only through
    `update`; keep a moving average of weights in buffers, or in parameters without requires_grad."""
    trial = Trial(subject)
    for stage in trial.stages:
        own = {id(p) for name in stage.trains if name in trial.optimizers for p in owned(trial.optimizers[name])}
        other = {n: p for n, p in trial.alignment.named_parameters() if id(p) not in own and p.requires_grad}
        before = {n: p.detach().clone() for n, p in other.items()}
        trial.step(stage)
        moved = [n for n, p in other.items() if not torch.equal(p, before[n])]
        assert not moved, f"stage '{stage.name}' moves {moved[0]}, which none of {', '.join(stage.trains)} owns."


def graphs_are_fresh(subject: Subject) -> None:
    """An update uses up the graph of its loss and moves the weights in it. Recompute what you need afterwards, or
    reuse `.detach()`ed tensors; keep nothing with a graph from one step to the next."""
    trial = Trial(subject)
    for stage in trial.stages:
        for number in range(2):
            try:
                trial.step(stage, number)
            except RuntimeError as error:
                assert not any(words in str(error) for words in SPENT), (
                    f"stage '{stage.name}', step {number}, uses a graph after its update: {str(error).partition('.')[0]}."
                )
                raise


class _Watched(Batch):
    """A batch that notes when its target labels are read."""

    read = False

    @property
    def y_t(self) -> Tensor | None:
        type(self).read = True
        return self[3]


def target_labels_as_declared(subject: Subject) -> None:
    """A method that adapts without labels never sees `batch.y_t`, which is None; one that declares `uses_target_labels` is
    an upper bound in every table. Leave y_t alone, or declare that you use it; and declare it only if it makes a difference."""
    trial = Trial(subject)
    name = subject.called
    if not trial.alignment.uses_target_labels:
        for stage in trial.stages:
            _Watched.read = False
            batch: Batch = _Watched(*trial.batch())
            try:
                trial.step(stage, batch=batch)
            finally:
                assert not _Watched.read, (
                    f"stage '{stage.name}' reads batch.y_t, which is always None here: {name} does not declare "
                    f"uses_target_labels."
                )
        return
    other = Trial(subject)
    for stage, same in zip(trial.stages, other.stages, strict=True):
        batch = trial.batch()
        assert batch.y_t is not None
        trial.step(stage, batch=batch)
        other.step(same, batch=batch._replace(y_t=(batch.y_t + 1) % trial.task.classes))
    assert differing(values(trial.alignment), values(other.alignment)), (
        f"{name} declares uses_target_labels, but different target labels train it to the same weights: drop the declaration."
    )


def slices_without_organs(subject: Subject) -> None:
    """Most slices of an abdomen show some organs only, some show none, and some pixels have no label (IGNORE). Sum over
    the pixels that count and divide by their number, at least 1, as attent_kit.objectives does."""
    trial = Trial(subject)
    for stage in trial.stages:
        for draw in (organless_batch, unlabelled_batch):
            losses_of(stage, trial.step(stage, batch=trial.batch(draw)))
    lost = [n for n, p in trial.alignment.named_parameters() if not torch.isfinite(p).all()]
    assert not lost, f"after slices without organs, {lost[0]} is no longer finite."


def partial_labels_as_declared(subject: Subject) -> None:
    """A method that declares `takes_partial_labels` sees the classes that each pixel may be, [B, K, H, W] bool, where cases do
    not annotate every organ. Give them to functions of attent_kit.options and attent_kit.objectives, or drop the declaration."""
    trial, other = Trial(subject), Trial(subject)
    if not trial.alignment.takes_partial_labels:
        return
    for stage, same in zip(trial.stages, other.stages, strict=True):
        torch.manual_seed(1)
        batch = trial.batch(partial_batch)
        losses_of(stage, trial.step(stage, batch=batch))
        y_t = None if batch.y_t is None else class_of(batch.y_t)
        other.step(same, batch=batch._replace(y_s=class_of(batch.y_s), y_t=y_t))
    assert differing(values(trial.alignment), values(other.alignment)), (
        f"{subject.called} declares takes_partial_labels, but takes what may be another organ for background."
    )


def predict_answers(subject: Subject) -> None:
    """Volumes are assembled from what `predict` returns. Return finite logits [B, K, H, W] at the resolution of the
    image, background first."""
    trial = Trial(subject)
    answers(trial, trial.size, trial.size)


def answers(trial: Trial, height: int, width: int) -> None:
    """The claim of `predict_answers` for one size."""
    found = trial.predict(images(trial.batch_size, trial.task, height, width).to(trial.fabric.device))
    expected = (trial.batch_size, trial.task.classes, height, width)
    assert found.shape == expected, f"predict returns {tuple(found.shape)}, not {expected}."
    assert torch.isfinite(found).all(), "predict returns numbers that are not finite."


def predict_repeats(subject: Subject) -> None:
    """The same image must get the same answer, whatever was predicted before. In eval mode nothing may be random and no
    buffer may change: leave no module in train mode, and draw nothing."""
    trial = Trial(subject)
    trial.steps()
    repeats(trial)


def repeats(trial: Trial) -> None:
    """The claim of `predict_repeats`."""
    x = images(2, trial.task, trial.size, trial.size).to(trial.fabric.device)
    before = {name: buffer.clone() for name, buffer in trial.alignment.named_buffers()}
    first, second = trial.predict(x), trial.predict(x)
    assert torch.equal(first, second), (
        "predict answers differently the second time: draw nothing, and stay in eval mode."
    )
    for name, buffer in trial.alignment.named_buffers():
        assert torch.equal(buffer, before[name]), f"predict changed the buffer {name}."
    training = [name for name, child in trial.alignment.named_modules() if child.training]
    assert not training, f"predict leaves {training[0] or 'the method'} in train mode."


def predicts_with_what_it_says(subject: Subject) -> None:
    """`predicts_with` promises that one exported segmentor is all that prediction needs. Name the attribute whose logits
    `predict` returns unchanged, or leave it out."""
    trial = Trial(subject)
    predicts_with(trial)


def predicts_with(trial: Trial) -> None:
    """The claim of `predicts_with_what_it_says`."""
    claimed = trial.alignment.predicts_with
    if not claimed:
        return
    network = getattr(trial.alignment, claimed, None)
    assert network is not None and isinstance(unwrapped(network), Segmentor), (
        f"predicts_with says '{claimed}', which is not a Segmentor of this alignment."
    )
    x = images(2, trial.task, trial.size, trial.size).to(trial.fabric.device)
    found = trial.predict(x)
    with torch.inference_mode():
        alone = network(x).logits
    assert torch.equal(found, alone), (
        f"predicts_with says '{claimed}', but predict does not return its logits: leave predicts_with empty."
    )


def translations_are_images(subject: Subject) -> None:
    """Figures, selectors and audits call `as_source(x_t)`, `as_target(x_s)` and `as_seen(x_s)`. Return None, or an image of
    the same shape in [-1, 1]."""
    trial = Trial(subject)
    views(trial)


def views(trial: Trial) -> None:
    """The claim of `translations_are_images`."""
    trial.alignment.eval()
    x = images(2, trial.task, trial.size, trial.size).to(trial.fabric.device)
    for name in ("as_source", "as_target", "as_seen"):
        with torch.inference_mode():
            image = getattr(trial.alignment, name)(x)
        if image is not None:
            assert image.shape == x.shape, f"{name} made {tuple(image.shape)} of {tuple(x.shape)}: keep the shape."
            assert image.min() >= -1 and image.max() <= 1, f"{name} leaves [-1, 1]: end with tanh, or clamp."


def terms_turn_off(subject: Subject) -> None:
    """`attentkit compare --ablate` takes a method apart by its `terms`: for each name, the options that turn it off. The
    Config must have these options, the method must build with them, and they must change something."""
    component = subject.component
    name, declared_terms = subject.called, component.terms
    assert isinstance(declared_terms, Mapping) and all(isinstance(off, Mapping) for off in declared_terms.values()), (
        f"{name}.terms: give, for each name, the options that turn it off, as a mapping of mappings."
    )
    for term, off in declared_terms.items():
        where = f"{name}.terms['{term}']"
        try:
            without = configure(component, merge(subject.options, off), subject.registry)
            component(without, Builder(subject.registry, FOUR_ORGANS, seed=0), FOUR_ORGANS).stages()
        except Exception as error:
            raise AssertionError(f"{where}: the method cannot be built with {dict(off)}: {error}") from error
        # The options of the test may already have turned the term off.
        plain, reduced = configure(component, {}, subject.registry), configure(component, off, subject.registry)
        changes = without != subject.config or reduced != plain
        assert changes, f"{where}: {dict(off)} changes nothing, so it turns nothing off."


def discriminator_losses_are_there(subject: Subject) -> None:
    """Training warns of discriminators that have won or cannot tell. Name in `discriminator_losses` losses that a step returns,
    each with its kind, "bce" or "lsgan"."""
    trial = Trial(subject)
    returned = {name for stage in trial.stages for name in trial.step(stage)}
    watched(trial, returned)


def watched(trial: Trial, returned: set[str]) -> None:
    """The claim of `discriminator_losses_are_there`."""
    told = trial.alignment.discriminator_losses()
    unknown = set(told) - returned
    assert not unknown, f"discriminator_losses names {', '.join(sorted(unknown))}, which no step returns."
    kinds = sorted(set(told.values()) - {"bce", "lsgan"})
    assert not kinds, f"discriminator_losses has the kind '{kinds[0]}': write 'bce' or 'lsgan'."


def twin_of(trial: Trial) -> Trial:
    """Another trial with different initial weights, filled from the state of networks and optimizers."""
    twin = Trial(trial.subject, trial.task, trial.size, trial.precision, trial.batch_size, seed=1)
    load_network_states(twin.alignment, deepcopy(network_states(trial.alignment)))
    load_optimizer_states(twin.optimizers, deepcopy(optimizer_states(trial.optimizers)))
    return twin


def state_is_all(subject: Subject) -> None:
    """A checkpoint holds networks and buffers, but a copy filled from them predicts something else. Keep what `predict` needs
    in a network or in a registered buffer, not in a plain attribute."""
    trial = Trial(subject)
    trial.steps(2)
    same_prediction(trial, twin_of(trial))


def same_prediction(trial: Trial, twin: Trial) -> None:
    """The claim of `state_is_all`."""
    x = images(2, trial.task, trial.size, trial.size).to(trial.fabric.device)
    assert torch.equal(twin.predict(x), trial.predict(x)), (
        f"{type(trial.alignment).__name__}: a copy from its state predicts differently: keep all state in networks and buffers."
    )


def resumes_exactly(subject: Subject) -> None:
    """A killed run must continue to the same bits, and this one would not. Keep state that lives from step to step in networks,
    buffers (register_buffer) and optimizers, and draw random numbers from torch, numpy or random, which each step seeds."""
    trial = Trial(subject)
    trial.steps(2)
    twin = twin_of(trial)
    goes_on(trial, twin)
    same_prediction(trial, twin)


def goes_on(trial: Trial, twin: Trial) -> None:
    """The claim of `resumes_exactly`: one more step of every stage."""
    for number, (stage, same_stage) in enumerate(zip(trial.stages, twin.stages, strict=True)):
        for one, its_stage in ((trial, stage), (twin, same_stage)):
            one.step(its_stage, 100 + number)
    expected, found = network_states(trial.alignment), network_states(twin.alignment)
    for network, state in expected.items():
        for key, value in state.items():
            assert torch.equal(value, found[network][key]), (
                f"{type(trial.alignment).__name__}: a copy from its state goes on differently in "
                f"{network or 'its buffer'}.{key}: keep all state in networks, buffers and optimizers."
            )


def _steps_and_predicts(trial: Trial, draw: Draw = random_batch) -> None:
    for stage in trial.stages:
        losses_of(stage, trial.step(stage, batch=trial.batch(draw)))
    answers(trial, trial.size, trial.size)


def bfloat16(subject: Subject) -> None:
    """GPUs train in bf16-mixed by default: networks answer in bfloat16, and losses must stay finite in it. Call
    `.float()` before sums of squares, covariances and logarithms."""
    _steps_and_predicts(Trial(subject, precision="bf16-mixed"))


def odd_sizes(subject: Subject) -> None:
    """Slices can have any size. Do not assume a multiple of 32 or a square: interpolate to the image's size, pad and crop."""
    trial = Trial(subject, size=61)
    _steps_and_predicts(trial)
    answers(trial, 61, 69)


def batch_of_one(subject: Subject) -> None:
    """Batch sizes are options, and the published ones are often 1. BatchNorm over one value, squeeze() and a standard
    deviation over the batch fail then."""
    _steps_and_predicts(Trial(subject, batch_size=1))


def two_classes(subject: Subject) -> None:
    """One organ and background. Take the number of classes from task.classes, never from a constant."""
    _steps_and_predicts(Trial(subject, Task(organs=("liver",))))


def eight_classes(subject: Subject) -> None:
    """Seven organs and background. Take the number of classes from task.classes, never from a constant."""
    _steps_and_predicts(Trial(subject, Task(organs=tuple("abcdefg"))))


def three_channels(subject: Subject) -> None:
    """An image may be a slice with its neighbours as channels (--channels 3), the one to segment in the middle. Take their number
    from task.channels, never from a constant, translate all of them, and draw for an image what is random about it, not for each
    channel."""
    trial = Trial(subject, Task(channels=3, organs=FOUR_ORGANS.organs))
    _steps_and_predicts(trial)
    views(trial)
    if trial.alignment.adapts():
        volume = images(2, trial.task, trial.size, trial.size).half().numpy()
        found = segment_slices(trial.alignment, volume, trial.fabric.device)
        assert np.isfinite(found).all(), "after adapt_to, answers are not finite numbers."
