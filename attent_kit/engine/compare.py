"""Run what is missing of a comparison. Stopping it and starting it again is the normal way to use it."""

import shutil
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from filelock import FileLock

from attent_kit.build import build_alignment
from attent_kit.config import dump, to_toml
from attent_kit.data.layouts import find_pairs
from attent_kit.data.phantom import SIZES, write_phantom
from attent_kit.data.prepare import prepare
from attent_kit.data.prepared import Prepared
from attent_kit.engine.fit import Progress
from attent_kit.engine.run import Busy, has_results, refuse_another
from attent_kit.engine.selection import refuse_selection
from attent_kit.engine.settings import pinned
from attent_kit.engine.suite import Cell, Suite
from attent_kit.engine.tracking import Trackers
from attent_kit.engine.train import task_of, train
from attent_kit.errors import AttentKitError, ConfigError, DataError
from attent_kit.files import write_text
from attent_kit.registry import Registry

SECONDS_BETWEEN_LOOKS = 2.0


class Watch(NamedTuple):
    """Whom a comparison tells how far it is."""

    data: Callable[[str, int, int], None]
    """What is being made, how many are done, of how many."""
    started: Callable[[Cell, int], None]
    """A run begins, and how many steps it has."""
    progress: Callable[[Cell, Progress], None]
    finished: Callable[[Cell], None]
    failed: Callable[[Cell, AttentKitError], None]
    waiting: Callable[[Cell], None]
    """Only cells are left at which other processes work; this is the first of them."""
    warned: Callable[[Cell, str], None] = lambda cell, sentence: None
    """Training of a run seems to go wrong."""


def domain_files(suite: Suite, out: Path) -> dict[str, Path]:
    """The prepared file of each domain, whether it exists yet or not."""
    if suite.phantom is None:
        return dict(suite.domains)
    return {name: out / "data" / f"{name}.h5" for name in suite.domain_names}


def make_data(suite: Suite, out: Path, watch: Watch) -> None:
    """Generate and prepare the phantom, if the suite asks for one and it is not there yet."""
    if suite.phantom is None:
        return
    folder, claim = out / "data", out / "data" / "phantom.toml"
    files = [folder / f"{name}.h5" for name in suite.domain_names]
    wanted = dump(suite.phantom)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if claim.exists():
            if tomllib.loads(claim.read_text(encoding="utf-8")) != wanted:
                raise ConfigError(f"{out} holds results on another phantom. Name another folder with --out.")
        elif present := [file for file in files if file.exists()]:
            raise ConfigError(f"{present[0]} is there already and is no phantom's. Name another folder with --out.")
        else:
            write_text(claim, to_toml(wanted))
        if all(file.exists() for file in files):
            return
        volumes = folder / "volumes"
        write_phantom(volumes, suite.phantom.size, suite.phantom.seed, lambda case, i, n: watch.data("phantom", i, n))
        prepare_phantom(volumes, folder, watch.data)
        shutil.rmtree(volumes)


def prepare_phantom(volumes: Path, out: Path, report: Callable[[str, int, int], None]) -> None:
    """Prepare both domains of a phantom folder, at its own in-plane size and with the split that it names."""
    facts = tomllib.loads((volumes / "phantom.toml").read_text(encoding="utf-8"))
    for modality in ("mr", "ct"):
        split: dict[str, list[str]] = {}
        for case, fact in facts["cases"].items():
            if case.startswith(modality):
                split.setdefault(fact["split"], []).append(case)
        prepare(
            find_pairs(volumes / modality / "images", volumes / modality / "labels"),
            out / f"{modality}.h5",
            modality=modality,
            organs={organ: value for value, organ in enumerate(facts["organs"], start=1)},
            size=SIZES[facts["size"]].pixels,
            split=split,
            report=lambda case, done, n: report("prepare", done, n),
        )


def run_cells(
    cells: Sequence[Cell],
    registry: Registry,
    out: Path,
    device: str,
    watch: Watch,
    trackers: Trackers = MappingProxyType({}),
) -> list[tuple[Cell, AttentKitError]]:
    """Run every cell that has no scores yet, and return those that failed: one failure does not stop the others.

    Cells at which another process works are left to it and looked at again at the end. ConfigError or DataError, before
    anything runs, if a cell holds results of other settings or data, needs labels that are not there, or chose networks
    that do not go together.
    """
    _refuse_other_results(cells)
    for cell in cells:
        if not cell.done:
            target = Prepared.open(cell.settings.data.target)
            refuse_selection(cell.select, cell.settings, cell.folder, target, registry)
    _refuse_missing_labels(cells, registry)
    _refuse_what_cannot_be_built(cells, registry)
    failed = []
    waiting = [cell for cell in cells if not cell.done]
    while waiting:
        busy = []
        for cell in waiting:
            if cell.done:
                continue
            try:
                train(
                    cell.settings,
                    cell.folder,
                    registry,
                    device,
                    row=cell.row,
                    direction=cell.direction,
                    shared=out / "shared",
                    opened=lambda alignment, cell=cell: watch.started(cell, sum(s.steps for s in alignment.stages())),
                    report=lambda progress, cell=cell: watch.progress(cell, progress),
                    select=cell.select,
                    warned=lambda sentence, cell=cell: watch.warned(cell, sentence),
                    trackers=trackers,
                    store=out,
                )
            except Busy:
                busy.append(cell)
            except AttentKitError as error:
                failed.append((cell, error))
                watch.failed(cell, error)
            else:
                watch.finished(cell)
        waiting = busy
        if waiting:
            watch.waiting(waiting[0])
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return failed


def _refuse_missing_labels(cells: Sequence[Cell], registry: Registry) -> None:
    for cell in cells:
        target = Prepared.open(cell.settings.data.target)
        unlabelled = [case.id for case in target.cases_in("train") if not case.has_labels]
        if unlabelled and registry.resolve("alignments", cell.alignment).uses_target_labels:  # type: ignore[attr-defined]
            raise DataError(
                f"row '{cell.row}' learns from target labels, and training case {unlabelled[0]} of {target.path} has none. "
                f"Leave the row out, or run `attentkit prepare` again with --labels."
            )


def _refuse_what_cannot_be_built(cells: Sequence[Cell], registry: Registry) -> None:
    rows = {cell.row: cell for cell in reversed(cells) if not cell.done}
    for row, cell in reversed(rows.items()):
        data = cell.settings.data
        task = task_of(Prepared.open(data.source), Prepared.open(data.target))
        try:
            build_alignment(cell.settings.alignment, registry, task, cell.settings.seed, empty=True)
        except ConfigError as error:
            raise ConfigError(f"row '{row}': {error}") from None


def _refuse_other_results(cells: Sequence[Cell]) -> None:
    hashes: dict[Path, str] = {}
    for cell in cells:
        if has_results(cell.folder):
            files = (cell.settings.data.source, cell.settings.data.target)
            hashes.update({file: Prepared.open(file).content_hash() for file in files if file not in hashes})
            refuse_another(cell.folder, pinned(cell.settings, *(hashes[file] for file in files)))
