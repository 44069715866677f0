"""Tests of significance against counts by hand, scipy and statsmodels, and against what the AttENT slides print."""

import itertools
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from attent_kit.report.significance import (
    EXACT_FLIPS,
    EXACT_RANKS,
    cliques,
    cohen_dz,
    friedman,
    holm,
    rank_biserial,
    sign_flip,
    signed_rank,
    slide_test,
    smallest_p,
)

NAN = math.nan


def differences(n, seed, decimals=8):
    return np.round(np.random.default_rng(seed).normal(0.5, 1, n), decimals)


# Wilcoxon's signed-rank test


def test_the_signed_rank_p_is_a_count_of_signs():
    assert signed_rank([1, 2, 3]) == 0.25  # 2 of 8
    # Rank sum 5 is against. At most 5 are: none, 1, 2, 3, 1+2, 4, 1+3, 5, 1+4, 2+3: 10 of 32, and as many at the other end.
    assert signed_rank([1, 2, 3, 4, -5]) == 20 / 32
    assert signed_rank([-1, 2]) == 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 15, 40])
def test_without_ties_the_signed_rank_p_is_scipys(n):
    for seed in range(5):
        d = differences(n, seed)
        assert signed_rank(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-10)


def test_tied_differences_share_their_rank_and_p_stays_exact():
    # Ranks 2, 2, 4 and 2; 2 is against. At most 2 are: none, and each of three twos: 4 of 16, twice.
    assert signed_rank([1, 1, 2, -1]) == 0.5
    for seed in range(20):
        d = np.round(np.random.default_rng(seed).normal(0.5, 1, 7), 0)
        d = d[d != 0]
        ranks = stats.rankdata(np.abs(d))
        seen = abs((ranks * np.sign(d)).sum())
        as_far = [abs((ranks * signs).sum()) >= seen for signs in itertools.product((-1, 1), repeat=len(d))]
        assert signed_rank(d) == pytest.approx(np.mean(as_far)), d


def test_zeros_are_dropped_and_rounding_makes_no_order():
    assert signed_rank([0, 1, 0, 2, 3]) == signed_rank([1, 2, 3]) == 0.25
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the 17th digit. Tied with them, the third has rank 2 of 2, 2, 2, not 1 or 3.
    assert signed_rank([0.3 - 0.2, 0.2 - 0.1, -0.1]) == signed_rank([1, 1, -1]) == 1.0
    assert signed_rank([0.0, 0.3 - 0.2 - 0.1]) == sign_flip([0.0, 0.3 - 0.2 - 0.1]) == 1.0


def test_many_differences_are_tested_by_the_normal_approximation_which_is_then_close():
    d = np.random.default_rng(0).normal(0.1, 1, EXACT_RANKS + 1)
    assert signed_rank(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, abs=1e-3)
    assert signed_rank(d) != stats.wilcoxon(d, method="exact").pvalue


# Permutation of signs


def test_the_permutation_p_is_a_count_of_signs():
    assert sign_flip([1, 2, 3]) == 2 / 8
    # Sums of 3, 1 and 1: 5, 3, 3 and 1, and as many below zero. Six of eight are at least 3 away from it.
    assert sign_flip([3, 1, -1]) == 6 / 8
    assert sign_flip([0, 3, 1, 0, -1]) == 6 / 8


@pytest.mark.parametrize("n", [3, 6, 10])
def test_the_permutation_p_is_scipys(n):
    for seed in range(3):
        d = differences(n, seed)
        theirs = stats.permutation_test(
            (d, np.zeros(n)), lambda x, y, axis: np.mean(x - y, axis), permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip(d) == pytest.approx(theirs.pvalue, rel=1e-10)


def test_of_whole_numbers_from_1_to_n_both_tests_count_the_same():
    for n in (10, EXACT_FLIPS):
        d = np.arange(1, n + 1) * np.where(np.arange(n) % 3 == 0, -1, 1)
        assert sign_flip(d) == pytest.approx(signed_rank(d), rel=1e-10)
    # Above EXACT_FLIPS signs are random: 99,999 of them have a standard error below 0.0016.
    d = np.arange(1, 31) * np.where(np.arange(30) % 3 == 0, -1, 1)
    assert sign_flip(d) == pytest.approx(signed_rank(d), abs=0.006)
    assert sign_flip(d) == sign_flip(d) and sign_flip(d) != signed_rank(d)


def test_no_random_p_is_zero():
    assert sign_flip([1.0] * 60, flips=999) == 1 / 1000


# What n can reach, correction, effect sizes


def test_no_n_can_go_below_its_smallest_p():
    assert [smallest_p(n) for n in (1, 3, 5, 6)] == [1, 0.25, 0.0625, 0.03125]
    for n in range(1, 12):
        d = np.arange(1, n + 1)
        assert signed_rank(d) == sign_flip(d) == smallest_p(n)


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []


def test_what_could_not_be_tested_is_not_corrected_for():
    first, second, third = holm([0.01, NAN, 0.04])
    assert (first, third) == pytest.approx((0.02, 0.04)) and math.isnan(second)


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).uniform(0, 0.2, 25)
    assert holm(p.tolist()) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_the_rank_biserial_correlation_is_ranks_for_less_ranks_against():
    assert rank_biserial([1, 2, 3]) == 1 and rank_biserial([-1, -2]) == -1
    assert rank_biserial([1, 2, -3]) == 0
    assert rank_biserial([-1, 2, 3, 0]) == pytest.approx((5 - 1) / 6)


