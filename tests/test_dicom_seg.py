"""DICOM Segmentations: written for a series, and read back by position and by what a frame refers to."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from attent_kit.data.scans.dicom import choose_series, read_series  # noqa: E402
from attent_kit.data.scans.dicom_seg import find_segmentations  # noqa: E402
from attent_kit.data.scans.dicom_seg_write import Algorithm, cielab, write_segmentation  # noqa: E402
from attent_kit.data.scans.organ_codes import ANATOMICAL, ORGAN_CODES, SIDES  # noqa: E402
from attent_kit.errors import DataError  # noqa: E402
from support.dicom_slices import UID, multi_frame, save  # noqa: E402
from support.layout_folders import ORGANS, body  # noqa: E402
from support.messages import quotes  # noqa: E402
from support.segmentations import COLOURS, SLICES, changed, read, reordered, set_frames, written  # noqa: E402

# Written and read


def test_labels_come_back_on_the_same_voxels_and_empty_planes_have_no_frame(tmp_path):
    found, image, path = written(tmp_path)
    labels, decisions, doubts = read(path, found, image)
    assert np.array_equal(labels, body()[1]) and image.orientation == "LPS"
    assert len(doubts) == 1 and quotes(doubts[0], "seg.dcm ... attent, not by an expert")
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
    with pytest.raises(DataError, match=r"seg\.dcm \(frame 1\) .*slice 2 .*slice 3"):
        read(path, found, image)


def test_without_positions_the_reference_counts_and_without_both_nothing(tmp_path):
    found, image, path = written(tmp_path)

    def forget(made, keyword):
        for frame in made.PerFrameFunctionalGroupsSequence:
            del frame[keyword]

    changed(path, lambda made: forget(made, "PlanePositionSequence"))
    assert np.array_equal(read(path, found, image)[0], body()[1])
    changed(path, lambda made: forget(made, "DerivationImageSequence"))
    with pytest.raises(DataError, match="frame 1.*names none of its slices"):
        read(path, found, image)


@pytest.mark.parametrize(
    ("shift", "words"),
    [((0, 0, 2.5), "slice of .* 2.5 mm apart"), ((0.4, 0, 0), "0.4 mm apart"),
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
    assert [d for d in decisions if "probability" in d and "100 of 200" in d]


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
    assert [d for d in doubts if "56 voxels" in d and "liver and right kidney" in d and "given to liver" in d]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: setattr(made, "PixelData", made.PixelData[:-20]), "damaged"),
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
