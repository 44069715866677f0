"""What a comparison will cost, from a few measured steps of each stage. Nothing is kept and nothing is written."""

import ctypes
import gc
import heapq
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from lightning_fabric import Fabric

from attent_kit.build import build_alignment
from attent_kit.data.phantom import SIZES
from attent_kit.data.prepared.batches import memory_format
from attent_kit.data.workers import ReportDone
from attent_kit.engine.compare.external import External
from attent_kit.engine.compare.resources import NodeHours
from attent_kit.engine.compare.suite import Cell, Suite
from attent_kit.engine.run.assemble import patch_of, setup, train_only
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.domains import domains_seen, facts_in
from attent_kit.engine.run.processor import one_thread
from attent_kit.engine.run.stages import parts_of
from attent_kit.engine.train.fit import seed_step
from attent_kit.engine.train.train import task_of
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.interfaces import Batch, Stage, Task
from attent_kit.registry import Registry
from attent_kit.report.power import Power

STEPS = 3
"""Steps that are timed, after one to warm up."""
SECONDS = 5.0
"""No further step is timed once this has passed."""


class StageCost(NamedTuple):
    """One stage of one row."""

    row: str
    stage: str
    batch_size: int
    steps: int
    seconds_a_step: float
    memory: int | None
    """Peak in MiB: of the device's memory, or of this process on a CPU; None where that cannot be read."""
    recipe: tuple[object, ...] | None

    @property
    def seconds(self) -> float:
        """Of the whole stage."""
        return self.steps * self.seconds_a_step


class CellCost(NamedTuple):
    """One run."""

    cell: Cell
    seconds: float | None
    """Training alone; 0 if the run is done, None if it cannot be run."""
    memory: int | None
    shares: str | None
    """"translate with AttENT": its first stage, which another row of the same direction, seed and fold trains."""
    error: str | None
    """Why the run cannot be run."""
    stage: tuple[object, ...] | None = None
    """What its first stage is known by, if others may share it."""
    stage_seconds: float = 0.0
    """Of that stage, if this run trains it."""
    steps: int = 0
    """Of all stages."""
    trials: int = 0
    """Runs of a search that come before it and are in `seconds`, each with a first stage of its own."""


class Price(NamedTuple):
    """What is to be run, and what it costs."""

    stages: list[StageCost]
    cells: list[CellCost]
    devices: tuple[str, ...] = ("auto",)
    """Those that are asked for; measured on the first."""
    power: Mapping[str, Power] = MappingProxyType({})
    """What the tests of each direction could see."""
    hours: NodeHours | None = None
    """What it costs as jobs, if a launcher starts them."""
    externals: Sequence[External] = ()
    """Rows of label maps that other tools have made, which cost nothing."""

    def check(self) -> "Price":
        """The same if every run can be run as it is set; else ConfigError."""
        failed = sum(cell.error is not None for cell in self.cells)
        if failed:
            raise ConfigError(f"{failed} of {len(self.cells)} runs cannot be run as they are set; the table says why.")
        return self

    @property
    def missing(self) -> int:
        """Runs that are not done."""
        return sum(not cell.cell.done for cell in self.cells)

    @property
    def trials(self) -> int:
        """Runs of searches that come before these."""
        return sum(cell.trials for cell in self.cells)

    @property
    def seconds(self) -> float:
        """Training time of everything that is missing, one run after another."""
        return sum(cell.seconds or 0.0 for cell in self.cells)

    def wall(self, devices: int) -> float:
        """Wall time of everything that is missing in seconds, over so many devices as fast as the one measured.

        As `run_cells` does it: a device takes the longest cell, and leaves those whose first stage another one trains for later.
        """
        free = [0.0] * devices
        stages: dict[tuple[object, ...], float] = {}
        waiting = [cell for cell in self.cells if cell.seconds]
        if devices > 1:
            waiting.sort(key=lambda cell: -cell.steps)
        end = 0.0
        while waiting:
            moment = heapq.heappop(free)
            taken = next((cell for cell in waiting if stages.get(cell.stage or (), 0.0) <= moment), None)
            if taken is None:
                heapq.heappush(free, min(stages[cell.stage] for cell in waiting if cell.stage is not None))
                continue
            waiting.remove(taken)
            if taken.stage is not None:
                stages.setdefault(taken.stage, moment + taken.stage_seconds)
            heapq.heappush(free, moment + (taken.seconds or 0.0))
            end = max(end, moment + (taken.seconds or 0.0))
        return end


