"""Which snapshot each selector would choose, and what that gives away: of a run, of several, or of a comparison."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.data.workers import ReportDone
from attent_kit.engine.compare.grade import GradedRun, find_runs, grade_runs
from attent_kit.engine.run.folder import RunFolder
from attent_kit.errors import AttentKitError
from attent_kit.registry import Registry
from attent_kit.report.selection import Aggregate, aggregate, graded_csv

NOTE = (
    "Dice and rho are computed with the labels of the target's test cases. They grade the selectors here; the selectors saw "
    "none of them. target-oracle is the best that any choice could have been."
)


class SelectResult(NamedTuple):
    """Every selector, run by run and over all runs that count."""

    runs: list[GradedRun]
    counted: list[GradedRun]
    """Those whose training saw no target labels; all, if there is none."""
    means: list[Aggregate]
    """Of each selector, over `counted`."""
    bare: list[RunFolder]
    """Runs without snapshots."""
    failed: list[tuple[RunFolder, AttentKitError]]
    """Runs that cannot be graded, such as one that is still being trained, and why."""


def select(
    places: Sequence[Path],
    registry: Registry,
    device: str = "auto",
    out: Path | None = None,
    tell: ReportDone = lambda run, done, total: None,
    failed: Callable[[RunFolder, AttentKitError], None] = lambda run, error: None,
) -> SelectResult:
    """Grade the runs among and below `places`, and write `out`, a CSV with a line for each run and selector.

    Of a comparison the runs that it shows count. A run that cannot be graded is left out; if it is the only one, its error is
    raised. `tell` is told the run, how many of its snapshots are graded, of how many; `failed` of a run that is left out.
    """
    found, bare = find_runs(places)
    ungraded: list[tuple[RunFolder, AttentKitError]] = []

    def leave_out(run: RunFolder, error: AttentKitError) -> None:
        ungraded.append((run, error))
        failed(run, error)

    graded = grade_runs(found, registry, device, tell, leave_out if len(found) > 1 else None)
    counted = [run for run in graded if not run.bound] or graded
    if out:
        graded_csv(out, graded)
    return SelectResult(graded, counted, aggregate(run.selectors for run in counted), bare, ungraded)
