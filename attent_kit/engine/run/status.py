"""How far a comparison is, read from its folder alone: by any process, while others work in it, without torch."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.config import read_toml
from attent_kit.engine.run.folder import SEARCHED, RunFolder, external_named
from attent_kit.errors import AttentKitError, ConfigError, RunError
from attent_kit.files import read_json, write_text

GRID = "grid.json"
STATES = {
    "done": "it has scores",
    "running": "a process holds it",
    "dead": "its process ended without a word; the next one that comes goes on from its last checkpoint",
    "failed": "it gave up, and says why",
    "stopped": "it was stopped, and goes on from its last checkpoint",
    "waiting": "nothing of it is trained",
}
SILENT = 60.0
"""Seconds after which a process that holds a run and says nothing is worth a word."""


class GridCell(NamedTuple):
    """A cell as grid.json has it."""

    row: str
    direction: str
    seed: int | None
    """None of label maps of another tool."""
    folder: Path
    fold: str = ""
    """1/5 where the target was dealt into folds."""

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    @property
    def done(self) -> bool:
        """Whether it has scores, of whichever snapshot: grid.json does not say what was asked for."""
        return self.run.has_scores


class CellState(NamedTuple):
    """A cell, and how far it is."""

    row: str
    direction: str
    seed: int | None
    folder: Path
    state: str
    """One of STATES."""
    progress: dict[str, Any] | None
    """What a process that runs, or one that died, said last."""
    silent: float | None
    """Seconds since it was written."""
    error: str | None
    """Why it failed."""
    fold: str = ""
    """1/5 where the target was dealt into folds."""


def write_grid(out: Path, cells: Iterable[Any], externals: Iterable[Any] = ()) -> None:
    """OUT/grid.json: the cells and external rows that the last command asked for, so that `status` knows those that wait, too."""
    rows = [
        {"row": c.row, "direction": c.direction, "seed": c.seed, "folder": c.folder.relative_to(out).as_posix()}
        | ({"fold": fold} if (fold := str(c.fold)) else {})
        for c in cells
    ]
    others = [
        {"row": e.row, "direction": e.direction, "folder": e.folder.relative_to(out).as_posix()} for e in externals
    ]
    grid = {"cells": rows} | ({"external": others} if others else {})
    write_text(out / GRID, json.dumps(grid, indent=2, ensure_ascii=False) + "\n")


def cells_in(out: Path) -> list[GridCell]:
    """Cells of grid.json and whatever else runs below `out`; or the one run that `out` is. ConfigError if it is neither."""
    if RunFolder(out).is_run:
        return [_cell_of_run(RunFolder(out))]
    grid = read_json(out / GRID) or {}
    try:
        cells = [
            GridCell(
                str(c["row"]), str(c["direction"]), int(c["seed"]), RunFolder.named(out, c["folder"]).path, str(c.get("fold", ""))
            )
            for c in grid["cells"]
        ]  # fmt: skip
        cells += [
            GridCell(str(e["row"]), str(e["direction"]), None, external_named(out, e["folder"]))
            for e in grid.get("external", ())
        ]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        cells = []
    known = {cell.folder for cell in cells}
    others = [run for run in RunFolder.find(out) if run.path not in known]
    cells += [_cell_of_run(run) for run in others if (run.progress if cells else run.config).exists()]
    if (out / SEARCHED / GRID).exists():
        cells += cells_in(out / SEARCHED)
    if not cells:
        raise ConfigError(f"{out} holds no comparison and no run: name the --out of an `attentkit compare` or `train`.")
    return cells


def state_of(cell: Any) -> CellState:
    """How far a cell is; it has row, direction, seed, fold and folder, and says whether it is done."""
    run = RunFolder(cell.folder)
    progress, failure = run.read_progress(), run.read_failure()
    silent = None if progress is None else _seconds_since(progress.get("updated"))
    if cell.done:
        state, progress = "done", None
    elif run.is_held(otherwise=silent is not None and silent < SILENT):
        state = "running"
    elif progress is not None:
        state = "dead"
    elif failure is not None:
        state = "failed"
    else:
        state = "stopped" if run.checkpoint.exists() else "waiting"
    error = str((failure or {}).get("error", "")) or None
    return CellState(
        cell.row, cell.direction, cell.seed, run.path, state, progress, silent, error if state == "failed" else None,
        str(cell.fold),
    )  # fmt: skip


def failed_since(run: RunFolder, began: str) -> RunError | None:
    """Why a run failed, if it did after a time that `attent_kit.engine.run.heartbeat.now` gave."""
    failure = run.read_failure()
    if failure is None or str(failure.get("time", "")) < began:
        return None
    return RunError(str(failure.get("error")))


def counted(states: Sequence[CellState]) -> dict[str, int]:
    """How many cells are in each state that occurs."""
    numbers = {state: sum(cell.state == state for cell in states) for state in STATES}
    return {state: number for state, number in numbers.items() if number}


def _cell_of_run(run: RunFolder) -> GridCell:
    try:
        config = read_toml(run.config)
        name, seed = config["alignment"]["name"], int(config["seed"])
    except (AttentKitError, KeyError, TypeError, ValueError):
        name, seed = (run.key.row, run.key.seed) if run.key else (run.path.parent.name, 0)
    fold = str(run.key.fold) if run.key else ""
    return GridCell(str(name), run.key.direction if run.key else "", seed, run.path, fold)


def _seconds_since(written: object) -> float | None:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(str(written))).total_seconds())
    except (ValueError, TypeError):
        return None
