"""Labels lie on the grid of their image, exactly: known answers on every kind of grid, and every field of the header."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from attent_kit.errors import RunError
from support.cases import AFFINE
from support.stand_in import expected, greys, predict, save, stand_in_run

TWO, FIVE = np.diag([2.0, 2, 2, 1]), np.diag([0.8, 0.8, 5, 1])
TILTED = np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ np.array(
    [[1, 0, 0, -20.5], [0, 0.8, -0.6, 33], [0, 0.6, 0.8, 7.25], [0, 0, 0, 1]]
)


def stored(affine, orientation, shape=(12, 10, 5)):
    """A grid of the same place whose axes are stored in another order: its shape and affine."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    moved = np.empty(3, int)
    moved[turn[:, 0].astype(int)] = shape
    return tuple(int(n) for n in moved), affine @ inv_ornt_aff(turn, shape)


def labels_of(path):
    image = nib.load(path)
    return image, np.asarray(image.dataobj)


GRIDS = {
    f"{orientation} {name}": (base, orientation)
    for name, base in (("2 mm", TWO), ("5 mm", FIVE), ("oblique", TILTED @ FIVE))
    for orientation in ("RAS", "LPS", "LAS", "SPL", "ASR")
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_where_nothing_is_resampled_labels_are_the_thresholded_image_voxel_by_voxel(tmp_path, grid, ending):
    shape, affine = stored(*GRIDS[grid])
    array = greys(shape)
    path = save(tmp_path / f"image{ending}", array, affine)
    predict(stand_in_run(tmp_path / "run", 12), path, tmp_path / f"labels{ending}")
    image, (labels, found) = nib.load(path), labels_of(tmp_path / f"labels{ending}")
    assert np.array_equal(found, expected(array)) and len(np.unique(found)) == 3
    assert found.dtype == np.uint8 and labels.shape == shape
    assert np.array_equal(labels.affine, image.affine) and labels.header.get_zooms() == image.header.get_zooms()


@pytest.mark.parametrize("size", [9, 16, 31])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "SPL"])
def test_where_slices_are_resampled_labels_differ_beside_a_boundary_alone(tmp_path, size, orientation):
    """Grey values rise by 10 a voxel along one axis in plane, so that a pixel beside a boundary is within 10 of it."""
    shape, affine = stored(FIVE, orientation, (20, 20, 4))
    along = nib.aff2axcodes(affine).index(orientation[[letter in "RL" for letter in orientation].index(True)])
    array = np.moveaxis(np.broadcast_to(4.0 + 10 * np.arange(20), (*np.delete(shape, along), 20)), -1, along)
    path = save(tmp_path / "image.nii.gz", array.astype(np.float32), affine)
    predict(stand_in_run(tmp_path / "run", size), path, tmp_path / "labels.nii.gz")
    _, found = labels_of(tmp_path / "labels.nii.gz")
    wrong = found != expected(array)
    near = np.minimum(abs(array - 50), abs(array - 150)) <= 10 * max(1, 20 / size)
    assert not (wrong & ~near).any() and wrong.mean() <= 2 / 20


def without_sform(image):
    image.set_sform(None, code=0)


def without_qform(image):
    image.set_qform(None, code=0)
    image.header["pixdim"][1:4] = nib.affines.voxel_sizes(image.get_sform())


def placed_nowhere(image):
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    image.header["pixdim"][1:4] = (2, 2, 5)


def differing(image):
    image.set_sform(TILTED @ AFFINE, code=2)
    image.set_qform(AFFINE, code=3)


def talairach(image):
    image.set_sform(AFFINE, code=3)
    image.set_qform(AFFINE, code=4)


def described(image):
    image.header["descrip"], image.header["aux_file"] = b"portal venous phase", b"colours"
    image.header["toffset"], image.header["slice_code"] = 1.5, 3
    image.header.set_dim_info(0, 1, 2)
    image.header.set_xyzt_units("micron", "msec")


def statistical(image):
    image.header.set_intent("z score", (), "of something")
    image.header["cal_min"], image.header["cal_max"] = -100, 300


def noted(image):
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))


HEADERS = [
    without_sform, without_qform, placed_nowhere, differing, talairach, described, statistical, noted,
]  # fmt: skip
OF_GREY_VALUES = {"datatype", "bitpix", "scl_slope", "scl_inter", "cal_min", "cal_max"}
OF_INTENT = {"intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3"}


@pytest.mark.parametrize("change", HEADERS)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_header_of_the_image_is_that_of_its_labels_but_for_what_tells_of_grey_values(tmp_path, change, kind):
    array = greys().astype(np.int16)
    path = save(tmp_path / "image.nii.gz", array, AFFINE, change, kind)
    predict(stand_in_run(tmp_path / "run", 12), path, tmp_path / "labels.nii.gz")
    image, (labels, found) = nib.load(path), labels_of(tmp_path / "labels.nii.gz")
    assert type(labels) is kind and np.array_equal(labels.affine, image.affine)
    for field in set(image.header) - OF_GREY_VALUES - OF_INTENT - {"vox_offset"}:
        assert image.header[field].tobytes() == labels.header[field].tobytes(), field
    assert labels.header.get_intent()[:2] == ("none", ()) and labels.header["cal_max"] == 0
    assert list(labels.header.extensions) == list(image.header.extensions)
    assert np.array_equal(found, expected(array))


