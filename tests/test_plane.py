"""Slices along the plane of acquisition: oriented for a reader, back on the native grid to the voxel, left is left."""

import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attent_kit as ak
from attent_kit.data.prepared.file import Prepared, encode
from attent_kit.data.scans.volumes import read_volume
from attent_kit.data.space.geometry import PLANES, Grid, spacing_to_axial, to_axial
from attent_kit.data.space.slicing import Slicing
from attent_kit.errors import ConfigError, DataError
from support.commands import says, train_words
from support.messages import quotes
from test_volumes import ORIENTATIONS, turned

BOXES = {
    1: (slice(24, 30), slice(10, 18), slice(14, 24)),
    2: (slice(20, 24), slice(4, 9), slice(6, 14)),
    3: (slice(8, 12), slice(4, 9), slice(8, 16)),
    4: (slice(2, 7), slice(8, 15), slice(16, 23)),
}
"""Liver, right kidney, left kidney and spleen in RAS: the patient's right is at high x, the head at high z."""
MM = {"axial": (2.0, 2.0, 8.0), "sagittal": (8.0, 2.0, 2.0), "coronal": (2.0, 8.0, 2.0)}


def abdomen(seed=0):
    """Image and labels, 32 x 24 x 28 voxels, RAS."""
    labels = np.zeros((32, 24, 28), np.uint8)
    for organ, box in BOXES.items():
        labels[box] = organ
    image = np.array([40.0, 110, 170, 170, 130])[labels] + np.random.default_rng(seed).normal(0, 8, labels.shape)
    image[:, -2:] = -1000
    return image.astype(np.float32), labels


def write(folder, modality, plane, orientation="RAS", mm=None):
    """Three cases acquired in a plane, stored in an axis order; the words of `prepare` for them."""
    affine = np.diag([*(mm or MM[plane]), 1.0])
    for n in (1, 2, 3):
        for kind, array in zip(("images", "labels"), abdomen(n), strict=True):
            (folder / modality / kind).mkdir(parents=True, exist_ok=True)
            stored, placed = turned(array, affine, tuple(orientation))
            nib.save(nib.Nifti1Image(stored, placed), folder / modality / kind / f"{modality}_{n}.nii.gz")
    split = [f"--{name}={modality}_{n}" for n, name in enumerate(("train", "val", "test"), start=1)]
    labels = folder / modality / "labels"
    return ["prepare", folder / modality / "images", "--labels", labels, "--modality", modality, "--size", 32, *split]


# What a slice shows


@pytest.mark.parametrize(
    ("plane", "place"),
    # Of the voxel at right, back, head of 4 x 4 x 4: slice, row and column.
    [("axial", (3, 3, 0)), ("sagittal", (0, 0, 3)), ("coronal", (3, 0, 0))],
)
def test_a_slice_is_oriented_as_a_radiologist_reads_it(plane, place):
    array = np.zeros((4, 4, 4), np.uint8)
    array[3, 0, 3] = 1  # right, back, head in RAS
    for orientation in ORIENTATIONS:
        stored, affine = turned(array, np.diag([2.0, 2.0, 2.0, 1.0]), orientation)
        slices = Grid.of(stored.shape, affine, 4, plane=plane).labels_to_slices(stored)
        assert np.argwhere(slices).tolist() == [list(place)]
        assert np.argwhere(to_axial(slices, plane)).tolist() == [[3, 3, 0]]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 11)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    plane=st.sampled_from(PLANES),
    spacing=st.tuples(*[st.floats(0.5, 6.0)] * 3),
    tilt=st.floats(-0.6, 0.6),
    seed=st.integers(0, 99),
)
def test_every_voxel_comes_back_from_any_plane_of_any_oblique_grid(shape, orientation, plane, spacing, tilt, seed):
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    random = np.random.default_rng(seed).integers(0, 4, shape, np.uint8)
    labels, affine = turned(random, rotation @ np.diag([*spacing, 1]), orientation)
    grid = Grid.of(labels.shape, affine, 1, plane=plane)
    count, rows, columns = grid.planes_shape
    _, *mm = grid.planes_spacing
    assert np.isclose(grid.distance, grid.planes_spacing[0])
    # Pixels that are as fine as the finer side, so that the coarser one is repeated a whole number of times or interpolated.
    size = 2 * int(np.ceil(max(rows * mm[0], columns * mm[1]) / min(mm)))
    grid = Grid.of(labels.shape, affine, size, min(mm) / 2, plane)
    slices = grid.labels_to_slices(labels)
    assert slices.shape == (count, size, size)
    assert np.array_equal(grid.to_native(slices), labels)
    assert np.array_equal(grid.planes(labels).shape, grid.planes_shape)


