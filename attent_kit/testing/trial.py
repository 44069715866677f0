"""A method set up as in the engine, to take single steps; and an update that records what it moves."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attent_kit.build import Builder
from attent_kit.engine.run.assemble import owned, patch_of, setup, train_only
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.labelled import labelled
from attent_kit.engine.train.fit import seed_step
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.interfaces import Alignment, Batch, Losses, Stage, Task, Update
from attent_kit.testing.subject import FOUR_ORGANS, Subject, deep, random_batch

Draw = Callable[[int, Task, int, bool], Batch]
"""Batch size, task, pixels, whether with target labels -> batch."""


class Trial:
    """One alignment on the device with its optimizers."""

    def __init__(
        self,
        subject: Subject,
        task: Task = FOUR_ORGANS,
        size: int = 64,
        precision: str = "32-true",
        batch_size: int = 2,
        seed: int = 0,
    ) -> None:
        self.subject, self.task, self.size, self.batch_size = subject, task, size, batch_size
        self.precision = precision
        self.alignment: Alignment = subject.component(subject.config, Builder(subject.registry, task, seed), task)
        self.fabric = launch(subject.device, precision)
        self.optimizers: dict[str, Any] = setup(self.alignment, self.fabric)
        self.update = FabricUpdate(self.fabric, self.optimizers)

    @property
    def stages(self) -> list[Stage]:
        """Its stages, from a fresh call."""
        return list(self.alignment.stages())

    def batch(self, draw: Draw = random_batch) -> Batch:
        """A batch on the device: target labels if the method declares that it uses them, NaN for images of a domain of which it
        declares that it uses none, no source if it is source-free, and volumes where its segmentor labels these."""
        batch = draw(self.batch_size, self.task, self.size, self.alignment.uses_target_labels)
        if (patch := patch_of(self.alignment)) is not None:
            batch = deep(batch, patch.size[0])
        if not self.alignment.uses_source_images:
            batch = batch._replace(x_s=torch.full_like(batch.x_s, math.nan))
        if not self.alignment.uses_target_images:
            batch = batch._replace(x_t=torch.full_like(batch.x_t, math.nan))
        if self.alignment.source_free:
            batch = batch._replace(x_s=batch.x_s[:0], y_s=batch.y_s[:0])
        return Batch(*(None if x is None else x.to(self.fabric.device) for x in batch))  # type: ignore[arg-type]  # each where it was

    def step(self, stage: Stage, number: int = 0, batch: Batch | None = None, update: Update | None = None) -> Losses:
        """Step `number` of a stage, seeded and with its networks in train mode as in the engine; a stage that labels the whole
        target set labels the batch."""
        seed_step(0, number)
        batch = self.batch() if batch is None else batch
        if stage.label is not None:
            batch = labelled(self.alignment, stage, batch)
            seed_step(0, number)
        train_only(self.alignment, self.optimizers, stage)
        return stage.step(batch, self.update if update is None else update)

    def steps(self, count: int = 1) -> None:
        """`count` steps of every stage."""
        for stage in self.stages:
            for number in range(count):
                self.step(stage, number)

    def predict(self, x: Tensor) -> Tensor:
        """The method's answer in eval mode."""
        self.alignment.eval()
        with torch.inference_mode():
            return self.alignment.predict(x)


class Recorder:
    """An `Update` that records which optimizer moved what."""

    def __init__(self, alignment: Alignment, optimizers: dict[str, Any], update: FabricUpdate) -> None:
        self.names = {id(p): n for n, p in alignment.named_parameters()}
        self.parameters = dict(alignment.named_parameters())
        self.optimizers, self.update = optimizers, update
        self.moved: dict[str, bool] = {}

    def __call__(self, optimizer: str, loss: Tensor, when: Tensor | None = None) -> None:
        assert optimizer in self.optimizers, f'update("{optimizer}", ...): there is no such optimizer.'
        assert loss.ndim == 0 and torch.isfinite(loss), f'update("{optimizer}", ...): the loss is not a finite scalar.'
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        if when is not None:
            assert when.ndim == 0 and when.dtype == torch.bool, (
                f'update("{optimizer}", ...): `when` is not a boolean scalar.'
            )
        # A gate that happens to be closed would hide what the update moves.
        self.update(optimizer, loss)
        changed = {name for name, p in self.parameters.items() if not torch.equal(p, before[name])}
        own = {self.names[id(p)] for p in owned(self.optimizers[optimizer]) if id(p) in self.names}
        assert changed <= own, f'update("{optimizer}", ...) moved {sorted(changed - own)[0]}, which it does not own.'
        self.moved[optimizer] = self.moved.get(optimizer, False) or bool(changed)


def values(module: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer by name."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The names whose values differ between two copies."""
    both = one.keys() | other.keys()
    return sorted(n for n in both if n not in one or n not in other or not torch.equal(one[n], other[n]))
