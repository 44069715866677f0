"""Dice, ASSD and HD95 against values worked out by hand, and against MONAI."""

import math
import subprocess
import sys

import numpy as np
import pytest

from attent_kit.errors import DataError
from attent_kit.metrics import assd, dice, hd95, protocol, surface_distances, surface_metrics, surfaces
from attent_kit.metrics.surface import surface


def mask(shape, *voxels):
    array = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        array[voxel] = True
    return array


def test_dice_is_twice_the_overlap_over_both_sizes():
    prediction = np.array([1, 1, 1, 0], dtype=bool)
    truth = np.array([0, 1, 1, 1], dtype=bool)
    assert dice(prediction, truth) == pytest.approx(2 * 2 / (3 + 3))
    assert dice(truth, truth) == 1
    assert dice(prediction, ~prediction) == 0


def test_dice_of_one_empty_mask_is_zero_and_of_two_is_not_a_number():
    nothing, something = np.zeros(3, bool), np.ones(3, bool)
    assert dice(nothing, something) == dice(something, nothing) == 0
    assert math.isnan(dice(nothing, nothing))


def test_the_surface_of_a_solid_cube_is_its_outer_layer():
    cube = np.zeros((9, 9, 9), bool)
    cube[2:7, 2:7, 2:7] = True
    assert surface(cube).sum() == 5**3 - 3**3
    assert not surface(cube)[3:6, 3:6, 3:6].any()


def test_a_voxel_that_touches_the_outside_with_a_corner_only_is_inside():
    block = np.ones((3, 3, 3), bool)
    block[0, 0, 0] = False
    assert not surface(block)[1, 1, 1]


def test_what_lies_outside_the_array_is_background():
    assert surface(np.ones((3, 3, 3), bool)).sum() == 26


def test_a_cube_shifted_by_one_slice_of_5_mm():
    # Each surface: 4 voxels shared, 4 voxels one slice away. 95th percentile of 0 0 0 0 5 5 5 5 is 5.
    prediction, truth = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    prediction[1:3, 1:3, 0:2] = True
    truth[1:3, 1:3, 1:3] = True
    to_truth, to_prediction = surface_distances(prediction, truth, (1, 2, 5))
    assert sorted(to_truth) == sorted(to_prediction) == [0, 0, 0, 0, 5, 5, 5, 5]
    assert surface_metrics(prediction, truth, (1, 2, 5)) == (2.5, 5)
    assert surface_metrics(prediction, truth, (1, 1, 1)) == (0.5, 1)


def test_two_voxels_are_as_far_apart_as_pythagoras_says():
    a, b = mask((1, 4, 5), (0, 0, 0)), mask((1, 4, 5), (0, 3, 4))
    assert assd(a, b, (1, 1, 1)) == hd95(a, b, (1, 1, 1)) == 5
    assert assd(a, b, (9, 4, 4)) == hd95(a, b, (9, 4, 4)) == 20


def test_the_nearest_voxel_in_mm_need_not_be_the_nearest_in_voxels():
    # mm: prediction to truth 3, truth to prediction 5 and 3. Voxels: 1, and 1 and 3.
    prediction, truth = mask((1, 4, 2), (0, 0, 0)), mask((1, 4, 2), (0, 0, 1), (0, 3, 0))
    points = surfaces(prediction, truth)
    assert points.metrics((1, 1, 5)) == (pytest.approx(11 / 3), pytest.approx(4.9))
    assert points.metrics((1, 1, 1)) == (pytest.approx(5 / 3), pytest.approx(2.9))
    assert assd(prediction, truth, (1, 1, 5), mean_of_means=True) == pytest.approx((3 + 4) / 2)


