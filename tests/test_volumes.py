"""Volumes, their way to slices and back, grey values and label values."""

import gzip
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from attent_kit.data.scans.volumes import read_labels, read_volume, write_labels
from attent_kit.data.sets.labelmap import LabelMap
from attent_kit.data.space.geometry import Grid
from attent_kit.data.space.intensity import Intensity, sample
from attent_kit.errors import ConfigError, DataError, RunError

RAS = np.diag([2.0, 2.0, 5.0, 1.0])
ORIENTATIONS = [
    tuple(names[sign] for names, sign in zip(axes, signs, strict=True))
    for axes in permutations(("LR", "PA", "IS"))
    for signs in product((0, 1), repeat=3)
]


def save(path, array, affine=RAS):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def image(shape=(5, 6, 7)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def turned(array, affine, orientation):
    """The same voxels of the same patient, stored in another axis order."""
    turn = ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(orientation))
    return apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)


# Reading


def test_a_volume_comes_with_its_grid(tmp_path):
    volume = read_volume(save(tmp_path / "a.nii.gz", image()))
    assert volume.array.dtype == np.float32 and np.array_equal(volume.array, image())
    assert volume.spacing == (2.0, 2.0, 5.0) and volume.orientation == "RAS" and volume.placed


def test_a_trailing_axis_of_length_one_is_dropped(tmp_path):
    assert read_volume(save(tmp_path / "a.nii", image()[..., None])).array.shape == (5, 6, 7)


def truncated(path):
    save(path, image((20, 20, 20)))
    path.write_bytes(path.read_bytes()[:2000])


def not_gzip(path):
    path.write_bytes(b"these are words")


def damaged(path):
    save(path, image((20, 20, 20)))
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)


def gzipped_words(path):
    path.write_bytes(gzip.compress(b"these are words, many of them" * 50))


def with_nan(path):
    array = image()
    array[1, 2, 3] = np.nan
    save(path, array)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "is empty"),
        (not_gzip, "not a readable NIfTI"),
        (gzipped_words, "not a readable NIfTI"),
        (truncated, "ends before its last voxel"),
        (damaged, "damaged"),
        (with_nan, "1 NaN or infinite"),
        (lambda path: save(path, image((5, 6, 7, 2))), "4 dimensions (5x6x7x2)"),
        (lambda path: save(path, image((5, 6))), "2 dimensions"),
        (lambda path: save(path, image((5, 0, 7))), "is empty"),
        (lambda path: save(path, np.full((5, 6, 7), 3, np.int16)), "constant, every voxel is 3"),
        (lambda path: save(path, image().astype(np.complex64)), "complex64"),
    ],
)
def test_an_unusable_image_is_one_sentence(tmp_path, make, sentence):
    path = tmp_path / "a.nii.gz"
    make(path)
    with pytest.raises(DataError) as error:
        read_volume(path)
    assert sentence in str(error.value) and "a.nii.gz" in str(error.value) and "\n" not in str(error.value)


def test_labels_on_another_grid_are_an_error_that_shows_both_grids(tmp_path):
    volume = read_volume(save(tmp_path / "a.nii.gz", image()))
    labels = np.ones((5, 6, 7), np.uint8)
    shifted = RAS.copy()
    shifted[0, 3] = 0.5
    for number, (array, affine) in enumerate([(labels[:4], RAS), (labels, shifted), (labels, np.diag([2, 2, 4, 1.0]))]):
        path = save(tmp_path / f"labels{number}.nii.gz", array, affine)
        with pytest.raises(DataError, match="not on the grid of .*a.nii.gz.* RAS, origin .* but the image is 5x6x7"):
            read_labels(path, like=volume)
    with pytest.raises(DataError, match=r"0\.5 mm"):
        read_labels(save(tmp_path / "close.nii.gz", labels, shifted), like=volume)


def test_a_header_rounded_by_less_than_a_micrometre_is_the_same_grid(tmp_path):
    volume = read_volume(save(tmp_path / "a.nii.gz", image()))
    affine = RAS + np.full((4, 4), 5e-4) * (np.arange(4) < 3)[:, None]
    assert read_labels(save(tmp_path / "l.nii.gz", np.ones((5, 6, 7), np.uint8), affine), like=volume)


def test_labels_stored_in_another_axis_order_come_back_in_the_order_of_the_image(tmp_path):
    volume = read_volume(save(tmp_path / "a.nii.gz", image()))
    labels = np.random.default_rng(1).integers(0, 5, (5, 6, 7), np.uint8)
    for orientation in ORIENTATIONS:
        path = save(tmp_path / "l.nii.gz", *turned(labels, RAS, orientation))
        assert np.array_equal(read_labels(path, like=volume).array, labels)


