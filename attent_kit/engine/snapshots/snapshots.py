"""Snapshots of a run: at which steps, which networks of each are kept, and what the selectors say about it.

None of this reaches the training: the networks are asked in eval mode and without gradients, and everything random in a
step follows from its number. A snapshot holds those networks of `predict` that are still trained by then; the rest is in the
run's checkpoint, and so are all networks of the last snapshot.

In half precision a snapshot is rounded before the selectors look at it, so that they score the weights that a choice exports. The
last one, which is the checkpoint, is never rounded.
"""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import load_network_states, moves, network_states
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.probe import networks_of_predict
from attent_kit.engine.run.stages import Part
from attent_kit.engine.snapshots.look import Viewer
from attent_kit.errors import AttentKitError, ConfigError, RunError
from attent_kit.interfaces import Alignment
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST, ORACLE
from attent_kit.report.selection import Scored, read_selection, write_selection
from attent_kit.selectors import Selector


class Snapshots:
    """Takes the snapshots of one run."""

    def __init__(
        self, run: RunFolder, count: int, selectors: Mapping[str, Selector], source: Prepared, target: Prepared, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.run, self.count, self.selectors = run, count, selectors
        self.source, self.target, self.seed, self.device = source, target, seed, device
        self.steps: list[int] = []
        """Steps of the run after which a snapshot is due; known once it is planned."""
        self.half = False
        """Whether they are kept in half precision."""
        self._networks: list[str] = []
        self._viewer: Viewer | None = None

    def plan(self, alignment: Alignment, optimizers: dict[str, Optimizer], parts: Sequence[Part]) -> None:
        """Settle the steps and the networks: as many steps over the stages of the method, and over each part that was added."""
        planned = planned_snapshots(alignment, optimizers, parts, self.count, self.target.size, self.device)
        self.steps, self._networks = planned

    def rewind(self, step: int, total: int) -> None:
        """Forget what belongs to steps that will be trained again, and all that was made of a training that is not over."""
        run = self.run
        there = [row for row in read_selection(run.selection) if row.step <= step]
        # The longer run of one whose snapshots were dropped has none of them; its last is in the checkpoint.
        kept = [row for row in there if row.step == step or run.snapshot(row.step).exists()]
        if step < total:
            for path in (run.selection, run.grades):
                path.unlink(missing_ok=True)
            shutil.rmtree(run.selections, ignore_errors=True)
            for path in run.all_snapshots():
                if path not in {run.snapshot(row.step) for row in kept}:
                    path.unlink()
            if kept:
                write_selection(run.selection, kept)

    def complete(self, alignment: Alignment, step: int) -> None:
        """Keep the networks of a step that was the last, and had them in its checkpoint, before steps were added."""
        if step in self.steps[:-1] and not self.run.snapshot(step).exists():
            self._keep(alignment, step)

    def due(self, step: int) -> bool:
        """Whether a snapshot is due after so many steps of the run."""
        return step in self.steps

    def take(self, alignment: Alignment, step: int) -> dict[str, float]:
        """Keep the networks and write down their scores, by selector."""
        self._viewer = self._viewer or Viewer(self.source, self.target, self.seed, self.device)
        half = self.half and step != self.steps[-1]
        with _rounded(alignment, self._networks) if half else nullcontext():
            look = self._viewer.look(alignment)
        scores = {}
        for name, selector in self.selectors.items():
            try:
                score = selector.score(look)
            except Exception as error:
                raise RunError(
                    f"the selector '{name}' failed at step {step}: {type(error).__name__}: {error}. Leave its plugin out with "
                    f"ATTENTKIT_PLUGINS, or type --set snapshots=0, and start the same command again."
                ) from error
            if score is not None:
                scores[name] = float(score)
        if step != self.steps[-1]:
            self._keep(alignment, step, half)
        rows = [row for row in read_selection(self.run.selection) if row.step != step]
        rows += [Scored(step, name, value, self.selectors[name].better) for name, value in scores.items()]
        write_selection(self.run.selection, rows)
        return scores

    def _keep(self, alignment: Alignment, step: int, half: bool = False) -> None:
        states = network_states(alignment)
        networks = {name: in_half(states[name]) if half and name else states[name] for name in (*self._networks, "")}
        checkpoint.write(self.run.snapshot(step), {"step": step, "networks": networks, "optimizers": {}})


def planned_snapshots(
    alignment: Alignment,
    optimizers: dict[str, Optimizer],
    parts: Sequence[Part],
    count: int,
    size: int,
    device: torch.device,
) -> tuple[list[int], list[str]]:
    """After which steps of a run snapshots are taken, and which networks all but the last of them hold: `count` over the stages
    of the method, and as many over each part that was added."""
    if not count:
        return [], []
    stages = [part.stage for part in parts if not part.before]
    called = networks_of_predict(alignment, size, device)
    trained = [{name for name in called if moves(s, optimizers, getattr(alignment, name))} for s in stages]
    # Before the last of the networks is trained for the first time, `predict` has nothing to say.
    first = max((n for n, names in enumerate(trained) if names - set().union(*trained[:n])), default=len(stages))
    counted = [s.steps if n >= first and trained[n] else 0 for n, s in enumerate(stages)]
    steps = evenly_spaced(counted, [s.steps for s in stages], count)
    for part in parts[len(stages) :] if trained[-1] else ():
        added = [part.last - part.first]
        steps += [part.first + step for step in evenly_spaced(added, added, count)]
    return steps, sorted(set().union(*trained[first:]))


def in_half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's state with float32 tensors as float16, but for those with a value beyond its range."""
    most = torch.finfo(torch.float16).max
    fits = {name: v.dtype == torch.float32 and bool((v.abs() <= most).all()) for name, v in state.items()}
    return {name: value.half() if fits[name] else value for name, value in state.items()}


@contextmanager
def _rounded(alignment: Alignment, networks: Iterable[str]) -> Iterator[None]:
    """Networks with the weights that they will have come back with from half precision; afterwards as they were, to the bit."""
    states = {name: state for name, state in network_states(alignment).items() if name in networks}
    exact = {name: {key: value.clone() for key, value in state.items()} for name, state in states.items()}
    load_network_states(alignment, {name: in_half(state) for name, state in exact.items()})
    try:
        yield
    finally:
        load_network_states(alignment, exact)


def evenly_spaced(counted: Sequence[int], lengths: Sequence[int], count: int) -> list[int]:
    """`count` steps of a run, evenly spaced over the stages that are `counted`, the last step of the last of them included.

    `lengths` are the steps of all stages; `counted` is the same for those that count, and 0 for the others.
    """
    total = sum(counted)
    wanted = sorted({math.ceil(n * total / count) for n in range(1, count + 1)} - {0})
    steps = []
    for step in wanted:
        begin = 0
        for own, length in zip(counted, lengths, strict=True):
            if step <= own:
                steps.append(begin + step)
                break
            step -= own
            begin += length
    return steps


def load_snapshot(run: RunFolder, alignment: Alignment, step: int, steps: Iterable[int]) -> None:
    """Put the networks of a step into an alignment that has those of the end; `steps` are those of all snapshots."""
    path = run.snapshot(step)
    if not path.exists() and step == max(steps):
        return
    if not path.exists() and run.dropped.exists():
        raise ConfigError(f"{run} has dropped its snapshots, so that no other can be chosen: train into another --out.")
    try:
        checkpoint.restore(path, alignment, None)
    except (RunError, OSError) as error:
        raise RunError(
            f"{path} is missing or damaged, and the selection needs it: choose another --select, or train into another --out."
        ) from error


def load_selectors(registry: Registry) -> dict[str, Selector]:
    """All installed selectors by name. AttentKitError for one that is not a selector."""
    found = {}
    for component in registry.of("selectors"):
        loaded = component.load()
        if getattr(loaded, "better", None) not in ("higher", "lower"):
            raise AttentKitError(
                f"the selector '{component.name}' of {component.distribution} does not say whether a higher or a lower score is "
                "better: leave it out with ATTENTKIT_PLUGINS."
            )
        if component.name in (LAST, ORACLE):
            raise AttentKitError(
                f"{component.distribution} calls a selector '{component.name}', which is a word of --select already: leave it "
                f"out with ATTENTKIT_PLUGINS."
            )
        found[component.name] = loaded()
    return found
