"""Each published way of scoring against numbers worked out by hand, against MONAI and against surface-distance."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from attent_kit.errors import ConfigError, DataError
from attent_kit.metrics import PROTOCOLS, nsd, protocol
from attent_kit.metrics.nearest import nearest
from attent_kit.metrics.surfels import CORNERS, neighbour_codes, surfel_areas
from attent_kit.report.scores import COUNTS, PROTOCOL

E = 1e-5
ORGANS = ("liver", "spleen")


def table(name, prediction, truth, spacing=(1, 1, 1), axes="RAS", organs=ORGANS):
    """{(organ, metric, unit): value}."""
    rows = protocol(name).rows(prediction, truth, organs, spacing, axes)
    return {(row.organ, row.metric, row.unit): row.value for row in rows}


def labels(shape, **voxels):
    """A label map; `liver=[(0, 0, 0), ...]`."""
    array = np.zeros(shape, np.uint8)
    for label, organ in enumerate(ORGANS, start=1):
        for voxel in voxels.get(organ, []):
            array[voxel] = label
    return array


# What all share


def test_every_protocol_gives_its_columns_its_counts_and_the_volumes_for_every_organ():
    empty = labels((3, 3, 3))
    for name, one in PROTOCOLS.items():
        rows = table(name, empty, empty)
        assert one.name == name and one.summary
        for organ in ORGANS:
            found = {key[1:] for key in rows if key[0] == organ}
            assert {(column.metric, column.unit) for column in one.columns} <= found
            assert {("volume", "ml"), ("true volume", "ml")} <= found
            assert {metric for metric, _ in found} >= {*COUNTS, *(c.weight for c in one.columns if c.weight)}
    assert PROTOCOL in PROTOCOLS


def test_an_unknown_protocol_is_a_sentence_with_the_nearest():
    with pytest.raises(ConfigError, match="no protocol is called 'choas'. Did you mean 'chaos'. There are 3d-mm, sifa"):
        protocol("choas")


VOXEL = {"liver": [(1, 1, 1)]}
DICE_OF_EMPTY = {
    # in neither, in the truth alone, in the prediction alone
    "3d-mm": (math.nan, 0, 0),
    "sifa": (0, 0, 0),
    "attent-code": (1, (2 + E / (1 + E)) / 3, (2 + E / (1 + E)) / 3),  # two of three slices are without it
    "chaos": (math.nan, 0, 0),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_empty_mask_has_the_dice_of_the_protocol_and_no_distance_and_is_counted(name):
    empty, full = labels((3, 3, 3)), labels((3, 3, 3), **VOXEL)
    for kind, pair, overlap in zip(
        ("absent", "missed", "invented"),
        ((empty, empty), (empty, full), (full, empty)),
        DICE_OF_EMPTY[name],
        strict=True,
    ):
        rows = {key[1:]: value for key, value in table(name, *pair).items() if key[0] == "liver"}
        distances = [value for (_, unit), value in rows.items() if unit in ("mm", "voxel", "pixel")]
        assert distances and all(map(math.isnan, distances))
        assert rows["dice", "fraction"] == pytest.approx(overlap, nan_ok=True)
        (unit,) = {unit for metric, unit in rows if metric == "undefined"}
        whole = 3 if unit == "slices" else 1
        assert rows["undefined", unit] == rows["scored", unit] == whole
        assert rows[kind, unit] == (1 if kind != "absent" else whole)
        assert sum(rows[word, unit] for word in ("missed", "invented", "absent")) == whole


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_axis_order_of_the_files_does_not_matter(name):
    rng = np.random.default_rng(0)
    prediction, truth = (rng.integers(0, 3, size=(2, 6, 7, 8)) * (rng.random((2, 6, 7, 8)) < 0.6)).astype(np.uint8)
    there = table(name, prediction, truth, (0.7, 1.3, 5))
    for order, axes in (((2, 1, 0), "SAR"), ((1, 2, 0), "ASR"), ((0, 2, 1), "LIP")):
        spacing = tuple((0.7, 1.3, 5)[axis] for axis in order)
        assert table(name, prediction.transpose(order), truth.transpose(order), spacing, axes) == pytest.approx(there)
    fortran = np.asfortranarray(prediction), np.asfortranarray(truth)
    assert table(name, *fortran, (0.7, 1.3, 5)) == pytest.approx(there)


# sifa


def test_sifa_means_both_directions_in_voxels():
    # To the truth 1; back 1, 2 and 3, whose mean is 2. Pooled it would be 7 / 4, in mm five times as much.
    prediction = labels((1, 1, 5), liver=[(0, 0, 0)])
    truth = labels((1, 1, 5), liver=[(0, 0, 1), (0, 0, 2), (0, 0, 3)])
    assert table("sifa", prediction, truth, (1, 1, 5))["liver", "assd", "voxel"] == 1.5
    assert table("3d-mm", prediction, truth, (1, 1, 5))["liver", "assd", "mm"] == 5 * 7 / 4


def test_sifa_keeps_a_stray_component():
    truth = labels((1, 1, 12), liver=[(0, 0, 0)])
    prediction = labels((1, 1, 12), liver=[(0, 0, 0), (0, 0, 10)])
    rows = table("sifa", prediction, truth)
    assert rows["liver", "assd", "voxel"] == (10 / 2 + 0) / 2  # to the truth 0 and 10
    assert rows["liver", "dice", "fraction"] == 2 * 1 / 3


# attent-code


def test_attent_scores_slice_by_slice_and_from_the_prediction_alone():
    # Slice 0: one of two pixels in the truth's four. To the truth 1 and 0; back it would be 0, 1, 2, 3.
    # Slice 1: missed. Slice 2: in neither, but the spleen is there. Slice 3: nothing.
    truth = labels(
        (6, 1, 4),
        liver=[(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (0, 0, 1), (1, 0, 1), (2, 0, 1)],
        spleen=[(5, 0, 2)],
    )
    prediction = labels((6, 1, 4), liver=[(0, 0, 0), (1, 0, 0)], spleen=[(5, 0, 2)])
    rows = table("attent-code", prediction, truth, (3, 3, 9))
    first, missed = (2 + E) / (6 + E), E / (3 + E)
    liver = {key[1:]: value for key, value in rows.items() if key[0] == "liver"}
    assert liver["dice", "fraction"] == pytest.approx((first + missed + 1 + 1) / 4)
    assert liver["dice of labelled slices", "fraction"] == pytest.approx((first + missed + 1) / 3)
    assert liver["asd", "pixel"] == 0.5
    assert {metric: value for (metric, unit), value in liver.items() if unit == "slices"} == {
        "scored": 4, "missed": 1, "invented": 0, "absent": 2, "undefined": 3, "labelled": 3, "measured": 1,
    }  # fmt: skip
    assert rows["spleen", "dice", "fraction"] == 1 and rows["spleen", "asd", "pixel"] == 0


def test_attent_slices_are_axial_wherever_that_axis_is():
    prediction, truth = labels((4, 1, 2), liver=[(0, 0, 0)]), labels((4, 1, 2), liver=[(2, 0, 0)])
    assert table("attent-code", prediction, truth, axes="RAS")["liver", "asd", "pixel"] == 2
    across = table("attent-code", prediction, truth, axes="SAR")  # now they lie in two slices
    assert math.isnan(across["liver", "asd", "pixel"])
    assert (across["liver", "missed", "slices"], across["liver", "invented", "slices"]) == (1, 1)


# chaos


def test_chaos_sees_no_surface_where_the_border_cuts_an_organ():
    # Up to x = 1 and up to x = 2, cut by all other borders: one plane of 9 voxels each, 2 mm apart.
    truth, prediction = np.zeros((2, 5, 3, 3), np.uint8)
    truth[:2], prediction[:3] = 1, 1
    rows = table("chaos", prediction, truth, (2, 1, 1))
    assert rows["liver", "assd", "mm"] == rows["liver", "mssd", "mm"] == 2
    assert rows["liver", "dice", "fraction"] == 2 * 18 / (18 + 27)
    assert rows["liver", "ravd", "percent"] == 50
    # Where the border is background all 18 voxels of the truth are surface and 26 of the prediction. The one inside it is
    # 1 mm away, and its last plane 2 mm; all others lie on both surfaces.
    assert table("3d-mm", prediction, truth, (2, 1, 1))["liver", "assd", "mm"] == (1 + 9 * 2) / (18 + 26)


def test_chaos_pools_both_surfaces_and_takes_the_largest_distance():
    prediction = labels((3, 3, 9), liver=[(1, 1, 1)])
    truth = labels((3, 3, 9), liver=[(1, 1, 2), (1, 1, 3), (1, 1, 4)])
    rows = table("chaos", prediction, truth, (1, 1, 4))
    assert rows["liver", "assd", "mm"] == 4 * (1 + 1 + 2 + 3) / 4
    assert rows["liver", "mssd", "mm"] == 12
    assert rows["liver", "ravd", "percent"] == pytest.approx(200 / 3)


def test_chaos_volume_difference_has_no_value_without_a_truth():
    empty, full = labels((3, 3, 3)), labels((3, 3, 3), **VOXEL)
    assert table("chaos", empty, full)["liver", "ravd", "percent"] == 100
    assert math.isnan(table("chaos", full, empty)["liver", "ravd", "percent"])
    assert math.isnan(table("chaos", empty, empty)["liver", "ravd", "percent"])


def test_an_organ_that_fills_the_image_has_no_surface_in_chaos_and_is_counted_as_undefined():
    full = np.ones((3, 3, 3), np.uint8)
    rows = table("chaos", full, full)
    assert rows["liver", "dice", "fraction"] == 1 and math.isnan(rows["liver", "assd", "mm"])
    assert math.isnan(rows["liver", "mssd", "mm"])
    counts = ("undefined", "missed", "invented", "absent")
    assert [rows["liver", count, "volumes"] for count in counts] == [1, 0, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_chaos_distances_are_those_of_an_erosion_that_takes_the_outside_as_foreground(seed):
    rng = np.random.default_rng(seed)
    masks = [np.zeros((7, 8, 9), bool) for _ in range(2)]
    for mask in masks:  # boxes, most of them cut by the border, and a little noise
        mask[tuple(slice(int(rng.integers(0, 3)), int(rng.integers(4, side + 1))) for side in mask.shape)] = True
        mask ^= rng.random(mask.shape) < 0.02
    borders = [mask & ~binary_erosion(mask, border_value=1) for mask in masks]
    spacing = (1.5, 0.8, 3)
    there = [distance_transform_edt(~other, sampling=spacing)[own] for own, other in (borders, borders[::-1])]
    rows = table("chaos", *(mask.astype(np.uint8) for mask in masks), spacing)
    assert rows["liver", "assd", "mm"] == pytest.approx(np.concatenate(there).mean())
    assert rows["liver", "mssd", "mm"] == pytest.approx(np.concatenate(there).max())


# The surface Dice


def test_the_surface_of_one_voxel_is_an_octahedron():
    # Eight triangles with corners half a voxel from its centre along each axis.
    voxel = np.ones((1, 1, 1), bool)
    for spacing, area in (((1.0, 1.0, 1.0), 3**0.5), ((1.0, 2.0, 5.0), (10**2 + 5**2 + 2**2) ** 0.5)):
        assert surfel_areas(spacing)[neighbour_codes(voxel)].sum() == pytest.approx(area)


def test_a_flat_face_has_its_own_area_whichever_side_is_inside():
    areas = surfel_areas((1.0, 2.0, 5.0))
    for axis, face in enumerate((10, 5, 2)):
        code = sum(1 << bit for bit, corner in enumerate(CORNERS) if corner[axis])
        assert areas[code] == areas[255 - code] == face
    assert areas[0] == areas[255] == 0


def test_the_surface_dice_counts_what_lies_exactly_at_the_tolerance_and_nothing_beyond():
    prediction, truth = np.zeros((2, 8, 4, 4), bool)
    truth[2:4, 1:3, 1:3], prediction[3:5, 1:3, 1:3] = True, True
    assert nsd(prediction, truth, (2, 1, 1), 2) == 1
    # Just beyond, the outer layer is lost: 4 tips, 4 roofs and a face. The middle one has 4 roofs along x and 4 faces.
    step = 2.001
    end = 4 * (1 + 2 * step**2) ** 0.5 / 8 + 4 * (1 + step**2) ** 0.5 / 2 + 1
    middle = 4 * (2 * step**2) ** 0.5 / 2 + 4 * step
    assert nsd(prediction, truth, (step, 1, 1), 2) == pytest.approx((end + middle) / (2 * end + middle))


def test_the_surface_dice_of_empty_masks_is_0_for_one_and_not_a_number_for_two():
    nothing, something = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert nsd(nothing, something, (1, 1, 1), 2) == nsd(something, nothing, (1, 1, 1), 2) == 0
    assert math.isnan(nsd(nothing, nothing, (1, 1, 1), 2))
    with pytest.raises(DataError, match="2 axes"):
        nsd(nothing[0], something[0], (1, 1), 2)


SPACINGS = ((1, 1, 1), (0.7, 0.7, 3), (1, 2, 5), (5, 2, 1), (0.3, 4, 0.9))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_areas_of_all_256_codes_are_those_of_surface_distance(spacing):
    tables = pytest.importorskip("surface_distance.lookup_tables")
    kernel = np.asarray(tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL)
    theirs = [sum(int(kernel[corner]) for bit, corner in enumerate(CORNERS) if code >> bit & 1) for code in range(256)]
    assert sorted(theirs) == list(range(256))
    expected = tables.create_table_neighbour_code_to_surface_area(spacing)[theirs]
    np.testing.assert_allclose(surfel_areas(tuple(map(float, spacing))), expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(12))
def test_the_surface_dice_equals_surface_distance(seed):
    package = pytest.importorskip("surface_distance")
    rng = np.random.default_rng(seed)
    shape, spacing = ((30, 25, 20), (9, 8, 7), (12, 13, 3))[seed % 3], SPACINGS[seed % 5]
    prediction, truth = rng.random((2, *shape)) < rng.choice([0.02, 0.5, 0.97])
    if seed % 2:  # boxes cut off by the border
        prediction[:], truth[:] = False, False
        prediction[tuple(slice(0, int(rng.integers(2, side))) for side in shape)] = True
        truth[tuple(slice(int(rng.integers(0, side - 2)), None) for side in shape)] = True
    distances = package.compute_surface_distances(truth, prediction, spacing)
    for tolerance in (0.5, 1, 2, 6):
        expected = package.compute_surface_dice_at_tolerance(distances, tolerance)
        for order in (np.ascontiguousarray, np.asfortranarray):
            found = nsd(order(prediction), order(truth), spacing, tolerance)
            assert found == pytest.approx(expected, abs=1e-6)


# The distances behind all of them


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("far", [False, True])
def test_the_nearest_voxel_is_the_one_of_a_distance_transform(spacing, far):
    rng = np.random.default_rng(1)
    points = rng.random((40, 30, 20)) < 0.3
    targets = rng.random((40, 30, 20)) < (0.0005 if far else 0.05)
    assert points.sum() > 4000 and targets.any()  # enough to look neighbours up first
    expected = distance_transform_edt(~targets, sampling=spacing)[points]
    for order in (np.ascontiguousarray, np.asfortranarray):
        np.testing.assert_allclose(nearest(order(points), order(targets), spacing), expected, rtol=1e-12)
    limited = nearest(points, targets, spacing, limit=2)
    np.testing.assert_array_equal(limited <= 2, expected <= 2)
    few = points & (rng.random(points.shape) < 0.01)
    np.testing.assert_allclose(
        nearest(few, targets, spacing), distance_transform_edt(~targets, sampling=spacing)[few], rtol=1e-12
    )


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(4))
def test_directed_distances_equal_monai(seed):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(seed)
    prediction, truth = rng.random((2, 12, 11, 3)) < 0.3

    def directed(first, second):
        pair = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (first, second)]
        return monai.compute_average_surface_distance(*pair, include_background=True, symmetric=False).item()

    as_labels = prediction.astype(np.uint8), truth.astype(np.uint8)
    found = table("sifa", *as_labels, (0.5, 2, 9))["liver", "assd", "voxel"]
    assert found == pytest.approx((directed(prediction, truth) + directed(truth, prediction)) / 2, rel=1e-6)
    slices = [directed(prediction[..., z], truth[..., z]) for z in range(3)]
    assert table("attent-code", *as_labels)["liver", "asd", "pixel"] == pytest.approx(np.mean(slices), rel=1e-6)