def test_labels_that_are_no_integers_are_an_error(tmp_path):
    whole, half = np.full((5, 6, 7), 3.0, np.float32), np.full((5, 6, 7), 0.5, np.float32)
    read = read_labels(save(tmp_path / "l.nii.gz", whole)).array
    assert read.dtype == np.uint8 and (read == 3).all()
    with pytest.raises(DataError, match="nearest neighbour"):
        read_labels(save(tmp_path / "l.nii.gz", half))


def test_written_labels_are_read_back_on_their_grid(tmp_path):
    labels = np.random.default_rng(1).integers(0, 5, (5, 6, 7), np.uint8)
    volume = read_volume(save(tmp_path / "a.nii.gz", image()))
    write_labels(tmp_path / "folder" / "p.nii.gz", labels, volume.affine)
    assert np.array_equal(read_labels(tmp_path / "folder" / "p.nii.gz", like=volume).array, labels)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["p.nii.gz"]
    (tmp_path / "b.nii.gz").mkdir()
    with pytest.raises(RunError):
        write_labels(tmp_path / "b.nii.gz", labels, volume.affine)


# Slices and back


def test_a_slice_shows_the_patients_right_on_the_left_and_the_front_on_top():
    array = np.zeros((4, 4, 2), np.uint8)
    array[3, 0, 1] = 1  # right, posterior, superior in RAS
    grid = Grid.of(array.shape, RAS, 4)
    slices = grid.labels_to_slices(array)
    assert np.argwhere(slices).tolist() == [[1, 3, 0]]
    assert np.array_equal(slices, array[::-1, ::-1, :].transpose(2, 1, 0))


def test_every_axis_order_gives_the_same_slices_and_finds_its_way_back():
    labels = np.random.default_rng(2).integers(0, 6, (5, 6, 7), np.uint8)
    expected = Grid.of(labels.shape, RAS, 6).labels_to_slices(labels)
    assert len(set(ORIENTATIONS)) == 48
    for orientation in ORIENTATIONS:
        stored, affine = turned(labels, RAS, orientation)
        grid = Grid.of(stored.shape, affine, 6)
        assert grid.orientation == "".join(orientation)
        slices = grid.labels_to_slices(stored)
        assert np.array_equal(slices, expected)
        assert np.array_equal(grid.to_native(slices), stored)
        assert np.array_equal(grid.to_slices(stored.astype(np.float32)), expected)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 13)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    spacing=st.floats(0.3, 3.0),
    thickness=st.floats(0.3, 9.0),
    tilt=st.floats(-0.6, 0.6),
    seed=st.integers(0, 99),
)
def test_at_native_size_nothing_is_lost_on_oblique_grids(shape, orientation, spacing, thickness, tilt, seed):
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = rotation @ np.diag([spacing, spacing, thickness, 1])
    labels, affine = turned(np.random.default_rng(seed).integers(0, 4, shape, np.uint8), affine, orientation)
    grid = Grid.of(labels.shape, affine, max(shape[:2]))
    slices = grid.labels_to_slices(labels)
    assert slices.shape == (shape[2], max(shape[:2]), max(shape[:2]))
    assert np.array_equal(grid.to_native(slices), labels)
    scores = (slices == np.arange(4)[:, None, None, None]).astype(np.float16)
    assert np.array_equal(grid.to_native(scores), labels)


def test_halving_an_image_takes_the_mean_of_two_by_two_pixels():
    array = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    slices = Grid.of(array.shape, np.diag([-1.0, -1, 1, 1]), 2).to_slices(array)  # LPS: rows are the second axis
    assert slices[0].tolist() == [[2.5, 10.5], [4.5, 12.5]]


def test_doubling_an_image_interpolates_linearly():
    array = np.array([[0.0], [4.0]], np.float32).repeat(2, axis=1)[..., None]
    slices = Grid.of(array.shape, np.diag([-1.0, -1, 1, 1]), 4).to_slices(array)
    assert slices[0].tolist() == [[0.0, 1.0, 3.0, 4.0]] * 4


def test_a_narrow_field_of_view_is_padded_with_its_minimum():
    array = np.full((2, 4, 1), 7.0, np.float32)
    array[0, 0, 0] = -3
    slices = Grid.of(array.shape, np.diag([-1.0, -1, 1, 1]), 4).to_slices(array)
    assert slices[0].tolist() == [[-3, -3, 7, -3], [-3, 7, 7, -3], [-3, 7, 7, -3], [-3, 7, 7, -3]]


