"""How good the choices of all selectors were, run by run, by the labels of the target's test cases."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.data.workers import ReportDone
from attent_kit.engine.apply.trained import load_run, names_of, open_run
from attent_kit.engine.compare.results_folder import is_shown
from attent_kit.engine.run.domains import domains_seen
from attent_kit.engine.run.folder import SEARCHED, RunFolder
from attent_kit.engine.run.settings import pinned
from attent_kit.engine.snapshots.selection import grade_snapshots, known_grades
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.registry import Registry
from attent_kit.report.selection import Graded, grade, mean_dice, read_selection


class GradedRun(NamedTuple):
    """The selectors of one run."""

    run: str
    """Its folder."""
    direction: str
    row: str
    """Its label in the comparison, or the name of its method."""
    seed: int
    bound: bool
    """Whether its training saw target labels."""
    selectors: list[Graded]
    fold: str = ""
    """1/5 where the target was dealt into folds."""


def find_runs(places: Sequence[Path]) -> tuple[list[RunFolder], list[RunFolder]]:
    """The runs with snapshots among and below `places`, in the order of their names, and those without.

    Of a comparison the runs that it shows, without earlier ones of the same row, direction and seed. ConfigError if there is
    none with any.
    """
    found: dict[RunFolder, None] = {}
    bare: dict[RunFolder, None] = {}
    for place in places:
        if not place.is_dir():
            raise ConfigError(f"{place} is not a folder: name a run, or the folder of a comparison.")
        for run in RunFolder.anywhere_below(place):
            # Trials of a search are graded where they are asked for, not among the runs that came of it.
            if SEARCHED in run.path.relative_to(place).parts[:1]:
                continue
            if run.path == place or is_shown(run) is not False:
                (found if run.selection.exists() else bare)[run] = None
    if not found:
        raise ConfigError(
            f"{', '.join(map(str, places))}: no run here keeps snapshots. Train one with --set snapshots=5 or more."
        )
    return list(found), list(bare)


def grade_runs(
    folders: Sequence[RunFolder],
    registry: Registry,
    device: str = "auto",
    report: ReportDone = lambda what, done, total: None,
    failed: Callable[[RunFolder, AttentKitError], None] | None = None,
) -> list[GradedRun]:
    """Each run with its selectors graded. Snapshots are segmented once, then known from the run's grades.csv.

    With `failed`, a run that cannot be graded, such as one that is still being trained, is reported and left out.
    """
    graded = []
    for folder in folders:
        try:
            graded.append(_grade_run(folder, registry, device, report))
        except AttentKitError as error:
            if failed is None:
                raise
            failed(folder, error)
    return graded


def _grade_run(folder: RunFolder, registry: Registry, device: str, report: ReportDone) -> GradedRun:
    run = open_run(folder.path, registry)
    grades = known_grades(folder)
    if not grades:
        loaded = load_run(run, registry, device)
        if not loaded.whole:
            raise ConfigError(
                f"{folder}: the run's {folder.checkpoint.name} is missing, so its snapshots cannot be graded: train it into "
                "another --out, and select there."
            )
        source, target = domains_seen(run.settings.data)
        pinned(run.settings, source.content_hash(), target.content_hash())
        grades = grade_snapshots(
            loaded.alignment, folder, target, loaded.device, lambda done, total: report(str(folder), done, total)
        )
    selectors = grade(read_selection(folder.selection), mean_dice(grades))
    row, direction = names_of(run)
    bound = bool(run.component.load().uses_target_labels)
    fold = str(run.settings.data.part)
    return GradedRun(str(folder), direction, row, run.settings.seed, bound, selectors, fold)
