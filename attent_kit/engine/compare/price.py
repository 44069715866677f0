"""What a comparison will cost, from a few measured steps of each stage. Nothing is kept and nothing is written.

A processor takes minutes for a step of the paper's networks on the paper's images. There a step is taken on smaller ones, and
time and memory grow with the number of pixels, as convolutions do; what does not, such as the steps of optimizers, is then priced
too high.
"""

import ctypes
import gc
import heapq
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from lightning_fabric import Fabric

from attent_kit.build import build_alignment
from attent_kit.data.phantom import SIZES
from attent_kit.data.prepared.batches import memory_format
from attent_kit.data.workers import ReportDone
from attent_kit.engine.compare.disk import Disk, disk_of
from attent_kit.engine.compare.external import External
from attent_kit.engine.compare.resources import NodeHours
from attent_kit.engine.compare.suite import Cell, Suite
from attent_kit.engine.run.assemble import patch_of, setup, train_only
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.domains import domains_seen, facts_in
from attent_kit.engine.run.labelled import labelled
from attent_kit.engine.run.processor import one_thread
from attent_kit.engine.run.stages import parts_of
from attent_kit.engine.train.fit import refuse_uneven, seed_step
from attent_kit.engine.train.train import task_of
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.interfaces import Batch, Stage, Task
from attent_kit.registry import Registry
from attent_kit.report.power import Power

STEPS = 3
"""Steps that are timed, after one to warm up."""
SECONDS = 5.0
"""No further step is timed once this has passed, and one that takes as long needs none to warm up."""
SIDE = 64
"""On a processor slices with longer sides are measured at this one."""


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
    side: int
    """Of the slices that it was measured on, in pixels."""

    @property
    def seconds(self) -> float:
        """Of the whole stage."""
        return self.steps * self.seconds_a_step


class Row(NamedTuple):
    """What was measured of one row."""

    stages: list[StageCost]
    disk: Disk


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
    disk: int = 0
    """Bytes of weights that it leaves, with its trials and a first stage that it trains for others."""


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
    devices_per_run: int = 1
    """How many devices train a run together; one of them alone was measured."""
    side: int | None = None
    """Of the slices of the runs, in pixels, where smaller ones were measured."""

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

    @property
    def unmeasured(self) -> str:
        """What the times leave out, in words; empty if that is nothing."""
        if self.devices_per_run == 1:
            return ""
        return (
            f"Times and memory are measured on one device. {self.devices_per_run} that train a run together take at least "
            f"{1 / self.devices_per_run:.0%} of such a time, and with small networks more than all of it."
        )

    @property
    def disk(self) -> int:
        """Bytes of weights that everything that is missing will leave."""
        return sum(cell.disk for cell in self.cells)

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
    devices_per_run: int = 1,
) -> Price:
    """Measure every row that has a missing cell on one device, and add up. `report` is told the row and its stage, how many rows
    are measured, of how many; `devices_per_run` train a run together."""
    first = {cell.row: cell for cell in reversed(cells) if not cell.done}
    rows: dict[str, Row] = {}
    errors: dict[str, str] = {}
    known: dict[tuple[object, ...], StageCost] = {}
    size = 0
    for done, (row, cell) in enumerate(reversed(first.items())):
        report(row, done, len(first))
        try:
            with one_thread(devices[0]):
                task, size = seen_by_networks(suite, cell)
                fabric = launch(devices[0], cell.settings.precision)
                begins = partial(_tell, report, row, done, len(first))
                rows[row] = _Meter(cell, registry, task, size, fabric, devices_per_run).measured(known, begins)
        except AttentKitError as error:
            errors[row] = str(error)
    stages = [cost for found in rows.values() for cost in found.stages]
    side = size if any(cost.side != size for cost in stages) else None
    return Price(stages, _add_up(cells, rows, errors), tuple(devices), devices_per_run=devices_per_run, side=side)


def _tell(report: ReportDone, row: str, done: int, rows: int, stage: str) -> None:
    report(f"{row}: {stage}", done, rows)


def seen_by_networks(suite: Suite, cell: Cell) -> tuple[Task, int]:
    """The task of a cell and the side of a slice in pixels."""
    if suite.phantom is not None:
        return Task(channels=cell.settings.data.channels or 1), SIZES[suite.phantom.size].pixels
    source, target = domains_seen(cell.settings.data, facts_in)
    return task_of(source, target), target.size


