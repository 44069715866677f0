"""Bootstrap intervals over cases crossed with seeds: the few resamples of small examples counted by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from attent_kit.errors import ConfigError, DataError
from attent_kit.report.intervals import (
    Interval,
    Values,
    case_values,
    difference_interval,
    mean_interval,
    paired_differences,
    values,
)
from attent_kit.report.scores import AVERAGE, Score, summarise


def row(array, organs=("liver",), cases=None, seeds=None):
    """Values of [C][S], one organ, or of [C][S][O]."""
    array = np.array(array, float)
    array = array[..., None] if array.ndim == 2 else array
    n_cases, n_seeds, _ = array.shape
    cases = tuple(cases or (f"c{i}" for i in range(n_cases)))
    asked = frozenset((case, organ) for case in cases for organ in organs)
    return Values(array, cases, tuple(seeds or range(n_seeds)), organs, asked)


def score(case, seed, organ, value, alignment="A", direction="mr2ct", metric="dice"):
    return Score(alignment, direction, seed, case, organ, metric, value, "fraction")


NAN = math.nan


def test_three_seeds_do_not_make_three_patients_of_one():
    # Of two cases, both draws are the first in 1 of 4 resamples and the second in 1 of 4: well beyond 2.5 %. Were the six
    # scores drawn one by one, six times the same case would come in 1 of 64, and the interval would be shorter.
    assert mean_interval(row([[0, 0, 0], [1, 1, 1]])) == Interval(0, 1)


def test_seeds_are_drawn_as_well_as_cases():
    assert mean_interval(row([[0, 1], [0, 1]])) == Interval(0, 1)
    assert mean_interval(row([[0.25, 0.25], [0.25, 0.25]])) == Interval(0.25, 0.25)


def test_an_interval_lies_between_the_percentiles_of_the_resampled_means():
    # How often the fourth of four cases is drawn is binomial (4, 1/4): never in 32 %, more than three times in 0.4 %, more
    # than twice in 5.1 %. Its 97.5th percentile is 3, and the mean of 0, 0, 0 and 4 is that number.
    assert mean_interval(row([[0], [0], [0], [4]])) == Interval(0, 3)


def test_with_one_seed_the_interval_is_scipys():
    cases = np.random.default_rng(0).normal(size=12)
    theirs = stats.bootstrap((cases,), np.mean, method="percentile", n_resamples=100_000, rng=np.random.default_rng(1))
    ours = mean_interval(row(cases[:, None]), resamples=100_000)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_the_average_is_of_organs_and_has_no_interval_without_one():
    both = row([[[0.2, 0.6]], [[0.4, 0.8]]], ("liver", "spleen"))
    assert mean_interval(both, AVERAGE) == pytest.approx((0.4, 0.6))
    assert mean_interval(both, "spleen") == pytest.approx((0.6, 0.8))
    never = row([[[0.2, NAN]], [[0.4, NAN]]], ("liver", "spleen"))
    assert mean_interval(never, "liver") == pytest.approx((0.2, 0.4))
    assert all(math.isnan(end) for name in (AVERAGE, "spleen") for end in mean_interval(never, name))


def test_a_missing_score_is_left_out_of_the_means():
    # The second case has no score under the first seed, and 1 under the second. Whatever is drawn, what is there is 1.
    for over in ("cases", "seeds"):
        assert mean_interval(row([[1, 1], [NAN, 1]]), over=over) == Interval(1, 1)
    # Under both seeds nothing: resamples of this case alone have no mean and do not count.
    assert mean_interval(row([[1, 1], [NAN, NAN], [NAN, NAN]])) == Interval(1, 1)


def test_where_scores_are_missing_the_interval_is_of_the_mean_that_the_table_shows():
    # Of eight seeds the first scores 0 in the first case and nothing in the second; all else is 1. It is drawn m times,
    # binomial (8, 1/8): three or more in 6.7 %, four or more in 1.1 %. The first case is drawn k of 2 times.
    scores = row([[0] + [1] * 7, [NAN] + [1] * 7])
    # Over seeds first each mean is 1 - m/8 unless k = 0. Of 3/4, 6.7 % are 5.1 %, and 1.1 % are 0.8 %: m = 3.
    assert mean_interval(scores, over="seeds") == pytest.approx((1 - 3 / 8, 1))
    # Over cases first the second case is 1 whatever m: 1 - k/2 m/8. 5/8 or less needs k = 2 and m = 3 or more, 1.7 %.
    assert mean_interval(scores, over="cases") == pytest.approx((1 - 2 / 8, 1))


def test_one_case_has_no_interval():
    assert all(math.isnan(end) for end in mean_interval(row([[0.2, 0.4]])))
    assert all(math.isnan(end) for end in difference_interval(row([[0.2, 0.4]]), row([[0.1, 0.1]])))


def test_rows_are_compared_on_the_same_cases():
    # Cases differ by 0.8, the rows by 0.1 in each.
    a, b = row([[0.1], [0.9], [0.5]]), row([[0.0], [0.8], [0.4]])
    assert difference_interval(a, b) == pytest.approx((0.1, 0.1))
    low, high = mean_interval(a)
    assert high - low > 0.5


def test_rows_with_the_same_seeds_draw_the_same_and_others_their_own():
    a = [[0.2, 0.6], [0.2, 0.6]]
    b = [[0.1, 0.5], [0.1, 0.5]]
    assert difference_interval(row(a), row(b)) == pytest.approx((0.1, 0.1))
    # Drawn on their own, the lower seed of one meets the higher of the other twice in 1 of 16: 0.2 - 0.5 and 0.6 - 0.1.
    assert difference_interval(row(a), row(b, seeds=(5, 6))) == pytest.approx((-0.3, 0.5))


def test_the_difference_of_averages_is_of_organs_that_both_have():
    a = row([[[0.8, NAN]], [[0.8, 0.6]]], ("liver", "spleen"))
    b = row([[[0.6, 0.9]], [[0.6, 0.5]]], ("liver", "spleen"))
    pairs = paired_differences(a, b)
    assert pairs.differences == pytest.approx([0.2, (0.2 + 0.1) / 2])
    assert (pairs.undefined, pairs.total, pairs.left_out, pairs.without) == ((1, 0), (4, 4), (), ())
    assert difference_interval(a, b) == pytest.approx((0.15, 0.2))


def test_the_value_of_a_case_is_its_mean_over_the_seeds_that_it_has():
    pairs = paired_differences(row([[0.5, 0.9], [NAN, 0.4]]), row([[0.2], [0.3]]))
    assert pairs.differences == pytest.approx([0.5, 0.1])
    assert pairs.undefined == (1, 0)


def test_only_cases_that_both_have_are_compared_and_the_others_counted():
    a = row([[0.5], [0.6], [NAN]], cases=("c1", "c2", "c4"))
    b = row([[0.4], [0.7], [0.2]], cases=("c2", "c3", "c4"))
    pairs = paired_differences(a, b)
    assert (pairs.cases, pairs.left_out) == (("c2",), ("c1", "c3", "c4"))
    assert pairs.differences == pytest.approx([0.2])


def test_an_organ_that_no_case_has_in_both_leaves_no_average():
    a = row([[[0.8, NAN]], [[0.8, 0.6]]], ("liver", "spleen"))
    b = row([[[0.6, 0.9]], [[0.6, NAN]]], ("liver", "spleen"))
    pairs = paired_differences(a, b)
    assert (pairs.cases, pairs.without) == ((), ("spleen",))
    assert paired_differences(a, b, "liver").differences == pytest.approx([0.2, 0.2])
    none = paired_differences(a, row([[[0.6, 0.9]]], ("liver", "spleen"), cases=("other",)))
    assert (none.cases, none.total, none.left_out) == ((), (0, 0), ("c0", "c1", "other"))


def test_ranks_are_of_the_organs_and_cases_that_all_rows_have():
    organs = ("liver", "spleen")
    a = row([[[0.8, 0.4]], [[0.8, 0.6]], [[NAN, NAN]]], organs)
    b = row([[[0.6, NAN]], [[0.6, 0.4]], [[0.1, 0.1]]], organs)
    cases, table = case_values([a, b])
    assert cases == ("c0", "c1")
    assert table == pytest.approx(np.array([[0.8, 0.6], [0.7, 0.5]]))


SCORES = [
    score(case, seed, organ, value, alignment)
    for alignment, shift in (("A", 0.0), ("B", 0.1))
    for case, seed, organ, value in (
        ("c2", 0, "liver", 0.1 + shift), ("c1", 0, "liver", 0.7), ("c1", 1, "liver", 0.3 + shift), ("c2", 1, "liver", 0.8),
        ("c2", 0, "spleen", 0.2 + shift), ("c1", 0, "spleen", 0.6), ("c1", 1, "spleen", 0.4), ("c2", 1, "spleen", 0.9),
    )
]  # fmt: skip


def test_an_interval_hangs_neither_on_the_order_of_the_scores_nor_on_other_rows():
    both, alone = values(SCORES, "dice", "fraction"), values(SCORES[7::-1], "dice", "fraction")
    key = ("mr2ct", "A")
    assert mean_interval(both[key]) == mean_interval(alone[key])
    low, high = mean_interval(both[key])
    assert low < summarise(SCORES, "dice")[2].mean < high


def test_scores_are_laid_out_by_case_seed_and_organ():
    found = values([*SCORES, score("c1", 0, "liver", 5.0, metric="assd")], "dice", "fraction")
    assert list(found) == [("mr2ct", "A"), ("mr2ct", "B")]
    a = found["mr2ct", "A"]
    assert (a.cases, a.seeds, a.organs) == (("c1", "c2"), (0, 1), ("liver", "spleen"))
    assert a.array[:, :, 0].tolist() == [[0.7, 0.3], [0.1, 0.8]]
    # A row without an organ that another one has.
    more = values([*SCORES, score("c1", 0, "spleen", 0.5, "C")], "dice", "fraction")["mr2ct", "C"]
    assert math.isnan(more.array[0, 0, 0]) and not more.has_every_organ


def test_what_cannot_be_laid_out_is_one_sentence():
    with pytest.raises(DataError, match="Two scores for A, mr2ct, c2, 0, liver, dice. Give each scores file once"):
        values([*SCORES, SCORES[0]], "dice", "fraction")
    with pytest.raises(ConfigError, match="no scores of 'heart'. There are: liver, average"):
        mean_interval(row([[1], [2]]), "heart")


@pytest.mark.parametrize(("cases", "seeds", "holds"), [(3, 2, 0.83), (6, 3, 0.89), (20, 5, 0.92), (20, 1, 0.57)])
def test_an_interval_of_few_cases_or_of_one_seed_holds_the_truth_less_often_than_it_says(cases, seeds, holds):
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        effects = 2 * rng.normal(size=(cases, 1)) + rng.normal(size=(1, seeds)) + rng.normal(size=(cases, seeds))
        low, high = mean_interval(row(effects), resamples=500)
        held += low <= 0 <= high
    # Four hundred trials have a standard error of up to 2.5 points.
    assert held / 400 == pytest.approx(holds, abs=0.06)
