"""Paired tests of two rows, their correction and effect sizes; ranks of several rows; the test of the AttENT slides.

A paired test asks about cases: would other patients tell these two rows apart? Its n is the number of cases, however many
seeds there are.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8
"""Chance to find a difference that is called detectable."""
EXACT_RANKS = 200
"""Differences up to which the signed-rank test is exact."""
EXACT_FLIPS = 20
"""Differences up to which the permutation test tries all signs: 2^20 of them."""
FLIPS = 99_999
"""Random signs of the permutation test above that."""
DIGITS = 12
"""Differences are rounded to so many decimals, so that 0.3 - 0.2 and 0.2 - 0.1 are tied."""


def signed_rank(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test; NaN without differences, 1 if all of them are zero.

    Zeros are dropped, as by Wilcoxon (1945), and tied differences share the mean of their ranks. Up to EXACT_RANKS
    differences the p is exact, given these ranks, with ties too: the distribution of the rank sum over all 2^n signs.
    Above, the normal approximation with its correction for ties.
    """
    d = _rounded(differences)
    if not d.size:
        return math.nan
    d = d[d != 0]
    if not d.size:
        return 1.0
    if d.size > EXACT_RANKS:
        return float(stats.wilcoxon(d, method="asymptotic").pvalue)
    # Doubled, ranks are whole numbers even where two share one.
    ranks = np.rint(2 * stats.rankdata(np.abs(d))).astype(int)
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] = chances[rank:] / 2 + chances[:-rank] / 2
        chances[:rank] /= 2
    smaller = min(ranks[d > 0].sum(), ranks[d < 0].sum())
    return float(min(1.0, 2 * chances[: smaller + 1].sum()))


def sign_flip(differences: Sequence[float] | np.ndarray, flips: int = FLIPS, seed: int = 0) -> float:
    """Two-sided p of the paired permutation test of the mean difference; NaN without differences, 1 if all are zero.

    If the rows were the same, each difference could as well have the other sign. p is the share of signs whose sum is
    at least as far from zero as what was seen: of all 2^n signs up to EXACT_FLIPS differences that are not zero, which
    is exact; above, (k + 1) / (flips + 1) of `flips` random ones (Phipson and Smyth, 2010), the same each time.
    """
    d = _rounded(differences)
    if not d.size:
        return math.nan
    d = d[d != 0]
    # Sums of the same numbers in another order differ in their last bits.
    seen = abs(d.sum()) - 1e-9 * np.abs(d).sum()
    if d.size <= EXACT_FLIPS:
        sums = np.zeros(1)
        for x in d:
            sums = np.concatenate((sums + x, sums - x))
        return float(np.mean(np.abs(sums) >= seen))
    rng = np.random.default_rng(seed)
    as_far, left = 1, flips
    while left:
        some = min(left, 10_000)
        signs = 1.0 - 2.0 * rng.integers(0, 2, (some, d.size), dtype=np.int8)
        as_far += int((np.abs(signs @ d) >= seen).sum())
        left -= some
    return as_far / (flips + 1)


def smallest_p(cases: int) -> float:
    """The smallest two-sided p that either paired test can have with so many cases: all differences of one sign."""
    return 2.0 ** (1 - cases) if cases > 0 else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm, 1979), in the order given. NaN is not a test: it stays, and does not count."""
    tested = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected, highest = list(p), 0.0
    for done, (value, i) in enumerate(tested):
        highest = max(highest, min(1.0, value * (len(tested) - done)))
        corrected[i] = highest
    return corrected


def rank_biserial(differences: Sequence[float] | np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby, 2014): the share of the rank sum that is for, less that against.

    1 if the row is above the reference in every case, -1 if below, 0 where the ranks balance; zeros dropped, NaN if
    nothing is left.
    """
    d = _rounded(differences)
    d = d[d != 0]
    if not d.size:
        return math.nan
    ranks = stats.rankdata(np.abs(d))
    return float((ranks * np.sign(d)).sum() / ranks.sum())


def cohen_dz(differences: Sequence[float] | np.ndarray) -> float:
    """Mean difference in sample SDs of the differences (Cohen, 1988); NaN for fewer than two, or if all are equal."""
    d = _rounded(differences)
    if d.size < 2 or np.ptp(d) == 0:
        return math.nan
    return float(d.mean() / d.std(ddof=1))


def power_of_t(d_z: float, cases: int, alpha: float = ALPHA) -> float:
    """Chance that a two-sided paired t-test finds a mean difference of so many SDs of the differences; 0 for one case.

    P(|T| > t(1 - alpha/2)) for T of the noncentral t distribution with n - 1 degrees of freedom and noncentrality
    d_z sqrt(n) (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988). Of normal differences; the signed-rank
    test takes up to 5 % more cases for the same (asymptotic efficiency 3/pi: Hodges and Lehmann, 1956).
    """
    if cases < 2 or d_z == 0:
        return alpha if cases > 1 else 0.0
    # T squared is of the noncentral F distribution, whose two tails are one; scipy's noncentral t has NaN for few cases.
    return float(stats.ncf.sf(stats.f.isf(alpha, 1, cases - 1), 1, cases - 1, cases * d_z**2))


