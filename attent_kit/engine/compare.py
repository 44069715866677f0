"""Run what is missing of a comparison. Stopping it and starting it again is the normal way to use it."""

import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from attent_kit.config import dump, to_toml
from attent_kit.data.layouts import find_pairs
from attent_kit.data.phantom import SIZES, write_phantom
from attent_kit.data.prepare import prepare
from attent_kit.data.prepared import Prepared
from attent_kit.engine.fit import Progress
from attent_kit.engine.run import has_results, refuse_another
from attent_kit.engine.settings import pinned
from attent_kit.engine.suite import Cell, Suite
from attent_kit.engine.train import train
from attent_kit.errors import ConfigError
from attent_kit.files import write_text
from attent_kit.registry import Registry
from attent_kit.report.scores import Score, read_scores, write_scores


class Watch(NamedTuple):
    """Whom a comparison tells how far it is."""

    data: Callable[[str, int, int], None]
    """What is being made, how many are done, of how many."""
    started: Callable[[Cell, int], None]
    """A run begins, and how many steps it has."""
    progress: Callable[[Cell, Progress], None]
    finished: Callable[[Cell], None]


def domain_files(suite: Suite, out: Path) -> dict[str, Path]:
    """The prepared file of each domain, whether it exists yet or not."""
    if suite.phantom is None:
        return dict(suite.domains)
    return {name: out / "data" / f"{name}.h5" for name in suite.domain_names}


def make_data(suite: Suite, out: Path, watch: Watch) -> None:
    """Generate and prepare the phantom, if the suite asks for one and it is not there yet."""
    if suite.phantom is None:
        return
    folder, marker = out / "data", out / "data" / "phantom.toml"
    wanted = dump(suite.phantom)
    if marker.exists():
        if tomllib.loads(marker.read_text(encoding="utf-8")) != wanted:
            raise ConfigError(f"{out} holds results on another phantom. Name another folder with --out.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if marker.exists():
            return
        volumes = folder / "volumes"
        write_phantom(volumes, suite.phantom.size, suite.phantom.seed, lambda case, i, n: watch.data("phantom", i, n))
        prepare_phantom(volumes, folder, watch.data)
        write_text(marker, to_toml(wanted))
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
            report=lambda case, i, n: report("prepare", i + 1, n),
        )


def run_cells(
    cells: Sequence[Cell],
    registry: Registry,
    out: Path,
    device: str,
    watch: Watch,
    run: Callable[..., list[Score]] = train,
) -> None:
    """Run every cell that has no scores yet; ConfigError first if one holds other results."""
    _refuse_other_results(cells)
    for cell in cells:
        if cell.done:
            continue
        cell.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(cell.folder / ".lock"):
            if cell.done:
                continue
            run(
                cell.settings,
                cell.folder,
                registry,
                device,
                row=cell.row,
                shared=out / "shared",
                opened=lambda alignment, _, cell=cell: watch.started(cell, sum(s.steps for s in alignment.stages())),
                report=lambda progress, cell=cell: watch.progress(cell, progress),
            )
        watch.finished(cell)


def _refuse_other_results(cells: Sequence[Cell]) -> None:
    hashes: dict[Path, str] = {}
    for cell in cells:
        if has_results(cell.folder):
            files = (cell.settings.data.source, cell.settings.data.target)
            hashes.update({file: Prepared.open(file).content_hash() for file in files if file not in hashes})
            refuse_another(cell.folder, pinned(cell.settings, *(hashes[file] for file in files)))


def gather(cells: Sequence[Cell], out: Path) -> list[Score]:
    """All scores of the cells in one file, scores.csv, and as rows."""
    rows = [score for cell in cells if cell.done for score in read_scores(cell.folder / "scores.csv")]
    write_scores(out / "scores.csv", rows)
    return rows
