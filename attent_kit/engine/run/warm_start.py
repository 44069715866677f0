"""Weights that a run starts from: those of another run in place of fresh ones, for each network that both have alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import segmentor_of, unwrapped
from attent_kit.engine.run.digest import digest
from attent_kit.engine.run.exported import read_networks
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.foreign import is_foreign, named_as_here, read_foreign
from attent_kit.engine.run.settings import RunSettings, WarmStart
from attent_kit.errors import ConfigError, RunError
from attent_kit.files import read_json, read_signed, while_unchanged
from attent_kit.interfaces import Alignment, Segmentor, Task

Weights = dict[str, dict[str, Tensor]]
"""State of each network by its name."""


class Started(NamedTuple):
    """What a run begins with."""

    run: RunFolder
    """Where the weights are from."""
    taken: tuple[str, ...]
    """Networks that start from them."""
    fresh: tuple[str, ...]
    """Those that it does not have, or has otherwise."""
    source: dict[str, Any]
    """What its domain.json says of the source that it learned from, and of phantoms; empty of a file of weights."""

    @property
    def sentence(self) -> str:
        """In words."""
        fresh = f"; {', '.join(self.fresh)} start{'' if len(self.fresh) > 1 else 's'} afresh" if self.fresh else ""
        return (
            f"{', '.join(self.taken)} start{'' if len(self.taken) > 1 else 's'} from the weights of {self.run}{fresh}."
        )


def with_digest(settings: RunSettings, begun: bool = False) -> RunSettings:
    """The settings with the digest of the weights that they start from, by which a run is known wherever these lie.

    A run that has `begun` no longer needs them where it knows their digest. ConfigError if there are none, or if they are not
    those that the settings name; RunError if they are damaged.
    """
    start = settings.warm_start
    if start is None or (begun and start.digest is not None):
        return settings
    run = RunFolder(start.run)
    found = _digest_of_foreign(run.path) if is_foreign(run.path) else _digest(_file(run))
    if start.digest not in (None, found) and run.only_predicts and start.digest == digest_of(run):
        raise ConfigError(
            f"warm_start: {run} keeps what predicts alone, and this run starts from all that it had. Start from what is left "
            f'with --from {run} (in a suite start = "{run}"), or train that run into another --out.'
        )
    if start.digest not in (None, found):
        raise ConfigError(
            f"warm_start: {run} no longer holds the weights that this run starts from (their digest is {found[:12]}, not "
            f"{str(start.digest)[:12]}). Restore them, or train into another --out."
        )
    return settings.model_copy(update={"warm_start": start.model_copy(update={"digest": found})})


def digest_of(run: RunFolder) -> str | None:
    """Digest of the weights of a finished run, of all that it had if some were dropped; None if they are not there."""
    files = _files(run)
    if run.only_predicts:
        return (read_json(run.dropped) or {}).get("weights")
    return _digest(files[0]) if files else None


def refuse_unlike(alignment: Alignment, start: Alignment, label: str) -> None:
    """ConfigError if a method cannot start from another, which is called `label` and is not trained yet."""
    there = {name: unwrapped(child).state_dict() for name, child in start.named_children()}
    here = {name: unwrapped(child) for name, child in alignment.named_children()}
    predicting = segmentor_of(start)
    for name in _segmentors(here) if alignment.source_free else [predicting]:
        state = there.get(str(predicting) if alignment.source_free else str(name))
        if name in here and (found := _difference(state, here[name])):
            raise ConfigError(
                f"it starts from '{label}', whose network '{predicting}' is not built as '{name}' is here ({found}). Give both "
                "rows the same segmentor."
            )


def fitting(settings: RunSettings, alignment: Alignment, task: Task, size: int) -> tuple[Started, Weights] | None:
    """Which networks of the alignment can start from the weights that the settings name, and their states; None for no such run.

    ConfigError if the other run is about other organs, channels or sizes of slices, has another segmentor, or no network alike.
    """
    if settings.warm_start is None:
        return None
    run = RunFolder(settings.warm_start.run)
    foreign = is_foreign(run.path)
    said = {} if foreign else _refuse_another_task(run, task, size)
    networks = {name: unwrapped(child) for name, child in alignment.named_children()}
    here = {name: network for name, network in networks.items() if any(True for _ in network.parameters())}
    there = _foreign(settings.warm_start, alignment, here) if foreign else _read(_file(run))
    if alignment.source_free:
        there |= dict.fromkeys(_segmentors(here), there.get(_predicting(run, alignment), {}))
    unlike = {name: found for name in here if (found := _difference(there.get(name), here[name]))}
    segmentors = _segmentors(here) if alignment.source_free else [segmentor_of(alignment)]
    if segmentor := next((name for name in segmentors if name in there and name in unlike), None):
        raise ConfigError(
            f"--from {run}: its network '{segmentor}' is not built as here ({unlike[segmentor]}). Give it the options that "
            + ("that file was trained with." if foreign else f"it has in {run.config}, or leave out --from.")
        )
    taken = {name: there[name] for name in here if name not in unlike}
    if not taken:
        raise ConfigError(
            f"--from {run}: it has none of the networks of this method ({', '.join(here)}). Name a run that shares one, or "
            "leave out --from."
        )
    return Started(run, tuple(taken), tuple(unlike), {k: said[k] for k in ("source", "phantom") if k in said}), taken


def start_from(alignment: Alignment, weights: Weights) -> None:
    """Fill networks with these weights; the others stay as they are."""
    for name, state in weights.items():
        unwrapped(getattr(alignment, name)).load_state_dict(state)


def _file(run: RunFolder) -> Path:
    """Where the weights are: the checkpoint, or where a run is passed on without it, what it has exported."""
    files = _files(run)
    if not run.is_run or not files:
        raise ConfigError(
            f"--from {run}: it does not hold a trained run. Name a folder that `attentkit train` or `compare` made."
        )
    if run.is_held():
        raise RunError(f"--from {run}: another process trains in it. Wait for it, or name another run.")
    return files[0]


def _files(run: RunFolder) -> list[Path]:
    return [file for file in (run.checkpoint, run.answers().segmentor) if file.exists()]


def _segmentors(networks: Mapping[str, nn.Module]) -> list[str]:
    return [name for name, network in networks.items() if isinstance(network, Segmentor)]


def _predicting(run: RunFolder, alignment: Alignment) -> str:
    """Name of the network that a run predicts with; of weights without a run, that of the method."""
    exported = run.answers().segmentor
    if not is_foreign(run.path) and exported.exists():
        return str(checkpoint.read_weights(exported)[1].get("network"))
    return str(segmentor_of(alignment))


def _foreign(start: WarmStart, alignment: Alignment, networks: Mapping[str, nn.Module]) -> Weights:
    name = segmentor_of(alignment)
    if name is None:
        raise ConfigError(
            f"--from {start.run}: this method has no segmentor that weights could fill. Leave out --from."
        )
    return {name: named_as_here(read_foreign(start.run), networks[name].state_dict(), start.names or {}, start.run)}


def _read(file: Path) -> Weights:
    if file == RunFolder(file.parent).checkpoint:
        return {name: state for name, state in checkpoint.read(file)["networks"].items() if name}
    return {name: state for name, state in read_networks(file)[0].items() if name}


@while_unchanged
def _digest(file: Path) -> str:
    return digest(_read(file))


@while_unchanged
def _digest_of_foreign(file: Path) -> str:
    return digest(read_foreign(file))


def _refuse_another_task(run: RunFolder, task: Task, size: int) -> dict[str, Any]:
    """What the domain.json of a run says, if that is what is asked for here."""
    _file(run)
    said = read_signed(run.domain)
    if said is None:
        raise RunError(f"{run.domain} is missing or damaged, which says what {run} was trained on: copy it again.")
    for name, here in {"organs": [*task.organs], "channels": task.channels, "size": size}.items():
        if said.get(name) != here:
            raise ConfigError(
                f"--from {run}: it was trained with {name} {_words(said.get(name))}, and this run has {_words(here)}. Prepare "
                "the data alike, or leave out --from."
            )
    return said


def _difference(there: dict[str, Tensor] | None, network: nn.Module) -> str | None:
    """The first tensor in which a network is not as its state there; None if there is no difference."""
    if there is None:
        return "it is not there"
    here = network.state_dict()
    for name in [*here, *(name for name in there if name not in here)]:
        shapes = [_shape(state.get(name)) for state in (there, here)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} there and {shapes[1]} here"
    return None


def _shape(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    kind = "" if tensor.dtype == torch.float32 else f" {str(tensor.dtype).removeprefix('torch.')}"
    return ("x".join(map(str, tensor.shape)) or "a number") + kind


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
