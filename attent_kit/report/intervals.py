"""Bootstrap intervals of a mean over cases and seeds, and of the difference of two rows.

Every seed's network segments every case, so cases are crossed with seeds, not nested in them: a hard case is hard for all
seeds, and a poor seed is poor on all cases. A resample therefore draws cases with replacement and, independently of that,
seeds with replacement, and takes every drawn case under every drawn seed: the pigeonhole bootstrap of Owen, Annals of
Applied Statistics 1(2), 2007. Drawing scores one by one would treat the scores of a case as if they were as many patients.

The interval lies between percentiles of the resampled means. It is not BCa: its acceleration is a jackknife over
independent units, which crossed scores do not have, and with few cases it rests on a handful of values.

With n cases the variance of a resampled mean is (n - 1)/n of what it should be, and percentiles know no Student t, so an
interval of few cases is too short (Hesterberg, The American Statistician 69(4), 2015). Of normal scores, in which cases
differ twice as much as seeds do and as what is left, "95 %" holds the truth this often: 3 cases x 2 seeds 83 %, 6 x 3 89 %,
20 x 5 92 %; with 20 cases x 1 seed 57 %, since one seed does not show what seeds differ by.

    C cases, S seeds, O organs, R resamples
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from attent_kit.errors import ConfigError, DataError
from attent_kit.report.scores import AVERAGE, Score

RESAMPLES = 10_000


class Values(NamedTuple):
    """One metric of one row in one direction."""

    array: np.ndarray
    """[C, S, O]; NaN where there is no score, or the metric is not defined."""
    cases: tuple[str, ...]
    """In the order of their names, so that no result depends on the order of the rows of a file."""
    seeds: tuple[int | None, ...]
    """A single None of label maps that no run has made."""
    organs: tuple[str, ...]
    asked: frozenset[tuple[str, str]]
    """Cases with organs of which there is a row at all: there is none where the case does not annotate the organ."""

    @property
    def runs(self) -> int | None:
        """How many seeds it has; None of label maps that no run has made."""
        return None if self.seeds == (None,) else len(self.seeds)

    @property
    def has_every_organ(self) -> bool:
        """Whether each organ has a value in some case; only then is there an average."""
        return bool(np.isfinite(self.array).any(axis=(0, 1)).all())

    def of(self, organ: str) -> np.ndarray:
        """The organ alone, or all of them for the average: [C, S, 1] or [C, S, O]."""
        if organ == AVERAGE:
            return self.array
        if organ not in self.organs:
            raise ConfigError(f"There are no scores of '{organ}'. There are: {', '.join((*self.organs, AVERAGE))}.")
        return self.array[:, :, [self.organs.index(organ)]]


class Interval(NamedTuple):
    """Where 95 % of the resampled means lie; NaN where there are fewer than two cases to resample."""

    low: float
    high: float


def values(scores: Iterable[Score], metric: str, unit: str) -> dict[tuple[str, str], Values]:
    """Scores as arrays by (direction, row). All rows of a direction have its organs, in order of appearance."""
    rows: dict[tuple[str, str], dict[tuple[str, int | None, str], float]] = {}
    organs: dict[str, dict[str, None]] = {}
    for score in scores:
        if (score.metric, score.unit) != (metric, unit):
            continue
        cells = rows.setdefault((score.direction, score.alignment), {})
        place = (score.case, score.seed, score.organ)
        if place in cells:
            raise DataError(
                f"Two scores for {score.alignment}, {score.direction}, {', '.join(map(str, place))}, {metric}. Give each "
                "scores file once."
            )
        cells[place] = score.value
        organs.setdefault(score.direction, {})[score.organ] = None
    found = {}
    for key, cells in rows.items():
        cases = tuple(sorted({case for case, _, _ in cells}))
        seeds = tuple(sorted({seed for _, seed, _ in cells}, key=lambda seed: -1 if seed is None else seed))
        names = tuple(organs[key[0]])
        array = [[[cells.get((case, seed, organ), math.nan) for organ in names] for seed in seeds] for case in cases]
        asked = frozenset((case, organ) for case, _, organ in cells)
        found[key] = Values(np.array(array, float), cases, seeds, names, asked)
    return found


def mean_interval(
    row: Values,
    organ: str = AVERAGE,
    over: Literal["seeds", "cases"] = "cases",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """95 % interval of what `summarise` calls the mean of an organ, or of the average of organs.

    `over` as there: it matters only where scores are missing. The average has no interval if an organ has no score. The
    same scores give the same interval, whichever rows stand beside them.
    """
    array = row.of(organ)
    if len(row.cases) < 2 or not np.isfinite(array).any(axis=(0, 1)).all():
        return Interval(math.nan, math.nan)
    outer, inner = _draws(array.shape[:2], resamples, seed)
    if over == "seeds":
        array, outer, inner = array.transpose(1, 0, 2), inner, outer
    means = [_mean(_inner_means(array[:, :, o], inner), outer) for o in range(array.shape[2])]
    return percentiles(np.mean(means, axis=0))


def difference_interval(
    row: Values, reference: Values, organ: str = AVERAGE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """95 % interval of the mean over cases of `paired_differences`.

    Both rows are drawn on the same cases. They are drawn with the same seeds where they have the same, since rows of one
    seed share their first weights, their batches and often a stage; else with seeds of their own.
    """
    a, b, common = _on_common_cases(row, reference, organ)
    if len(common) < 2:
        return Interval(math.nan, math.nan)
    of_cases, of_seeds, of_others = _draws((*a.shape[:2], b.shape[1]), resamples, seed)
    if row.seeds == reference.seeds:
        of_others = of_seeds
    total, count = np.zeros(of_cases.shape), np.zeros(of_cases.shape)
    for o in range(a.shape[2]):
        difference = _inner_means(a[:, :, o], of_seeds) - _inner_means(b[:, :, o], of_others)
        known = np.isfinite(difference)
        total += np.where(known, difference, 0.0)
        count += known
    return percentiles(_mean(_ratio(total, count), of_cases))


class PairedDifferences(NamedTuple):
    """Two rows, case by case."""

    cases: tuple[str, ...]
    """Cases with a difference."""
    differences: np.ndarray
    """Row minus reference, one for each of `cases`."""
    left_out: tuple[str, ...]
    """Cases of either row without one: only one row has them, or no organ of theirs has a value in both."""
    without: tuple[str, ...]
    """Organs without a value in both rows in any case. The average is not compared if there is one."""
    undefined: tuple[int, int]
    """Values of the row and of the reference that are NaN or not there, in the cases that both have."""
    total: tuple[int, int]
    """Values that each would have there: cases x seeds x organs, without organs that a case does not annotate."""


def paired_differences(row: Values, reference: Values, organ: str = AVERAGE) -> PairedDifferences:
    """The value of a case is its mean over seeds; for the average, then over the organs with a value in both rows."""
    a, b, common = _on_common_cases(row, reference, organ)
    by_organ = seed_means(a) - seed_means(b)
    known = np.isfinite(by_organ)
    names = row.organs if organ == AVERAGE else (organ,)
    without = tuple(name for name, any_case in zip(names, known.any(axis=0), strict=True) if not any_case)
    kept = known.any(axis=1) & (not without)
    differences = np.where(known, by_organ, 0.0).sum(axis=1)[kept] / known.sum(axis=1)[kept]
    cases = tuple(case for case, keep in zip(common, kept, strict=True) if keep)
    asked = row.asked | reference.asked
    left_out = tuple(sorted({case for case, name in asked if name in names} - {*cases}))
    wanted = np.array([[(case, name) in asked for name in names] for case in common], bool).reshape(-1, 1, len(names))
    undefined = (int((wanted & ~np.isfinite(a)).sum()), int((wanted & ~np.isfinite(b)).sum()))
    total = int(wanted.sum())
    return PairedDifferences(cases, differences, left_out, without, undefined, (total * a.shape[1], total * b.shape[1]))


def case_values(rows: Sequence[Values]) -> tuple[tuple[str, ...], np.ndarray]:
    """Cases that all rows have, and the average of each: [C, rows], the mean over seeds, then over organs.

    An organ counts in a case only if it has a value there in all rows, and a case only if it has such an organ.
    """
    common = tuple(case for case in rows[0].cases if all(case in row.cases for row in rows))
    means = np.stack([seed_means(row.array[[row.cases.index(case) for case in common]]) for row in rows], axis=1)
    known = np.isfinite(means).all(axis=1, keepdims=True)
    kept = known.any(axis=2)[:, 0]
    averages = np.where(known, means, 0.0).sum(axis=2)[kept] / known.sum(axis=2)[kept]
    return tuple(case for case, keep in zip(common, kept, strict=True) if keep), averages


def resampled_means(table: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means over cases drawn with replacement, the same draw for all columns: [C, rows] -> [R, rows]."""
    (drawn,) = _draws((len(table),), resamples, seed)
    return drawn @ table / len(table)


