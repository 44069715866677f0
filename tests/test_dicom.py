"""DICOM series become volumes by where their slices lie, whatever their files are called."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.scans.dicom import Series, find_series, read_series
from attent_kit.data.scans.volumes import read_labels, write_labels
from attent_kit.errors import ConfigError
from support.dicom_slices import UID, a_slice, multi_frame, pydicom, save, values, write_series
from support.messages import quotes

# Columns .5 mm to the left, rows 2 mm to the back, slices 5 mm to the head; the first voxel at left -10, back -20.
AFFINE = [[-0.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 5, 0], [0, 0, 0, 1]]
TILTED = (1, 0, 0, 0, 0.8, 0.6)
"""Rows to the left, columns to the back and up by the 3-4-5 triangle; the normal is (0, -.6, .8)."""


def note(notes, words):
    (found,) = [line for line in notes if words in line]
    return found


# Order and grid


@pytest.mark.parametrize(
    "names",
    [
        [f"{z}.dcm" for z in range(5)],
        [f"{9 - z}.dcm" for z in range(5)],
        ["b.dcm", "e.dcm", "a.dcm", "d.dcm", "c.dcm"],
        ["IM10", "IM9", "IM100", "IM1", "IM2"],
    ],
)
def test_slices_are_in_the_order_of_their_positions_whatever_their_names(tmp_path, names):
    files = write_series(tmp_path, names=names)
    volume, _ = read_series(tmp_path)
    assert volume.array.dtype == np.float32 and np.array_equal(volume.array, values())
    assert volume.affine.tolist() == AFFINE
    assert volume.spacing == (0.5, 2, 5) and volume.orientation == "LPS" and volume.placed
    assert volume.path == tmp_path
    (series,) = find_series(tmp_path)
    assert series.files == tuple(files) and series.numbers == (1, 2, 3, 4, 5) and series.slices == 5
    assert (series.uid, series.description, series.modality) == (UID, "Abdomen", "CT")
    again, _ = read_series(Series("", "", "", tuple(reversed(files))))
    assert np.array_equal(again.array, volume.array) and np.array_equal(again.affine, volume.affine)


def test_instance_numbers_that_run_against_the_positions_do_not_order_slices(tmp_path):
    write_series(tmp_path, tags=[{"InstanceNumber": 5 - z} for z in range(5)])
    assert np.array_equal(read_series(tmp_path)[0].array, values())
    assert find_series(tmp_path)[0].numbers == (5, 4, 3, 2, 1)


def test_the_header_is_that_of_a_nifti_volume_on_the_same_grid(tmp_path):
    write_series(tmp_path / "dicom")
    volume, _ = read_series(tmp_path / "dicom")
    header = volume.header
    assert header.get_sform().tolist() == AFFINE and np.allclose(header.get_qform(), AFFINE)
    assert header.get_data_shape() == (4, 3, 5) and header.get_xyzt_units()[0] == "mm"
    write_labels(tmp_path / "l.nii.gz", values() % 7, volume.affine, volume.header)
    assert np.array_equal(read_labels(tmp_path / "l.nii.gz", like=volume).array, values() % 7)
    nib.save(nib.Nifti1Image((values() % 7).astype(np.uint8)[::-1], volume.affine @ mirror(4)), tmp_path / "r.nii.gz")
    assert np.array_equal(read_labels(tmp_path / "r.nii.gz", like=volume).array, values() % 7)


def mirror(count):
    return np.array([[-1, 0, 0, count - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def test_the_distance_of_slices_is_that_of_their_positions_and_not_their_thickness(tmp_path):
    write_series(tmp_path, heights=[2.0 * z for z in range(5)], SliceThickness=3, SpacingBetweenSlices=3)
    volume, notes = read_series(tmp_path)
    assert volume.spacing == (0.5, 2, 2)
    assert quotes(note(notes, "SliceThickness"), "3 mm", "positions 2 mm")


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_evenly_spaced(tmp_path):
    write_series(tmp_path, values(9), heights=[round(0.625 * z, 1) for z in range(9)])
    assert read_series(tmp_path)[0].spacing[2] == pytest.approx(0.625)


def test_an_oblique_series_lies_as_its_directions_say(tmp_path):
    # From slice to slice 5 mm along the normal: 3 mm to the front, 4 mm to the head.
    for z in (2, 0, 1):
        made = a_slice(values()[:, :, z].T, (1, 2 - 3 * z, 3 + 4 * z), ImageOrientationPatient=list(TILTED))
        save(made, tmp_path / f"{9 - z}")
    volume, _ = read_series(tmp_path)
    assert np.array_equal(volume.array, values(3)) and volume.spacing == pytest.approx((0.5, 2, 5))
    assert np.allclose(volume.affine, [[-0.5, 0, 0, -1], [0, -1.6, 3, -2], [0, 1.2, 4, 3], [0, 0, 0, 1]])


def test_a_coronal_series_runs_to_the_back(tmp_path):
    for z in range(3):
        made = a_slice(values()[:, :, z].T, (0, 4 * z, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
        save(made, tmp_path / f"{3 - z}.dcm")
    volume, _ = read_series(tmp_path)
    assert volume.orientation == "LIP" and np.array_equal(volume.array, values(3))


# Values


def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    write_series(tmp_path, tags=[{"RescaleSlope": 1 + z, "RescaleIntercept": -10 * z} for z in range(5)])
    volume, notes = read_series(tmp_path)
    # The voxel (1, 2) of slice 3 is stored as 321: 321 * 4 - 30.
    assert volume.array[1, 2, 3] == 1254 and volume.array[1, 2, 0] == 21
    assert "each slice" in note(notes, "RescaleSlope")


def test_monochrome1_is_turned_round_within_the_range_of_its_bits(tmp_path):
    write_series(tmp_path / "unsigned", PhotometricInterpretation="MONOCHROME1", RescaleIntercept=-1024, RescaleSlope=1)
    volume, notes = read_series(tmp_path / "unsigned")
    assert volume.array[1, 2, 3] == 4095 - 321 - 1024 and note(notes, "MONOCHROME1")
    stored = values().astype(np.int16) - 100
    write_series(tmp_path / "signed", stored, PhotometricInterpretation="MONOCHROME1")
    assert read_series(tmp_path / "signed")[0].array[1, 2, 3] == -1 - 221


def test_negative_values_and_overlays_in_unused_bits_are_read_as_12_bits_say(tmp_path):
    stored = values().astype(np.int16) - 100
    write_series(tmp_path / "signed", stored)
    assert np.array_equal(read_series(tmp_path / "signed")[0].array, stored)
    write_series(tmp_path / "overlay", values() + np.uint16(1 << 13))
    assert np.array_equal(read_series(tmp_path / "overlay")[0].array, values())


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless"])
def test_a_compressed_series_has_the_same_values(tmp_path, syntax):
    if syntax == "JPEG2000Lossless":
        pytest.importorskip("openjpeg")
    stored = np.random.default_rng(0).integers(0, 4000, (40, 33, 3)).astype(np.uint16)
    for z in range(3):
        made = a_slice(stored[:, :, z].T, (0, 0, 4 * z))
        made.compress(getattr(pydicom.uid, syntax))
        save(made, tmp_path / f"{3 - z}")
    assert np.array_equal(read_series(tmp_path)[0].array, stored)


def test_frames_of_one_file_are_slices(tmp_path):
    file = save(multi_frame(values(), [3, 0, 4, 1, 2], slopes={3: 2}), tmp_path / "enhanced.dcm")
    (series,) = find_series(tmp_path)
    assert series.files == (file,) and series.slices == 5
    for place in (tmp_path, file):
        volume, _ = read_series(place)
        expected = values().astype(float) - 1024
        expected[:, :, 3] += values()[:, :, 3]
        assert np.array_equal(volume.array, expected) and volume.affine.tolist() == AFFINE


def test_a_file_without_preamble_and_meta_header_is_read(tmp_path):
    for path in write_series(tmp_path):
        whole = pydicom.dcmread(path)
        del whole.file_meta
        whole.preamble = None
        pydicom.dcmwrite(path.with_suffix(""), whole, implicit_vr=True, little_endian=True)
        path.unlink()
    assert (tmp_path / "0").read_bytes()[:2] == b"\x08\x00"
    assert np.array_equal(read_series(tmp_path)[0].array, values())


# Which files are a series


def test_strays_are_skipped_and_told(tmp_path):
    files = write_series(tmp_path, names=[f"IM{z}" for z in range(5)])
    (tmp_path / "sub").mkdir()
    for name in ("notes.txt", "sub/picture.png", "empty"):
        (tmp_path / name).write_bytes(b"words" * (name != "empty"))
    for name in ("._IM0", ".hidden.dcm", "DICOMDIR", "sub/.DS_Store"):
        (tmp_path / name).write_bytes(files[0].read_bytes())
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "IM9").write_bytes(files[0].read_bytes())
    volume, notes = read_series(tmp_path)
    assert np.array_equal(volume.array, values())
    assert len(notes) == 1 and quotes(notes[0], "skipped", "not DICOM: empty, notes.txt, sub/picture.png.")


def test_structures_doses_and_screenshots_beside_a_series_are_no_slices_of_it(tmp_path):
    write_series(tmp_path)
    for modality in ("RTSTRUCT", "RTDOSE"):
        extra = a_slice(np.ones((3, 4), np.uint16), (0, 0, 0), Modality=modality, SeriesInstanceUID=UID + ".7")
        if modality == "RTSTRUCT":
            del extra.Rows, extra.Columns, extra.PixelData
        save(extra, tmp_path / f"{modality}.dcm")
    shot = a_slice(np.ones((3, 4), np.uint16), (0, 0, 0), SeriesInstanceUID=UID + ".8", ImagePositionPatient=None)
    save(shot, tmp_path / "dose report")
    volume, notes = read_series(tmp_path)
    assert np.array_equal(volume.array, values())
    assert quotes(note(notes, "RTSTRUCT"), "without an image: RTSTRUCT.dcm") and note(notes, "RTDOSE.dcm")
    assert quotes(note(notes, "dose report"), "without a position: dose report")


def test_several_series_are_listed_with_their_slices_and_one_is_chosen_by_its_uid(tmp_path):
    write_series(tmp_path)
    other = values(3) + np.uint16(7)
    write_series(tmp_path, other, [f"T2 {z}" for z in range(3)], SeriesInstanceUID="1.9", SeriesDescription="T2\nSPIR")
    with pytest.raises(ConfigError) as error:
        read_series(tmp_path)
    sentence = str(error.value)
    assert quotes(sentence, f"{tmp_path} holds 2 series", "UID") and "\n" not in sentence
    assert quotes(sentence, f"{UID}, 5 slice", "CT 'Abdomen'") and quotes(sentence, "1.9, 3 slice", "CT 'T2 SPIR'")
    assert np.array_equal(read_series(tmp_path, uid="1.9")[0].array, other)
    assert [(series.uid, len(series.files)) for series in find_series(tmp_path)] == [(UID, 5), ("1.9", 3)]
    with pytest.raises(ConfigError, match=rf"'{UID}2'.*'{UID}'\?"):
        read_series(tmp_path, uid=UID + "2")


def test_one_uid_in_two_folders_is_one_series_unless_the_slices_lie_at_the_same_places(tmp_path):
    write_series(tmp_path, names=["a/0", "a/1", "b/2", "b/3", "b/4"])
    assert np.array_equal(read_series(tmp_path)[0].array, values()) and read_series(tmp_path)[0].path == tmp_path
    write_series(tmp_path, names=[f"copy/{z}" for z in range(5)])
    assert [series.files[0].parent.name for series in find_series(tmp_path)] == ["a", "b", "copy"]
    with pytest.raises(ConfigError, match="3 series: .*[Nn]ame the folder"):
        read_series(tmp_path, uid=UID)
    assert np.array_equal(read_series(tmp_path / "copy")[0].array, values())


@pytest.mark.parametrize("uid", ["", "one each"])
def test_without_a_common_uid_the_slices_of_one_folder_are_one_series(tmp_path, uid):
    for case in (1, 2):
        tags = [{"SeriesInstanceUID": f"1.2.{case}.{z + 1}" if uid else ""} for z in range(5)]
        write_series(tmp_path / f"case{case}", tags=tags)
    found = find_series(tmp_path)
    assert [(series.uid, series.slices) for series in found] == [("", 5), ("", 5)]
    assert [series.files[0].parent.name for series in found] == ["case1", "case2"]
    volume, notes = read_series(tmp_path / "case1")
    assert np.array_equal(volume.array, values()) and note(notes, "no SeriesInstanceUID in common")


def test_images_of_different_kinds_with_a_uid_each_are_not_stacked(tmp_path):
    save(a_slice(values()[:, :, 0].T, (0, 0, 0), SeriesInstanceUID="1.1"), tmp_path / "a")
    save(a_slice(values()[:, :, 0].T, (0, 0, 5), SeriesInstanceUID="1.2", SeriesDescription="scout"), tmp_path / "b")
    assert [series.uid for series in find_series(tmp_path)] == ["1.1", "1.2"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_out_of_the_folder_are_not_followed_and_links_within_count_once(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    files = write_series(inside)
    write_series(outside, SeriesInstanceUID="1.9")
    (inside / "to a folder").symlink_to(outside)
    (inside / "to a file.dcm").symlink_to(outside / "0.dcm")
    (inside / "within.dcm").symlink_to(files[0])
    (inside / "up").symlink_to(inside)
    (inside / "nowhere").symlink_to(inside / "gone")
    os.mkfifo(inside / "pipe")
    volume, notes = read_series(inside)
    assert np.array_equal(volume.array, values())
    assert quotes(note(notes, "link"), "skipped", "out of the folder: to a file.dcm, to a folder.")
    assert quotes(note(notes, "nowhere"), "skipped", "not a file: nowhere, pipe.")
    link = tmp_path / "link"
    link.symlink_to(inside)
    assert np.array_equal(read_series(link)[0].array, values())


# Without pydicom


def test_without_pydicom_the_module_imports_and_a_sentence_says_what_to_install(tmp_path):
    script = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from attent_kit.data.scans.dicom import find_series, read_series\n"
        "from attent_kit.errors import ConfigError\n"
        "for call in (find_series, read_series):\n"
        "    try: call(sys.argv[1])\n"
        "    except ConfigError as error: print(error)\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    answer = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert answer.stdout.count("pip install 'attent-kit[dicom]'") == 2


def test_tags_that_are_there_and_empty_say_nothing(tmp_path):
    sequences = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "ModalityLUTSequence")
    write_series(tmp_path, NumberOfFrames="", **dict.fromkeys(sequences, []))
    volume, _ = read_series(tmp_path)
    assert np.array_equal(volume.array, values()) and volume.affine.tolist() == AFFINE
