"""What a worker does: the cells of its errand, or the first stage of one that others share."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from attent_kit.config import dump
from attent_kit.engine.compare.cells import options_of_cell, refuse_broken, run_cells
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.jobs.staging import node_folder, reader_of_copies
from attent_kit.engine.run.device import several
from attent_kit.engine.run.folder import Busy
from attent_kit.engine.run.heartbeat import write_failure
from attent_kit.engine.run.processor import one_thread
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.fit import Progress
from attent_kit.engine.train.tracking import find_trackers
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from attent_kit.errors import AttentKitError, ProcessLost
from attent_kit.registry import Registry

BUSY = 75
"""Exit code of a worker whose cell another process works on."""


def plain(cell: Cell) -> dict[str, Any]:
    """A cell as an errand names it."""
    values = {field.name: getattr(cell, field.name) for field in fields(cell)}
    start = None if cell.start is None else plain(cell.start)
    return {**values, "settings": dump(cell.settings), "folder": str(cell.folder), "start": start}


def work(errand: dict[str, Any], registry: Registry, tell: Callable[[str], None]) -> int:
    """Do what an errand says and return the exit code; `tell` takes a line for whoever asked.

    With `alone` it ends at once where another process is at work on its cell; otherwise it waits for that. `until` is the step
    at which a first stage ends that others share: it ends there. A cell that fails by itself is not a failure of the worker. With
    `alone` ProcessLost is one: it says nothing of the cell.
    """
    device = several(errand["device"], errand["devices_per_run"])
    asked = TrainOptions(trackers=find_trackers(errand["trackers"], registry))
    if errand["copies"]:
        asked = asked._replace(read=reader_of_copies(errand["copies"], node_folder()))
    refuse_broken(device)
    cells = [_cell(values, registry) for values in errand["cells"]]
    reporter = _Reporter(cells, tell, errand["alone"])
    try:
        with one_thread(device):
            if errand["until"] is not None:
                _first_stage(cells[0], {**errand, "device": device}, registry, reporter, asked)
            else:
                run_cells(cells, registry, Path(errand["out"]), device, reporter, asked, errand["began"])
    except _BusyElsewhere:
        return BUSY
    except _Lost as lost:
        raise lost.error from None
    return 0


class _BusyElsewhere(Exception):
    """Another process works on the cell."""


class _Lost(BaseException):
    """Another process of the run has died. Not an error of its method, and no handler of errors is to take it for one."""

    def __init__(self, error: ProcessLost) -> None:
        super().__init__(str(error))
        self.error = error


class _StageIsThere(BaseException):
    """The stage that was asked for is trained. Not an error, and nobody's handler of errors is to take it for one."""


def _first_stage(
    cell: Cell, errand: dict[str, Any], registry: Registry, reporter: "_Reporter", asked: TrainOptions
) -> None:
    """Train a cell until its first stage is left for others; what is trained of it stays, and its own job goes on from there."""

    def stepped(progress: Progress) -> None:
        # The first step after it: by then the stage is offered, and the checkpoint of its end is written.
        if progress.step > errand["until"]:
            raise _StageIsThere

    options = options_of_cell(cell, Path(errand["out"]), asked)
    watcher = TrainWatcher(stepped=stepped, warned=lambda sentence: reporter.warned(cell, sentence))
    try:
        if not cell.done:
            train(cell.settings, cell.folder, registry, errand["device"], options, watcher)
    except _StageIsThere:
        pass
    except Busy:
        reporter.waiting(cell)
    except Exception as error:
        if isinstance(error, ProcessLost):
            reporter.lost(cell, error)
        write_failure(cell.run, error)
        reporter.failed(cell, AttentKitError(str(error)))
        return
    reporter.staged(cell)


class _Reporter(CellWatcher):
    """Tells whoever asked, in lines, what happens to the cells."""

    def __init__(self, cells: Sequence[Cell], tell: Callable[[str], None], alone: bool) -> None:
        self._numbers = {cell.key: number for number, cell in enumerate(cells)}
        self._tell, self._alone = tell, alone

    def finished(self, cell: Cell) -> None:
        self._say("finished", cell)

    def failed(self, cell: Cell, error: AttentKitError) -> None:
        self._say("failed", cell, str(error))

    def warned(self, cell: Cell, sentence: str) -> None:
        self._say("warned", cell, sentence)

    def lost(self, cell: Cell, error: ProcessLost) -> None:
        if self._alone:  # A job that ends without a failure of its run is submitted again.
            raise _Lost(error)

    def staged(self, cell: Cell) -> None:
        """Its first stage is there for others."""
        self._say("staged", cell)

    def waiting(self, cell: Cell) -> None:
        if self._alone:
            self._say("busy", cell)
            raise _BusyElsewhere

    def _say(self, event: str, cell: Cell, sentence: str = "") -> None:
        self._tell(json.dumps([event, self._numbers[cell.key], sentence]))


def _cell(values: dict[str, Any], registry: Registry) -> Cell:
    settings = run_settings(values["settings"], registry)
    start = None if values["start"] is None else _cell(values["start"], registry)
    return Cell(**{**values, "settings": settings, "folder": Path(values["folder"]), "start": start})
