"""Proxy A-distance, MMD, CORAL and their spread, worked out by hand and at their limits."""

import numpy as np
import pytest

from attent_kit.metrics.shift import (
    Sample,
    coral,
    jackknife,
    median_distance,
    mmd,
    principal_components,
    proxy_a_distance,
    shift,
)


def sample(*patients):
    """One number a slice: sample([0, 1], [3]) is a patient with the slices 0 and 1 and another with the slice 3."""
    vectors = np.array([[value] for slices in patients for value in slices], float)
    return Sample(vectors, np.repeat(np.arange(len(patients)), [len(slices) for slices in patients]))


def patients(count, slices, d=4, apart=0.0, seed=0, within=0.1):
    """Patients around `apart`, whose slices are alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (count, d)) + apart
    vectors = np.repeat(centres, slices, 0) + rng.normal(0, within, (count * slices, d))
    return Sample(vectors, np.repeat(np.arange(count), slices))


# Proxy A-distance


def test_domains_apart_have_the_largest_a_distance():
    assert proxy_a_distance(patients(5, 6), patients(5, 6, apart=50, seed=1)) == 2


def test_the_same_slices_in_both_domains_have_none():
    same = patients(5, 6)
    assert proxy_a_distance(same, same) == pytest.approx(0, abs=0.1)


def test_one_patient_of_four_on_the_wrong_side_is_an_error_of_a_quarter():
    source, target = sample([0], [0], [0], [10]), sample([10], [10], [10], [0])
    assert proxy_a_distance(source, target) == 2 * (1 - 2 * 0.25)


def test_a_patient_counts_once_however_many_slices_it_has():
    source, target = sample([0], [0], [0], [10] * 9), sample([10] * 3, [10], [10], [0])
    assert proxy_a_distance(source, target) == 2 * (1 - 2 * 0.25)


def test_slices_that_are_recognised_by_their_patient_are_no_shift():
    # No domain differs here, but every patient is told from the others by a plane in 40 dimensions.
    source, target = patients(6, 10, d=40), patients(6, 10, d=40, seed=1)
    assert proxy_a_distance(source, target) < 1
    leaking = [s._replace(patients=np.arange(len(s.vectors))) for s in (source, target)]
    assert proxy_a_distance(*leaking) > 1.9


def test_a_single_patient_leaves_nobody_to_test_on():
    assert np.isnan(proxy_a_distance(sample([0, 1, 2]), sample([5], [6])))


def test_a_classifier_worse_than_chance_has_learned_nothing():
    # Whoever is held out lies where the others of the other domain are.
    assert proxy_a_distance(sample([0], [1]), sample([1], [0])) == 0


# MMD


def test_mmd_of_two_points_a_domain():
    # Within: exp(-4/2) each. Between 0, 2 and 1, 3: three pairs at distance 1 and one at distance 3.
    expected = 2 * np.exp(-2) - 2 * (3 * np.exp(-0.5) + np.exp(-4.5)) / 4
    assert mmd(sample([0], [2]), sample([1], [3]), width=1.0) == pytest.approx(expected)


def test_mmd_takes_the_mean_over_the_slices_of_each_pair_of_patients():
    # Patients {0, 1} and {3}: their pair is the mean of the distances 3 and 2; pairs within {0, 1} count nowhere.
    within = (np.exp(-4.5) + np.exp(-2)) / 2
    between = np.mean([np.mean([np.exp(-(t**2) / 2), np.exp(-((t - 1) ** 2) / 2)]) for t in (5, 6)])
    between = (between + np.mean([np.exp(-((t - 3) ** 2) / 2) for t in (5, 6)])) / 2
    expected = within + np.exp(-0.5) - 2 * between
    assert mmd(sample([0, 1], [3]), sample([5], [6]), width=1.0) == pytest.approx(expected)


def test_mmd_of_one_distribution_is_around_zero_though_slices_of_a_patient_are_alike():
    values = [mmd(patients(5, 6, seed=2 * n), patients(5, 6, seed=2 * n + 1), width=2.0) for n in range(150)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)
    biased = [
        mmd(
            *(s._replace(patients=np.arange(30)) for s in (patients(5, 6, seed=2 * n), patients(5, 6, seed=2 * n + 1))),
            2.0,
        )
        for n in range(20)
    ]
    assert np.mean(biased) > 5 * np.std(values) / np.sqrt(len(values))


def test_mmd_of_domains_far_apart_is_the_sum_of_what_is_within():
    assert mmd(sample([0], [0]), sample([99], [99]), width=1.0) == pytest.approx(2)


def test_the_width_is_the_median_distance_of_different_slices():
    # Distances of 0, 1 and 5: 1, 4, 5.
    assert median_distance(np.array([[0.0], [1.0], [5.0]])) == pytest.approx(4)


def test_where_most_slices_are_alike_the_width_is_of_those_that_differ():
    # Of ten distances six are 0 and four 2.
    assert median_distance(np.array([[0.0], [0.0], [0.0], [0.0], [2.0]])) == 2
    assert median_distance(np.ones((4, 1))) == 0
    assert mmd(sample([1], [1]), sample([1], [1]), width=0.0) == 0


# CORAL


def test_coral_of_a_doubled_domain():
    # Covariances are I and 4 I in two dimensions: (3^2 + 3^2) / (4 * 2^2).
    source = np.sqrt(3) / 2 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    assert coral(source, 2 * source) == pytest.approx(18 / 16)


def test_coral_does_not_see_where_a_domain_lies():
    vectors = np.random.default_rng(0).normal(size=(9, 3))
    assert coral(vectors, vectors + [5, -7, 100]) == pytest.approx(0, abs=1e-20)


# All together


def test_no_measure_depends_on_unit_origin_or_axes():
    source, target = patients(4, 5), patients(4, 5, apart=0.7, seed=1)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    moved = [s._replace(vectors=1000 * s.vectors @ turn + 7) for s in (source, target)]
    before, after = shift(source, target), shift(*moved)
    for measure in before:
        assert after[measure] == pytest.approx(before[measure], rel=1e-6)


def test_every_measure_grows_when_a_domain_moves_away_and_widens():
    source, target = patients(12, 3), patients(12, 3, seed=1)
    near, far = shift(source, target), shift(source, target._replace(vectors=3 * target.vectors + 4))
    for measure in near:
        assert near[measure].value < near[measure].zero < far[measure].value


def test_a_half_of_the_source_is_rarely_farther_from_the_other_than_zero_says():
    everyone = patients(40, 4, seed=5)
    source, target = everyone.only(range(20)), everyone.only(range(20, 40))
    measured = shift(source, target)
    for measure in ("proxy-a-distance", "mmd", "coral"):
        assert measured[measure].value < measured[measure].zero


def test_domains_of_one_and_the_same_slice_are_not_apart():
    same = sample([1, 1], [1, 1])
    assert [measured.value for measured in shift(same, same).values()] == [0, 0, 0]


def test_too_few_patients_have_no_zero():
    measured = shift(patients(3, 4), patients(3, 4, seed=1))
    assert np.isnan(measured["proxy-a-distance"].zero) and np.isnan(measured["mmd"].zero)
    assert np.isfinite(measured["coral"].zero)


def test_the_same_seed_measures_the_same():
    source, target = patients(5, 4), patients(5, 4, apart=0.5, seed=1)
    assert shift(source, target, seed=3) == shift(source, target, seed=3)
    assert shift(source, target, seed=3)["mmd"].zero != shift(source, target, seed=4)["mmd"].zero


def test_the_jackknife_of_a_mean_is_its_standard_error():
    # Standard deviations 2 and 0: sqrt(4 / 3 + 0 / 2).
    source, target = sample([0], [2], [4]), sample([1], [1])
    spread = jackknife(source, target, lambda s, t: float(s.vectors.mean() - t.vectors.mean()))
    assert spread == pytest.approx(np.sqrt(4 / 3))
    assert np.isnan(jackknife(sample([0]), target, lambda s, t: 0.0))


def test_principal_components_are_ordered_and_never_mirrored():
    line = np.array([[0.0, 0.0], [3.0, -4.0], [-3.0, 4.0]])
    # Of the direction (3, -4) / 5 the entry of 4 is the larger one, and made positive: (-3, 4) / 5.
    assert principal_components(line, 2) == pytest.approx(np.array([[0, 0], [-5, 0], [5, 0]]), abs=1e-12)
    assert principal_components(line[::-1], 1) == pytest.approx(np.array([[5], [-5], [0]]), abs=1e-12)