def test_hd95_is_the_larger_direction_not_the_percentile_of_both_together():
    # To the truth: 1. Back: 1, 2, ..., 20, whose 95th percentile is at rank 18.05, 19.05; of all 21 it would be 19.
    prediction, truth = np.zeros((21, 1, 1), bool), np.zeros((21, 1, 1), bool)
    prediction[0] = truth[1:] = True
    assert hd95(prediction, truth, (1, 1, 1)) == hd95(truth, prediction, (1, 1, 1)) == pytest.approx(19.05)


def test_distances_to_an_empty_mask_are_not_numbers():
    nothing, something = mask((3, 3, 3)), mask((3, 3, 3), (1, 1, 1))
    for pair in ((nothing, something), (something, nothing), (nothing, nothing)):
        assert all(map(math.isnan, surface_metrics(*pair, (1, 1, 1))))
        assert math.isnan(assd(*pair, (1, 1, 1), mean_of_means=True))
    assert np.isnan(surface_distances(something, nothing, (1, 1, 1))[0]).tolist() == [True]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_masks_and_of_axes_does_not_matter(seed):
    first, second = np.random.default_rng(seed).random((2, 7, 8, 9)) < 0.3
    there = surface_metrics(first, second, (0.7, 1.3, 5))
    assert surface_metrics(second, first, (0.7, 1.3, 5)) == pytest.approx(there)
    assert surface_metrics(first.T, second.T, (5, 1.3, 0.7)) == pytest.approx(there)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(12))
def test_assd_and_hd95_equal_monai(seed):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(seed)
    shape = [(12, 13, 14), (5, 30, 9), (25, 31)][seed % 3]
    spacing = tuple(rng.uniform(0.5, 6, size=len(shape)))
    if seed % 2:  # noise, which also touches the border
        prediction, truth = rng.random(shape) < 0.2, rng.random(shape) < 0.4
    else:  # boxes cut off by the border
        prediction, truth = np.zeros(shape, bool), np.zeros(shape, bool)
        prediction[tuple(slice(0, int(rng.integers(2, side))) for side in shape)] = True
        truth[tuple(slice(int(rng.integers(0, side - 2)), None) for side in shape)] = True
    batch = {"y_pred": torch.from_numpy(prediction)[None, None], "y": torch.from_numpy(truth)[None, None]}
    batch |= {"include_background": True, "spacing": spacing}
    expected = (
        monai.compute_average_surface_distance(**batch, symmetric=True).item(),
        monai.compute_hausdorff_distance(**batch, percentile=95).item(),
    )
    assert surface_metrics(prediction, truth, spacing) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def organ_table(prediction, truth, organs, spacing):
    rows = protocol("3d-mm").rows(prediction, truth, organs, spacing)
    return {(row.organ, row.metric, row.unit): row.value for row in rows}


def test_each_organ_has_its_rows_in_mm_in_voxels_and_in_ml():
    truth, prediction = np.zeros((2, 5, 5, 5), np.uint8)
    truth[0:2, 0:2, 0:2], truth[4, 4, 4] = 1, 2
    prediction[0:2, 0:2, 1:3], prediction[4, 4, 3] = 1, 2
    table = organ_table(prediction, truth, ("liver", "spleen"), (1, 1, 5))
    # Surface Dice, liver: of three layers of surfels the first is 5 mm away. It and the last are 4 tips, 4 roofs over an
    # edge and a face across z; the middle one 4 roofs over edges along z and 4 faces. Spleen: one of two layers of 4 tips.
    end = 4 * 51**0.5 / 8 + 4 * 26**0.5 / 2 + 1
    middle = 4 * 50**0.5 / 2 + 4 * 5
    assert list(table.items()) == [
        (("liver", "dice", "fraction"), 0.5),
        (("liver", "assd", "mm"), 2.5),
        (("liver", "assd", "voxel"), 0.5),
        (("liver", "hd95", "mm"), 5),
        (("liver", "hd95", "voxel"), 1),
        (("liver", "nsd 2 mm", "fraction"), pytest.approx((end + middle) / (2 * end + middle))),
        (("liver", "volume", "ml"), pytest.approx(8 * 0.005)),
        (("liver", "true volume", "ml"), pytest.approx(8 * 0.005)),
        (("liver", "scored", "volumes"), 1),
        *((("liver", count, "volumes"), 0) for count in ("missed", "invented", "absent", "undefined")),
        (("spleen", "dice", "fraction"), 0),
        (("spleen", "assd", "mm"), 5),
        (("spleen", "assd", "voxel"), 1),
        (("spleen", "hd95", "mm"), 5),
        (("spleen", "hd95", "voxel"), 1),
        (("spleen", "nsd 2 mm", "fraction"), pytest.approx(0.5)),
        (("spleen", "volume", "ml"), pytest.approx(0.005)),
        (("spleen", "true volume", "ml"), pytest.approx(0.005)),
        (("spleen", "scored", "volumes"), 1),
        *((("spleen", count, "volumes"), 0) for count in ("missed", "invented", "absent", "undefined")),
    ]


