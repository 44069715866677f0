"""`update("S", loss)`: one optimizer step that lowers `loss` over what optimizer "S" owns. Nothing else moves."""

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.engine.run.assemble import owned
from attent_kit.engine.run.ranks import ranks_of


class FabricUpdate:
    """The engine's `Update`. Gradients are computed for the owned parameters alone: none reach a discriminator on the way."""

    def __init__(self, fabric: Fabric, optimizers: dict[str, Optimizer]) -> None:
        self._fabric = fabric
        self._ranks = ranks_of(fabric)
        self._optimizers = optimizers
        self._owned = {name: owned(optimizer) for name, optimizer in optimizers.items()}

    def __call__(self, optimizer: str, loss: Tensor, when: Tensor | None = None) -> None:
        self._fabric.backward(loss, inputs=self._owned[optimizer])
        self._ranks.average(self._owned[optimizer])
        when = None if when is None else self._ranks.gate_of_first(when)
        before = None if when is None else self._snapshot(optimizer)
        self._optimizers[optimizer].step()
        if when is not None and before is not None:
            self._put_back(optimizer, before, when)
        self._optimizers[optimizer].zero_grad(set_to_none=True)

    def _snapshot(self, optimizer: str) -> list[tuple[Tensor, dict[str, Any]]]:
        """Each owned parameter and the optimizer's state of it, copied."""
        state = self._optimizers[optimizer].state
        copies = []
        for p in self._owned[optimizer]:
            tensors = {name: value.clone() for name, value in state.get(p, {}).items() if isinstance(value, Tensor)}
            copies.append((p.detach().clone(), tensors))
        return copies

    @torch.no_grad()
    def _put_back(self, optimizer: str, before: list[tuple[Tensor, dict[str, Any]]], when: Tensor) -> None:
        """Everything as in `before` where `when` is false; state that the first step made is zero there, as if unborn."""
        state = self._optimizers[optimizer].state
        for p, (old, tensors) in zip(self._owned[optimizer], before, strict=True):
            p.copy_(torch.where(when, p, old))
            for name, value in state.get(p, {}).items():
                if isinstance(value, Tensor):
                    was = tensors.get(name, torch.zeros_like(value))
                    gate = when if value.device == when.device else when.to(value.device)
                    value.copy_(torch.where(gate, value, was))