def test_the_acquired_plane_is_that_of_the_longest_voxels_in_every_axis_order():
    for orientation in ORIENTATIONS:
        for plane, mm in MM.items():
            stored, affine = turned(np.zeros((4, 5, 6)), np.diag([*mm, 1]), orientation)
            assert Grid.of(stored.shape, affine, 1).acquired == plane
        stored, affine = turned(np.zeros((4, 5, 6)), np.diag([1.0, 1.2, 1.0, 1]), orientation)
        assert Grid.of(stored.shape, affine, 1).acquired is None
    assert [spacing_to_axial((9.0, 2.0, 1.0), plane) for plane in PLANES] == [(9, 2, 1), (2, 1, 9), (2, 9, 1)]


# prepare, train, predict


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "IPR", "PSR"])
@pytest.mark.parametrize("plane", ["sagittal", "coronal"])
def test_auto_takes_the_plane_of_acquisition_and_left_stays_left(attentkit, tmp_path, plane, orientation):
    words = write(tmp_path, "ct", plane, orientation)
    outcome = attentkit(*words, "--plane", "auto", "-o", tmp_path / "ct.h5")
    assert outcome.code == 0 and outcome.err == ""
    assert quotes(outcome.out, f"Slices {plane} ... 3 of 3 scans ... 8 mm apart ... 2 mm")
    domain = Prepared.open(tmp_path / "ct.h5")
    assert domain.plane == domain.manifest["plane"] == plane and domain.grid("ct_1").distance == 8
    organs = to_axial(domain.label_slices("ct_1"), plane)
    left = [np.argwhere(organs == organ)[:, 2].mean() for organ in (1, 2, 3, 4)]
    assert left == sorted(left)  # liver, right kidney, left kidney, spleen: columns from the patient's right to left
    up = [np.argwhere(organs == organ)[:, 0].mean() for organ in (2, 1)]
    assert up == sorted(up)
    checked = attentkit("check", tmp_path / "ct.h5")
    assert "sides" not in checked.out and "upside down" not in checked.out


def test_exchanged_kidneys_of_sagittal_slices_are_told(attentkit, tmp_path):
    words = write(tmp_path, "ct", "sagittal")
    organs = ["--organs", "liver=1,right kidney=3,left kidney=2,spleen=4"]
    outcome = attentkit(*words, "--plane", "sagittal", *organs, "-o", tmp_path / "ct.h5")
    assert outcome.code == 0 and quotes(outcome.err, "ct_1: ... right kidney ... left of the left kidney")
    assert "exchanged in the labels" in attentkit("check", tmp_path / "ct.h5").out


def test_the_plane_that_was_not_acquired_is_told_by_prepare_and_check(attentkit, tmp_path):
    words = write(tmp_path, "ct", "sagittal", "IPR")
    outcome = attentkit(*words, "-o", tmp_path / "ct.h5")
    told = "it was acquired in sagittal slices, 8 mm apart with pixels of 2 mm, and is cut into axial ones"
    assert outcome.code == 0 and f"ct_2: {told}: type --plane sagittal" in outcome.err
    assert Prepared.open(tmp_path / "ct.h5").plane == "axial"
    outcome = attentkit(
        "check", tmp_path / "ct" / "images", "--labels", tmp_path / "ct" / "labels", "--modality", "ct", "--json"
    )
    found = [each for each in json.loads(outcome.out) if each["check"] == "plane"]
    assert len(found) == 3 and {each["severity"] for each in found} == {"warning"}
    assert "--plane sagittal" in found[0]["advice"]


def test_auto_on_isotropic_grids_is_axial_and_says_why(attentkit, tmp_path):
    words = write(tmp_path, "mr", "axial", "IPR", mm=(1.0, 1.0, 1.0))
    outcome = attentkit(*words, "--plane", "auto", "-o", tmp_path / "mr.h5")
    assert outcome.code == 0 and quotes(outcome.out, "Slices axial: ... 3 of 3 scans ... 1.5 times")
    assert "1 x 1 x 1 mm" in outcome.out and Prepared.open(tmp_path / "mr.h5").plane == "axial"


