"""How much of the gap a row closes: 0 is a row that learned from the source alone, 1 one that was trained with target labels.

    share = (row - floor) / (ceiling - floor)

Of the average, on the cases that the three have: the value of a case is its mean over seeds, then over the organs with a value in
all three. The interval lies between percentiles of the share in resamples of the cases, each drawn for all three rows at once.
Where the gap itself could be none, its own interval reaching 0, a share of it would be noise over noise: there is no value.

Only metrics in which a missed organ counts have a share. Of a distance, the rows that miss organs would be judged without them,
and the gap is made of those.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from attent_kit.report.intervals import RESAMPLES, Interval, Values, case_values, percentiles, resampled_means, values
from attent_kit.report.metrics import METRICS, Metric, metric_of
from attent_kit.report.rows import csv_table
from attent_kit.report.scores import Score

COLUMN = "gap closed, %"
"""Of the tables."""
NOWHERE = Interval(math.nan, math.nan)


class Ends(NamedTuple):
    """Rows between which the gap can be: the first of each is taken."""

    floors: Sequence[str] = ()
    """Labels of rows that learned from the source alone, the preferred one first."""
    ceilings: Sequence[str] = ()
    """Labels of rows that were trained with target labels."""


class ShareClosed(NamedTuple):
    """What a row closes of the gap."""

    value: float
    """1 is all of it; NaN where there is no value."""
    low: float = math.nan
    """Ends of the 95 % interval; NaN for the two rows that span the gap, which close 0 and 1 by definition."""
    high: float = math.nan
    cases: int = 0
    """That the three rows have."""

    @property
    def text(self) -> str:
        """In percent: 71 (55 to 82)."""
        if math.isnan(self.value):
            return "-"
        ends = "" if math.isnan(self.low) else f" ({100 * self.low:z.0f} to {100 * self.high:z.0f})"
        return f"{100 * self.value:z.0f}{ends}"


class Gap(NamedTuple):
    """The gap of one direction in one metric, and what each row closes of it."""

    direction: str
    metric: str
    ends: Ends
    size: float
    """By how much the ceiling is better, mean over the cases that both rows have; NaN if one of them is missing."""
    interval: Interval
    cases: int
    shares: dict[str, ShareClosed]
    """By label, of the rows that have an average; none where there is no gap."""
    lacking: tuple[str, ...] = ()
    """Of floor and ceiling, those without an average."""

    @property
    def is_there(self) -> bool:
        """Whether it is more than noise."""
        return self.interval.low > 0

    @property
    def floor(self) -> str:
        """Label of the row that closes nothing; empty if there is none."""
        return next(iter(self.ends.floors), "")

    @property
    def ceiling(self) -> str:
        """Label of the row that closes all of it; empty if there is none."""
        return next(iter(self.ends.ceilings), "")

    def text(self, label: str) -> str:
        """What a table says of a row; with n where it is not over all cases of the gap."""
        share = self.shares.get(label, ShareClosed(math.nan))
        known = share.cases != self.cases and not math.isnan(share.value)
        return share.text + (f" (n={share.cases})" if known else "")

    @property
    def notes(self) -> list[str]:
        """What 0 and 100 are, or why there is no value."""
        said = [f"Gap closed: {self._spans() if self.is_there else self._why_not()}"]
        nowhere = [label for label, share in self.shares.items() if math.isnan(share.value)]
        if nowhere:
            why = f"shares too few cases with {self.floor} and {self.ceiling}, so that there is no gap to see"
            said.append(f"Gap closed: no value where a row {why}: {', '.join(nowhere)}.")
        return said

    def _spans(self) -> str:
        over = f"in brackets 95 % of {RESAMPLES:,} resamples of the {self.cases} cases"
        said = (
            f"0 is {self.floor}, 100 is {self.ceiling}, on the cases and organs that both share with the row; {over}."
        )
        if others := self.ends.floors[1:]:
            said += f" {' and '.join(others)} could be 0 as well, using no target image either; --reference chooses."
        if others := self.ends.ceilings[1:]:
            said += f" {' and '.join(others)} could be 100 as well; the first in the table is taken."
        return said

    def _why_not(self) -> str:
        if not self.floor:
            return "no value, as no row learns from the source alone; add one whose method uses no target image."
        if not self.ceiling:
            return "no value, as no row is trained with target labels; add one for the other end of the gap."
        if self.lacking:
            return (
                f"no value, as {' and '.join(self.lacking)} {'has' if len(self.lacking) == 1 else 'have'} no average."
            )
        if self.cases < 2:
            both, over = f"{self.floor} and {self.ceiling}", "one case" if self.cases else "no case"
            return f"no value, as {both} have {over} in common, and it takes two to see a gap."
        metric = metric_of(self.metric)
        low, high = (metric.number(end) for end in self.interval)
        return (
            f"no value, as {self.ceiling} is {metric.number(abs(self.size))} {metric.step} "
            f"{'better' if self.size >= 0 else 'worse'} than {self.floor}, which is no gap beyond noise (95 % interval {low} "
            f"to {high}, {self.cases} cases)."
        )


def gaps(scores: Iterable[Score], labels: Sequence[str], ends: Ends, directions: Iterable[str]) -> list[Gap]:
    """One for each direction and each metric in which every organ counts; none without a row that could be an end of it."""
    if not (ends.floors or ends.ceilings):
        return []
    scores, made = list(scores), []
    for direction in directions:
        for metric in (metric for metric in METRICS if metric.every_organ_counts):
            own = (score for score in scores if score.direction == direction)
            rows = {label: row for (_, label), row in values(own, metric.name, metric.unit).items()}
            whole = {label: rows[label] for label in labels if label in rows and rows[label].has_every_organ}
            if rows:
                made.append(_gap(direction, metric, ends, whole))
    return made


def _gap(direction: str, metric: Metric, ends: Ends, rows: Mapping[str, Values]) -> Gap:
    nothing = Gap(direction, metric.name, ends, math.nan, NOWHERE, 0, {})
    if lacking := tuple(end for end in (nothing.floor, nothing.ceiling) if end not in rows):
        return nothing._replace(lacking=lacking)
    both = [rows[nothing.floor], rows[nothing.ceiling]]
    sign = 1 if metric.higher_is_better else -1
    cases, table = case_values(both)
    if len(cases) < 2:
        return nothing._replace(cases=len(cases))
    drawn = sign * np.diff(resampled_means(table))
    size = float(sign * np.diff(table).mean())
    gap = nothing._replace(size=size, interval=percentiles(drawn), cases=len(cases))
    if not gap.is_there:
        return gap
    spanning = {gap.floor: ShareClosed(0.0, cases=len(cases)), gap.ceiling: ShareClosed(1.0, cases=len(cases))}
    return gap._replace(
        shares={label: spanning.get(label) or _share([*both, row], sign) for label, row in rows.items()}
    )


def _share(rows: Sequence[Values], sign: int) -> ShareClosed:
    """Of the last of floor, ceiling and row."""
    cases, table = case_values(rows)
    if len(cases) < 2:
        return ShareClosed(math.nan, cases=len(cases))
    drawn = resampled_means(table)
    gap, closed = drawn[:, 1] - drawn[:, 0], drawn[:, 2] - drawn[:, 0]
    if not percentiles(sign * gap).low > 0:
        return ShareClosed(math.nan, cases=len(cases))
    floor, ceiling, row = table.mean(axis=0)
    # Of the resamples without a gap, fewer than 2.5 %, a share would be infinite.
    return ShareClosed(
        float((row - floor) / (ceiling - floor)), *percentiles(closed[gap != 0] / gap[gap != 0]), len(cases)
    )


def gaps_csv(made: Iterable[Gap]) -> str:
    """One line per row with scores, unrounded; the gap itself is in the unit of scores.csv."""
    head = (
        "direction", "metric", "method", "share", "low", "high", "cases", "floor", "ceiling", "gap", "gap_low", "gap_high",
    )  # fmt: skip
    return csv_table(
        head,
        [
            (gap.direction, gap.metric, label, *share, gap.floor, gap.ceiling, gap.size, *gap.interval)
            for gap in made
            for label, share in gap.shares.items()
        ],
    )
