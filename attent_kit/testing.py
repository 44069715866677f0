"""The contract of each kind of component, as checks that a plugin's tests call.

    from attent_kit.testing import check_alignment

    def test_mine_keeps_the_contract():
        check_alignment(Mine, {"segmentor": {"encoder_depth": 3}})

Each check raises an AssertionError whose sentence says what is wrong and what would mend it. They run on the CPU in
seconds, on random images.
"""

import math
import pickle
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attent_kit.build import Builder, configure
from attent_kit.config import ComponentConfig, dump, merge
from attent_kit.data.cases import read_scan
from attent_kit.data.layout import Layout
from attent_kit.data.plan import entry_files
from attent_kit.engine.assemble import (
    load_network_states,
    load_optimizer_states,
    network_states,
    optimizer_states,
    owned,
    setup,
    train_only,
    unwrapped,
)
from attent_kit.engine.device import launch
from attent_kit.engine.fit import seed_step
from attent_kit.engine.update import FabricUpdate
from attent_kit.interfaces import (
    Alignment,
    Batch,
    Discriminator,
    Segmentation,
    Segmentor,
    Stage,
    Task,
    Translator,
)
from attent_kit.plugins import load
from attent_kit.registry import Registry
from attent_kit.selectors import Look, Selector

Options = Mapping[str, Any]
NO_OPTIONS: Options = MappingProxyType({})
FOUR_ORGANS = Task()


def check_layout(layout: type[Layout], path: Path, part: str | None = None, elsewhere: Path | None = None) -> None:
    """A data set at `path` is recognised, listed and read as `attentkit prepare` relies on; `elsewhere` is not recognised."""
    name = layout.__name__
    assert issubclass(layout, Layout), f"{name} is no Layout: subclass attent_kit.data.layout.Layout."
    assert (layout.__doc__ or "").strip(), f"{name} has no docstring: its first line is its summary."
    assert layout.recognises(path) is True, f"{name} does not recognise {path}: answer True or False."
    if elsewhere is not None:
        assert layout.recognises(elsewhere) is False, f"{name} recognises {elsewhere}, which is none of its data sets."
    assert part is None or part in layout.parts(path), f"{name} has no part '{part}', only {layout.parts(path)}."
    found = layout(path, part)
    entries = found.entries()
    assert entries == layout(path, part).entries(), f"{name}.entries answers differently the second time."
    ids = [entry.id for entry in entries]
    assert entries and ids == sorted(set(ids)), f"{name}.entries: give each case an id of its own, sorted by id."
    for entry in entries:
        missing = [str(file) for file in entry_files(entry) if not file.exists()]
        assert entry.images and not missing, (
            f"{name}: case '{entry.id}' needs an image, and every file must exist {missing}."
        )
    # Several processes read, each with a copy of the layout.
    first, second = (read_scan(each, entries[0]) for each in (found, pickle.loads(pickle.dumps(found))))
    assert np.array_equal(first.image.array, second.image.array), f"{name}.read answers differently in another process."
    assert found.organs is None or first.labels is None or found.organs.apply(first.labels.array, ids[0]).any(), (
        f"{name}: case '{ids[0]}' has none of the organs that the layout names: check their values."
    )


def check_translator(component: type[Translator], options: Options = NO_OPTIONS, task: Task = FOUR_ORGANS) -> None:
    """Same shape, values in [-1, 1], any size of 32 or more, gradients, one answer in eval mode."""
    network = component(_config(component, Translator, options), task)
    for batch, height, width in ((2, 64, 64), (1, 37, 45)):
        x = _images(batch, task, height, width)
        y = network(x)
        assert y.shape == x.shape, f"{component.__name__} made {tuple(y.shape)} of {tuple(x.shape)}: keep the shape."
        assert y.min() >= -1 and y.max() <= 1, f"{component.__name__} leaves [-1, 1]: end with tanh."
    _check_gradients(network, y.mean())
    _check_eval(network, x)


def check_segmentor(component: type[Segmentor], options: Options = NO_OPTIONS, task: Task = FOUR_ORGANS) -> None:
    """Logits at input resolution, gradients, one answer in eval mode; channels and stride of the features and whether there
    is an auxiliary head as declared."""
    name = component.__name__
    network = component(_config(component, Segmentor, options), task)
    for batch, height, width in ((2, 64, 64), (2, 37, 45)):
        x = _images(batch, task, height, width)
        out = network(x)
        assert isinstance(out, Segmentation), f"{name} answers {type(out).__name__}: answer a Segmentation."
        expected = (batch, task.classes, height, width)
        assert out.logits.shape == expected, f"{name}: logits are {tuple(out.logits.shape)}, not {expected}."
        assert out.features.ndim == 4 and out.features.shape[1] == network.feature_channels, (
            f"{name}: features have {out.features.shape[1]} channels, feature_channels says {network.feature_channels}."
        )
        nearly = [abs(side * network.feature_stride - x.shape[n]) for n, side in enumerate(out.features.shape[2:], 2)]
        assert max(nearly) <= 2 * network.feature_stride, (
            f"{name}: features are {tuple(out.features.shape[2:])} for an image of {height} x {width}, which is not a "
            f"feature_stride of {network.feature_stride}."
        )
        assert (out.auxiliary is not None) == network.has_auxiliary, (
            f"{name}: has_auxiliary is not what forward answers."
        )
        assert out.auxiliary is None or out.auxiliary.shape == expected, f"{name}: auxiliary is not {expected}."
    _check_gradients(network, out.logits.mean() + (0 if out.auxiliary is None else out.auxiliary.mean()))
    _check_eval(network, x)


