"""Who is told what happens to the cells of a comparison; without torch, so that a command can be one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attent_kit.engine.compare.suite import Cell
    from attent_kit.errors import AttentKitError, ProcessLost


class CellWatcher:
    """Told what happens to cells that this process runs, or that others run for it. Override what you want to hear.

    A cell's progress.json says how far it is.
    """

    def finished(self, cell: "Cell") -> None:
        """It is trained and scored."""

    def failed(self, cell: "Cell", error: "AttentKitError") -> None:
        """It is given up; the others go on."""

    def waiting(self, cell: "Cell") -> None:
        """Every remaining cell is held by another process; this is the first."""

    def lost(self, cell: "Cell", error: "ProcessLost") -> None:
        """Another process that trained it with this one has died. If this returns, it has failed by that."""

    def warned(self, cell: "Cell", sentence: str) -> None:
        """Training of a run seems to go wrong."""

    def said(self, sentence: str) -> None:
        """Something about the processes that run the cells."""