def test_d_z_is_the_mean_difference_in_sample_sds():
    assert cohen_dz([1, 2, 3]) == 2.0
    assert cohen_dz([-2, 0, -1]) == -1.0


def test_what_has_no_answer_is_not_a_number_or_p_one():
    assert all(math.isnan(f([])) for f in (signed_rank, sign_flip, rank_biserial, cohen_dz))
    assert signed_rank([0, 0, 0]) == sign_flip([0, 0, 0]) == 1.0
    assert math.isnan(rank_biserial([0, 0])) and math.isnan(cohen_dz([0.5])) and math.isnan(cohen_dz([0.1, 0.3 - 0.2]))
    assert smallest_p(0) == 1.0


# Ranks

DEMSAR = [
    (4, 3, 2, 1), (1, 2, 3, 4), (4, 1, 2, 3), (4, 1, 3, 2), (4, 2, 3, 1), (1, 2.5, 4, 2.5), (3, 2, 4, 1),
    (2.5, 2.5, 4, 1), (4, 3, 2, 1), (2.5, 2.5, 2.5, 2.5), (4, 2.5, 1, 2.5), (3, 2, 4, 1), (4, 1, 2, 3), (3, 1, 4, 2),
]  # fmt: skip
"""Ranks of four learners on 14 data sets: table 6 of Demsar, JMLR 7, 2006, whose text says what they come to."""


def test_demsars_example_comes_out_as_he_prints_it():
    ranking = friedman(np.array(DEMSAR), higher_is_better=False)
    assert [round(rank, 3) for rank in ranking.ranks] == [3.143, 2.0, 2.893, 1.964]
    assert round(ranking.critical_difference, 2) == 1.25
    # He prints 9.28 without the correction for ties, which divides by the share of variance that ties leave: of 14 x 5,
    # the last of all tied takes 5 and the two pairs of one tie each 0.5.
    pairs = sum(len(set(row)) == 3 for row in DEMSAR)
    assert pairs == 3
    assert ranking.chi_square * (1 - (5 + 0.5 * pairs) / 70) == pytest.approx(9.28, abs=0.01)


@pytest.mark.parametrize("decimals", [8, 0])
def test_friedmans_statistic_is_scipys(decimals):
    table = np.round(np.random.default_rng(3).normal(size=(9, 5)) + np.arange(5), decimals)
    ranking = friedman(table)
    theirs = stats.friedmanchisquare(*table.T)
    assert (ranking.chi_square, ranking.p) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_critical_differences_are_those_of_demsars_table():
    # q at 0.05 for 3 to 10 rows. With six cases CD is q sqrt(k (k + 1)) / 6.
    for k, q in enumerate((2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164), start=3):
        found = friedman(np.random.default_rng(k).normal(size=(6, k))).critical_difference
        assert found == pytest.approx(q * math.sqrt(k * (k + 1)) / 6, rel=3e-4)


def test_the_permuted_p_is_the_share_of_orders_as_far_apart():
    # Two cases that agree on three rows: 6 of 36 pairs of orders agree. The chi-square says 0.135.
    ranking = friedman(np.array([[1, 2, 3], [1, 2, 3]]))
    assert ranking.ranks == (3, 2, 1) and ranking.chi_square == 4
    assert ranking.permuted_p == pytest.approx(1 / 6, abs=0.015)
    assert ranking.p == pytest.approx(math.exp(-2))


def test_the_best_rank_is_1_whichever_way_is_better():
    table = np.array([[0.9, 0.5, 0.7], [0.8, 0.6, 0.7]])
    assert friedman(table).ranks == (1, 3, 2)
    assert friedman(table, higher_is_better=False).ranks == (3, 1, 2)


def test_rows_that_always_tie_have_one_rank_and_no_statistic():
    ranking = friedman(np.full((4, 3), 0.5))
    assert ranking.ranks == (2, 2, 2) and (ranking.p, ranking.permuted_p) == (1, 1)
    assert math.isnan(ranking.chi_square)


def test_bars_join_the_largest_sets_within_the_critical_difference():
    assert cliques([1, 1.5, 3, 3.5], 1.6) == [(0, 1), (1, 2), (2, 3)]
    assert cliques([3.5, 1, 3, 1.5], 2.1) == [(1, 3, 2), (3, 2, 0)]  # best first
    assert cliques([1, 2, 3], 0.9) == []
    assert cliques([1, 2, 3], 5) == [(0, 1, 2)]