def check_discriminator(component: type[Discriminator], options: Options = NO_OPTIONS, channels: int = 5) -> None:
    """Logits [B, heads, h, w] for one head and for two, gradients to the image, one answer in eval mode."""
    config = _config(component, Discriminator, options)
    for heads in (1, 2):
        network = component(config, channels, heads)
        x = torch.rand(2, channels, 64, 64, requires_grad=True)
        y = network(x)
        assert y.ndim == 4 and y.shape[:2] == (2, heads), (
            f"{component.__name__} answers {tuple(y.shape)} for {heads} heads: answer [B, heads, h, w]."
        )
        y.mean().backward()
        assert x.grad is not None and x.grad.abs().sum() > 0, f"{component.__name__} gives no gradient to its image."
    _check_eval(network, x.detach())


def check_selector(component: type[Selector], task: Task = FOUR_ORGANS) -> None:
    """Which score is better, one finite number for a whole look, the same again, and an answer where the look lacks parts."""
    name = component.__name__
    assert issubclass(component, Selector), f"{name} is no Selector: subclass attent_kit.selectors.Selector."
    assert (component.__doc__ or "").strip(), f"{name} has no docstring: its first line is its summary."
    assert getattr(component, "better", None) in ("higher", "lower"), f"{name}.better: write 'higher' or 'lower'."
    whole = _look(task)
    before = deepcopy(whole)
    score = component().score(whole)
    assert isinstance(score, float) and math.isfinite(score), (
        f"{name}.score answers {score!r} for a look that lacks nothing: answer a finite float."
    )
    assert component().score(whole) == score, (
        f"{name}.score answers differently the second time: draw nothing at random."
    )
    for part in fields(Look):
        same = torch.equal(getattr(whole, part.name), getattr(before, part.name))
        assert same, f"{name}.score changes {part.name}, which the other selectors see too."
    optional = [part.name for part in fields(Look) if part.default is None]
    for lacking in (optional, *([part] for part in optional)):
        score = component().score(replace(whole, **dict.fromkeys(lacking)))
        assert score is None or isinstance(score, float), (
            f"{name}.score answers {score!r} for a look without {', '.join(lacking)}: answer a float, or None."
        )


def check_alignment(
    component: type[Alignment],
    options: Options = NO_OPTIONS,
    task: Task = FOUR_ORGANS,
    size: int = 64,
    precision: str = "32-true",
    batch_size: int = 2,
    registry: Registry | None = None,
) -> None:
    """Ownership, one step of every stage, prediction, going on from a copied state, and terms that can be turned off, as the
    engine relies on them."""
    registry = registry or load().registry
    config = _config(component, Alignment, options, registry)
    _check_terms(component, config, options, task, registry)
    alignment = component(config, Builder(registry, task, seed=0), task)
    fabric = launch("cpu", precision)
    optimizers = setup(alignment, fabric)
    _check_ownership(alignment, optimizers)
    labelled = component.uses_target_labels
    stages = alignment.stages()
    assert stages, f"{component.__name__} has no stage: return at least one."
    returned: set[str] = set()
    for number, stage in enumerate(stages):
        seed_step(0, number)
        batch = _batch(batch_size, task, size, labelled)
        returned |= _check_stage(alignment, optimizers, stage, batch, FabricUpdate(fabric, optimizers))
    unknown = set(alignment.discriminator_losses()) - returned
    assert not unknown, f"discriminator_losses names {', '.join(sorted(unknown))}, which no step returns."
    _check_predict(alignment, task, size)
    twin = component(config, Builder(registry, task, seed=1), task)
    others = setup(twin, fabric)
    load_network_states(twin, network_states(alignment))
    load_optimizer_states(others, deepcopy(optimizer_states(optimizers)))
    _check_resume(alignment, optimizers, twin, others, fabric, lambda: _batch(batch_size, task, size, labelled))


