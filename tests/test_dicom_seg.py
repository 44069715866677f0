"""DICOM Segmentations: written for a series, read back by position and by what a frame refers to, and as labels of `prepare`."""

import json
import shutil

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from attent_kit.cli import predict as command  # noqa: E402
from attent_kit.data.prepared.file import Prepared  # noqa: E402
from attent_kit.data.scans.dicom import choose_series, read_series  # noqa: E402
from attent_kit.data.scans.dicom_seg import find_segmentations, read_segmentation  # noqa: E402
from attent_kit.data.scans.dicom_seg_write import Algorithm, cielab, write_segmentation  # noqa: E402
from attent_kit.data.scans.organ_codes import ANATOMICAL, ORGAN_CODES, SIDES  # noqa: E402
from attent_kit.errors import ConfigError, DataError  # noqa: E402
from support.dicom_slices import UID, multi_frame, save, write_series  # noqa: E402
from support.layout_folders import ORGANS, body, write_nifti  # noqa: E402
from support.stand_in import predict, stand_in_run  # noqa: E402

COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73")
SLICES = 9


def series(folder, seed=1, uid=UID, **tags):
    """`body` as a series whose names do not tell the order, 5 mm apart."""
    grey, _ = body(seed)
    names = [f"{4 * z % SLICES}.dcm" for z in range(SLICES)]
    write_series(folder, (grey + 200).astype(np.uint16), names, PixelSpacing=[2.0, 1.5], SeriesInstanceUID=uid, **tags)
    return choose_series(folder)


def written(folder, labels=None, organs=ORGANS, **tags):
    """A series in `folder` and a segmentation of `body` in seg.dcm beside it: the series, its volume and the file."""
    found = series(folder, **tags)
    labels = body()[1] if labels is None else labels
    path = folder / "seg.dcm"
    write_segmentation(path, labels, organs, found, Algorithm("attent", "1.0"), COLOURS)
    return found, read_series(found)[0], path


def read(path, found, image, values=None):
    (one,) = find_segmentations(path)
    return read_segmentation(one, found, image, values or {segment.number: segment.number for segment in one.segments})


def changed(path, change):
    """The file with its data set changed by a function."""
    made = pydicom.dcmread(path)
    change(made)
    made.save_as(path)
    return path


def reordered(made, order):
    """The frames of a segmentation in another order, pixels and descriptions."""
    frames = made.pixel_array[order]
    made.PerFrameFunctionalGroupsSequence = [made.PerFrameFunctionalGroupsSequence[n] for n in order]
    made.NumberOfFrames = len(order)
    set_frames(made, frames)


def set_frames(made, frames, bits=1):
    if bits == 1:
        packed = np.packbits(np.asarray(frames, np.uint8).reshape(-1), bitorder="little").tobytes()
    else:
        packed = np.asarray(frames, np.uint8).tobytes()
        made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PixelData = packed + b"\0" * (len(packed) % 2)


# Written and read


def test_labels_come_back_on_the_same_voxels_and_empty_planes_have_no_frame(tmp_path):
    found, image, path = written(tmp_path)
    labels, decisions, doubts = read(path, found, image)
    assert np.array_equal(labels, body()[1]) and image.orientation == "LPS"
    assert doubts == ("seg.dcm was drawn by attent, not by an expert.",)
    made = pydicom.dcmread(path)
    assert (
        made.NumberOfFrames
        == sum((body()[1][..., z] == n).any() for n in range(1, 5) for z in range(SLICES))
        < 4 * SLICES
    )
    assert "4 segments of seg.dcm" in decisions[0]


def test_what_a_viewer_needs_is_there(tmp_path):
    _, image, path = written(tmp_path, StudyInstanceUID="1.2.3.4", FrameOfReferenceUID="1.2.3.5", PatientID="p7")
    made = pydicom.dcmread(path)
    assert made.SOPClassUID.name == "Segmentation Storage" and made.SegmentationType == "BINARY"
    assert (made.StudyInstanceUID, made.FrameOfReferenceUID, made.PatientID) == ("1.2.3.4", "1.2.3.5", "p7")
    (referred,) = made.ReferencedSeriesSequence
    slices = {pydicom.dcmread(p).SOPInstanceUID for p in tmp_path.glob("[0-9].dcm")}
    assert referred.SeriesInstanceUID == UID
    assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} == slices
    kidney = made.SegmentSequence[2]
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    (side,) = kind.SegmentedPropertyTypeModifierCodeSequence
    assert (kidney.SegmentLabel, kind.CodeMeaning, side.CodeMeaning) == ("left kidney", "Kidney", "Left")
    assert kidney.SegmentAlgorithmType == "AUTOMATIC"
    assert kidney.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.0"
    assert len({tuple(segment.RecommendedDisplayCIELabValue) for segment in made.SegmentSequence}) == 4
    assert made.Modality == "SEG" and made.SeriesInstanceUID != UID
    for frame in made.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        (file,) = [
            p
            for p in tmp_path.glob("[0-9].dcm")
            if pydicom.dcmread(p).SOPInstanceUID == source.ReferencedSOPInstanceUID
        ]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == pydicom.dcmread(file).ImagePositionPatient