# The test of the AttENT slides

ABLATION = {
    table["metric"]: {label: (*values, *table["spread"][label]) for label, values in table["rows"].items()}
    for table in tomllib.loads((Path(__file__).parent.parent / "benchmarks" / "published.toml").read_text("utf-8"))[
        "tables"
    ]
    if "ablation" in table.get("citation", "")
}
"""Mean and SD as printed, by metric and row."""

# Eleven of the fourteen p-values that the slides print under their ablation (Li et al., BIBM 2021): Dice is of CT to MR,
# ASSD of MR to CT. Three are not known to us: Feature against Entropy in both, Entropy against AttENT in ASSD.
WITHIN_ROUNDING = [
    ("assd", "W/o adaptation", "CycleGAN", 0.0018),
    ("assd", "W/o adaptation", "Feature", 0.0281),
    ("assd", "W/o adaptation", "AttENT", 0.0003),
    # Of these two we know that both are printed, and not which is which: either fits either.
    ("assd", "CycleGAN", "Pixel", 0.3827),
    ("assd", "CycleGAN", "Pixel", 0.3895),
    ("assd", "Pixel", "AttENT", 0.3827),
    ("assd", "Pixel", "AttENT", 0.3895),
    ("dice", "Pixel", "AttENT", 0.4524),
    ("dice", "Entropy", "AttENT", 0.0019),
]
WITHIN_FIVE_PERCENT = [
    ("dice", "W/o adaptation", "CycleGAN", 0.0113),
    ("dice", "W/o adaptation", "Feature", 0.0149),
    ("dice", "W/o adaptation", "AttENT", 0.0078),
]
FITS_NOT = ("dice", "CycleGAN", "Pixel", 0.0283)


def computed(metric, worse, better):
    """p of the means and SDs as printed, and the lowest and highest that mean and SD may come to before their rounding."""
    mean, sd, other_mean, other_sd = (*ABLATION[metric][better], *ABLATION[metric][worse])
    corners = [
        slide_test(mean + a, sd + b, other_mean + c, other_sd + d, higher_is_better=metric == "dice")
        for a, b, c, d in itertools.product((-0.005, 0.005), repeat=4)
    ]
    return (
        slide_test(mean, sd, other_mean, other_sd, higher_is_better=metric == "dice"),
        min(corners) - 0.00005,
        max(corners) + 0.00005,
    )


@pytest.mark.parametrize(("metric", "worse", "better", "printed"), WITHIN_ROUNDING)
def test_printed_p_values_lie_within_the_rounding_of_mean_and_sd(metric, worse, better, printed):
    _, lowest, highest = computed(metric, worse, better)
    assert lowest <= printed <= highest


@pytest.mark.parametrize(("metric", "worse", "better", "printed"), WITHIN_FIVE_PERCENT)
def test_printed_p_values_against_the_dice_of_wo_adaptation_lie_within_five_percent(metric, worse, better, printed):
    p, lowest, highest = computed(metric, worse, better)
    assert not lowest <= printed <= highest
    assert p == pytest.approx(printed, rel=0.05)


def test_one_printed_p_value_does_not_fit():
    metric, worse, better, printed = FITS_NOT
    p, _, _ = computed(metric, worse, better)
    assert round(p, 4) == 0.0372
    assert p > 1.25 * printed


def test_two_sided_and_sample_sds_do_not_give_what_is_printed():
    for metric, worse, better, printed in WITHIN_ROUNDING[3:8]:
        (mean, sd), (other_mean, other_sd) = ABLATION[metric][better], ABLATION[metric][worse]
        sample = stats.ttest_ind_from_stats(mean, sd, 3, other_mean, other_sd, 3)
        assert sample.pvalue > 1.5 * printed
        _, lowest, highest = computed(metric, worse, better)
        assert not lowest <= sample.pvalue / 2 <= highest


def test_the_slides_test_is_students_t_of_the_values():
    row, other = [0.80, 0.84, 0.79], [0.70, 0.78]
    groups = (np.mean(row), np.std(row), np.mean(other), np.std(other), 3, 2)
    assert slide_test(*groups) == pytest.approx(stats.ttest_ind(row, other, alternative="greater").pvalue)
    assert slide_test(*groups, higher_is_better=False) == pytest.approx(1 - slide_test(*groups))
    # Means 1 apart, both population SDs sqrt(0.5): sample variance 0.75, t = 1 / sqrt(0.5) with 4 degrees of freedom.
    assert slide_test(1, math.sqrt(0.5), 0, math.sqrt(0.5)) == pytest.approx(stats.t.sf(math.sqrt(2), 4))


def test_the_slides_test_has_no_answer_for_one_value_or_no_spread():
    assert math.isnan(slide_test(1, NAN, 0, 0.1, n=1)) and math.isnan(slide_test(1, 0.1, 0, NAN, 3, 1))
    assert math.isnan(slide_test(1, 0, 0, 0)) and math.isnan(slide_test(NAN, 0.1, 0, 0.1))
