"""A stage's step as one CUDA graph: recorded once, then repeated without Python between its kernels.

The method does not know. Its first steps are taken as ever and watched (`steady`). Then a step is recorded on a batch whose
memory stays, with rates as tensors, optimizers that keep their counters on the device, and a generator that each step seeds. Two
steps are taken both ways from the same state and compared; only then are steps repeated. Whatever speaks against it leaves the
steps as they were, and is said in one sentence.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from attent_kit.engine.run.assemble import owned
from attent_kit.engine.run.device import precision_of
from attent_kit.engine.run.ranks import ranks_of
from attent_kit.engine.train.steady import Watch
from attent_kit.interfaces import Alignment, Batch, Losses, Stage

UNWATCHED, WATCHED, PROVED = 1, 3, 2
"""Steps before anything is looked at; steps that are watched; steps that are taken both ways."""
SAME_LOSS, SAME_MOVE = 0.01, 0.25
"""Largest relative difference of a loss, and of what a step changes, between both ways: kernels add in any order, and Adam makes
much of gradients that are nearly zero. Numbers or slices of another step differ by far more."""

Reseed = Callable[[], None]
Take = Callable[[Batch], Losses]


class Graph(Protocol):
    """What repeats a step: a CUDA graph, or in tests something that runs on a CPU."""

    def warm(self, step: Callable[[], Losses]) -> Losses:
        """A step that is taken as ever, where the graph will be recorded."""

    def record(self, step: Callable[[], None]) -> None:
        """Note what `step` asks of the device, without doing it."""

    def replay(self) -> None:
        """Do what was recorded."""

    def forget(self) -> None:
        """After a recording that failed: the device as before."""


class CudaGraph:
    """The one of PyTorch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()

    def warm(self, step: Callable[[], Losses]) -> Losses:
        """On a side stream, as capturing asks for."""
        main = torch.cuda.current_stream(self._device)
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            losses = step()
        main.wait_stream(self._side)
        return losses

    def record(self, step: Callable[[], None]) -> None:
        """RuntimeError where CUDA refuses something."""
        with torch.cuda.graph(self._graph, stream=self._side):
            step()

    def replay(self) -> None:
        """Every random kernel counts from the seed that the generator has now."""
        self._graph.replay()

    def forget(self) -> None:
        """A generator that was left in the middle of a recording refuses to draw: give it a new state."""
        torch.cuda.synchronize(self._device)
        index = torch.cuda.current_device() if self._device.index is None else self._device.index
        torch.cuda.default_generators[index].graphsafe_set_state(torch.Generator(self._device).graphsafe_get_state())


class Captured:
    """Takes the steps of a stage, from its first ones on; see above."""

    def __init__(
        self,
        take: Take,
        stage: str,
        alignment: nn.Module,
        optimizers: dict[str, Optimizer],
        graph: Graph | None = None,
        why_not: str | None = None,
    ) -> None:
        """`optimizers`: those that the stage steps. Without a graph all steps are taken as ever, and `why_not` says why."""
        self._take, self._stage, self._alignment, self._optimizers = take, stage, alignment, optimizers
        self._graph = graph
        self._watch = Watch(alignment, optimizers)
        self._taken = 0
        self._said = why_not
        self._batch: Batch | None = None
        self._losses: dict[str, Tensor] = {}

    @property
    def repeats(self) -> bool:
        """Whether steps are repeated by now."""
        return self._graph is not None and self._taken > UNWATCHED + WATCHED + PROVED

    def told(self) -> str | None:
        """Once, why steps are not captured."""
        said, self._said = self._said, None
        return None if said is None else f"steps of stage '{self._stage}' are not captured: {said}"

    def __call__(self, batch: Batch, reseed: Reseed) -> Losses:
        """Losses of the next step. `reseed` has been called, and makes the random numbers of this step begin again."""
        if self._graph is None:
            return self._take(batch)
        self._taken += 1
        if self._taken <= UNWATCHED:
            return self._graph.warm(lambda: self._take(batch))
        if self._taken <= UNWATCHED + WATCHED:
            losses = self._watch(lambda: self._warm(batch), batch)
            if self._taken == UNWATCHED + WATCHED and (found := self._watch.end()):
                self._give_up(found)
            return losses
        if self._batch is None and not self._record(batch):
            reseed()
            return self._take(batch)
        if not _fits(batch, self._batch):
            return self._take(batch)
        return self._replayed(batch) if self.repeats else self._proved(batch, reseed)

    def _warm(self, batch: Batch) -> Losses:
        assert self._graph is not None
        return self._graph.warm(lambda: self._take(batch))

    def _record(self, batch: Batch) -> bool:
        self._batch = static = Batch(*(None if x is None else x.clone() for x in batch))  # type: ignore[arg-type]  # each where it was

        def step() -> None:
            self._losses = {name: loss.detach() for name, loss in self._take(static).items()}

        assert self._graph is not None
        try:
            self._graph.record(step)
        except Exception as error:  # the same step has just worked without a graph
            self._graph.forget()
            self._give_up(f"CUDA could not record it: {str(error).strip().partition(chr(10))[0]}")
            return False
        return True

    def _replayed(self, batch: Batch) -> Losses:
        assert self._graph is not None and self._batch is not None
        for kept, given in zip(self._batch, batch, strict=True):
            if kept is not None and given is not None:
                kept.copy_(given)
        self._graph.replay()
        return {name: loss.clone() for name, loss in self._losses.items()}

    def _proved(self, batch: Batch, reseed: Reseed) -> Losses:
        """The step both ways; what it has made as ever, stays."""
        before = self._state()
        repeated, after_repeating = self._replayed(batch), self._state()
        with torch.no_grad():
            for name, tensors in self._changing().items():
                for tensor, value in zip(tensors, before[name], strict=True):
                    tensor.copy_(value)
        reseed()
        losses = self._take(batch)
        after = self._state()
        found = other_losses(losses, repeated)
        for name in before:
            found = found or other_move(name, before[name], after[name], after_repeating[name])
        if found:
            self._give_up(f"repeated, {found}")
        return losses

    def _changing(self) -> dict[str, list[Tensor]]:
        """All that a step may change: what each optimizer owns, what it remembers of that, and everything else."""
        parts: dict[str, list[Tensor]] = {}
        for name, optimizer in self._optimizers.items():
            parts[name] = owned(optimizer)
            states = [optimizer.state.get(p, {}) for p in parts[name]]
            parts[f"the state of {name}"] = [
                t for state in states for key, t in state.items() if isinstance(t, Tensor) and key != "step"
            ]
            parts[f"the counters of {name}"] = [t for state in states if isinstance(t := state.get("step"), Tensor)]
        trained = {id(p) for tensors in parts.values() for p in tensors}
        every = [*self._alignment.parameters(), *self._alignment.buffers()]
        return {**parts, "buffers": [t for t in every if id(t) not in trained]}

    def _state(self) -> dict[str, list[Tensor]]:
        return {name: [t.detach().clone() for t in tensors] for name, tensors in self._changing().items()}

    def _give_up(self, found: str) -> None:
        self._graph, self._batch, self._losses = None, None, {}
        self._said = found