def test_another_reader_finds_the_same_voxels_at_the_same_millimetres(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    _, image, path = written(tmp_path, organs=(*ORGANS[:3], "odd thing"))
    seg = highdicom.seg.segread(path)
    volume = seg.get_volume(combine_segments=True)
    labels = body()[1]
    voxels = np.argwhere(labels)
    millimetres = np.diag([-1, -1, 1, 1]) @ image.affine @ np.c_[voxels, np.ones(len(voxels))].T
    at = np.rint(np.linalg.inv(volume.affine) @ millimetres)[:3].T.astype(int)
    assert np.array_equal(volume.array[tuple(at.T)], labels[tuple(voxels.T)])
    assert (volume.array > 0).sum() == len(voxels)


def test_a_series_in_one_file_is_referred_to_by_frame(tmp_path):
    grey, labels = body(1)
    made = multi_frame((grey + 200).astype(np.uint16), range(SLICES)[::-1])
    save(made, tmp_path / "ct" / "enhanced.dcm")
    found = choose_series(tmp_path / "ct")
    image, _ = read_series(found)
    write_segmentation(tmp_path / "seg.dcm", labels, ORGANS, found, Algorithm("attent", "1"), COLOURS)
    assert np.array_equal(read(tmp_path / "seg.dcm", found, image)[0], labels)
    frame = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence[0]
    z = np.flatnonzero((labels == 1).any((0, 1)))[0]
    assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == SLICES - z


def test_nothing_labelled_and_an_organ_without_a_code_are_written_too(tmp_path):
    found, image, path = written(tmp_path, np.zeros_like(body()[1]), ("odd thing",))
    assert pydicom.dcmread(path).NumberOfFrames == 1 and not read(path, found, image)[0].any()
    (one,) = find_segmentations(path)
    assert [(s.label, s.organ) for s in one.segments] == [("odd thing", None)]


def test_codes_are_those_of_the_dictionary_and_colours_those_of_the_standard():
    from pydicom.sr import _concepts_dict

    known = {}
    for by_value in _concepts_dict.concepts["SCT"].values():
        for value, (meaning, _) in by_value.items():
            known.setdefault(value, set()).add(meaning)
    for code in (*ORGAN_CODES.values(), *SIDES.values(), ANATOMICAL):
        assert code.meaning in known[code.value]
    assert cielab("#FFFFFF") == pytest.approx([65535, 32896, 32896], abs=2) and cielab("#000000")[0] == 0


# Frames


def test_the_order_of_frames_means_nothing(tmp_path):
    found, image, path = written(tmp_path)
    count = pydicom.dcmread(path).NumberOfFrames
    changed(path, lambda made: reordered(made, np.random.default_rng(0).permutation(count)))
    assert np.array_equal(read(path, found, image)[0], body()[1])


def test_a_frame_that_lies_elsewhere_than_it_refers_to_is_refused(tmp_path):
    found, image, path = written(tmp_path)

    def swap(made):
        first, second = made.PerFrameFunctionalGroupsSequence[:2]
        first.DerivationImageSequence, second.DerivationImageSequence = (
            second.DerivationImageSequence, first.DerivationImageSequence,
        )  # fmt: skip

    changed(path, swap)
    with pytest.raises(DataError, match=r"seg.dcm \(frame 1\) lies at slice 2 of .* and names slice 3 as its source"):
        read(path, found, image)


def test_without_positions_the_reference_counts_and_without_both_nothing(tmp_path):
    found, image, path = written(tmp_path)

    def forget(made, keyword):
        for frame in made.PerFrameFunctionalGroupsSequence:
            del frame[keyword]

    changed(path, lambda made: forget(made, "PlanePositionSequence"))
    assert np.array_equal(read(path, found, image)[0], body()[1])
    changed(path, lambda made: forget(made, "DerivationImageSequence"))
    with pytest.raises(DataError, match="frame 1.* names none of its slices as its source"):
        read(path, found, image)


@pytest.mark.parametrize(
    ("shift", "words"),
    [((0, 0, 2.5), "does not lie on a slice of .* 2.5 mm apart"), ((0.4, 0, 0), "0.4 mm apart"),
     ((0, 0, 500), "voxels outside of the image"), ((1050, 0, 0), "voxels outside of the image")],
)  # fmt: skip
def test_frames_off_the_grid_are_refused(tmp_path, shift, words):
    found, image, path = written(tmp_path)

    def move(made):
        for frame in made.PerFrameFunctionalGroupsSequence:
            del frame.DerivationImageSequence
            place = frame.PlanePositionSequence[0]
            place.ImagePositionPatient = [float(a) + b for a, b in zip(place.ImagePositionPatient, shift, strict=True)]

    changed(path, move)
    with pytest.raises(DataError, match=words):
        read(path, found, image)


def test_frames_stored_the_other_way_round_are_turned(tmp_path):
    """Rows and columns run against those of the slices, from the other corner: the same voxels."""
    found, image, path = written(tmp_path)

    def turn(made):
        frames = made.pixel_array[:, ::-1, ::-1]
        rows, columns = frames.shape[1:]
        made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [
            -1,
            0,
            0,
            0,
            -1,
            0,
        ]
        for frame in made.PerFrameFunctionalGroupsSequence:
            place = frame.PlanePositionSequence[0]
            x, y, z = map(float, place.ImagePositionPatient)
            place.ImagePositionPatient = [x + 1.5 * (columns - 1), y + 2.0 * (rows - 1), z]
        set_frames(made, frames)

    changed(path, turn)
    assert np.array_equal(read(path, found, image)[0], body()[1])


def test_a_fractional_segmentation_is_cut_at_half_and_says_so(tmp_path):
    found, image, path = written(tmp_path)

    def soften(made):
        made.SegmentationType, made.SegmentationFractionalType, made.MaximumFractionalValue = (
            "FRACTIONAL",
            "PROBABILITY",
            200,
        )
        frames = made.pixel_array
        set_frames(made, np.where(frames, 100, 99), bits=8)

    changed(path, soften)
    labels, decisions, _ = read(path, found, image)
    assert np.array_equal(labels, body()[1])
    assert "a probability segmentation: values from 100 of 200 are the organ." in decisions


def test_a_label_map_is_read(tmp_path):
    found, image, path = written(tmp_path)
    labels = body()[1]

    def combine(made):
        first = {}
        for frame in made.PerFrameFunctionalGroupsSequence:
            first.setdefault(float(frame.PlanePositionSequence[0].ImagePositionPatient[2]), frame)
        kept = sorted(first)
        made.PerFrameFunctionalGroupsSequence = [first[height] for height in kept]
        made.NumberOfFrames, made.SegmentationType = len(kept), "LABELMAP"
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
        set_frames(made, np.stack([labels[..., round(height / 5)].T for height in kept]), bits=8)

    changed(path, combine)
    assert np.array_equal(read(path, found, image)[0], labels)


def test_shared_voxels_go_to_the_first_organ_and_are_counted(tmp_path):
    found, image, path = written(tmp_path)

    def grow(made):
        frames = made.pixel_array.copy()
        heights = [
            float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in made.PerFrameFunctionalGroupsSequence
        ]
        orders = [
            f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in made.PerFrameFunctionalGroupsSequence
        ]
        liver, kidney = (next(n for n, o in enumerate(orders) if (o, heights[n]) == (order, 5.0)) for order in (1, 2))
        frames[kidney] |= frames[liver]
        reorder = np.arange(len(frames))[::-1]  # the kidney comes first
        set_frames(made, frames)
        reordered(made, reorder)

    changed(path, grow)
    labels, _, doubts = read(path, found, image)
    assert np.array_equal(labels, body()[1])
    assert "56 voxels are in the segments liver and right kidney, and are given to liver." in doubts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: setattr(made, "PixelData", made.PixelData[:-20]), "frames that end too early or are damaged"),
        (lambda made: made.PerFrameFunctionalGroupsSequence.pop(), "frame.s. and describes"),
        (lambda made: setattr(made, "SegmentationType", "SOFT"), "SegmentationType 'SOFT'"),
        (lambda made: setattr(made.SegmentSequence[1], "SegmentNumber", 1), "describes 4 segments, 3 of them"),
        (lambda made: delattr(made.SegmentSequence[0], "SegmentNumber"), "a segment without a number"),
        (lambda made: delattr(made, "SegmentSequence"), "describes 0 segments"),
    ],
)
def test_a_damaged_segmentation_is_one_sentence(tmp_path, change, words):
    found, image, path = written(tmp_path)
    changed(path, change)
    with pytest.raises(DataError, match=words) as error:
        read(path, found, image)
    assert "\n" not in str(error.value) and "seg.dcm" in str(error.value)


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
    assert any("drawn by attent, not by an expert" in warning for warning in found.warnings)
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
    assert outcome.code == 3 and "segment 1 is labelled 'spleen' and coded as liver" in outcome.err


def test_a_segmentation_of_another_series_is_named(attentkit, tmp_path):
    folder = cases(tmp_path / "set", 2)
    changed(
        folder / "p1" / "seg.dcm", lambda made: setattr(made.ReferencedSeriesSequence[0], "SeriesInstanceUID", "1.9")
    )
    outcome, _ = prepared(attentkit, folder)
    assert outcome.code == 3 and "seg.dcm is a segmentation of the series '1.9', which is not here" in outcome.err
    shutil.copy(folder / "p0" / "seg.dcm", folder / "p1" / "seg.dcm")
    outcome, _ = prepared(attentkit, folder)
    assert outcome.code == 3 and "are both segmentations of the series" in outcome.err


# From `predict`


@pytest.fixture
def run(tmp_path):
    return stand_in_run(tmp_path / "run", 24)


def test_predict_writes_one_that_says_what_its_labels_say_and_is_a_label_again(attentkit, run, tmp_path):
    import nibabel as nib

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
    with pytest.raises(ConfigError, match="--dicom-seg needs a DICOM series.* ct.nii.gz is NIfTI"):
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
