"""Every row against a reference row, case by case: intervals, tests and effect sizes.

Holm's correction is over the comparisons of one table (direction x metric): those of the averages, which the report shows, are
one family; those of the single organs, which are in the CSV alone, another.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.report import significance
from attent_kit.report.intervals import (
    Interval,
    PairedDifferences,
    Values,
    difference_interval,
    mean_interval,
    paired_differences,
    values,
)
from attent_kit.report.metrics import METRICS
from attent_kit.report.rows import csv_table
from attent_kit.report.scores import AVERAGE, Score, summarise
from attent_kit.report.table import Over, spread


class Comparison(NamedTuple):
    """A row against the reference: one metric of one organ, or of the average, in one direction."""

    direction: str
    metric: str
    unit: str
    organ: str
    method: str
    reference: str
    cases: int
    """Cases compared; n of the tests."""
    left_out: int
    """Cases of either row that could not be compared."""
    seeds: int | None
    """0 of a row without scores; None of label maps of another tool, one set of them."""
    reference_seeds: int | None
    undefined: int
    """Values of the row that are not defined, of `total`, in the cases that both have."""
    total: int
    reference_undefined: int
    reference_total: int
    mean: float
    """Of the row, as the table shows it, over all its cases; then its 95 % interval."""
    mean_low: float
    mean_high: float
    difference: float
    """Row minus reference, mean over the cases compared; then its 95 % interval."""
    difference_low: float
    difference_high: float
    wilcoxon_p: float
    wilcoxon_holm: float
    permutation_p: float
    permutation_holm: float
    family: int
    """Comparisons that Holm's correction is over."""
    smallest_p: float
    """The smallest that p could be with so many cases, whatever their scores."""
    smallest_holm: float
    """The smallest that it could be after Holm's correction."""
    rank_biserial: float
    """-1 to 1, with the sign of `difference`."""
    d_z: float
    """`difference` in SDs of the differences."""
    without: tuple[str, ...]
    """Organs that keep the rows from being compared, since no case has a value in both."""


def choose_reference(reference: str | None, labels: Sequence[str]) -> str:
    """The label of the reference row: the first if none is named. ConfigError for a label that is not a row."""
    if reference is None:
        return labels[0]
    if reference not in labels:
        raise ConfigError(
            f"--reference {reference}: no row has that name.{did_you_mean(reference, labels)} Rows are: {', '.join(labels)}."
        )
    return reference


def compare(
    scores: Iterable[Score], labels: Sequence[str], reference: str, directions: Iterable[str]
) -> list[Comparison]:
    """All rows but the reference, by direction and metric: row by row, each organ, then the average."""
    scores = list(scores)
    made = []
    for direction in directions:
        own = [score for score in scores if score.direction == direction]
        over = spread(own)
        for metric, unit in ((found.name, found.unit) for found in METRICS):
            rows = {label: row for (_, label), row in values(own, metric, unit).items()}
            if rows:
                means = {(s.alignment, s.organ): s.mean for s in summarise(own, metric, over, unit)}
                others = [label for label in labels if label != reference]
                made += _corrected(
                    [
                        _compare(direction, metric, unit, organ, label, reference, rows, means, over)
                        for label in others
                        for organ in (*next(iter(rows.values())).organs, AVERAGE)
                    ]
                )
    return made