def _check_terms(
    component: type[Alignment], config: ComponentConfig, options: Options, task: Task, registry: Registry
) -> None:
    """Every declared term is turned off by options that are valid, build, and change the configuration."""
    name = component.__name__
    terms = component.terms
    assert isinstance(terms, Mapping) and all(isinstance(off, Mapping) for off in terms.values()), (
        f"{name}.terms: give a name and the options that turn it off for each, as a mapping of mappings."
    )
    for term, off in terms.items():
        where = f"{name}.terms['{term}']"
        try:
            without = configure(component, merge(options, off), registry)
            component(without, Builder(registry, task, seed=0), task).stages()
        except Exception as error:
            raise AssertionError(f"{where}: the method cannot be built with {dict(off)}: {error}") from error
        # The options of the test may have the term off already.
        changes = without != config or configure(component, off, registry) != configure(component, {}, registry)
        assert changes, f"{where}: {dict(off)} changes nothing, so it turns nothing off."


class _Recorder:
    """An `Update` that notes which optimizer moved what."""

    def __init__(self, alignment: Alignment, optimizers: dict[str, Any], update: FabricUpdate) -> None:
        self.names = {id(p): n for n, p in alignment.named_parameters()}
        self.parameters = dict(alignment.named_parameters())
        self.optimizers, self.update = optimizers, update
        self.moved: dict[str, bool] = {}

    def __call__(self, optimizer: str, loss: Tensor, when: Tensor | None = None) -> None:
        assert optimizer in self.optimizers, f'update("{optimizer}", ...): there is no such optimizer.'
        assert loss.ndim == 0 and torch.isfinite(loss), f'update("{optimizer}", ...): the loss is no finite scalar.'
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        if when is not None:
            assert when.ndim == 0 and when.dtype == torch.bool, (
                f'update("{optimizer}", ...): `when` is no boolean scalar.'
            )
        # A gate that chance has closed would hide what the update moves.
        self.update(optimizer, loss)
        changed = {name for name, p in self.parameters.items() if not torch.equal(p, before[name])}
        own = {self.names[id(p)] for p in owned(self.optimizers[optimizer])}
        assert changed <= own, f'update("{optimizer}", ...) moved {sorted(changed - own)[0]}, which it does not own.'
        self.moved[optimizer] = self.moved.get(optimizer, False) or bool(changed)


def _check_ownership(alignment: Alignment, optimizers: dict[str, Any]) -> None:
    owners: dict[int, list[str]] = {}
    for name, optimizer in optimizers.items():
        for parameter in owned(optimizer):
            owners.setdefault(id(parameter), []).append(name)
    for name, parameter in alignment.named_parameters():
        names = owners.get(id(parameter), [])
        if parameter.requires_grad:
            assert len(names) == 1, (
                f"parameter {name} is owned by {', '.join(names) or 'no optimizer'}: each trainable parameter has one owner."
            )


def _check_stage(
    alignment: Alignment, optimizers: dict[str, Any], stage: Stage, batch: Batch, update: FabricUpdate
) -> set[str]:
    """Names of the losses that the step returned."""
    where = f"stage '{stage.name}'"
    assert stage.steps >= 1 and stage.batch_size >= 1, f"{where}: steps and batch_size must be 1 or more."
    unknown = set(stage.trains) - set(optimizers)
    assert not unknown, f"{where} trains {sorted(unknown)}, which optimizers() does not return."
    by_name = stage.schedule if isinstance(stage.schedule, Mapping) else dict.fromkeys(stage.trains, stage.schedule)
    lacking = set(stage.trains) - set(by_name)
    assert not lacking, f"{where}: there is no schedule for {sorted(lacking)}: give one for each of `trains`."
    rates = [schedule(f) for schedule in by_name.values() for f in (0.0, 0.5, 1.0)]
    assert min(rates) >= 0, f"{where}: a learning rate would be negative."
    train_only(alignment, optimizers, stage)
    recorder = _Recorder(alignment, optimizers, update)
    losses = stage.step(batch, recorder)
    assert losses, f"{where}: return the losses by name, so that they can be logged."
    for name, loss in losses.items():
        assert isinstance(loss, Tensor) and loss.ndim == 0, f"{where}: loss {name} is no scalar tensor."
        assert torch.isfinite(loss), f"{where}: loss {name} is {loss.item()}."
    for name in stage.trains:
        assert recorder.moved.get(name), f"{where} says that it trains {name}, but no update moved what {name} owns."
    stray = set(recorder.moved) - set(stage.trains)
    assert not stray, f"{where} updates {sorted(stray)} without naming it in `trains`."
    return set(losses)