def test_a_missing_organ_keeps_its_rows():
    truth, prediction = np.zeros((2, 4, 4, 4), np.int64)
    truth[0], prediction[3] = 1, 3
    table = organ_table(prediction, truth, ("missed", "absent", "invented"), (1, 1, 1))
    assert len(table) == 3 * 13
    assert table["missed", "dice", "fraction"] == table["invented", "dice", "fraction"] == 0
    assert math.isnan(table["absent", "dice", "fraction"])
    assert all(math.isnan(value) for (_, metric, _), value in table.items() if metric in ("assd", "hd95"))
    assert (table["missed", "volume", "ml"], table["invented", "true volume", "ml"]) == (0, 0)
    assert table["missed", "true volume", "ml"] == table["invented", "volume", "ml"] == pytest.approx(0.016)
    for organ in ("missed", "absent", "invented"):
        counted = {count for count in ("missed", "absent", "invented") if table[organ, count, "volumes"]}
        assert counted == {organ} and table[organ, "undefined", "volumes"] == table[organ, "scored", "volumes"] == 1


def test_organs_score_as_their_masks_do_in_either_memory_order():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 3, size=(2, 8, 9, 10), dtype=np.uint8)
    spacing = (0.8, 1.5, 4)
    by_mask = surface_metrics(prediction == 2, truth == 2, spacing)
    for order in (np.ascontiguousarray, np.asfortranarray):
        table = organ_table(order(prediction), order(truth), ("a", "b"), spacing)
        assert table["b", "dice", "fraction"] == dice(prediction == 2, truth == 2)
        assert (table["b", "assd", "mm"], table["b", "hd95", "mm"]) == pytest.approx(by_mask)


def test_what_cannot_be_scored_says_what_to_do():
    labels = np.ones((3, 3, 3), np.uint8)
    rows = protocol("3d-mm").rows
    with pytest.raises(DataError, match=r"\(3, 3, 3\).*\(3, 3, 2\).*Resample"):
        rows(labels, labels[..., :2], ["liver"], (1, 1, 1))
    with pytest.raises(DataError, match=r"truth has labels 2-2 but 1 organs are named \(0-1\)"):
        rows(labels, 2 * labels, ["liver"], (1, 1, 1))
    with pytest.raises(DataError, match="float64, not integer labels"):
        rows(labels.astype(float), labels, ["liver"], (1, 1, 1))
    for axes in ("RA", "RAP", "RSI"):
        with pytest.raises(DataError, match="does not name the sides of 3 axes"):
            rows(labels, labels, ["liver"], (1, 1, 1), axes)
    with pytest.raises(TypeError, match="Choose an organ first"):
        dice(labels, labels)
    for spacing in ((1, 1), (1, 0, 1), (1, -1, 1), (1, math.nan, 1)):
        with pytest.raises(DataError, match="one positive number per axis"):
            surface_metrics(labels == 1, labels == 1, spacing)


def test_scoring_does_not_load_torch():
    code = "import sys, attent_kit.metrics, attent_kit.report.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
