"""Run the missing cells of a comparison. Stopping it and starting it again is the normal way to use it."""

import shutil
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from filelock import FileLock

from attent_kit.build import build_alignment
from attent_kit.config import dump, read_toml, to_toml
from attent_kit.data.phantom import ORGANS, PhantomOptions, WrittenPhantom, write_phantom
from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.prepare import prepare
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.data.workers import ReportDone
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.patients import refuse_patients
from attent_kit.engine.compare.suite import Cell, Suite
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.run.device import works
from attent_kit.engine.run.domains import domains_seen, facts_in, target_seen
from attent_kit.engine.run.folder import Busy, RunKey, is_held
from attent_kit.engine.run.heartbeat import in_a_sentence, now, write_failure
from attent_kit.engine.run.stages import total_steps
from attent_kit.engine.run.status import failed_since
from attent_kit.engine.run.warm_start import fitting, refuse_unlike
from attent_kit.engine.snapshots.selection import refuse_selection
from attent_kit.engine.train.fit import refuse_uneven
from attent_kit.engine.train.train import (
    ALONE,
    TrainOptions,
    TrainWatcher,
    refuse_labels,
    refuse_left_out,
    task_of,
    train,
)
from attent_kit.errors import AttentKitError, ConfigError, DataError, ProcessLost, RunError
from attent_kit.files import write_text
from attent_kit.registry import Registry

SECONDS_BETWEEN_LOOKS = 2.0


FailedCell = tuple[Cell, AttentKitError]


def domain_files(suite: Suite, out: Path) -> dict[str, Path]:
    """The prepared file of each domain, whether it exists yet or not."""
    if suite.phantom is None:
        return dict(suite.domains)
    return {name: out / "data" / f"{name}.h5" for name in suite.domain_names}


def make_data(suite: Suite, out: Path, report: ReportDone) -> None:
    """Generate and prepare the phantom that a suite asks for, unless it exists already.

    `report` is told what is being made, how many are done, of how many.
    """
    if suite.phantom is None:
        return
    folder, claim = out / "data", out / "data" / "phantom.toml"
    files = [folder / f"{name}.h5" for name in suite.domain_names]
    wanted = dump(suite.phantom)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if claim.exists():
            if read_toml(claim) != wanted:
                raise ConfigError(f"{out} holds results on another phantom. Name another folder with --out.")
        elif present := [file for file in files if file.exists()]:
            raise ConfigError(f"{present[0]} exists already and is not from a phantom. Name another folder with --out.")
        else:
            write_text(claim, to_toml(wanted))
        if all(file.exists() for file in files):
            return
        volumes = folder / "volumes"
        options = PhantomOptions(size=suite.phantom.size, seed=suite.phantom.seed)
        written = write_phantom(volumes, options, lambda case, i, n: report("phantom", i, n))
        prepare_phantom(written, folder, report)
        shutil.rmtree(volumes)


def volumes_left_behind(out: Path) -> Path | None:
    """The volumes of a phantom that is prepared, if a process died before it could remove them."""
    folder = out / "data"
    prepared = (folder / "phantom.toml").exists() and all((folder / f"{name}.h5").exists() for name in ("mr", "ct"))
    if not prepared or not (folder / "volumes").is_dir() or is_held(folder / ".lock", otherwise=True):
        return None
    return folder / "volumes"


def prepare_phantom(written: WrittenPhantom, out: Path, report: ReportDone) -> None:
    """Prepare both domains of a phantom, at its own in-plane size and with the split that it names."""
    for modality in ("mr", "ct"):
        split: dict[str, list[str]] = {}
        for case, facts in written.cases.items():
            if facts["modality"] == modality:
                split.setdefault(facts["split"], []).append(case)
        prepare(
            find_pairs(written.folder / modality / "images", written.folder / modality / "labels"),
            out / f"{modality}.h5",
            PrepareOptions(
                modality=modality,
                organs={organ: value for value, organ in enumerate(ORGANS, start=1)},
                size=written.options.grid.pixels,
                train=split.get("train"),
                val=split.get("val"),
                test=split.get("test"),
            ),
            report=lambda case, done, n: report("prepare", done, n),
        )


def run_cells(
    cells: Sequence[Cell],
    registry: Registry,
    out: Path,
    device: str,
    watcher: CellWatcher,
    asked: TrainOptions = ALONE,
    began: str | None = None,
) -> list[FailedCell]:
    """Run every cell that has no scores yet, and return those that failed: one failure does not stop the others.

    Any number of processes may do so at once: each takes the next cell that nobody holds. Cells that others work on, or
    whose first stage another one trains, are looked at again at the end: they are done then, or free because their process
    died. What failed since `began`, by default now, is not tried again. `asked` has trackers, and who opens prepared files.
    RunError if the device stops computing.
    """
    began = began or now()
    failed: list[FailedCell] = []
    locks: dict[Path, Path] = {}
    said: Path | None = None
    waiting = sorted(cells, key=lambda cell: len(cell.starts))  # what others start from comes first
    while waiting:
        busy = []
        for waits in waiting:
            # Where it lies may have changed: a process of another suite may work in the folder by now.
            (cell,) = located([waits], registry)
            if cell.done:
                continue
            error: Exception | None = failed_since(cell.run, began)
            if error is None:
                hoped = {other.key for other in waiting} - {other.key for other, _ in failed}
                if is_held(locks.get(cell.folder, cell.run.lock)) or _start_may_come(cell, hoped):
                    busy.append(cell)
                    continue
                try:
                    _train(cell, registry, out, device, watcher, asked)
                except Busy as held:
                    locks[cell.folder] = held.lock
                    busy.append(cell)
                    continue
                except Exception as raised:
                    # A mistake of one method does not end the comparison of the others.
                    error = raised
                    write_failure(cell.run, error)
            if error is None:
                watcher.finished(cell)
                continue
            sentence = error if isinstance(error, AttentKitError) else _unforeseen(error, cell)
            failed.append((cell, sentence))
            watcher.failed(cell, sentence)
            if sentence is not error:
                refuse_broken(device)
        waiting = busy
        if waiting:
            if waiting[0].folder != said:
                watcher.waiting(waiting[0])
                said = waiting[0].folder
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return failed


