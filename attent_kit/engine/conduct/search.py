"""The searches of a comparison, trial by trial, until every cell has its options or has failed."""

from collections.abc import Callable, Sequence
from pathlib import Path

from attent_kit.engine.compare.cells import FailedCell
from attent_kit.engine.compare.search import Study, Tried, chosen, met_nan, studies_of
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.conduct.grid import CellGrid
from attent_kit.engine.run.folder import SEARCHED, RunKey
from attent_kit.engine.run.status import write_grid
from attent_kit.errors import AttentKitError, RunError
from attent_kit.registry import Registry
from attent_kit.report.searched import SEARCH_CSV, SearchedTrial, write_searched

TrainCells = Callable[[Sequence[Cell]], list[FailedCell]]
"""Trains what is missing of some cells, and says which of them failed."""


def search_options(
    grid: CellGrid, cells: Sequence[Cell], registry: Registry, train: TrainCells
) -> tuple[list[Cell], list[FailedCell]]:
    """The cells with the options that were found for them, and those whose search has failed, each with its error.

    All searches go on side by side: each round trains the next trial of every cell, of a grid all that are left.
    """
    studies = studies_of(grid.suite, cells, registry, grid.out)
    failed: dict[RunKey, AttentKitError] = {}
    while True:
        waiting: list[tuple[RunKey, Cell]] = []
        there: list[Cell] = []
        for key, study in studies.items():
            if key in failed:
                continue
            try:
                trials, asked = study.found()
                if not asked:
                    study.best(trials)
            except AttentKitError as error:
                failed[key] = error
                continue
            there += [study.trial(trial.number, trial.options) for trial in trials]
            waiting += [(key, cell) for cell in asked]
        if not waiting:
            break
        write_grid(grid.out / SEARCHED, [*there, *(cell for _, cell in waiting)])
        owners = {cell.folder: key for key, cell in waiting}
        for cell, why in train([cell for _, cell in waiting]):
            # Options with which training meets NaN are a trial without a score; all else is a reason to stop.
            if not met_nan(cell):
                failed[owners[cell.folder]] = RunError(f"{cell.name}: {why}")
    found = chosen({key: study for key, study in studies.items() if key not in failed}, cells)
    return (
        [cell for cell in found if cell.key not in failed],
        [(study.cell, failed[key]) for key, study in studies.items() if key in failed],
    )


def write_search(grid: CellGrid, registry: Registry) -> list[SearchedTrial]:
    """search.csv of all trials that are done of the whole suite's cells; the trials. Without a search the file is removed."""
    suite = grid.suite
    if suite.search is None:
        (grid.out / SEARCH_CSV).unlink(missing_ok=True)
        return []
    rows: list[SearchedTrial] = []
    for study in studies_of(suite, grid.cells, registry, grid.out).values():
        try:
            trials, left = study.found()
            best = study.best(trials) if not left else None
        except AttentKitError:
            continue
        rows += [_row(study, trial, best, grid.out) for trial in trials]
    write_searched(grid.out / SEARCH_CSV, rows, [*suite.search.space])
    return rows


def _row(study: Study, trial: Tried, best: Tried | None, out: Path) -> SearchedTrial:
    cell = study.cell
    return SearchedTrial(
        cell.row,
        cell.direction,
        cell.seed,
        str(cell.fold),
        trial.number,
        study.search.objective,
        trial.value,
        best is not None and trial.number == best.number,
        trial.folder.relative_to(out).as_posix(),
        dict(trial.options),
    )