def _check_resume(
    alignment: Alignment, optimizers: dict[str, Any], twin: Alignment, others: dict[str, Any], fabric: Any, batch: Any
) -> None:
    """A copy from the state of networks and optimizers goes on to the same bits, in every stage, and predicts the same."""
    name = type(alignment).__name__
    for number, (stage, same_stage) in enumerate(zip(alignment.stages(), twin.stages(), strict=True)):
        for one, own, its_stage in ((alignment, optimizers, stage), (twin, others, same_stage)):
            train_only(one, own, its_stage)
            seed_step(1, number)
            its_stage.step(batch(), FabricUpdate(fabric, own))
    expected, found = network_states(alignment), network_states(twin)
    for network, state in expected.items():
        for key, value in state.items():
            assert torch.equal(value, found[network][key]), (
                f"{name}: a copy from its state goes on differently in {network or 'its buffer'}.{key}: keep all state in "
                f"networks, buffers and optimizers."
            )
    x = batch().x_t
    with torch.inference_mode():
        same = torch.equal(twin.eval().predict(x), alignment.eval().predict(x))
    assert same, f"{name}: a copy from its state predicts differently: keep all state in networks and buffers."


def _check_predict(alignment: Alignment, task: Task, size: int) -> None:
    alignment.eval()
    for height, width in ((size, size), (size - 3, size + 5)):
        x = _images(2, task, height, width)
        before = {name: buffer.clone() for name, buffer in alignment.named_buffers()}
        with torch.inference_mode():
            first, second = alignment.predict(x), alignment.predict(x)
        expected = (2, task.classes, height, width)
        assert first.shape == expected, f"predict answers {tuple(first.shape)}, not {expected}."
        assert torch.isfinite(first).all(), "predict answers numbers that are not finite."
        assert torch.equal(first, second), "predict answers differently the second time: nothing random, eval mode."
        for name, buffer in alignment.named_buffers():
            assert torch.equal(buffer, before[name]), f"predict changed the buffer {name}."
        with torch.inference_mode():
            views = {name: getattr(alignment, name)(x) for name in ("as_source", "as_target", "as_seen")}
        for name, view in views.items():
            assert view is None or view.shape == x.shape, (
                f"{name} answers {tuple(view.shape)} for {tuple(x.shape)}: keep the shape, or answer None."
            )
        if claimed := alignment.predicts_with:
            network = getattr(alignment, claimed, None)
            assert network is not None and isinstance(unwrapped(network), Segmentor), (
                f"predicts_with says '{claimed}', which is no Segmentor of this alignment."
            )
            with torch.inference_mode():
                alone = network(x).logits
            assert torch.equal(first, alone), (
                f"predicts_with says '{claimed}', but predict does not answer with its logits: leave predicts_with empty."
            )


def _check_gradients(network: torch.nn.Module, loss: Tensor) -> None:
    loss.backward()
    silent = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert len(silent) < len(list(network.parameters())), f"{type(network).__name__}: no parameter has a gradient."


def _check_eval(network: torch.nn.Module, x: Tensor) -> None:
    network.eval()
    with torch.no_grad():
        first, second = network(x), network(x)
    for a, b in zip(_tensors(first), _tensors(second), strict=True):
        assert torch.equal(a, b), f"{type(network).__name__} answers differently the second time in eval mode."


def _tensors(answer: Any) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else [t for t in answer if t is not None]


def _config(component: Any, interface: type, options: Options, registry: Registry | None = None) -> ComponentConfig:
    assert issubclass(component, interface), f"{component.__name__} is no {interface.__name__}: subclass it."
    assert (component.__doc__ or "").strip(), f"{component.__name__} has no docstring: its first line is its summary."
    for name, field in component.Config.model_fields.items():
        assert field.description, (
            f"{component.__name__}.Config.{name}: write its meaning and unit in a string below it."
        )
    registry = registry or load().registry
    config = configure(component, options, registry)
    again = configure(component, dump(config), registry)
    assert again == config, f"{component.__name__}.Config does not survive being written to TOML and read again."
    return config


def _images(batch: int, task: Task, height: int, width: int) -> Tensor:
    return torch.rand(batch, task.channels, height, width).mul(2).sub(1)


def _look(task: Task, pixels: int = 8) -> Look:
    """Random answers to three target and two source slices."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    p_t, p_cycle = (noise(3, task.classes, pixels, pixels).softmax(1) for _ in range(2))
    y_s = torch.randint(task.classes, (2, pixels, pixels), generator=generator)
    p_s = noise(2, task.classes, pixels, pixels).softmax(1)
    return Look(p_t, noise(task.classes).softmax(0), p_cycle, p_s, y_s, noise(20, 6), noise(20, 6))


def _batch(size: int, task: Task, pixels: int, with_target_labels: bool) -> Batch:
    y_s, y_t = (torch.randint(task.classes, (size, pixels, pixels)) for _ in range(2))
    x_s, x_t = (_images(size, task, pixels, pixels) for _ in range(2))
    return Batch(x_s, y_s, x_t, y_t if with_target_labels else None)
