"""Which snapshot of a run to take: its label-free scores, the choice that each selector makes, and how good the choice was.

selection.csv of a run: columns step, selector, value, better ("higher" or "lower"); a line for each snapshot and selector,
none where the selector does not apply. grades.csv: columns step, case, organ, dice, from target labels, which grade
selectors and choose nothing but `target-oracle`.
"""

import csv
import io
import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from attent_kit.errors import DataError, did_you_mean
from attent_kit.files import write_text
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
    _write(path, Scored, [row._replace(value=repr(row.value)) for row in rows])  # type: ignore[arg-type]


def read_selection(path: Path) -> list[Scored]:
    """The rows of `write_selection`, none if there is no such file. DataError for what it would not have written."""
    rows = [Scored(int(r[0]), r[1], float(r[2]), r[3]) for r in _read(path, Scored, (int, str, float, str))]
    for row in rows:
        if row.better not in ("higher", "lower"):
            raise _damaged(path, f"better is '{row.better}'")
    return rows


def write_grades(path: Path, rows: Iterable[Grade]) -> None:
    """The rows as CSV; all of the file or nothing."""
    _write(path, Grade, [row._replace(dice=repr(row.dice)) for row in rows])  # type: ignore[arg-type]


def read_grades(path: Path) -> list[Grade]:
    """The rows of `write_grades`, none if there is no such file. DataError for what it would not have written."""
    return [Grade(int(r[0]), r[1], r[2], float(r[3])) for r in _read(path, Grade, (int, str, str, float))]


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
    """A line for each run and selector; `runs` have a folder `run`, direction, row, seed, bound, and `selectors`."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "direction", "row", "seed", "bound", *Graded._fields, "regret"])
    for run in runs:
        for graded in run.selectors:
            writer.writerow([run.run, run.direction, run.row, run.seed, run.bound, *graded, graded.regret])
    write_text(path, out.getvalue())


def _oriented(row: Scored) -> float:
    """The score, with the sign that makes more of it better."""
    return row.value if row.better == "higher" else -row.value


def _write(path: Path, kind: Any, rows: Iterable[Sequence[Any]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows(rows)
    write_text(path, out.getvalue())


def _read(path: Path, kind: Any, types: Sequence[type]) -> list[list[str]]:
    """The fields of each line, checked to be of the types."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    lines = list(csv.reader(io.StringIO(text, newline="")))
    if not lines or lines[0] != list(kind._fields) or not text.endswith("\n"):
        raise _damaged(path, f"it is not a whole file with the columns {', '.join(kind._fields)}")
    for number, line in enumerate(lines[1:], start=2):
        try:
            for value, make in zip(line, types, strict=True):
                make(value)
        except ValueError as error:
            raise _damaged(path, f"line {number}: {error}") from None
    return lines[1:]


def _damaged(path: Path, why: str) -> DataError:
    what = "train the run again" if path.name == "selection.csv" else "`attentkit select` makes it again"
    return DataError(f"{path} is damaged ({why}). Delete it: {what}.")
