"""What runs leave on disk in weights, foretold from the sizes of their networks. Label maps and logs come on top."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.engine.run.assemble import network_states, optimizer_states, trained_networks
from attent_kit.engine.run.dropped import Keep
from attent_kit.engine.run.exported import networks_to_predict
from attent_kit.engine.run.settings import RunSettings
from attent_kit.engine.run.stages import parts_of
from attent_kit.engine.snapshots.snapshots import in_half, planned_snapshots
from attent_kit.interfaces import Alignment

A_TENSOR = 700
"""Bytes that a checkpoint needs for a tensor besides its values."""


class Disk(NamedTuple):
    """Bytes of a run."""

    checkpoint: int
    snapshots: int
    """Of all that are files of their own."""
    exported: int
    shared: int
    """Of the result of its first stage, if other runs may take it over."""

    def left(self, keep: Keep) -> int:
        """What is there of a finished run that is to keep so much, beside what it shares."""
        more = {"all": self.checkpoint + self.snapshots, "training": self.checkpoint, "prediction": 0}
        return self.exported + more[keep]


def disk_of(
    alignment: Alignment, optimizers: dict[str, Optimizer], settings: RunSettings, size: int, measured: int,
    device: torch.device,
) -> Disk:  # fmt: skip
    """Of a run whose slices have a side of `size` pixels, from networks and optimizers that have taken a step of every stage on
    slices with a side of `measured`."""
    states = {name: _bytes(state) for name, state in network_states(alignment).items()}
    # What has no parameters, as an image pool, keeps images.
    for name, child in alignment.named_children():
        if not any(True for _ in child.parameters()):
            states[name] = states[name] * size**2 // measured**2
    stepped = {name: _bytes(state) for name, state in optimizer_states(optimizers).items()}
    parts = parts_of(alignment, settings.more_steps)
    steps, moving = planned_snapshots(alignment, optimizers, parts, settings.snapshots, measured, device)
    kept = [network_states(alignment)[name] for name in moving]
    one = sum(_bytes(in_half(state) if settings.half_snapshots else state) for state in kept)
    first, shared = parts[0].stage, 0
    if first.recipe is not None:
        shared = sum(states[name] for name in trained_networks(alignment, optimizers, first))
        shared += sum(stepped[name] for name in first.trains)
    return Disk(
        sum(states.values()) + sum(stepped.values()),
        one * max(0, len(steps) - 1),
        sum(states[name] for name in networks_to_predict(alignment, measured, device)),
        shared,
    )


def _bytes(value: Any) -> int:
    """Of all tensors in a state, as a checkpoint holds them."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size() + A_TENSOR
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, Sequence) and not isinstance(value, str) else 0
