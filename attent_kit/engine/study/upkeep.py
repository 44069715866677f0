"""What lies in a folder of results: what is damaged, how far the rest is, and what may go. Nothing is changed before `clean`.

Whether a run counts is what comparison.toml says, whether it is held is what its lock says, and whether a file is whole is what
the part says that reads it.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit.config import read_toml
from attent_kit.data.check.prepared import InFile
from attent_kit.data.prepare.unfinished import Unfinished
from attent_kit.data.scans.volumes import read_labels
from attent_kit.data.workers import ReportDone
from attent_kit.engine.compare.cells import volumes_left_behind
from attent_kit.engine.compare.results_folder import is_shown, published_in, recall
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.dropped import Keep, drop, droppable
from attent_kit.engine.run.folder import Answers, Busy, RunFolder, alone_in, is_held
from attent_kit.engine.run.status import CellState, cells_in, state_of
from attent_kit.errors import AttentKitError, ConfigError, DataError, RunError
from attent_kit.files import read_json, read_signed
from attent_kit.report.selection import read_grades, read_selection

_PART = re.compile(r"\..+\.(\d+)\.part")
"""What `write_whole` writes before it renames, with the number of its process."""
SECONDS_OF_A_PART = 600.0
"""A part that nobody has touched for so long, and whose process is not here, is nobody's any more."""


class Damaged(NamedTuple):
    """A file that is not whole."""

    path: Path
    sentence: str
    """What is wrong, and what to type."""


class Removable(NamedTuple):
    """Something that no command needs any more, or that nobody wants to keep."""

    path: Path
    """Of a finished run that goes on with less, the run."""
    why: str
    bytes: int
    keep: Keep | None = None
    """What such a run keeps."""


class Upkeep(NamedTuple):
    """A folder of results, a run, or a prepared file."""

    place: Path
    states: list[CellState]
    """Of every run, and of what was asked for and is not begun."""
    damaged: list[Damaged]
    removable: list[Removable]
    bytes: int
    """Of everything in it."""

    @property
    def freed(self) -> int:
        """Bytes of what may go."""
        return sum(removable.bytes for removable in self.removable)


class Cleaned(NamedTuple):
    """What `clean` has done."""

    removed: list[Removable]
    kept: list[tuple[Path, str]]
    """What is there still, and why."""


def upkeep(place: Path, tell: ReportDone = lambda what, done, total: None, keep: Keep = "all") -> Upkeep:
    """Look at all of a place; what finished runs have beyond what they are to `keep` may go, too. ConfigError if it is neither
    results nor a prepared file."""
    if place.is_file():
        return Upkeep(place, [], _damaged_prepared(place), [], place.stat().st_size)
    states = [state_of(cell) for cell in cells_in(place)] if _has_runs(place) else []
    prepared = [path for path in _below(place, "*.h5")]
    if not states and not prepared and not _leftovers(place):
        raise ConfigError(f"{place} holds no results: name the --out of `attentkit compare` or `train`, or a .h5 file.")
    runs = [run for run in ([RunFolder(place)] if RunFolder(place).is_run else RunFolder.find(place)) if run.is_run]
    damaged = _damaged_comparison(place)
    shared = _below(place, "shared/*.ckpt")
    total = len(runs) + len(prepared) + len(shared)
    for done, run in enumerate(runs):
        tell(str(run), done, total)
        # Whoever works in it replaces files meanwhile.
        damaged += [] if run.is_held() else _damaged_run(run)
    for done, path in enumerate(shared, start=len(runs)):
        tell(str(path), done, total)
        damaged += _refused(path, checkpoint.read)
    for done, path in enumerate(prepared, start=len(runs) + len(shared)):
        tell(str(path), done, total)
        damaged += _damaged_prepared(path)
    superseded = [run for run in runs if is_superseded(run) and not run.is_held(otherwise=True)]
    removable = [_removable(run) for run in superseded]
    removable += [_shrinkable(run, keep) for run in runs if run not in superseded and _shrinks(run, keep)]
    if keep == "prediction" and states and all(state.state == "done" for state in states):
        removable += [Removable(path, "only training shares it, and every run is done", _size(path)) for path in shared]
    removable += [left for left in _leftovers(place) if not any(run.path in left.path.parents for run in superseded)]
    return Upkeep(place, states, damaged, removable, sum(_size(path) for path in place.iterdir()))


def clean(found: Upkeep) -> Cleaned:
    """Remove what may go, after asking everything once more: a run is held meanwhile, and what others have put into its folder
    stays."""
    removed: list[Removable] = []
    kept: list[tuple[Path, str]] = []
    for each in found.removable:
        run = RunFolder(each.path)
        try:
            if each.keep is not None:
                with alone_in(run):
                    drop(run, each.keep)
            elif run.is_run:
                kept += _remove_run(run)
            elif each.path.is_dir() and not each.path.is_symlink():
                shutil.rmtree(each.path)
            else:
                each.path.unlink(missing_ok=True)
        except (Busy, OSError) as error:
            kept.append((each.path, f"{error}"))
            continue
        removed.append(each)
    return Cleaned(removed, kept)


