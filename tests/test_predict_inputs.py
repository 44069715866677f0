"""What `predict` takes: NIfTI and DICOM, told apart for certain; and where it writes, and where it never does."""

import shutil
import sys

import nibabel as nib
import numpy as np
import pytest

from support.cases import AFFINE, contents
from support.commands import says
from support.messages import quotes
from support.stand_in import REGISTRY, expected, greys, predict, save, stand_in_run, whole_run

pydicom = pytest.importorskip("pydicom")
from attent_kit.cli import predict as command  # noqa: E402
from attent_kit.engine.apply.inputs import find_inputs  # noqa: E402
from attent_kit.errors import ConfigError, DataError  # noqa: E402
from support.dicom_slices import UID, write_series  # noqa: E402

SQUARE = {"PixelSpacing": [2.0, 2.0]}
"""A slice of 4 columns and 3 rows on 4 x 4 pixels: nothing is resampled."""
OTHER = UID + ".7"


def stored():
    """Grey values [X, Y, Z] of 4 columns, 3 rows and 5 slices: 5, 15, ... 195 and again."""
    return (np.arange(60).reshape(4, 3, 5) % 20 * 10 + 5).astype(np.uint16)


def of(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def run(tmp_path):
    """A run whose slices are 4 x 4 pixels."""
    return stand_in_run(tmp_path / "run", 4)


@pytest.fixture
def series(tmp_path):
    """A folder of five slices, 5 mm apart from (-10, -20, 0) on, in an order that their names do not have."""
    write_series(tmp_path / "CT_3", stored(), names=["c", "e", "a", "d", "b"], **SQUARE)
    return tmp_path / "CT_3"


# DICOM


def test_a_dicom_series_comes_back_as_nifti_on_its_own_grid(run, series, tmp_path):
    """The voxel (1, 2, 3) lies at -10 + 2, -20 + 4, 15 in DICOM, which counts to the left and back: (8, 16, 15) in RAS."""
    written = predict(run, series, tmp_path / "labels.nii.gz")
    assert written == [tmp_path / "labels.nii.gz", tmp_path / "labels.json"]
    labels = nib.load(tmp_path / "labels.nii.gz")
    assert np.array_equal(of(tmp_path / "labels.nii.gz"), expected(stored()))
    assert (labels.affine @ (1, 2, 3, 1)).tolist() == [8, 16, 15, 1]
    assert labels.header["sform_code"] == labels.header["qform_code"] == 1
    assert np.allclose(labels.get_qform(), labels.affine) and labels.header.get_xyzt_units()[0] == "mm"


def test_an_oblique_series_keeps_its_angle(run, tmp_path):
    """A row runs to the left, a column by 0.8 to the back and 0.6 up, in RAS (-1, 0, 0) and (0, -0.8, 0.6); across them is
    (0, 0.6, 0.8). Steps are 2, 2 and 5 mm."""
    tilted = (1, 0, 0, 0, 0.8, 0.6)
    normal = np.array([0, -0.6, 0.8])
    places = [{"ImagePositionPatient": list(5 * z * normal), "ImageOrientationPatient": list(tilted)} for z in range(5)]
    write_series(tmp_path / "in", stored(), tags=places, **SQUARE)
    predict(run, tmp_path / "in", tmp_path / "labels.nii.gz")
    affine = nib.load(tmp_path / "labels.nii.gz").affine
    assert np.allclose(affine[:3, :3], np.array([[-2, 0, 0], [0, -1.6, 3], [0, 1.2, 4]]))
    assert np.array_equal(of(tmp_path / "labels.nii.gz"), expected(stored()))


def test_in_a_folder_the_labels_are_called_as_the_folder_of_the_series(run, series, tmp_path):
    (tmp_path / "out").mkdir()
    written = predict(run, series, tmp_path / "out", maps=["entropy"])
    assert [path.name for path in written] == ["CT_3.nii.gz", "CT_3_entropy.nii.gz", "CT_3.json"]


def test_what_was_decided_about_a_series_is_said(run, series, tmp_path):
    (series / "readme.txt").write_text("words")
    said = []
    predict(run, series, tmp_path / "l.nii.gz", say=said.append)
    assert len(said) == 1 and quotes(said[0], "Note: CT_3: ", "not DICOM: readme.txt")
    shutil.rmtree(series)
    write_series(series, stored(), SliceThickness=3.0, **SQUARE)
    said.clear()
    predict(run, series, tmp_path / "m.nii.gz", say=said.append)
    assert len(said) == 1 and quotes(said[0], "Note: CT_3: ", "SliceThickness", "3 mm", "positions 5 mm")


def test_of_several_series_one_is_chosen_by_its_uid(attentkit, run, series, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load", lambda: type("Loaded", (), {"registry": REGISTRY}))
    write_series(series / "more", 200 - stored(), SeriesInstanceUID=OTHER, SeriesDescription="late", **SQUARE)
    before = contents(tmp_path)
    words = ["predict", run, series, tmp_path / "l.nii.gz", "-d", "cpu"]
    assert says(attentkit(*words), 2, "2 series", f"{UID}, 5 slice", "CT 'Abdomen'", OTHER, "--series UID")
    assert says(attentkit(*words, "--series", OTHER[:-1] + "8"), 2, f"'{OTHER[:-1]}8'", f"'{OTHER}'?")
    assert contents(tmp_path) == before
    assert attentkit(*words, "--series", OTHER).code == 0
    assert np.array_equal(of(tmp_path / "l.nii.gz"), expected(200 - stored()))


def test_a_damaged_slice_is_named_and_nothing_is_written(run, series, tmp_path):
    path = series / "a"
    path.write_bytes(path.read_bytes()[:-20])
    before = contents(tmp_path)
    with pytest.raises(DataError, match="CT_3/a"):
        predict(run, series, tmp_path / "l.nii.gz")
    (series / "b").unlink()
    with pytest.raises(DataError, match="CT_3"):
        predict(run, series, tmp_path / "l.nii.gz")
    assert {name: before[name] for name in before if not name.endswith("/b")} == contents(tmp_path)


def test_a_single_slice_asks_for_its_series(run, series, tmp_path):
    with pytest.raises(DataError, match="only slice"):
        predict(run, series / "a", tmp_path / "l.nii.gz")


def test_without_pydicom_dicom_says_what_to_install_and_nifti_works(run, series, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ConfigError, match=r"pip install 'attent-kit\[dicom\]'"):
        predict(run, series, tmp_path / "l.nii.gz")
    predict(run, save(tmp_path / "i.nii.gz", greys((4, 4, 2)), AFFINE), tmp_path / "l.nii.gz")


# What is meant


def test_a_folder_of_both_kinds_is_not_guessed_about(run, series, tmp_path):
    save(series / "labels.nii.gz", greys((4, 3, 5)), AFFINE)
    with pytest.raises(ConfigError, match="NIfTI and DICOM, as labels.nii.gz and a: .*--series"):
        predict(run, series, tmp_path / "l.nii.gz")
    predict(run, series, tmp_path / "l.nii.gz", series=UID)
    assert np.array_equal(of(tmp_path / "l.nii.gz"), expected(stored()))


def test_a_folder_of_neither_and_a_uid_for_nifti_are_told(run, tmp_path):
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "deeper" / "notes.txt").write_text("words")
    with pytest.raises(DataError, match=r"in holds no \.nii or \.nii\.gz file, .* DICOM"):
        predict(run, tmp_path / "in", tmp_path / "out")
    image = save(tmp_path / "i.nii.gz", greys((4, 4, 2)), AFFINE)
    with pytest.raises(ConfigError, match=r"i\.nii\.gz is not DICOM.*--series"):
        predict(run, image, tmp_path / "l.nii.gz", series=UID)
    with pytest.raises(DataError, match="nowhere does not exist"):
        predict(run, tmp_path / "nowhere", tmp_path / "l.nii.gz", series=UID)


def test_hidden_files_and_other_files_beside_volumes_do_not_matter(tmp_path):
    save(tmp_path / "in" / "a.nii.gz", greys((4, 4, 2)), AFFINE)
    for name in ("._a.nii.gz", ".DS_Store", "dataset.json"):
        (tmp_path / "in" / name).write_text("{}")
    assert [given.name for given in find_inputs(tmp_path / "in")] == ["a.nii.gz"]


def test_label_maps_beside_their_images_are_not_taken_for_images(tmp_path):
    for name in ("case1.nii.gz", "case1_labels.nii.gz"):
        save(tmp_path / "in" / name, greys((4, 4, 2)), AFFINE)
    with pytest.raises(DataError, match=r"case1\.nii\.gz and case1_labels\.nii\.gz .*'case1'"):
        find_inputs(tmp_path / "in")


# Where it writes


def test_every_image_is_read_before_the_first_is_segmented(run, tmp_path):
    content = save(tmp_path / "in" / "a.nii.gz", greys((40, 40, 4)), AFFINE).read_bytes()
    (tmp_path / "in" / "b.nii.gz").write_bytes(content[: len(content) // 2])
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"b\.nii\.gz .*damaged"):
        predict(run, tmp_path / "in", tmp_path / "out")
    assert contents(tmp_path) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("taken", ["l.nii.gz", "l_entropy.nii.gz", "l_translation.nii.gz", "l.json"])
def test_no_file_is_replaced_unless_told_to(tmp_path, taken):
    run = whole_run(tmp_path / "run", 4)
    image = save(tmp_path / "i.nii.gz", greys((4, 4, 2)), AFFINE)
    (tmp_path / taken).write_text("mine")
    before = contents(tmp_path)
    maps = ["entropy", "translation"]
    with pytest.raises(ConfigError, match=f"{taken} exists already: .*--overwrite"):
        predict(run, image, tmp_path / "l.nii.gz", maps=maps)
    assert contents(tmp_path) == before
    predict(run, image, tmp_path / "l.nii.gz", maps=maps, overwrite=True)
    assert (tmp_path / taken).read_bytes() != b"mine"


def test_an_input_is_never_replaced_nor_two_answers_written_to_one_file(run, tmp_path):
    for name in ("a.nii.gz", "a_entropy.nii.gz"):
        save(tmp_path / "in" / name, greys((4, 4, 2)), AFFINE)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"out/a_entropy\.nii\.gz .*twice"):
        predict(run, tmp_path / "in", tmp_path / "out", maps=["entropy"])
    with pytest.raises(ConfigError, match="in/a_entropy.nii.gz is an input"):
        predict(run, tmp_path / "in" / "a_entropy.nii.gz", tmp_path / "in", overwrite=True)
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "in" / "a.nii.gz")
    with pytest.raises(ConfigError, match="link.nii.gz is an input"):
        predict(run, tmp_path / "in" / "a.nii.gz", tmp_path / "link.nii.gz", overwrite=True)
    (tmp_path / "link.nii.gz").unlink()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("out", ["labels", "labels.nrrd", "labels.gz"])
def test_a_series_and_a_file_need_the_name_of_a_label_map_or_a_folder(run, series, tmp_path, out):
    with pytest.raises(ConfigError, match=r"write .*\.nii\.gz.* folder"):
        predict(run, series, tmp_path / out)
    assert not (tmp_path / out).exists()


def test_a_folder_of_volumes_is_not_written_to_a_folder_that_is_named_as_a_file(run, volumes, tmp_path):
    with pytest.raises(ConfigError, match=r"labels\.nii\.gz is .*images holds 3 images"):
        predict(run, volumes / "ct" / "images", tmp_path / "labels.nii.gz")
    assert not (tmp_path / "labels.nii.gz").exists()