def _compare(
    direction: str, metric: str, unit: str, organ: str, label: str, reference: str,
    rows: Mapping[str, Values], means: Mapping[tuple[str, str], float], over: Over,
) -> Comparison:  # fmt: skip
    row, other = rows.get(label), rows.get(reference)
    nothing = Interval(math.nan, math.nan)
    own = mean_interval(row, organ, over) if row else nothing
    if row and other:
        pairs, between = paired_differences(row, other, organ), difference_interval(row, other, organ)
    else:
        pairs, between = PairedDifferences((), np.empty(0), (), (), (0, 0), (0, 0)), nothing
    d = pairs.differences
    return Comparison(
        direction, metric, unit, organ, label, reference,
        cases=len(d),
        left_out=len(pairs.left_out),
        seeds=row.runs if row else 0,
        reference_seeds=other.runs if other else 0,
        undefined=pairs.undefined[0],
        total=pairs.total[0],
        reference_undefined=pairs.undefined[1],
        reference_total=pairs.total[1],
        mean=means.get((label, organ), math.nan),
        mean_low=own.low,
        mean_high=own.high,
        difference=float(d.mean()) if len(d) else math.nan,
        difference_low=between.low if len(d) else math.nan,
        difference_high=between.high if len(d) else math.nan,
        wilcoxon_p=significance.signed_rank(d),
        wilcoxon_holm=math.nan,
        permutation_p=significance.sign_flip(d),
        permutation_holm=math.nan,
        family=0,
        smallest_p=significance.smallest_p(len(d)),
        smallest_holm=math.nan,
        rank_biserial=significance.rank_biserial(d),
        d_z=significance.cohen_dz(d),
        without=pairs.without,
    )  # fmt: skip


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """With Holm's correction, the averages apart from the organs."""
    found: dict[int, Comparison] = {}
    for average in (True, False):
        family = [(i, c) for i, c in enumerate(comparisons) if (c.organ == AVERAGE) is average]
        tested = sum(c.cases > 0 for _, c in family)
        wilcoxon = significance.holm([c.wilcoxon_p for _, c in family])
        permutation = significance.holm([c.permutation_p for _, c in family])
        # Corrected, a p is the highest |J| min(J) over all sets J that it is in, so no larger p of any row makes it smaller.
        smallest = significance.holm([c.smallest_p if c.cases else math.nan for _, c in family])
        for (i, c), *corrected in zip(family, wilcoxon, permutation, smallest, strict=True):
            by_ranks, by_signs, least = corrected
            found[i] = c._replace(wilcoxon_holm=by_ranks, permutation_holm=by_signs, family=tested, smallest_holm=least)
    return [found[i] for i in range(len(comparisons))]


class SlideTest(NamedTuple):
    """A row against the reference by the test of the slides: averages over seeds, their population SDs, a one-sided p."""

    direction: str
    metric: str
    method: str
    reference: str
    mean: float
    sd: float
    n: int
    reference_mean: float
    reference_sd: float
    reference_n: int
    p: float


def slide_tests(
    scores: Iterable[Score], labels: Sequence[str], reference: str, directions: Iterable[str]
) -> list[SlideTest]:
    """The averages of all rows but the reference; p is NaN where a row has a single seed or no average."""
    scores, made = list(scores), []
    for direction in directions:
        own = [score for score in scores if score.direction == direction]
        for metric in METRICS:
            if not any((score.metric, score.unit) == (metric.name, metric.unit) for score in own):
                continue
            found = {s.alignment: s for s in summarise(own, metric.name, "seeds", metric.unit) if s.organ == AVERAGE}
            # From the sample SD, ddof 1, to the population's, ddof 0. One seed has no SD.
            groups = {
                label: (s.mean, s.std * math.sqrt((s.n - 1) / s.n) if s.n > 1 else math.nan, s.n)
                for label, s in found.items()
            }
            missing = (math.nan, math.nan, 0)
            for label in (label for label in labels if label != reference):
                row, other = groups.get(label, missing), groups.get(reference, missing)
                p = significance.slide_test(*row[:2], *other[:2], row[2], other[2], metric.higher_is_better)
                made.append(SlideTest(direction, metric.name, label, reference, *row, *other, p))
    return made


def comparisons_csv(
    comparisons: Sequence[Comparison], sentences: Sequence[str], slides: Sequence[SlideTest] = ()
) -> str:
    """One line per comparison, unrounded, and its sentence. `slide_p` is of the averages alone, if it was asked for."""
    head = [*(field for field in Comparison._fields if field != "without"), "slide_p", "sentence"]
    p = {(s.direction, s.metric, s.method, AVERAGE): s.p for s in slides}
    lines = [
        (*c[:-1], p.get((c.direction, c.metric, c.method, c.organ)), said)
        for c, said in zip(comparisons, sentences, strict=True)
    ]
    return csv_table(head, lines)