def is_superseded(run: RunFolder) -> bool:
    """Whether its comparison shows another run in its place."""
    try:
        return not run.path.is_symlink() and is_shown(run) is False
    except AttentKitError:
        return False


def _remove_run(run: RunFolder) -> list[tuple[Path, str]]:
    with alone_in(run):
        if not is_superseded(run):
            return [(run.path, "its comparison shows it again")]
        for path in run.own_files():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != run.lock:
                path.unlink()
    run.lock.unlink(missing_ok=True)
    others = sorted(run.path.iterdir())
    if not others:
        run.path.rmdir()
    return [(path, "attent-kit did not write it") for path in others]


def _removable(run: RunFolder) -> Removable:
    size = sum(_size(path) for path in run.own_files())
    return Removable(run.path, "superseded: the comparison shows another run of this row, direction and seed", size)


def _shrinks(run: RunFolder, keep: Keep) -> bool:
    return run.read_progress() is None and not run.is_held(otherwise=True) and bool(droppable(run, keep))


def _shrinkable(run: RunFolder, keep: Keep) -> Removable:
    going = droppable(run, keep)
    names = " and ".join(path.name for path in going)
    return Removable(run.path, f"it is finished; {names} of it may go", sum(map(_size, going)), keep)


def _leftovers(place: Path) -> list[Removable]:
    """What killed processes have left behind and nobody goes on with."""
    found = []
    for path in _below(place, "**/.*.part"):
        if _is_nobodys(path) and not RunFolder(path.parent).is_held(otherwise=True):
            found.append(Removable(path, "a killed process was writing it", _size(path)))
    for folder in _below(place, "**/.*.unfinished"):
        done = folder.with_name(folder.name.removeprefix(".").removesuffix(".unfinished"))
        if folder == Unfinished(done).folder and done.exists() and not is_held(folder / "lock", otherwise=True):
            found.append(Removable(folder, f"{done.name} is finished", _size(folder)))
    if volumes := volumes_left_behind(place):
        found.append(Removable(volumes, "the phantom is prepared", _size(volumes)))
    return found


def _is_nobodys(part: Path) -> bool:
    named = _PART.fullmatch(part.name)
    try:
        return (
            named is not None and time.time() - part.stat().st_mtime > SECONDS_OF_A_PART and not _lives(int(named[1]))
        )
    except OSError:
        return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _damaged_comparison(place: Path) -> list[Damaged]:
    found = []
    for read in (recall, published_in):
        try:
            read(place)
        except AttentKitError as error:
            found.append(Damaged(place, str(error)))
    return found


def _damaged_run(run: RunFolder) -> list[Damaged]:
    found = _refused(run.config, read_toml)
    plain = (run.environment, run.speed, run.cost, run.monitor, run.failed, run.trackers, run.shift)
    for path, read in ((run.domain, read_signed), *((path, read_json) for path in plain)):
        if path.exists() and read(path) is None:
            found.append(Damaged(path, "is not a JSON file of ours any more: start the command of this run again."))
    for path in (run.checkpoint, *run.all_snapshots()):
        found += _refused(path, checkpoint.read)
    found += _refused(run.selection, read_selection) + _refused(run.grades, read_grades)
    for answers in run.all_answers():
        found += _refused(answers.segmentor, checkpoint.read_weights)
        found += _refused(answers.scores, lambda path: Answers(path.parent).read())
        found += _refused(answers.slices, _read_slices)
        for path in sorted(answers.predictions.glob("*.nii.gz")):
            found += _refused(path, read_labels)
    return found


def _refused(path: Path, read: Callable[[Path], Any]) -> list[Damaged]:
    """The sentence of whoever reads a file, if it is there and is refused."""
    if not path.exists():
        return []
    try:
        read(path)
    except (AttentKitError, OSError) as error:
        return [Damaged(path, str(error))]
    return []


def _read_slices(path: Path) -> None:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                arrays[name]
    except Exception as error:
        raise RunError(f"{path} is damaged: delete it and its scores.csv, and start the command again.") from error


def _damaged_prepared(path: Path) -> list[Damaged]:
    file = InFile(path)
    if file.prepared is None and path.suffix != ".h5":
        raise DataError(
            f"{path} is neither a folder of results nor a prepared file: name the --out of `attentkit compare` or `train`, or a "
            ".h5 file."
        )
    wrong = list(file.findings)
    for case in file.cases:
        wrong += file.look(case)[0]
    return [Damaged(path, f"{f.case}{': ' if f.case else ''}{f.sentence}") for f in wrong if f.severity == "error"]


def _has_runs(place: Path) -> bool:
    return RunFolder(place).is_run or bool(RunFolder.find(place)) or (place / "grid.json").exists()


def _below(place: Path, pattern: str) -> list[Path]:
    """Files and folders of that pattern, in the order of names, without links."""
    return [path for path in sorted(place.glob(pattern)) if not path.is_symlink()]


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; links count as what they are."""
    return sum(each for each in _sizes([path]))


def _sizes(paths: Sequence[Path]) -> Iterator[int]:
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                yield from _sizes(list(path.iterdir()))
            else:
                yield path.lstat().st_size
        except OSError:
            continue
