"""Which snapshot of a run to take: its label-free scores, the choice that each selector makes, and how good the choice was.

selection.csv of a run: columns step, selector, value, better ("higher" or "lower"); a line for each snapshot and selector,
none where the selector does not apply. grades.csv: columns step, case, organ, dice, from target labels, which grade
selectors and choose nothing but `target-oracle`.
"""

import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.errors import DataError, did_you_mean
from attent_kit.files import write_text
from attent_kit.report.rows import csv_table, read_rows, write_rows
from attent_kit.report.scores import LAST, ORACLE


class Scored(NamedTuple):
    """What one selector says of one snapshot."""

    step: int
    """Steps of the run that were done."""
    selector: str
    value: float
    better: str
    """"higher" or "lower"."""


class Grade(NamedTuple):
    """Dice of one organ of one target test case, as segmented from one snapshot."""

    step: int
    case: str
    organ: str
    dice: float
    """3-D, on the grid of the original scan, as in scores.csv; NaN where the organ is in neither."""


class Graded(NamedTuple):
    """One selector in one run, graded with target labels."""

    selector: str
    better: str
    """Empty for `last` and `target-oracle`."""
    step: int
    """Of the snapshot that it chooses."""
    dice: float
    """Of that snapshot: mean over organs of the mean over target test cases."""
    oracle_step: int
    oracle: float
    """The highest Dice of any snapshot."""
    last: float
    """Dice of the last snapshot."""
    rho: float
    """Spearman's rank correlation of score and Dice over the snapshots, 1 if the better score always has the higher Dice; NaN
    where either is constant."""
    snapshots: int
    """Those that have a score."""

    @property
    def regret(self) -> float:
        """Dice that the choice gives away to the oracle, 0 or more."""
        return self.oracle - self.dice


class Aggregate(NamedTuple):
    """One selector over several runs."""

    selector: str
    runs: int
    dice: float
    """Mean of the chosen snapshots, as are the others over the runs that have one."""
    regret: float
    worst_regret: float
    rho: float
    """Mean over `rho_runs`."""
    rho_runs: int
    """Runs where it is defined."""
    better_than_last: float
    """Share of runs."""
    worse_than_last: float


def write_selection(path: Path, rows: Iterable[Scored]) -> None:
    """The rows as CSV; all of the file or nothing."""
    write_rows(path, Scored, rows, vouched=True)


def read_selection(path: Path) -> list[Scored]:
    """The rows of `write_selection`, none if there is no such file. DataError for what it would not have written."""
    return read_rows(path, Scored, "Delete it: train the run again.", _check) if path.exists() else []


def write_grades(path: Path, rows: Iterable[Grade]) -> None:
    """The rows as CSV; all of the file or nothing."""
    write_rows(path, Grade, rows, vouched=True)


def read_grades(path: Path) -> list[Grade]:
    """The rows of `write_grades`, none if there is no such file. DataError for what it would not have written."""
    return read_rows(path, Grade, "Delete it: `attentkit select` makes it again.") if path.exists() else []


def steps_of(rows: Iterable[Scored]) -> list[int]:
    """The snapshots, ascending."""
    return sorted({row.step for row in rows})


def choose(rows: Sequence[Scored], selector: str) -> int:
    """The step of the snapshot with the best score, the latest of equal ones. DataError if the selector has none there."""
    own = [row for row in rows if row.selector == selector and math.isfinite(row.value)]
    if not own:
        names = list(dict.fromkeys(row.selector for row in rows))
        raise DataError(
            f"'{selector}' has scored no snapshot of this run.{did_you_mean(selector, names)} "
            f"There {'is' if len(names) == 1 else 'are'}: {', '.join(names) or 'none'}."
        )
    return max(own, key=lambda row: (_oriented(row), row.step)).step


def mean_dice(grades: Iterable[Grade]) -> dict[int, float]:
    """By snapshot the mean over organs of the mean over cases; NaN values and organs without any other are left out."""
    found: dict[int, dict[str, list[float]]] = {}
    for grade in grades:
        values = found.setdefault(grade.step, {}).setdefault(grade.organ, [])
        if not math.isnan(grade.dice):
            values.append(grade.dice)
    return {
        step: statistics.fmean([statistics.fmean(values) for values in organs.values() if values] or [math.nan])
        for step, organs in sorted(found.items())
    }


def best_step(dice: Mapping[int, float]) -> int:
    """The snapshot that target labels would choose: the highest Dice, the latest of equal ones."""
    return max(dice, key=lambda step: (-math.inf if math.isnan(dice[step]) else dice[step], step))


def grade(rows: Sequence[Scored], dice: Mapping[int, float]) -> list[Graded]:
    """`last`, every selector of `rows` in their order, and `target-oracle`, by the Dice of each snapshot."""
    oracle, final = best_step(dice), max(dice)

    def graded(selector: str, better: str, step: int, rho: float, snapshots: int) -> Graded:
        return Graded(selector, better, step, dice[step], oracle, dice[oracle], dice[final], rho, snapshots)

    made = [graded(LAST, "", final, math.nan, len(dice))]
    for selector in dict.fromkeys(row.selector for row in rows):
        own = [row for row in rows if row.selector == selector and math.isfinite(row.value) and row.step in dice]
        if own:
            rho = rank_correlation([_oriented(row) for row in own], [dice[row.step] for row in own])
            made.append(graded(selector, own[0].better, choose(own, selector), rho, len(own)))
    return [*made, graded(ORACLE, "", oracle, math.nan, len(dice))]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rho; NaN for fewer than two values, or where one side is constant."""
    if len(a) < 2 or len(set(a)) == 1 or len(set(b)) == 1:
        return math.nan
    # Half a second and more, which a process that only trains has no use for.
    from scipy.stats import spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(spearmanr(a, b).statistic)


def aggregate(runs: Iterable[Sequence[Graded]]) -> list[Aggregate]:
    """Each selector over the runs in which it applies, in order of appearance with the oracle last."""
    by_selector: dict[str, list[Graded]] = {}
    for run in runs:
        for graded in run:
            by_selector.setdefault(graded.selector, []).append(graded)
    made = []
    for selector, own in sorted(by_selector.items(), key=lambda item: item[0] == ORACLE):
        rhos = [g.rho for g in own if not math.isnan(g.rho)]
        made.append(
            Aggregate(
                selector,
                runs=len(own),
                dice=statistics.fmean(g.dice for g in own),
                regret=statistics.fmean(g.regret for g in own),
                worst_regret=max(g.regret for g in own),
                rho=statistics.fmean(rhos) if rhos else math.nan,
                rho_runs=len(rhos),
                better_than_last=statistics.fmean(g.dice > g.last for g in own),
                worse_than_last=statistics.fmean(g.dice < g.last for g in own),
            )
        )
    return made


def graded_csv(path: Path, runs: Iterable[Any]) -> None:
    """A line for each run and selector; `runs` have a folder `run`, direction, row, seed, bound, `selectors`, and fold."""
    head = ["run", "direction", "row", "seed", "bound", *Graded._fields, "regret", "fold"]
    lines = [
        (run.run, run.direction, run.row, run.seed, run.bound, *graded, graded.regret, run.fold)
        for run in runs
        for graded in run.selectors
    ]
    write_text(path, csv_table(head, lines))


def _oriented(row: Scored) -> float:
    """The score, with the sign that makes more of it better."""
    return row.value if row.better == "higher" else -row.value


def _check(row: Scored) -> None:
    if row.better not in ("higher", "lower"):
        raise ValueError(f"better is '{row.better}'")
