"""Whether a step reads a value back from the device, which makes both wait for each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from attent_kit.testing.subject import Subject
from attent_kit.testing.trial import Trial

READS = {
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__bool__, Tensor.__float__, Tensor.__int__,
    Tensor.__index__, Tensor.nonzero, torch.nonzero, Tensor.masked_select, torch.masked_select, Tensor.unique,
    torch.unique, torch.bincount, Tensor.bincount,
}  # fmt: skip
"""Calls that end in a value, or in a shape that depends on values."""


class _Nobody(TorchFunctionMode):
    """Refuses these calls when Python makes them; what PyTorch calls internally on a CPU does not count.

    Neither do tensors created without a device, such as a coin flip from torch.rand(()): they live on the host, and nobody
    waits for them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_the_host: dict[int, Tensor] = {}
        """By id, which is its own as long as the tensor is kept."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*tree_leaves(args), *tree_leaves(kwargs or {})]
        moved = any(isinstance(a, (torch.device, str)) for a in given) or "device" in (kwargs or {})
        host = all(id(a) in self.of_the_host for a in given if isinstance(a, Tensor)) and not moved
        asks = function in READS
        if function in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            asks = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index)
        if function is Tensor.to:
            asks = any(str(a) == "cpu" for a in (*args[1:], *(kwargs or {}).values()))
        name = (resolve_name(function) or str(function)).removeprefix("torch.")
        assert host or not asks, f"{name} waits for the device."
        answer = function(*args, **(kwargs or {}))
        if host:
            self.of_the_host |= {id(t): t for t in tree_leaves(answer) if isinstance(t, Tensor)}
        return answer


@contextmanager
def nobody_waits(device: torch.device) -> Iterator[None]:
    """AssertionError if the code inside waits for the device: on CUDA the device says so, elsewhere the calls that would."""
    if device.type != "cuda":
        with _Nobody():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        assert "synchroniz" not in str(error), f"CUDA says: {error}"
        raise
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits_for_nobody(subject: Subject) -> None:
    """When a step reads a value, the GPU idles until it is there, at every step. Leave out .item(), float(), bool() and
    .cpu() of tensors: return losses as tensors, and pass a condition to `update(..., when=condition)`."""
    trial = Trial(subject)
    on_gpu = trial.fabric.device.type == "cuda"
    for stage in trial.stages:
        for number in range(3):  # the first steps allocate the state of optimizers and image pools
            trial.step(stage, number)
        batch = trial.batch()
        # On a CPU the optimizers of PyTorch read their own counters.
        update = trial.update if on_gpu else (lambda optimizer, loss, when=None: None)
        with nobody_waits(trial.fabric.device):
            trial.step(stage, 3, batch, update)