def _start_may_come(cell: Cell, hoped: Set[RunKey]) -> bool:
    """Whether a run starts from one that is not trained yet, and will be, by this process or by another."""
    start = cell.start
    return start is not None and not start.done and (start.key in hoped or is_held(start.run.lock))


def _train(cell: Cell, registry: Registry, out: Path, device: str, watcher: CellWatcher, asked: TrainOptions) -> None:
    if cell.start is not None and not cell.start.done:
        raise RunError(
            f"it starts from {cell.start.name}, which is not trained: start the same command again once it is."
        )
    options = options_of_cell(cell, out, asked)
    told = TrainWatcher(warned=lambda sentence: watcher.warned(cell, sentence))
    try:
        train(cell.settings, cell.folder, registry, device, options, told)
    except ProcessLost as error:
        watcher.lost(cell, error)
        raise


def options_of_cell(cell: Cell, out: Path, asked: TrainOptions) -> TrainOptions:
    """What is asked of a cell's run in the folder of its comparison, beside what is asked of all."""
    return asked._replace(row=cell.row, direction=cell.direction, select=cell.select, store=out, shared=out / "shared")


def refuse_broken(device: str) -> None:
    """RunError if the device does not compute: on it every cell would fail."""
    if not works(device):
        raise RunError(
            f"--device {device} does not compute, at least not for this process. Start the same command again."
        )


def _unforeseen(error: Exception, cell: Cell) -> RunError:
    """What a method's own mistake says in a comparison, which goes on with the other cells."""
    record = cell.run.failed
    return RunError(in_a_sentence(error) + (f" (where: {record})" if record.exists() else ""))


def refuse_what_cannot_run(cells: Sequence[Cell], registry: Registry, devices: int = 1) -> dict[str, int]:
    """The steps of a run of each row that is not done; `devices` train a run together.

    ConfigError or DataError, before anything runs, if a cell needs labels that are missing, chose networks that do not go
    together, or is to select from snapshots that it will not have, or tests whom it trains on.
    """
    refuse_patients(cells)
    for cell in cells:
        if not cell.done:
            target = target_seen(cell.settings.data)
            refuse_selection(cell.select, cell.settings, cell.run, target, registry)
    _refuse_missing_labels(cells, registry)
    return _steps(cells, registry, devices)


def longest_first(cells: Sequence[Cell], steps: Mapping[str, int]) -> list[Cell]:
    """In the order in which several processes are done soonest; those of equal steps as they were."""
    return sorted(cells, key=lambda cell: -steps.get(cell.row, 0))


def _refuse_missing_labels(cells: Sequence[Cell], registry: Registry) -> None:
    for cell in cells:
        source, target = domains_seen(cell.settings.data, facts_in)
        unlabelled = [case.id for case in target.cases_in("train") if not case.has_labels]
        if unlabelled and registry.alignment(cell.alignment).uses_target_labels:
            raise DataError(
                f"row '{cell.row}' learns from target labels, and training case {unlabelled[0]} of {target.path} has none. "
                f"Leave the row out, or run `attentkit prepare` again with --labels."
            )
        if not cell.done:
            refuse_left_out(cell.settings, registry, source)
            try:
                refuse_labels(registry.alignment(cell.alignment), cell.alignment, source, target)
            except ConfigError as error:
                raise ConfigError(f"row '{cell.row}': {error}") from None


def _steps(cells: Sequence[Cell], registry: Registry, devices: int) -> dict[str, int]:
    """By row; ConfigError if one cannot be built."""
    steps = {}
    rows = {cell.row: cell for cell in reversed(cells) if not cell.done}
    for row, cell in reversed(rows.items()):
        source, target = domains_seen(cell.settings.data, facts_in)
        task = task_of(source, target)
        try:
            alignment = build_alignment(cell.settings.alignment, registry, task, cell.settings.seed, empty=True)
            if cell.start is None or cell.start.done:
                fitting(cell.settings, alignment, task, target.size)
            else:
                start = build_alignment(cell.start.settings.alignment, registry, task, cell.seed, empty=True)
                refuse_unlike(alignment, start, cell.start.row)
            refuse_uneven(alignment, devices)
        except ConfigError as error:
            raise ConfigError(f"row '{row}': {error}") from None
        steps[row] = total_steps(alignment, cell.settings.more_steps)
    return steps
