"""Whether a step is steady: it does the same on the device each time, so that a CUDA graph could repeat it without Python.

A graph records one step and then repeats its kernels on the same memory. What Python decided meanwhile is frozen: an `if` on
a value, a number from `random`, a shape, a counter. So a step is steady if, from batch to batch, it asks PyTorch for the same
operations of the same shapes with the same numbers, reads no value back, draws nothing on the host, and writes its state in
place. All of that shows on a CPU.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

Result = TypeVar("Result")

VALUES = {
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__bool__, Tensor.__float__, Tensor.__int__,
    Tensor.__index__, Tensor.__format__, Tensor.__array__, torch.equal, Tensor.equal, torch.allclose, Tensor.allclose,
}  # fmt: skip
"""Calls that end in a value."""
SHAPES = {
    Tensor.nonzero, torch.nonzero, Tensor.argwhere, torch.argwhere, Tensor.masked_select, torch.masked_select, Tensor.unique,
    torch.unique, Tensor.unique_consecutive, torch.unique_consecutive, torch.bincount, Tensor.bincount,
}  # fmt: skip
"""Calls that end in a shape that depends on values."""
DRAWS = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial, torch.poisson,
}  # fmt: skip
"""Random numbers, which lie on the host if nothing says otherwise."""
OUTSIDE = tuple(os.path.dirname(path) + os.sep for path in (torch.__file__, __file__))
"""Code that is not blamed: PyTorch's, and ours around a step. Fabric is told by its name."""
MEND = {
    "value": "keep it a tensor: torch.where, or update(..., when=condition)",
    "shape": "use torch.where, masked_fill, or a sum weighted by the mask",
    "draw": "draw on the device of an image, with device=x.device",
    "change": "let what differs from step to step be a tensor on the device, and shapes be constant",
    "state": "write buffers in place, with copy_(), add_() or lerp_(), and count steps in a buffer",
}


