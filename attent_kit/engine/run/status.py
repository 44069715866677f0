"""How far a comparison is, read from its folder alone: by any process, while others work in it, without torch."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from attent_kit.config import read_toml
from attent_kit.errors import AttentKitError, ConfigError, RunError
from attent_kit.files import write_text

GRID, PROGRESS, FAILED = "grid.json", "progress.json", "failed.json"
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
    """A cell as it stands in grid.json."""

    row: str
    direction: str
    seed: int
    folder: Path


class CellState(NamedTuple):
    """A cell, and how far it is."""

    row: str
    direction: str
    seed: int
    folder: Path
    state: str
    """One of STATES."""
    progress: dict[str, Any] | None
    """progress.json of a process that runs, or of one that died."""
    silent: float | None
    """Seconds since it was written."""
    error: str | None
    """Why it failed."""


def write_grid(out: Path, cells: Iterable[Any]) -> None:
    """OUT/grid.json: the cells that the last command asked for, so that `status` knows those that wait, too."""
    rows = [
        {"row": c.row, "direction": c.direction, "seed": c.seed, "folder": c.folder.relative_to(out).as_posix()}
        for c in cells
    ]
    write_text(out / GRID, json.dumps({"cells": rows}, indent=2, ensure_ascii=False) + "\n")


def cells_in(out: Path) -> list[GridCell]:
    """Cells of grid.json and whatever else runs below `out`; or the one run that `out` is. ConfigError if it is neither."""
    if (out / "config.toml").exists():
        return [_place_of_run(out)]
    grid = _read(out / GRID)
    try:
        places = [GridCell(c["row"], c["direction"], int(c["seed"]), out / c["folder"]) for c in (grid or {})["cells"]]
    except (KeyError, TypeError, ValueError):
        places = []
    known = {place.folder for place in places}
    for file in sorted(out.glob(f"*/*/seed*/{PROGRESS if places else 'config.toml'}")):
        if file.parent not in known:
            places.append(_place_of_run(file.parent))
    if not places:
        raise ConfigError(f"{out} holds no comparison and no run: name the --out of an `attentkit compare` or `train`.")
    return places


def state_of(place: Any) -> CellState:
    """How far a cell is; `place` has row, direction, seed and folder."""
    folder: Path = place.folder
    progress, failure = _read(folder / PROGRESS), _read(folder / FAILED)
    silent = None if progress is None else _seconds_since(progress.get("updated"))
    if _is_done(place):
        state, progress = "done", None
    elif is_held(folder / ".lock", otherwise=silent is not None and silent < SILENT):
        state = "running"
    elif progress is not None:
        state = "dead"
    elif failure is not None:
        state = "failed"
    else:
        state = "stopped" if (folder / "checkpoint.ckpt").exists() else "waiting"
    error = str((failure or {}).get("error", "")) or None
    return CellState(
        place.row, place.direction, place.seed, folder, state, progress, silent, error if state == "failed" else None
    )


def _is_done(place: Any) -> bool:
    """Whether a cell has the scores that it is asked for; of a place in grid.json, whether it has any."""
    if hasattr(place, "done"):
        return bool(place.done)
    return has_scores(place.folder)


def has_scores(folder: Path) -> bool:
    """Whether a run is finished: it has scores, of whichever of its snapshots."""
    return (folder / "scores.csv").exists() or any(folder.glob("selections/*/scores.csv"))


def failed_since(folder: Path, began: str) -> RunError | None:
    """Why a run failed, if it did after a time that `attent_kit.engine.run.heartbeat.now` gave."""
    failure = _read(folder / FAILED)
    if failure is None or str(failure.get("time", "")) < began:
        return None
    return RunError(str(failure.get("error")))


def is_held(lock: Path, otherwise: bool = False) -> bool:
    """Whether a living process holds a lock: a killed one holds none. `otherwise` where the lock may not be tried."""
    if not lock.exists():
        return False
    try:
        # Not at the first try: somebody else may just be asking the same.
        with FileLock(lock, timeout=0.05, poll_interval=0.01):
            return False
    except Timeout:
        return True
    except OSError:
        return otherwise


def counted(states: Sequence[CellState]) -> dict[str, int]:
    """How many cells are in each state that occurs."""
    numbers = {state: sum(cell.state == state for cell in states) for state in STATES}
    return {state: number for state, number in numbers.items() if number}


def _place_of_run(folder: Path) -> GridCell:
    try:
        config = read_toml(folder / "config.toml")
        name, seed = config["alignment"]["name"], int(config["seed"])
    except (AttentKitError, KeyError, TypeError, ValueError):
        name, seed = folder.parent.name, 0
    return GridCell(str(name), folder.parent.parent.name, seed, folder)


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file of ours; None if it is not there or was spoiled."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _seconds_since(written: object) -> float | None:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(str(written))).total_seconds())
    except (ValueError, TypeError):
        return None
