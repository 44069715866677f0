"""What is no regular grid of grey values is refused in one sentence that names the file."""

import re

import numpy as np
import pytest

from attent_kit.data.scans.dicom import find_series, read_series
from attent_kit.errors import ConfigError, DataError
from support.dicom_slices import UID, a_slice, multi_frame, pydicom, save, values, write_series


def refused(place, *words, error=DataError):
    with pytest.raises(error) as caught:
        read_series(place)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


# Slices that are no grid


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path):
    files = write_series(tmp_path)
    files[3].unlink()
    refused(tmp_path, "2.dcm", "4.dcm", "10 mm apart", "other slices 5 mm", "1 slice(s) between them are missing")


def test_two_missing_slices_are_counted(tmp_path):
    files = write_series(tmp_path, values(8))
    files[2].unlink()
    files[3].unlink()
    refused(tmp_path, "1.dcm", "4.dcm", "15 mm apart", "2 slice(s) between them are missing")


def test_a_missing_slice_near_the_end_of_a_long_series_is_noticed(tmp_path):
    files = write_series(tmp_path, values(40), heights=[0.7 * z for z in range(40)])
    files[38].unlink()
    refused(tmp_path, "37.dcm", "39.dcm", "1.4 mm apart")


def test_slices_at_uneven_distances_are_refused(tmp_path):
    write_series(tmp_path, heights=[0, 5, 10, 15, 21.5])
    refused(tmp_path, "3.dcm", "4.dcm", "6.5 mm apart", "not evenly spaced")


def test_two_slices_at_one_place_are_named(tmp_path):
    write_series(tmp_path, heights=[0, 5, 10, 10, 15])
    refused(tmp_path, "2.dcm", "3.dcm", "lie at the same place", "folder of its own")


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path):
    for z in range(5):
        save(a_slice(values()[:, :, z].T, (0, 1.0 * z, 5.0 * z)), tmp_path / f"{z}.dcm")
    # 1 mm to the back for each 5 mm up: arctan(1 / 5) = 11.3 degrees.
    refused(tmp_path, "0.dcm", "4.dcm", "11.3 degrees", "tilted gantry", "not corrected here", "dcm2niix")


def test_a_tilt_within_the_rounding_of_the_header_passes_and_the_affine_has_it(tmp_path):
    for z in range(5):
        save(a_slice(values()[:, :, z].T, (0, 0.01 * z, 5.0 * z)), tmp_path / f"{z}.dcm")
    assert read_series(tmp_path)[0].affine[:3, 2].tolist() == pytest.approx([0, -0.01, 5])


def test_a_slice_beside_the_line_of_the_others_is_refused(tmp_path):
    for z in range(5):
        save(a_slice(values()[:, :, z].T, (3.0 * (z == 2), 0, 5.0 * z)), tmp_path / f"{z}.dcm")
    refused(tmp_path, "2.dcm lies 3.00 mm beside the line")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PixelSpacing": [2.0, 0.6]}, "of 0.6 x 2 mm"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "directions (0, 1, 0, 1, 0, 0)"),
        ({"Rows": 2, "PixelData": bytes(16)}, "4 x 2 MONOCHROME2 pixels"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
    ],
)
def test_slices_of_different_grids_are_named_with_both(tmp_path, tags, words):
    write_series(tmp_path, tags=[{}, {}, {}, tags, {}])
    refused(tmp_path, "0.dcm", "3.dcm", "do not fit together", "4 x 3 MONOCHROME2 pixels of 0.5 x 2 mm", words)


def test_a_single_slice_is_no_volume(tmp_path):
    write_series(tmp_path, values(1))
    refused(tmp_path, "0.dcm is the only slice")


def test_a_constant_series_is_refused(tmp_path):
    write_series(tmp_path, np.full((4, 3, 5), 7, np.uint16))
    refused(tmp_path, "0.dcm", "every voxel is 7")


# Tags


@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"]
)
def test_a_missing_tag_is_named_with_its_file(tmp_path, keyword):
    write_series(tmp_path, tags=[{}, {}, {keyword: None}, {}, {}])
    refused(tmp_path, "2.dcm") if keyword == "Rows" else refused(tmp_path, f"2.dcm has no {keyword}")
    write_series(tmp_path, **{keyword: None})
    refused(tmp_path, "0.dcm") if keyword == "Rows" else refused(tmp_path, f"0.dcm has no {keyword}")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", [0.0, 1.0]),
        ("PixelSpacing", [-1.0, 1.0]),
        ("PixelSpacing", [1.0]),
        ("PixelSpacing", ""),
        ("ImagePositionPatient", [1.0, 2.0]),
        ("ImagePositionPatient", [1e9, 2.0, 3.0]),
        ("ImageOrientationPatient", [0.0] * 6),
        ("ImageOrientationPatient", [1.0, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [1.0, 0, 0, 0, 2, 0]),
        ("RescaleSlope", 0),
        ("RescaleSlope", [1.0, 2.0]),
        ("RescaleIntercept", ""),
        ("Rows", 0),
    ],
)
def test_a_senseless_tag_is_named_with_its_file(tmp_path, keyword, value):
    write_series(tmp_path, tags=[{}, {}, {keyword: value}, {}, {}])
    refused(tmp_path, f"2.dcm: its {keyword} is '", "which is impossible")


@pytest.mark.parametrize("written", [b"nan\\2\\3 ", b"inf\\2\\3 ", b"one\\2\\3 ", b"1\\2\\3\\4 "])
def test_a_position_that_is_no_number_is_named_with_its_file(tmp_path, written):
    write_series(tmp_path)
    path = tmp_path / "2.dcm"
    before = b"-10.0\\-20.0\\10.0 "
    assert before in (content := path.read_bytes())
    path.write_bytes(content.replace(before, written.ljust(len(before))))
    refused(tmp_path, "2.dcm: its ImagePositionPatient is")