def test_most_scans_decide_and_the_others_are_told(attentkit, tmp_path):
    words = write(tmp_path, "ct", "coronal")
    for kind in ("images", "labels"):
        path = tmp_path / "ct" / kind / "ct_2.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), np.diag([*MM["axial"], 1])), path)
    outcome = attentkit(*words, "--plane", "auto", "-o", tmp_path / "ct.h5")
    assert outcome.code == 0 and quotes(outcome.out, "Slices coronal ... 2 of 3 scans")
    assert quotes(outcome.err, "ct_2: ... acquired in axial") and "ct_1: it" not in outcome.err


def test_explicit_and_found_planes_give_the_same_slices_and_axial_is_as_always(attentkit, tmp_path):
    words = write(tmp_path, "ct", "axial")
    for name, more in (("a", []), ("b", ["--plane", "axial"]), ("c", ["--plane", "auto"])):
        assert attentkit(*words, *more, "-o", tmp_path / f"{name}.h5").code == 0
    files = [Prepared.open(tmp_path / f"{name}.h5") for name in "abc"]
    assert len({file.content_hash() for file in files}) == 1
    assert "plane" not in files[0].manifest and "plane" not in files[2].manifest


@pytest.mark.parametrize("centre", ["grid", "body"])
def test_a_run_on_sagittal_slices_predicts_on_the_grid_of_the_scan(attentkit, tmp_path, centre):
    for modality, orientation in (("mr", "LPS"), ("ct", "IPR")):
        words = write(tmp_path, modality, "sagittal", orientation)
        more = ["--plane", "auto", "--pixel", 2, "--centre", centre]
        assert attentkit(*words, *more, "-o", tmp_path / f"{modality}.h5").code == 0
    run = tmp_path / "run"
    assert attentkit(*train_words(tmp_path, run)).code == 0
    assert json.loads((run / "domain.json").read_text())["plane"] == "sagittal"
    image = tmp_path / "ct" / "images" / "ct_3.nii.gz"
    outcome = attentkit("predict", run, image, tmp_path / "p.nii.gz", "-d", "cpu", "--probabilities")
    assert outcome.code == 0 and "Warning" not in outcome.err
    written, kept = nib.load(tmp_path / "p.nii.gz"), nib.load(run / "predictions" / "ct_3.nii.gz")
    assert written.shape == nib.load(image).shape == (28, 24, 32) and np.array_equal(
        written.affine, nib.load(image).affine
    )
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(kept.dataobj))
    domain = Prepared.open(tmp_path / "ct.h5")
    slices, grid = encode(read_volume(image), domain.slicing, domain.intensity, "ct")
    assert np.array_equal(slices, domain.slices("ct_3")) and grid == domain.grid("ct_3")
    card = json.loads((tmp_path / "p.json").read_text())
    assert card["slices"]["plane"] == "sagittal" and any("one sagittal slice" in limit for limit in card["limits"])
    # The same patient in axial slices is unlike the training.
    stored, affine = turned(abdomen(3)[0], np.diag([2.0, 2.0, 8.0, 1]), ("L", "P", "S"))
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "axial.nii.gz")
    outcome = attentkit("predict", run, tmp_path / "axial.nii.gz", tmp_path / "q.nii.gz", "-d", "cpu")
    assert outcome.code == 0 and "acquired in axial slices" in outcome.err and "cut into sagittal ones" in outcome.err


def test_files_of_two_planes_are_neither_trained_on_together_nor_agree(attentkit, tmp_path):
    for modality, plane in (("mr", "axial"), ("ct", "coronal")):
        assert (
            attentkit(*write(tmp_path, modality, plane), "--plane", plane, "-o", tmp_path / f"{modality}.h5").code == 0
        )
    assert says(attentkit(*train_words(tmp_path, tmp_path / "run")), 3, "differ in plane: axial and coronal")
    found = json.loads(attentkit("check", tmp_path / "mr.h5", tmp_path / "ct.h5", "--json").out)
    assert [each["severity"] for each in found if each["check"] == "agreement"] == ["error"]