def detectable(cases: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest d_z that `power_of_t` finds with that power; infinite for one case."""
    if cases < 2:
        return math.inf
    enough = 1.0
    while power_of_t(enough, cases, alpha) < power:
        enough *= 2
    return float(optimize.brentq(lambda d_z: power_of_t(d_z, cases, alpha) - power, 0, enough))


def p_text(p: float) -> str:
    """0.25, 0.0312, < 0.001."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3g}"


class Ranking(NamedTuple):
    """Several rows on the same cases."""

    ranks: tuple[float, ...]
    """Average rank of each row over the cases; 1 is best, rows that tie share the mean of their ranks."""
    cases: int
    chi_square: float
    """Friedman's statistic, corrected for ties; NaN if all rows tie in every case."""
    p: float
    """By the chi-square distribution with rows - 1 degrees of freedom, which is rough for few cases."""
    permuted_p: float
    """Share of 9,999 random orders of the rows within each case that have as high a statistic, and of what was seen."""
    critical_difference: float
    """Average ranks this far apart differ at 0.05, whichever two rows one looks at (Nemenyi)."""


def friedman(table: np.ndarray, higher_is_better: bool = True, orders: int = 9_999, seed: int = 0) -> Ranking:
    """Friedman's test, and Nemenyi's critical difference as in Demsar (JMLR 7, 2006), of values [cases, rows].

    CD = q sqrt(k (k + 1) / (6 N)) for k rows and N cases, where q is the 0.95 quantile of the studentized range of k
    with infinitely many degrees of freedom, over sqrt(2). For at least three rows and two cases.
    """
    table = np.round(np.asarray(table, float), DIGITS)
    cases, rows = table.shape
    if rows < 3 or cases < 2:
        raise ValueError("Ranks are tested of at least three rows on at least two cases.")
    ranks = stats.rankdata(-table if higher_is_better else table, axis=1)
    q = stats.studentized_range.ppf(1 - ALPHA, rows, np.inf) / math.sqrt(2)
    critical = float(q * math.sqrt(rows * (rows + 1) / (6 * cases)))
    averages = tuple(float(rank) for rank in ranks.mean(axis=0))
    if np.ptp(ranks, axis=1).max() == 0:
        return Ranking(averages, cases, math.nan, 1.0, 1.0, critical)

    chi_square, p = stats.friedmanchisquare(*ranks.T)

    def between(sums: np.ndarray) -> np.ndarray:
        return ((sums - cases * (rows + 1) / 2) ** 2).sum(axis=-1)

    rng = np.random.default_rng(seed)
    seen, as_high = between(ranks.sum(axis=0)) - 1e-9, 1
    sums = np.zeros((orders, rows))
    for case in ranks:
        sums += rng.permuted(np.tile(case, (orders, 1)), axis=1)
    as_high += int((between(sums) >= seen).sum())
    return Ranking(averages, cases, float(chi_square), float(p), as_high / (orders + 1), critical)


def cliques(ranks: Sequence[float], critical_difference: float) -> list[tuple[int, ...]]:
    """The largest sets of rows, of two or more, that lie within the critical difference: the bars of Demsar's diagram."""
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])
    found: list[tuple[int, ...]] = []
    last = 0
    for start in range(len(order)):
        end = max(
            n for n in range(start, len(order)) if ranks[order[n]] - ranks[order[start]] <= critical_difference + 1e-9
        )
        if end > start and end + 1 > last:
            found.append(tuple(order[start : end + 1]))
        last = max(last, end + 1)
    return found


def slide_test(
    mean: float, sd: float, reference_mean: float, reference_sd: float,
    n: int = 3, reference_n: int | None = None, higher_is_better: bool = True,
) -> float:  # fmt: skip
    """One-sided p that a row is better than the reference, as the slides of AttENT (BIBM 2021) seem to have computed it.

    Student's t with pooled variance between two groups of n = 3 values, with `sd` their population SD (ddof 0). The slides
    do not say which test they used: of the printed p-values of their ablation, this one fits all but one, the two-sided
    and Welch's do not. NaN if neither group varies or one has a single value.
    """
    other = n if reference_n is None else reference_n
    if n < 2 or other < 2:
        return math.nan
    if not sd**2 + reference_sd**2 > 0:
        return math.nan
    sample, other_sample = sd * math.sqrt(n / (n - 1)), reference_sd * math.sqrt(other / (other - 1))
    better = "greater" if higher_is_better else "less"
    return float(
        stats.ttest_ind_from_stats(mean, sample, n, reference_mean, other_sample, other, alternative=better).pvalue
    )


def _rounded(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.round(np.asarray(differences, float), DIGITS)