def capturing(
    take: Take, stage: Stage, alignment: Alignment, optimizers: dict[str, Optimizer], fabric: Fabric, wanted: bool
) -> Captured:
    """What takes the steps of a stage: a graph if that is wanted and possible."""
    stepped = {name: optimizers[name] for name in stage.trains}
    if not wanted:
        return Captured(take, stage.name, alignment, stepped)
    why_not = why_not_here(alignment, stepped, fabric)
    if why_not is None:
        on_the_device(stepped.values(), fabric.device)
    graph = None if why_not else CudaGraph(fabric.device)
    return Captured(take, stage.name, alignment, stepped, graph, why_not)


def why_not_here(alignment: Alignment, optimizers: dict[str, Optimizer], fabric: Fabric) -> str | None:
    """What speaks against a graph before a step is taken."""
    if fabric.device.type != "cuda":
        return f"it needs a CUDA device, and this is {fabric.device.type}."
    if ranks_of(fabric).count > 1:
        return "several devices train the run, and wait for each other between its kernels."
    if not alignment.capturable:
        return "the method says that its steps are not alike (`capturable = False`)."
    if precision_of(fabric) == "16-mixed":
        return "16-mixed reads back whether a step overflowed: choose bf16-mixed or 32-true."
    for name, optimizer in optimizers.items():
        if not _repeatable(optimizer):
            return f"optimizer {name} ({type(optimizer).__name__}) reads its counters back: Adam, AdamW and SGD do not."
    return None


def _repeatable(optimizer: Optimizer) -> bool:
    return "capturable" in optimizer.defaults or isinstance(optimizer, SGD)


def on_the_device(optimizers: Iterable[Optimizer], device: torch.device) -> None:
    """Rates and counters of optimizers as tensors there, where a graph reads them at each step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if not isinstance(group["lr"], Tensor):
                group["lr"] = torch.tensor(float(group["lr"]), device=device)
            # SGD takes a rate from the device in its fused form alone.
            group["fused" if isinstance(optimizer, SGD) else "capturable"] = True
        for state in optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(device, torch.float32)


def other_losses(losses: Losses, repeated: Losses) -> str | None:
    """Which loss differs, if one does. Waits for the device."""
    for name, loss in losses.items():
        a, b = loss.detach().item(), repeated[name].item()
        if not abs(a - b) <= SAME_LOSS * max(abs(a), 0.01):
            return f"a step has {name} = {b:.4g} in place of {a:.4g}."
    return None


def other_move(name: str, before: Sequence[Tensor], after: Sequence[Tensor], repeated: Sequence[Tensor]) -> str | None:
    """How far tensors end from where the step moves them, as a part of that move, if that is too far; what is counted, exactly.
    Waits for the device."""
    apart = moved = 0.0
    for was, now, other in zip(before, after, repeated, strict=True):
        if now.is_floating_point():
            apart += float((now.double() - other.double()).square().sum())
            moved += float((now.double() - was.double()).square().sum())
        elif not torch.equal(now, other):
            return f"a step counts otherwise in {name}."
    if not apart <= SAME_MOVE**2 * moved:
        return f"a step moves {name} elsewhere, by {(apart / max(moved, 1e-30)) ** 0.5:.2g} of its length."
    return None


def _fits(batch: Batch, static: Batch | None) -> bool:
    """Whether a batch has the shapes that were recorded."""

    def facts(given: Batch) -> list[object]:
        return [None if x is None else (x.shape, x.dtype) for x in given]

    return static is not None and facts(batch) == facts(static)