def test_a_pixel_takes_the_label_that_fills_most_of_it():
    labels = np.zeros((4, 4, 1), np.uint8)
    labels[:2, :2, 0] = [[1, 1], [1, 0]]
    labels[2:, 2:, 0] = [[2, 0], [0, 0]]
    slices = Grid.of(labels.shape, np.diag([-1.0, -1, 1, 1]), 2).labels_to_slices(labels)
    assert slices[0].tolist() == [[1, 0], [0, 0]]


def test_an_organ_whose_edges_divide_pixels_in_half_keeps_its_area():
    labels = np.zeros((4, 4, 1), np.uint8)
    labels[1:3] = 1  # half of each of the four pixels
    slices = Grid.of(labels.shape, np.diag([-1.0, -1, 1, 1]), 2).labels_to_slices(labels)
    assert (slices == 1).sum() == 2


def test_a_ball_stays_round_on_anisotropic_pixels():
    x, y = np.meshgrid(np.arange(100) * 1.0, np.arange(50) * 2.0, indexing="ij")
    ball = ((x - 49.5) ** 2 + (y - 49) ** 2 < 30**2).astype(np.uint8)[..., None]
    grid = Grid.of(ball.shape, np.diag([1.0, 2.0, 1, 1]), 50)
    plane = grid.labels_to_slices(ball)[0]
    assert grid.pixel == 2.0
    assert abs(int(plane.any(0).sum()) - 30) <= 1 and abs(int(plane.any(1).sum()) - 30) <= 1
    back = grid.to_native(grid.labels_to_slices(ball))
    assert back.shape == ball.shape and 2 * (back & ball).sum() / (back.sum() + ball.sum()) > 0.98


def test_labels_of_whole_blocks_survive_half_size():
    blocks = np.random.default_rng(3).integers(0, 5, (8, 8, 3), np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    grid = Grid.of(blocks.shape, RAS, 8)
    assert np.array_equal(grid.to_native(grid.labels_to_slices(blocks)), blocks)


# Grey values


def test_the_window_maps_its_ends_to_minus_one_and_one():
    values = np.array([-1000, -125, 75, 275, 3000], np.float32)
    assert Intensity.default("ct").apply(values).tolist() == [-1, -1, 0, 1, 1]


def test_percentiles_are_those_of_the_voxels_above_the_minimum():
    array = np.concatenate([np.zeros(500), np.arange(1, 202)]).astype(np.float32)
    rule = Intensity.default("mr")
    assert not rule.measured
    measured = rule.measure([sample(array)])
    assert (measured.low, measured.high) == (2.0, 200.0)  # 1 + 0.005 * 200 and 1 + 0.995 * 200
    assert Intensity("percentiles-per-volume").bounds(array) == (2.0, 200.0)
    assert Intensity.from_dict(measured.to_dict()) == measured


def test_an_intensity_that_makes_no_sense_is_one_sentence():
    for wrong in ({"kind": "windows"}, {"low": 3.0}, {"low": 3.0, "high": 3.0}):
        with pytest.raises(ConfigError):
            Intensity(**wrong)
    with pytest.raises(DataError, match="not a label map"):
        Intensity("percentiles").measure([sample(np.array([0, 1, 1, 1]))])


# Label values


def test_a_label_map_gives_the_organs_their_place_in_the_task():
    labels = LabelMap.parse("liver=5, kidneys=2+3, *=0")
    assert labels.organs == ("liver", "kidneys") and labels.others == "background"
    assert labels.apply(np.array([[0, 5, 2], [3, 1, 60]]), "x").tolist() == [[0, 1, 2], [2, 0, 0]]
    assert labels == LabelMap.of({"liver": 5, "kidneys": [2, 3]}, others="background")


def test_a_stray_value_is_listed_and_the_error_says_what_to_type():
    with pytest.raises(DataError, match=r"case1 holds the values 4, 6-8, which .* '\*=0'"):
        LabelMap.of({"liver": 5}).apply(np.array([[0, 5, 4], [6, 7, 8]]), "case1")


@pytest.mark.parametrize(
    "text", ["", "liver", "liver=", "=5", "liver=five", "liver=1,spleen=1", "liver=0", "*=3", "a=1;b=2"]
)
def test_an_unreadable_label_map_is_one_sentence(text):
    with pytest.raises(ConfigError):
        LabelMap.parse(text)