def price(
    suite: Suite,
    cells: Sequence[Cell],
    registry: Registry,
    devices: Sequence[str],
    report: ReportDone,
) -> Price:
    """Measure every row that has a missing cell, and add up. `report` is told the row, how many are measured, of how many."""
    first = {cell.row: cell for cell in reversed(cells) if not cell.done}
    costs: dict[str, list[StageCost]] = {}
    errors: dict[str, str] = {}
    for done, (row, cell) in enumerate(reversed(first.items())):
        report(row, done, len(first))
        try:
            with one_thread(devices[0]):
                task, size = seen_by_networks(suite, cell)
                costs[row] = _measure(cell, registry, task, size, launch(devices[0], cell.settings.precision))
        except AttentKitError as error:
            errors[row] = str(error)
    return Price([cost for row in costs.values() for cost in row], _add_up(cells, costs, errors), tuple(devices))


def seen_by_networks(suite: Suite, cell: Cell) -> tuple[Task, int]:
    """The task of a cell and the side of a slice in pixels."""
    if suite.phantom is not None:
        return Task(channels=cell.settings.data.channels or 1), SIZES[suite.phantom.size].pixels
    source, target = domains_seen(cell.settings.data, facts_in)
    return task_of(source, target), target.size


def _add_up(cells: Sequence[Cell], costs: dict[str, list[StageCost]], errors: dict[str, str]) -> list[CellCost]:
    trained: dict[tuple[object, ...], str] = {}
    made = []
    for cell in cells:
        if cell.done or cell.row in errors:
            made.append(CellCost(cell, 0.0 if cell.done else None, None, None, None if cell.done else errors[cell.row]))
            continue
        stages = costs[cell.row]
        steps = sum(stage.steps for stage in stages)
        seconds, shares, begin, key = sum(stage.seconds for stage in stages), None, stages[0], None
        if begin.recipe is not None:
            key = (
                cell.direction, cell.seed, cell.fold, cell.settings.data.channels, begin.stage, begin.steps, begin.batch_size,
                begin.recipe,
            )  # fmt: skip
            owner = trained.setdefault(key, cell.row)
            if owner != cell.row:
                seconds, shares = seconds - begin.seconds, f"{begin.stage} with {owner}"
        trials = cell.trials_left or 0
        seconds += trials * sum(stage.seconds for stage in stages)
        memory = max((stage.memory for stage in stages if stage.memory is not None), default=None)
        made.append(CellCost(cell, seconds, memory, shares, None, key, 0.0 if shares else begin.seconds, steps, trials))
    return made


def _measure(cell: Cell, registry: Registry, task: Task, size: int, fabric: Fabric) -> list[StageCost]:
    """Time real steps, updates and all, of networks that are thrown away, on images of noise."""
    alignment = build_alignment(cell.settings.alignment, registry, task, cell.settings.seed, empty=True)
    optimizers = setup(alignment, fabric)
    update = FabricUpdate(fabric, optimizers)
    costs = []
    for part in parts_of(alignment, cell.settings.more_steps):
        stage, steps = part.stage, part.last - part.first
        train_only(alignment, optimizers, stage)
        seed_step(0, 0)
        patch = patch_of(alignment)
        sides = (size, size) if patch is None else patch.size
        batch = _noise(stage, task, sides, fabric.device, alignment.uses_target_labels)
        _forget_peak(fabric.device)
        stage.step(batch, update)
        _wait(fabric.device)
        began, timed = time.perf_counter(), 0
        while timed < STEPS and (timed == 0 or time.perf_counter() - began < SECONDS):
            stage.step(batch, update)
            timed += 1
            _wait(fabric.device)
        seconds = (time.perf_counter() - began) / timed
        peak = _peak(fabric.device)
        costs.append(StageCost(cell.row, stage.name, stage.batch_size, steps, seconds, peak, stage.recipe))
    return costs


def _noise(stage: Stage, task: Task, sides: tuple[int, ...], device: torch.device, with_target_labels: bool) -> Batch:
    shape = (2, stage.batch_size, task.channels, *sides)
    x_s, x_t = (torch.rand(shape, device=device) * 2 - 1).unbind()
    x_s, x_t = (x.contiguous(memory_format=memory_format(device, len(sides))) for x in (x_s, x_t))
    y_s, y_t = torch.randint(task.classes, (2, stage.batch_size, *sides), device=device).unbind()
    return Batch(x_s, y_s, x_t, y_t if with_target_labels else None)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _forget_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # What earlier rows have freed is given back to the system first, or it would count as this row's.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 2**10
    except (OSError, StopIteration, ValueError):
        return None