def test_a_stored_slope_is_undone_in_the_image_and_not_applied_to_the_labels(tmp_path):
    """Stored values s stand for 2 s - 1024, as CT often is."""
    array = greys()
    image = nib.Nifti1Image(((array + 1025) / 2).astype(np.int16), AFFINE)
    image.header.set_slope_inter(2, -1025)
    image.to_filename(tmp_path / "image.nii.gz")
    header = nib.load(tmp_path / "image.nii.gz").dataobj
    assert (header.slope, header.inter) != (1, 0)
    predict(stand_in_run(tmp_path / "run", 12), tmp_path / "image.nii.gz", tmp_path / "l.nii.gz", maps=["entropy"])
    assert np.array_equal(
        labels_of(tmp_path / "l.nii.gz")[1], expected(nib.load(tmp_path / "image.nii.gz").get_fdata())
    )
    for name in ("l.nii.gz", "l_entropy.nii.gz"):
        # scl_slope and scl_inter as they are stored: some programs do not take NaN for "none".
        assert np.frombuffer(gzip.decompress((tmp_path / name).read_bytes())[112:120], "<f4").tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(12, 10, 5, 1), (12, 10, 5, 1, 1)])
def test_an_image_of_one_frame_has_labels_of_one_frame(tmp_path, shape):
    array = greys(shape)
    path = save(tmp_path / "image.nii.gz", array, AFFINE, lambda image: image.header["pixdim"].__setitem__(4, 2.5))
    predict(stand_in_run(tmp_path / "run", 12), path, tmp_path / "labels.nii.gz")
    labels, found = labels_of(tmp_path / "labels.nii.gz")
    assert labels.shape == shape and labels.header["pixdim"][4] == 2.5
    assert np.array_equal(found, expected(array))


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_labels_of_a_pair_of_header_and_image_keep_their_place_in_one_file(tmp_path, kind):
    array = greys()
    save(tmp_path / "image.img", array, TILTED @ AFFINE, kind=kind)
    predict(stand_in_run(tmp_path / "run", 12), tmp_path / "image.img", tmp_path)
    labels, found = labels_of(tmp_path / "image.nii.gz")
    assert np.array_equal(labels.affine, nib.load(tmp_path / "image.img").affine)
    assert np.array_equal(found, expected(array))


def test_a_big_endian_image_is_read_and_answered(tmp_path):
    array = greys()
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(array.astype(">i2"), AFFINE, header), tmp_path / "image.nii")
    predict(stand_in_run(tmp_path / "run", 12), tmp_path / "image.nii", tmp_path / "labels.nii", maps=["entropy"])
    labels, found = labels_of(tmp_path / "labels.nii")
    assert np.array_equal(found, expected(array)) and labels.header.endianness == ">"
    assert labels_of(tmp_path / "labels_entropy.nii.gz")[1].max() < 1e-6


def test_a_folder_is_answered_file_by_file_under_the_same_names(tmp_path):
    arrays = {"b.nii": greys(seed=1), "a_0000.nii.gz": greys((8, 12, 3), seed=2)}
    for name, array in arrays.items():
        save(tmp_path / "in" / name, array, AFFINE)
    written = predict(stand_in_run(tmp_path / "run", 12), tmp_path / "in", tmp_path / "out")
    assert [path.name for path in written] == ["a_0000.nii.gz", "b.nii", "prediction.json"]
    for name, array in arrays.items():
        assert np.array_equal(labels_of(tmp_path / "out" / name)[1], expected(array))


def test_what_slices_of_a_given_pixel_size_do_not_cover_is_background(tmp_path):
    """16 x 16 voxels of 2 mm and 8 pixels of 2 mm: four voxels on each side are cut off."""
    array = np.full((16, 16, 3), 195, np.float32)
    array[0, 0, 0] = 5
    path = save(tmp_path / "image.nii.gz", array, TWO)
    predict(stand_in_run(tmp_path / "run", 8, pixel_mm=2.0), path, tmp_path / "l.nii.gz", maps=["probabilities"])
    covered = np.zeros((16, 16, 3), bool)
    covered[4:12, 4:12] = True
    assert np.array_equal(labels_of(tmp_path / "l.nii.gz")[1], 2 * covered)
    probabilities = labels_of(tmp_path / "l_probabilities.nii.gz")[1]
    assert np.array_equal(probabilities[..., 0] == 1, ~covered) and np.array_equal(probabilities[..., 2] == 1, covered)


def test_an_answer_that_cannot_be_written_whole_is_not_in_the_way_of_the_same_command(tmp_path, monkeypatch):
    path = save(tmp_path / "image.nii.gz", greys((12, 10, 5)), TWO)
    run, labels = stand_in_run(tmp_path / "run", 12), tmp_path / "labels.nii.gz"

    def full(*given):
        raise RunError("there is no room")

    with monkeypatch.context() as disk, pytest.raises(RunError, match="no room"):
        disk.setattr("attent_kit.engine.apply.volumes.write_text", full)
        predict(run, path, labels)
    assert not labels.exists()
    predict(run, path, labels)
    assert labels.exists() and labels.with_name("labels.json").exists()
