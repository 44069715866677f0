"""Who is told how a comparison goes; without torch, so that a command can be one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from attent_kit.data.workers import ReportDone
from attent_kit.engine.compare.watcher import CellWatcher

if TYPE_CHECKING:
    from attent_kit.engine.compare.suite import Cell
    from attent_kit.engine.conduct.compare import CompareResult
    from attent_kit.engine.conduct.grid import CellGrid


class Watcher(CellWatcher):
    """Told how a comparison goes. Every method does nothing: override what you want to hear."""

    def expanded(self, grid: "CellGrid") -> None:
        """The grid is known and can be run; nothing is run yet."""

    def during(self, part: str) -> AbstractContextManager[ReportDone]:
        """Entered around a part of the work: data, rows, cost, shift or audit. What it yields is told how far the work is."""
        return nullcontext(lambda what, done, total: None)

    def training(self, cells: "Sequence[Cell]") -> AbstractContextManager[object]:
        """Entered around the training of the cells that are not done."""
        return nullcontext()

    def scored(self, result: "CompareResult") -> None:
        """All is trained and the tables are written; shift and report, if they are wanted, are still to come."""