@pytest.mark.parametrize(
    ("plane", "sides", "caption", "size"),
    [
        ("sagittal", ("A", "P"), "coronal, head on top", (56, 256)),
        ("coronal", ("R", "L"), "axial, front on top", (192, 64)),
    ],
)
def test_previews_name_the_sides_and_cut_across_the_slices(
    attentkit, tmp_path, monkeypatch, plane, sides, caption, size
):
    from attent_kit.data.prepare import preview

    drawn = []
    monkeypatch.setattr(preview, "montage", lambda *words: drawn.append(words))
    words = write(tmp_path, "ct", plane)
    assert attentkit(*words, "--plane", plane, "-o", tmp_path / "ct.h5", "--preview", tmp_path / "x.png").code == 0
    rows, _, title, *_ = drawn[0]
    *slices, section = rows[0].views
    assert f"{plane} slices from" in title and {view.sides for view in slices} == {sides}
    assert section.caption == caption and section.sides == ("R", "L") and (section.height, section.width) == size
    # From the patient's right to the left: liver, right kidney, left kidney, spleen; the spleen lies above the left kidney.
    seen = {organ: np.argwhere(section.labels == organ).mean(0) for organ in BOXES if (section.labels == organ).any()}
    assert len(seen) > 1 and [column for _, column in seen.values()] == sorted(column for _, column in seen.values())
    if plane == "sagittal":
        assert seen[4][0] < seen[3][0]


def test_dicom_that_was_acquired_sagittally(attentkit, tmp_path):
    pytest.importorskip("pydicom")
    from support.dicom_slices import a_slice, save

    image, labels = abdomen()
    # Rows run to the back, columns to the feet; slices of 4 mm from the patient's right to the left, LPS.
    for x in range(32):
        pixels = (image[::-1][x, ::-1, ::-1].T + 1024).clip(0, 4000).astype(np.uint16)
        tags = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "InstanceNumber": x + 1, "PixelSpacing": [1.0, 1.0]}
        save(
            a_slice(pixels, (4.0 * x, 0, 27), RescaleIntercept=-1024, RescaleSlope=1, **tags),
            tmp_path / "scan" / f"{x}.dcm",
        )
    words = ["--modality", "ct", "--allow-unlabelled", "--plane", "auto", "--train", "scan", "--size", 28, "--pixel", 1]
    outcome = attentkit("prepare", tmp_path / "scan", *words, "-o", tmp_path / "ct.h5")
    assert outcome.code == 0 and quotes(outcome.out, "Slices sagittal ... 1 of 1 scans ... 4 mm apart")
    domain = Prepared.open(tmp_path / "ct.h5")
    expected = domain.intensity.apply(np.rint(image[::-1, ::-1, ::-1].transpose(0, 2, 1)))
    shown = domain.slices(domain.cases[0].id)[:, 0, :, 2:-2]
    assert shown.shape == expected.shape and np.abs(shown - expected).max() < 0.01


# What cannot be


def test_a_plane_that_a_layout_contradicts_and_planes_that_are_not(attentkit, tmp_path, volumes):
    arrays = tmp_path / "npz"
    arrays.mkdir()
    image, labels = abdomen()
    for n in (1, 2):
        np.savez(arrays / f"ct_{n}.npz", image, labels)
    words = [
        "prepare",
        arrays,
        "--layout",
        "sifa_npz",
        "--modality",
        "ct",
        "--per-volume",
        "--size",
        16,
        "--train",
        "ct_1",
    ]
    outcome = attentkit(*words, "--plane", "sagittal", "-o", tmp_path / "x.h5")
    assert says(outcome, 2, "axial slices ... not known ... sagittal")
    assert not (tmp_path / "x.h5").exists()
    assert "Slices axial, " in attentkit(*words, "--plane", "auto", "-o", tmp_path / "x.h5").out
    with pytest.raises(ConfigError, match="'sagital'.*'sagittal'"):
        ak.prepare(volumes / "ct", tmp_path / "y.h5", plane="sagital")
    with pytest.raises(ValueError):
        Slicing.from_dict({"size": 8, "pixel_mm": None, "plane": "oblique"})


def test_a_damaged_scan_is_met_by_auto_with_a_sentence(tmp_path):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.nii\.gz"):
        ak.prepare(tmp_path / "ct", tmp_path / "x.h5", modality="ct", allow_unlabelled=True, plane="auto")
