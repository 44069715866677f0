"""Every row against every other, case by case: a matrix of differences and Holm-corrected p-values.

The pairs of one table (direction x metric) are one family of Holm's correction, apart from that of `comparisons`, which are
fewer and named beforehand.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from attent_kit.report import significance
from attent_kit.report.intervals import paired_differences, values
from attent_kit.report.metrics import METRICS
from attent_kit.report.rows import csv_of
from attent_kit.report.scores import Score


class RowPair(NamedTuple):
    """Two rows on the cases that both have, by the average of organs."""

    direction: str
    metric: str
    row: str
    column: str
    cases: int
    difference: float
    """Row minus column, mean over cases; NaN where they cannot be compared."""
    p: float
    """Wilcoxon signed-rank, two-sided."""
    holm: float
    family: int
    """Pairs that Holm's correction is over."""
    rank_biserial: float
    smallest_p: float
    """The smallest that p could be with so many cases, and after Holm's correction, whatever the scores."""
    smallest_holm: float


def all_pairs(scores: Iterable[Score], labels: Sequence[str], directions: Iterable[str]) -> list[RowPair]:
    """Each pair of rows once, in the order of `labels`, for each direction and metric that has two rows."""
    scores, made = list(scores), []
    for direction in directions:
        for metric, unit in ((found.name, found.unit) for found in METRICS):
            own = (score for score in scores if score.direction == direction)
            rows = {label: row for (_, label), row in values(own, metric, unit).items()}
            found = []
            for row, column in combinations([label for label in labels if label in rows], 2):
                pairs = paired_differences(rows[row], rows[column])
                d = pairs.differences
                mean = float(d.mean()) if d.size else math.nan
                p, r = significance.signed_rank(d), significance.rank_biserial(d)
                least = significance.smallest_p(len(d)) if d.size else math.nan
                found.append(RowPair(direction, metric, row, column, len(d), mean, p, math.nan, 0, r, least, math.nan))
            tested = sum(not math.isnan(pair.p) for pair in found)
            corrected = significance.holm([pair.p for pair in found])
            least_corrected = significance.holm([pair.smallest_p for pair in found])
            for pair, p, least in zip(found, corrected, least_corrected, strict=True):
                made.append(pair._replace(holm=p, family=tested, smallest_holm=least))
    return made


def pairs_csv(pairs: Iterable[RowPair]) -> str:
    """One line per pair, unrounded."""
    return csv_of(RowPair, pairs)
