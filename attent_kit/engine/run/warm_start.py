"""Weights that a run starts from: those of another run in place of fresh ones, for each network that both have alike."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import segmentor_of, unwrapped
from attent_kit.engine.run.digest import digest
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.settings import RunSettings
from attent_kit.errors import ConfigError, RunError
from attent_kit.files import read_signed, while_unchanged
from attent_kit.interfaces import Alignment, Task

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
    found = _digest(_file(run))
    if start.digest not in (None, found):
        raise ConfigError(
            f"warm_start: {run} no longer holds the weights that this run starts from (their digest is {found[:12]}, not "
            f"{str(start.digest)[:12]}). Restore them, or train into another --out."
        )
    return settings.model_copy(update={"warm_start": start.model_copy(update={"digest": found})})


def fitting(settings: RunSettings, alignment: Alignment, task: Task, size: int) -> tuple[Started, Weights] | None:
    """Which networks of the alignment can start from the weights that the settings name, and their states; None for no such run.

    ConfigError if the other run is about other organs, channels or sizes of slices, has another segmentor, or no network alike.
    """
    if settings.warm_start is None:
        return None
    run = RunFolder(settings.warm_start.run)
    there = _read(_file(run))
    _refuse_another_task(run, task, size)
    networks = {name: unwrapped(child) for name, child in alignment.named_children()}
    here = {name: network for name, network in networks.items() if any(True for _ in network.parameters())}
    unlike = {name: found for name in here if (found := _difference(there.get(name), here[name]))}
    segmentor = segmentor_of(alignment)
    if segmentor in there and segmentor in unlike:
        raise ConfigError(
            f"--from {run}: its network '{segmentor}' is not built as here ({unlike[segmentor]}). Give it the options that "
            f"it has in {run.config}, or leave out --from."
        )
    taken = {name: there[name] for name in here if name not in unlike}
    if not taken:
        raise ConfigError(
            f"--from {run}: it has none of the networks of this method ({', '.join(here)}). Name a run that shares one, or "
            "leave out --from."
        )
    return Started(run, tuple(taken), tuple(unlike)), taken


def start_from(alignment: Alignment, weights: Weights) -> None:
    """Fill networks with these weights; the others stay as they are."""
    for name, state in weights.items():
        unwrapped(getattr(alignment, name)).load_state_dict(state)


def _file(run: RunFolder) -> Path:
    """Where the weights are: the checkpoint, or where a run is passed on without it, the exported segmentor."""
    files = [file for file in (run.checkpoint, run.answers().segmentor) if file.exists()]
    if not run.is_run or not files:
        raise ConfigError(
            f"--from {run}: it does not hold a trained run. Name a folder that `attentkit train` or `compare` made."
        )
    if run.is_held():
        raise RunError(f"--from {run}: another process trains in it. Wait for it, or name another run.")
    return files[0]


def _read(file: Path) -> Weights:
    if file == RunFolder(file.parent).checkpoint:
        return {name: state for name, state in checkpoint.read(file)["networks"].items() if name}
    weights, facts = checkpoint.read_weights(file)
    return {str(facts.get("network")): weights}


@while_unchanged
def _digest(file: Path) -> str:
    return digest(_read(file))


def _refuse_another_task(run: RunFolder, task: Task, size: int) -> None:
    said = read_signed(run.domain)
    if said is None:
        raise RunError(f"{run.domain} is missing or damaged, which says what {run} was trained on: copy it again.")
    for name, here in {"organs": [*task.organs], "channels": task.channels, "size": size}.items():
        if said.get(name) != here:
            raise ConfigError(
                f"--from {run}: it was trained with {name} {_words(said.get(name))}, and this run has {_words(here)}. Prepare "
                "the data alike, or leave out --from."
            )


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