def reads_back(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Whether a call of PyTorch ends in a "value" on the host or in a "shape" that depends on values."""
    if function in VALUES:
        return "value"
    if function is Tensor.to and any(str(a) == "cpu" for a in (*args[1:], *kwargs.values())):
        return "value"
    if function in (Tensor.__getitem__, Tensor.__setitem__):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return "shape" if any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index) else None
    if function in (torch.where, Tensor.where) and len(args) + len(kwargs) == 1:
        return "shape"
    return "shape" if function in SHAPES else None


def called(function: Any) -> str:
    """The name of a function of PyTorch as one would write it."""
    return (resolve_name(function) or str(function)).removeprefix("torch.")


def moves(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call names a device."""
    return "device" in kwargs or any(isinstance(a, torch.device) for a in tree_leaves(args))


class _Call(NamedTuple):
    """One operation."""

    name: str
    given: tuple[Any, ...]
    """Of each tensor shape and type, and of one from outside of the step a digest; everything else as it is."""
    place: str


class _Asked(TorchFunctionMode):
    """What Python asks of PyTorch. What PyTorch reads internally on a CPU does not count."""

    def __init__(self, trace: "StepTrace") -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._trace.paused:
            if mend := reads_back(function, args, kwargs):
                end = "reads a value back" if mend == "value" else "makes a shape of values"
                self._trace.refuse(_place(), f"{end} ({called(function)})", mend)
            if function in DRAWS and not moves(args, kwargs) and not any(map(_is_tensor, tree_leaves((args, kwargs)))):
                self._trace.refuse(_place(), f"draws on the host ({called(function)} without a device)", "draw")
        return function(*args, **kwargs)


class StepTrace(TorchDispatchMode):
    """The operations of one step, in order, and the first of them that no step may ask for."""

    def __init__(self, known: Iterable[Tensor], optimizers: Mapping[str, Optimizer]) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.found: str | None = None
        self.paused = False
        """While an optimizer steps: on a CPU those of PyTorch read their own counters."""
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        for tensor in known:
            self._known[tensor] = True
        self._optimizers = optimizers

    def refuse(self, place: str, found: str, mend: str) -> None:
        """Note what was found; the step goes on."""
        self.found = self.found or _sentence(place, found, mend)

    @contextmanager
    def watching(self) -> Iterator["StepTrace"]:
        """Of what happens inside."""
        with ExitStack() as stack:
            for optimizer in self._optimizers.values():
                stack.callback(optimizer.register_step_pre_hook(lambda *_: setattr(self, "paused", True)).remove)
                stack.callback(optimizer.register_step_post_hook(lambda *_: setattr(self, "paused", False)).remove)
            stack.enter_context(_Asked(self))
            stack.enter_context(self)
            yield self

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused or function.namespace == "profiler":
            return function(*args, **kwargs)
        place = _place()
        given = tuple(self._given(a, place) for a in tree_leaves((args, kwargs)))
        self.calls.append(_Call(str(function), given, place))
        answer = function(*args, **kwargs)
        for tensor in filter(_is_tensor, tree_leaves(answer)):
            self._known[tensor] = True
        return answer

    def _given(self, a: Any, place: str) -> Any:
        if not isinstance(a, Tensor):
            return a
        facts = (tuple(a.shape), str(a.dtype))
        # A tensor that comes from nowhere was made of numbers in Python; what the backward pass has kept, was not.
        if a in self._known or torch._C._current_graph_task_id() != -1:
            return facts
        self.paused = True
        try:
            content = a.detach().to("cpu", copy=True).contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        finally:
            self.paused = False
        return (*facts, hashlib.sha256(content).hexdigest())


class Watch:
    """Looks at one step after another. Steps before them should have made what a first step makes: image pools, the state of
    optimizers."""

    found: str | None = None
    """A sentence with file and line on what a step does that a graph cannot repeat; None if nothing was seen."""

    def __init__(self, alignment: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
        self._alignment, self._optimizers = alignment, optimizers
        self._first: list[_Call] | None = None
        self._kept: str | None = None

    def __call__(self, step: Callable[[], Result], given: Iterable[Tensor | None]) -> Result:
        """What `step()` returns; `given` are the tensors of its batch."""
        state = [t for o in self._optimizers.values() for s in o.state.values() for t in s.values()]
        known = [*given, *self._alignment.parameters(), *self._alignment.buffers(), *state]
        before, trace = _held(self._alignment), StepTrace(filter(_is_tensor, known), self._optimizers)
        with trace.watching():
            result = step()
        self._first = self._first or trace.calls
        self._kept = self._kept or _moved(before, _held(self._alignment))
        self.found = self.found or trace.found or _differing(self._first, trace.calls)
        return result

    def end(self) -> str | None:
        """What was found, in the end also what has no line."""
        self.found = self.found or self._kept
        return self.found


def _sentence(place: str, found: str, mend: str) -> str:
    return f"{place} {found}: {MEND[mend]}."


def _differing(one: list[_Call], other: list[_Call]) -> str | None:
    for a, b in zip(one, other, strict=False):
        if a.name != b.name:
            place = b.place if a.place == b.place else f"{a.place} and {b.place}"
            found = f"asks for another operation from step to step ({_short(a)}, then {_short(b)})"
            return _sentence(place, found, "change")
        if a.given != b.given:
            pairs = zip(a.given, b.given, strict=False)
            was, now = next(((x, y) for x, y in pairs if x != y), ("fewer", "more"))
            found = f"gives {_short(b)} something else from step to step{_difference(was, now)}"
            return _sentence(b.place, found, "change")
    if len(one) != len(other):
        longer = max(one, other, key=len)[min(len(one), len(other))]
        return _sentence(longer.place, f"asks for {_short(longer)} in some steps alone", "change")
    return None


def _difference(was: Any, now: Any) -> str:
    """Two numbers or two shapes, where there are such."""
    if isinstance(was, tuple) and isinstance(now, tuple):
        return "" if was[:1] == now[:1] else f" (shapes {list(was[0])} and {list(now[0])})"
    return f" ({was} and {now})"


def _held(alignment: nn.Module) -> dict[str, Any]:
    """What is kept from step to step: where the memory of each tensor lies, and plain values of modules."""
    tensors = [*alignment.named_parameters(), *alignment.named_buffers()]
    held: dict[str, Any] = {name: tensor.data_ptr() for name, tensor in tensors}
    for name, module in alignment.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, (int, float, str)) and key != "training":
                held[f"{name}.{key}".removeprefix(".")] = value
    return held


def _moved(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """What is told last, for want of a line."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            return _sentence(f"self.{name}", "is another tensor or number after a step", "state")
    return None


def _is_tensor(a: object) -> bool:
    return isinstance(a, Tensor)


def _short(call: _Call) -> str:
    return call.name.removeprefix("aten.").rpartition(".")[0]


def _place() -> str:
    """ "FILE:LINE" of the innermost line of the method or of a network."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(OUTSIDE) and "lightning_fabric" not in path and not path.startswith("<"):
            return f"{os.path.basename(path)}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "a step"
