"""What measures of structure say of images whose fate is known."""

import numpy as np
import pytest

from attent_kit.metrics import structure
from attent_kit.metrics.structure import agreement, edge_agreement, edges, mind, self_similarity, volume_drift


def organs(*boxes, size=64):
    """A slice of -1 with squares of 20 x 20 whose corners and values are given."""
    image = np.full((size, size), -1.0)
    for row, column, value in boxes:
        image[row : row + 20, column : column + 20] = value
    return image


TWO = organs((8, 8, 0.2), (36, 36, 0.8))


@pytest.mark.parametrize("measure", [edge_agreement, self_similarity])
def test_what_only_changes_grey_values_keeps_structure(measure):
    assert measure(TWO, TWO) == pytest.approx(1)
    assert measure(TWO, -TWO) == pytest.approx(1)
    assert measure(TWO, 0.25 * TWO + 0.5) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("measure", [edge_agreement, self_similarity])
def test_the_farther_aside_the_less_is_kept(measure):
    kept = [measure(TWO, np.roll(TWO, pixels, axis=1)) for pixels in (0, 1, 2, 4)]
    assert kept == sorted(kept, reverse=True)
    assert kept[2] < 0.9 * kept[0]


@pytest.mark.parametrize("measure", [edge_agreement, self_similarity])
def test_an_organ_that_is_lost_or_invented_is_noticed_the_same(measure):
    one = organs((8, 8, 0.2))
    assert measure(TWO, one) < 0.92
    assert measure(TWO, one) == pytest.approx(measure(one, TWO))


def test_losing_one_of_two_like_organs_leaves_a_correlation_of_one_over_root_two():
    # Edges are a + b of the image and a of the translation, of equal energy and without overlap: q / sqrt(2 q q), where
    # the slice is so large that the means are nothing.
    both, one = organs((100, 100, 0.5), (300, 300, 0.5), size=512), organs((100, 100, 0.5), size=512)
    assert edge_agreement(both, one) == pytest.approx(1 / np.sqrt(2), abs=0.01)


def test_a_flat_slice_has_no_edges_to_keep():
    flat = np.zeros((16, 16))
    assert edge_agreement(flat, flat + 0.5) == self_similarity(flat, flat + 0.5) == 1
    assert edge_agreement(TWO, np.zeros((64, 64))) == 0
    assert self_similarity(TWO, np.zeros((64, 64))) < 0.9


def test_edges_of_a_ramp_are_its_slope():
    ramp = np.tile(np.linspace(0, 1, 21), (21, 1))
    assert edges(ramp)[10, 10] == pytest.approx(0.05, rel=1e-3)


def test_mind_of_a_step(monkeypatch):
    # Single pixels as patches. Left of the step, one neighbour of four differs by 1: V is 1/4 and the answer exp(-4).
    monkeypatch.setattr(structure, "PATCH_SIGMA", 0)
    step = np.tile([0.0, 0.0, 1.0, 1.0], (4, 1))
    right, left, down, up = mind(step)
    assert right[1] == pytest.approx([1, np.exp(-4), 1, 1])
    assert left[1] == pytest.approx([1, 1, np.exp(-4), 1])
    assert (down == 1).all() and (up == 1).all()


def test_mind_is_one_where_no_neighbour_is_more_alike_than_another():
    # On a slope along both axes all four differ by the same.
    slope = np.add.outer(np.arange(9.0), np.arange(9.0)) / 10
    assert mind(slope)[:, 3:6, 3:6] == pytest.approx(np.ones((4, 3, 3)))


def test_noise_where_there_are_no_edges_matters_little():
    rng = np.random.default_rng(0)
    assert self_similarity(TWO, TWO + rng.normal(0, 0.01, TWO.shape)) > 0.95
    assert self_similarity(TWO, TWO + rng.normal(0, 0.01, TWO.shape)) > self_similarity(TWO, np.roll(TWO, 1, axis=1))


def test_agreement_is_the_mean_dice_of_the_organs_that_are_there():
    # Organ 1: 2 * 1 / (1 + 2); organ 2 is lost: 0; organ 3 is nowhere.
    expected, found = np.array([[1, 1, 2, 0]]), np.array([[1, 0, 0, 0]])
    assert agreement(found, expected, organs=3) == pytest.approx((2 / 3 + 0) / 2)
    assert np.isnan(agreement(np.zeros((2, 2)), np.zeros((2, 2)), organs=3))


def test_volume_drift_is_relative_to_what_is_expected():
    expected = np.array([[1, 1, 2, 2]])
    assert volume_drift(np.array([[0, 0, 2, 2]]), expected, 1) == -1
    assert volume_drift(np.array([[1, 0, 2, 2]]), expected, 1) == -0.5
    assert volume_drift(np.array([[2, 2, 2, 2]]), expected, 2) == 1
    assert np.isnan(volume_drift(expected, expected, 3))
