"""DICOM Segmentations as labels of `prepare`, and from `predict`."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from attent_kit.cli import predict as command  # noqa: E402
from attent_kit.data.prepared.file import Prepared  # noqa: E402
from attent_kit.data.scans.dicom import choose_series, read_series  # noqa: E402
from attent_kit.data.scans.dicom_seg_write import Algorithm, write_segmentation  # noqa: E402
from attent_kit.errors import ConfigError, DataError  # noqa: E402
from support.dicom_slices import UID  # noqa: E402
from support.layout_folders import ORGANS, body, write_nifti  # noqa: E402
from support.messages import quotes  # noqa: E402
from support.segmentations import COLOURS, changed, read, series, written  # noqa: E402
from support.stand_in import predict, stand_in_run  # noqa: E402

# As labels


def cases(folder, count=3):
    """Folders of a series each, with its segmentation beside the slices."""
    for n in range(count):
        written(folder / f"p{n}", seed=n, uid=f"{UID}.{n}")
    return folder


def prepared(attentkit, folder, *words):
    out = folder.parent / "out.h5"
    outcome = attentkit("prepare", folder, "--out", out, "--size", "24", "--pixel", "2", "--workers", "1", *words)
    return outcome, Prepared.open(out) if outcome.code == 0 else None


def test_segmentations_beside_the_slices_or_in_a_folder_of_their_own_are_labels(attentkit, tmp_path):
    folder = cases(tmp_path / "set")
    outcome, found = prepared(attentkit, folder)
    assert outcome.code == 0, outcome.err
    assert found.organs == ORGANS and all(case.has_labels for case in found.cases)
    voxels = found.manifest["cases"][1]["labels"]["voxels"]
    assert voxels == {organ: int((body()[1] == n).sum()) for n, organ in enumerate(ORGANS, start=1)}
    assert any("attent, not by an expert" in warning for warning in found.warnings)
    assert not any("skipped" in warning for warning in found.warnings)
    assert not [
        f for f in json.loads(attentkit("check", folder, "--json").out) if f["check"] in ("files", "unreadable")
    ]
    for n in range(3):
        (tmp_path / "segs").mkdir(exist_ok=True)
        shutil.move(folder / f"p{n}" / "seg.dcm", tmp_path / "segs" / f"{n + 7}.dcm")
    _, moved = prepared(attentkit, folder, "--labels", str(tmp_path / "segs"))
    assert [case["content"] for case in moved.manifest["cases"]] == [
        case["content"] for case in found.manifest["cases"]
    ]


def test_segments_are_organs_by_code_or_by_label_and_what_disagrees_is_refused(attentkit, tmp_path):
    folder = cases(tmp_path / "set", 1)
    path = folder / "p0" / "seg.dcm"

    def by_label(made):
        for segment, label in zip(made.SegmentSequence, ("Liver", "kidney_right", "LK", "Spleen"), strict=True):
            segment.SegmentLabel = label
            segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator = "99OTHER"

    changed(path, by_label)
    assert prepared(attentkit, folder)[1].organs == ORGANS
    changed(
        path,
        lambda made: setattr(
            made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0], "CodingSchemeDesignator", "SCT"
        ),
    )
    changed(path, lambda made: setattr(made.SegmentSequence[0], "SegmentLabel", "spleen"))
    outcome, _ = prepared(attentkit, folder)
    assert outcome.code == 3 and quotes(outcome.err, "segment 1 ... 'spleen' ... liver")


def test_a_segmentation_of_another_series_is_named(attentkit, tmp_path):
    folder = cases(tmp_path / "set", 2)

    def elsewhere(made):
        made.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.9"
        del made.ReferencedSeriesSequence[0].ReferencedInstanceSequence

    changed(folder / "p1" / "seg.dcm", elsewhere)
    outcome, _ = prepared(attentkit, folder)
    assert outcome.code == 3 and quotes(outcome.err, "seg.dcm ... '1.9'")
    shutil.copy(folder / "p0" / "seg.dcm", folder / "p1" / "seg.dcm")
    outcome, _ = prepared(attentkit, folder)
    assert outcome.code == 3 and "are both segmentations of the series" in outcome.err


# From `predict`


@pytest.fixture
def run(tmp_path):
    return stand_in_run(tmp_path / "run", 24)


def test_predict_writes_one_that_says_what_its_labels_say_and_is_a_label_again(attentkit, run, tmp_path):
    found = series(tmp_path / "p0", StudyInstanceUID="1.2.3.4")
    out = tmp_path / "p0" / "seg.dcm"
    files = predict(run, tmp_path / "p0", tmp_path / "labels.nii.gz", dicom_seg=out)
    assert out in files
    labels = np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj)
    assert labels.any()
    image, _ = read_series(found)
    assert np.array_equal(read(out, found, image)[0], labels)
    made = pydicom.dcmread(out)
    assert made.StudyInstanceUID == "1.2.3.4" and "weights " in (
        made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion
    )
    again = predict(run, tmp_path / "p0", tmp_path / "again.nii.gz")  # the segmentation is no image
    assert np.array_equal(np.asarray(nib.load(again[0]).dataobj), labels)


def test_predict_refuses_a_segmentation_where_there_is_no_series_or_one_is_there_already(run, tmp_path):
    write_nifti(tmp_path / "ct.nii.gz", body()[0])
    with pytest.raises(ConfigError, match=r"--dicom-seg .*DICOM series.* ct\.nii\.gz is NIfTI"):
        predict(run, tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz", dicom_seg=tmp_path / "seg.dcm")
    series(tmp_path / "p0")
    (tmp_path / "seg.dcm").write_text("mine")
    with pytest.raises(ConfigError, match="seg.dcm exists already"):
        predict(run, tmp_path / "p0", tmp_path / "labels.nii.gz", dicom_seg=tmp_path / "seg.dcm")
    assert (tmp_path / "seg.dcm").read_text() == "mine" and not (tmp_path / "labels.nii.gz").exists()
    assert any("dicom_seg" in option.name for option in command.command.params)


def test_a_series_whose_identity_is_left_in_the_meta_headers_alone_goes_there_and_back(attentkit, tmp_path):
    """As some anonymise: SOPInstanceUID, SOPClassUID and SeriesInstanceUID are empty."""
    folder = tmp_path / "set" / "p0"
    series(folder)
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.SOPInstanceUID = made.SOPClassUID = made.SeriesInstanceUID = ""
        made.save_as(path)
    found = choose_series(folder)
    write_segmentation(folder / "seg.dcm", body()[1], ORGANS, found, Algorithm("attent", "1"), COLOURS)
    assert np.array_equal(read(folder / "seg.dcm", found, read_series(found)[0])[0], body()[1])
    outcome, one = prepared(attentkit, folder.parent)
    assert outcome.code == 0 and one.cases[0].has_labels, outcome.err


def test_slices_without_an_identity_are_met_before_anything_is_written(run, tmp_path):
    series(tmp_path / "p0")
    for path in (tmp_path / "p0").iterdir():
        made = pydicom.dcmread(path)
        del made.SOPInstanceUID, made.file_meta.MediaStorageSOPInstanceUID
        pydicom.dcmwrite(path, made, enforce_file_format=False)
    with pytest.raises(DataError, match="no SOPInstanceUID or no SOPClassUID"):
        predict(run, tmp_path / "p0", tmp_path / "labels.nii.gz", dicom_seg=tmp_path / "seg.dcm")
    assert not (tmp_path / "labels.nii.gz").exists()