def test_a_rescaling_beyond_all_numbers_is_refused(tmp_path):
    write_series(tmp_path, RescaleSlope="1e300", RescaleIntercept=0)
    refused(tmp_path, "0.dcm: RescaleSlope 1e+300", "not numbers")


def test_a_colour_image_is_refused(tmp_path):
    for z in range(3):
        made = a_slice(np.zeros((3, 4), np.uint16), (0, 0, z), PhotometricInterpretation="RGB", SamplesPerPixel=3)
        save(made, tmp_path / f"{z}.dcm")
    refused(tmp_path, "0.dcm is not a grey image", "'RGB'")


# Files


@pytest.mark.parametrize("kept", [0, 60, 131, 140, 200, 400, 600])
def test_a_file_that_ends_in_its_header_is_no_stray_but_a_damaged_slice(tmp_path, kept):
    path = write_series(tmp_path)[4]
    path.write_bytes(path.read_bytes()[:kept])
    assert [series.slices for series in find_series(tmp_path)] == [4]
    refused(tmp_path, "4.dcm", "copy it again")


@pytest.mark.parametrize("missing", [1, 12, 24])
def test_a_file_that_ends_in_its_pixels_is_named(tmp_path, missing):
    path = write_series(tmp_path)[2]
    path.write_bytes(path.read_bytes()[:-missing])
    refused(tmp_path, "2.dcm", "copy it again")


@pytest.mark.parametrize("missing", [9, 30, 200])
def test_a_compressed_file_that_ends_in_its_pixels_is_named(tmp_path, missing):
    path = write_series(tmp_path)[2]
    made = pydicom.dcmread(path)
    made.compress(pydicom.uid.RLELossless)
    save(made, path)
    assert read_series(tmp_path)[0].array.shape == (4, 3, 5)
    path.write_bytes(path.read_bytes()[:-missing])
    refused(tmp_path, "2.dcm", "copy it again")


def test_an_image_without_pixels_is_refused(tmp_path):
    write_series(tmp_path, tags=[{}, {}, {"PixelData": None}, {}, {}])
    refused(tmp_path, "2.dcm has no PixelData")


@pytest.mark.parametrize("modality", ["SR", "RTSTRUCT"])
def test_a_report_or_structures_alone_are_no_volume(tmp_path, modality):
    made = a_slice(np.zeros((3, 4), np.uint16), (0, 0, 0), Modality=modality, Rows=None, Columns=None, PixelData=None)
    path = save(made, tmp_path / "plan.dcm")
    for place in (tmp_path, path):
        refused(place, "holds no DICOM image", "plan.dcm", f"{modality} without an image")


def test_a_folder_without_dicom_says_what_it_holds(tmp_path):
    refused(tmp_path, "holds no DICOM image")
    (tmp_path / "a.nii.gz").write_bytes(b"words")
    refused(tmp_path, "a.nii.gz: not DICOM")
    (tmp_path / "b.dcm").write_bytes(b"words")
    refused(tmp_path, "b.dcm: unreadable")
    refused(tmp_path / "nowhere", "nowhere does not exist")
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_series(tmp_path / "nowhere")
    assert find_series(tmp_path) == []


def test_a_compression_without_decoder_says_what_to_install(tmp_path, monkeypatch):
    made = a_slice(values()[:, :, 0].T, (0, 0, 0))
    made.compress(pydicom.uid.RLELossless)
    save(made, tmp_path / "0.dcm")
    save(a_slice(values()[:, :, 1].T, (0, 0, 5)), tmp_path / "1.dcm")
    decoder = pydicom.pixels.get_decoder(pydicom.uid.RLELossless)
    monkeypatch.setattr(decoder, "_available", {})
    refused(tmp_path, "0.dcm is compressed as 'RLE Lossless'", "pip install 'attent-kit[dicom]'", error=ConfigError)


def test_a_film_is_refused(tmp_path):
    for z in range(2):
        made = a_slice(values()[:, :, z].T, (0, 0, 5 * z))
        made.PixelData = pydicom.encaps.encapsulate([made.PixelData])
        made["PixelData"].VR = "OB"
        made.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        save(made, tmp_path / f"{z}.dcm")
    refused(tmp_path, "0.dcm is stored as 'MPEG2", "not read here")


def test_frames_without_a_position_each_are_refused(tmp_path):
    made = a_slice(np.zeros((6, 3, 4), np.uint16), (0, 0, 0), NumberOfFrames=6)
    save(made, tmp_path / "a.dcm")
    refused(tmp_path, "a.dcm holds 6 frames without a position for each")


def test_frames_that_are_not_described_or_lie_at_one_place_are_refused(tmp_path):
    made = multi_frame(values(), range(5))
    made.NumberOfFrames = 4
    save(made, tmp_path / "a.dcm")
    refused(tmp_path, "a.dcm has 4 frame(s) and describes 5")
    save(multi_frame(values(), [0, 1, 1, 2]), tmp_path / "a.dcm")
    refused(tmp_path, "a.dcm (frame 2)", "a.dcm (frame 3)", "same place")


def test_control_characters_of_a_header_do_not_reach_the_terminal(tmp_path):
    write_series(tmp_path)
    write_series(
        tmp_path, names=[f"b{z}" for z in range(5)], SeriesInstanceUID=UID + ".1", SeriesDescription="a\x1b[2Jb"
    )
    with pytest.raises(ConfigError) as error:
        read_series(tmp_path)
    assert re.search(r"[\x00-\x1f]", str(error.value)) is None