def _on_common_cases(row: Values, reference: Values, organ: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    common = tuple(case for case in row.cases if case in reference.cases)
    a = row.of(organ)[[row.cases.index(case) for case in common]]
    b = reference.of(organ)[[reference.cases.index(case) for case in common]]
    return a, b, common


@lru_cache(maxsize=8)
def _draws(sizes: tuple[int, ...], resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    """How often each unit is drawn, for each of `sizes`: [R, size]. Kept, as all rows of a table draw the same."""
    rng = np.random.default_rng(seed)
    return tuple(rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(float) for size in sizes)


def _inner_means(array: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[outer, inner], [R, inner] -> [R, outer]: weighted means of what is there, NaN where nothing is."""
    known = np.isfinite(array)
    return _ratio(weights @ np.where(known, array, 0.0).T, weights @ known.T)


def _mean(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[R, outer], [R, outer] -> [R]."""
    known = np.isfinite(means)
    return _ratio((weights * np.where(known, means, 0.0)).sum(axis=1), (weights * known).sum(axis=1))


def seed_means(array: np.ndarray) -> np.ndarray:
    """Mean over the seeds that have a value, [C, S, O] -> [C, O]; NaN where none has."""
    known = np.isfinite(array)
    return _ratio(np.where(known, array, 0.0).sum(axis=1), known.sum(axis=1))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(np.shape(total), math.nan), where=count > 0)


def percentiles(means: np.ndarray) -> Interval:
    """Resamples that drew nothing with a value are left out."""
    known = means[np.isfinite(means)]
    if not known.size:
        return Interval(math.nan, math.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))