def _add_up(cells: Sequence[Cell], rows: dict[str, Row], errors: dict[str, str]) -> list[CellCost]:
    trained: dict[tuple[object, ...], str] = {}
    made = []
    for cell in cells:
        if cell.done or cell.row in errors:
            made.append(CellCost(cell, 0.0 if cell.done else None, None, None, None if cell.done else errors[cell.row]))
            continue
        stages, disk = rows[cell.row]
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
        left = (1 + trials) * disk.left(cell.settings.keep) + (0 if shares else disk.shared)
        seconds += trials * sum(stage.seconds for stage in stages)
        memory = max((stage.memory for stage in stages if stage.memory is not None), default=None)
        own = 0.0 if shares else begin.seconds
        made.append(CellCost(cell, seconds, memory, shares, None, key, own, steps, trials, left))
    return made


class _Meter:
    """Takes real steps, updates and all, of networks that are thrown away, on images of noise."""

    def __init__(
        self, cell: Cell, registry: Registry, task: Task, size: int, fabric: Fabric, devices_per_run: int = 1
    ) -> None:
        self.cell, self.registry, self.task, self.size, self.fabric = cell, registry, task, size, fabric
        self.devices_per_run = devices_per_run

    def measured(self, known: dict[tuple[object, ...], StageCost], begins: Callable[[str], None]) -> Row:
        """The stages of a row and what it leaves on disk. `known`: stages that other rows share, by their recipes; `begins` is
        told the name of each stage."""
        if self.fabric.device.type == "cpu" and self.size > SIDE:
            # Networks may refuse images that are so small.
            with suppress(ConfigError, RuntimeError, ValueError):
                return self._at(SIDE, known, begins)
        return self._at(self.size, known, begins)

    def _at(self, side: int, known: dict[tuple[object, ...], StageCost], begins: Callable[[str], None]) -> Row:
        settings, device = self.cell.settings, self.fabric.device
        alignment = build_alignment(settings.alignment, self.registry, self.task, settings.seed, empty=True)
        refuse_uneven(alignment, self.devices_per_run)
        if (patch := patch_of(alignment)) is not None:
            side = self.size  # a patch has its own size, whatever that of a slice
        sides = (side, side) if patch is None else patch.size
        optimizers = setup(alignment, self.fabric)
        update = FabricUpdate(self.fabric, optimizers)
        costs = []
        for part in parts_of(alignment, settings.more_steps):
            stage, steps = part.stage, part.last - part.first
            begins(stage.name)
            seed_step(0, 0)
            batch = _noise(stage, self.task, sides, device, alignment.uses_target_labels)
            batch = labelled(alignment, stage, batch)
            train_only(alignment, optimizers, stage)
            key = (stage.name, stage.batch_size, sides, self.task.channels, stage.recipe)
            found = known.get(key) if stage.recipe is not None else None
            if found is None:
                seconds, peak = self._stage(stage, batch, update, side)
                found = StageCost("", stage.name, stage.batch_size, steps, seconds, peak, stage.recipe, side)
                known[key] = found
            else:
                # One step all the same, for the state that its optimizers have on disk.
                stage.step(batch, update)
            costs.append(found._replace(row=self.cell.row, steps=steps))
        return Row(costs, disk_of(alignment, optimizers, settings, self.size, side, device))

    def _stage(self, stage: Stage, batch: Batch, update: FabricUpdate, side: int) -> tuple[float, int | None]:
        """Seconds a step and peak MiB of a stage, as of slices of the whole size."""
        device, times = self.fabric.device, (self.size / side) ** 2
        _forget_peak(device)
        seconds = _timed(stage, batch, update, device)
        whole = _peak(device)
        if times > 1:
            # What a step adds to weights, gradients and optimizers grows with the images.
            _forget_peak(device)
        rest = _resident()
        if seconds < SECONDS or times > 1:
            taken = [_timed(stage, batch, update, device)]
            while times == 1 and len(taken) < STEPS and sum(taken) < SECONDS:
                taken.append(_timed(stage, batch, update, device))
            seconds = sum(taken) / len(taken)
        if times > 1 and rest is not None and (again := _peak(device)) is not None:
            return seconds * times, int(rest + (again - rest) * times)
        peaks = [peak for peak in (whole, _peak(device)) if peak is not None]
        return seconds * times, max(peaks, default=None)


def _timed(stage: Stage, batch: Batch, update: FabricUpdate, device: torch.device) -> float:
    """Seconds of one step."""
    began = time.perf_counter()
    stage.step(batch, update)
    _wait(device)
    return time.perf_counter() - began


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
    return _said("VmHWM")


def _resident() -> int | None:
    """MiB that this process has in memory now."""
    return _said("VmRSS")


def _said(name: str) -> int | None:
    """MiB that the system says of this process; None where it does not."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 2**10
    except (OSError, StopIteration, ValueError):
        return None
