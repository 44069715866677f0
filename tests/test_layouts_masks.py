"""Layouts that have no label map on disk, or no header: TotalSegmentator, AttENT's PNG slices, SIFA's npz."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from attent_kit.data.doubts.case import label_doubts
from attent_kit.data.space.geometry import Grid
from attent_kit.errors import ConfigError, DataError
from attentkit_builtin.layouts.attent_png import AttentPng
from attentkit_builtin.layouts.sifa_npz import SifaNpz
from attentkit_builtin.layouts.totalsegmentator import TotalSegmentator
from support.layout_folders import (
    GREY,
    ORGAN_FOLDERS,
    ORGANS,
    SLICES,
    attent_png,
    body,
    sifa_npz,
    totalsegmentator,
    write_nifti,
    write_png,
)  # fmt: skip
from support.messages import quotes


def read(layout, case=0):
    return layout.read(layout.entries()[case])


def one(sentences, words):
    (found,) = [sentence for sentence in sentences if words in sentence]
    return found


# TotalSegmentator


def test_the_masks_of_four_organs_become_one_label_map_in_task_order(tmp_path):
    folder = totalsegmentator(tmp_path / "set" / "subjects")
    layout = TotalSegmentator(folder)
    assert TotalSegmentator.recognises(folder) and TotalSegmentator.recognises(folder.parent)
    assert [(e.id, e.modality, e.split) for e in layout.entries()] == [("s0000", "ct", None), ("s0001", "ct", None)]
    assert [path.name for path in layout.entries()[0].labels] == [
        "liver.nii.gz", "kidney_right.nii.gz", "kidney_left.nii.gz", "spleen.nii.gz",
    ]  # fmt: skip
    scan = read(layout, 1)
    assert np.array_equal(scan.labels.array, body()[1]) and np.array_equal(scan.image.array, body(1)[0])
    assert layout.organs.organs == ORGANS and scan.doubts == ()
    assert TotalSegmentator(totalsegmentator(tmp_path / "mr", image="mri")).entries()[0].modality == "mr"


def test_voxels_of_two_masks_go_to_the_first_organ_and_are_counted(tmp_path):
    layout = TotalSegmentator(totalsegmentator(tmp_path))
    spleen = (body()[1] == 4) | (body()[1] == 1)
    spleen[2:9, 4:12, 3:6] = False  # of the liver's 7 x 8 x 5 voxels the lower 7 x 8 x 2 are left
    write_nifti(tmp_path / "s0000" / "segmentations" / "spleen.nii.gz", spleen.astype(np.uint8))
    scan = read(layout)
    assert np.array_equal(scan.labels.array, body()[1])
    assert one(scan.doubts, "given to the liver") == (
        "112 voxels are in the masks of liver and of spleen, and are given to the liver."
    )


def test_the_splits_of_meta_csv_are_followed(tmp_path):
    totalsegmentator(tmp_path)
    (tmp_path / "meta.csv").write_text(
        "\ufeffimage_id;age;split\ns0000;56;test\ns0001;70;train\ns0777;1;val\n", "utf-8"
    )
    assert [entry.split for entry in TotalSegmentator(tmp_path).entries()] == ["test", "train"]
    for content in (b"image_id;split\ns0000;tset\n", b"image_id;split\ns0000;test\ns0000;train\n", b"\xff\xff"):
        (tmp_path / "meta.csv").write_bytes(content)
        with pytest.raises(DataError, match="meta.csv"):
            TotalSegmentator(tmp_path).entries()


def test_a_subject_that_is_not_whole_is_named(tmp_path):
    layout = TotalSegmentator(totalsegmentator(tmp_path))
    masks = tmp_path / "s0001" / "segmentations"
    write_nifti(masks / "liver.nii.gz", 2 * body()[1])
    with pytest.raises(DataError, match=r"liver\.nii\.gz .*2, 4, 6 and 1 more"):
        read(layout, 1)
    write_nifti(masks / "liver.nii.gz", body()[1][:-1])
    with pytest.raises(DataError, match=r"liver\.nii\.gz .*grid of .*ct\.nii\.gz"):
        read(layout, 1)
    (masks / "liver.nii.gz").unlink()
    with pytest.raises(DataError, match="segmentations has no liver.nii.gz"):
        layout.entries()
    totalsegmentator(tmp_path)
    (tmp_path / "s0001" / "ct.nii.gz").unlink()
    with pytest.raises(DataError, match="s0001 holds 0 images"):
        layout.entries()
    (tmp_path / "s0002").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="s0002 is a link to nothing"):
        layout.entries()


# AttENT


def place(folder, **options):
    return attent_png(folder / "mri_dataset", **options)


def test_slices_of_one_folder_are_grouped_to_patients_in_the_order_of_their_numbers(tmp_path):
    place(tmp_path, cases=("IMG-0001-{}", "IMG-0002-{}"))  # 3 to 11: as words, 10 would stand before 3
    assert AttentPng.recognises(tmp_path) and AttentPng.parts(tmp_path) == ()
    layout = AttentPng(tmp_path)
    entries = layout.entries()
    assert [(e.id, e.modality, e.split, len(e.images), len(e.labels)) for e in entries] == [
        ("IMG-0001", "mr", None, SLICES, 5 * SLICES), ("IMG-0002", "mr", None, SLICES, 5 * SLICES),
    ]  # fmt: skip
    scan = layout.read(entries[1])
    assert np.array_equal(scan.image.array, np.clip(body(1)[0] // 4, 0, 255))
    assert np.array_equal(scan.labels.array, body(1)[1])
    assert scan.image.orientation == "LPS" and scan.image.spacing == (1, 1, 1) and not scan.image.placed
    assert "no millimetres and no sides" in one(scan.doubts, "PNG")
    assert "which agree with the grey masks" in one(scan.decisions, "organs by")


def test_the_patient_is_not_lying_on_the_other_side_after_the_way_through_png(tmp_path):
    scan = read(AttentPng(place(tmp_path)))
    slices = Grid.of(scan.labels.array.shape, scan.labels.affine, 24).labels_to_slices(scan.labels.array)
    assert label_doubts(slices, ORGANS) == []


@pytest.mark.parametrize(("organs", "grey"), [(True, False), (False, True), (True, True)])
def test_organs_come_from_a_mask_each_or_from_grey_levels(tmp_path, organs, grey):
    scan = read(AttentPng(place(tmp_path, organs=organs, grey=grey)))
    assert np.array_equal(scan.labels.array, body()[1])


def test_a_right_kidney_that_only_the_grey_masks_have_is_not_lost(tmp_path):
    place(tmp_path)
    for path in (tmp_path / "mri_dataset" / "train" / "label" / "rightKidney_label").iterdir():
        write_png(path, np.zeros((20, 24), np.uint8))  # what level 120 instead of 126 finds
    scan = read(AttentPng(tmp_path))
    assert np.array_equal(scan.labels.array, body()[1])
    assert quotes(one(scan.doubts, "grey masks were taken"), "75 pixels ... (right kidney)")


def test_grey_masks_of_another_coding_are_left_alone_and_contradictions_are_counted(tmp_path):
    folder = place(tmp_path) / "train" / "label"
    for grey, words in (((0, 255, 85, 127, 42), "use another coding"), ((0, 63, 189, 126, 252), "one mask each")):
        for z in range(SLICES):
            write_png(folder / f"IMG-0001-000{z + 3:02}.png", np.array(grey, np.uint8)[body()[1][:, :, z].T])
        scan = read(AttentPng(tmp_path))
        assert np.array_equal(scan.labels.array, body()[1]) and words in one(scan.decisions, "organs by")
    assert "150 pixels" in one(scan.doubts, "differ")


def test_train_and_test_are_splits_where_both_are_there(tmp_path):
    place(tmp_path, cases=("img0001_{}",))
    place(tmp_path, cases=("img0002_{}",), split="test")
    assert [(entry.id, entry.split) for entry in AttentPng(tmp_path).entries()] == [
        ("img0001", "train"),
        ("img0002", "test"),
    ]
    place(tmp_path, cases=("img0001_{}",), split="test")
    with pytest.raises(DataError, match="both case 'img0001'"):
        AttentPng(tmp_path).entries()


def test_lists_of_slices_are_splits_only_if_no_patient_is_in_two(tmp_path):
    place(tmp_path)
    lists = tmp_path / "mri_list"
    lists.mkdir()
    (lists / "train.txt").write_text("IMG-0001-00003.png\nIMG-0001-00004.png\n")
    (lists / "test.txt").write_text("IMG-0002-00003.png\n")
    assert [entry.split for entry in AttentPng(tmp_path).entries()] == ["train", "test"]
    (lists / "val.txt").write_text("IMG-0001-00005.png\n")
    layout = AttentPng(tmp_path)
    assert [entry.split for entry in layout.entries()] == [None, None]
    assert "in train and in val" in one(read(layout).doubts, "lists")
    for content in (b"../../x.png\n", b"\xff\xff"):
        (lists / "val.txt").write_bytes(content)
        with pytest.raises(DataError, match="val.txt"):
            layout.entries()


def test_missing_slices_and_numbers_that_are_no_patient_are_doubted(tmp_path):
    place(tmp_path)
    for kind in ("image", "label", *(f"label/{organ}" for organ in ORGAN_FOLDERS.values())):
        for number in (6, 7, 10):
            (tmp_path / "mri_dataset" / "train" / kind / f"IMG-0001-000{number:02}.png").unlink()
    doubts = read(AttentPng(tmp_path)).doubts
    assert "slices 6 to 7, 10 to 10 are missing" in one(doubts, "missing")
    assert "not of the patient" in one(doubts, "DICOM export")


def test_masks_must_be_there_for_every_slice_and_for_no_other(tmp_path):
    folder = place(tmp_path) / "train" / "label"
    mask = folder / "spleen_label" / "IMG-0002-00004.png"
    mask.unlink()
    with pytest.raises(DataError, match=r"spleen_label .*IMG-0002-00004\.png"):
        AttentPng(tmp_path).entries()
    write_png(mask, np.zeros((20, 24), np.uint8))
    write_png(folder / "spleen_label" / "IMG-0003-00001.png", np.zeros((20, 24), np.uint8))
    with pytest.raises(DataError, match=r"spleen_label .*without a slice.*IMG-0003-00001\.png"):
        AttentPng(tmp_path).entries()


@pytest.mark.parametrize(
    ("picture", "mode", "sentence"),
    [
        (np.zeros((20, 23), np.uint8), None, "has 23 x 20 pixels, but"),
        (np.array(GREY, np.uint8)[body()[1][:, :, 2].T], None, "rightKidney_label holds the values"),
        (np.dstack([body()[1][:, :, 2].T, *[np.zeros((20, 24), np.uint8)] * 2]), "RGB", "in colours"),
    ],
)
def test_a_mask_that_is_none_is_named(tmp_path, picture, mode, sentence):
    place(tmp_path)
    write_png(tmp_path / "mri_dataset/train/label/rightKidney_label/IMG-0001-00005.png", picture, mode)
    with pytest.raises(DataError, match=sentence):
        read(AttentPng(tmp_path))


def test_masks_and_images_of_two_sizes_are_refused(tmp_path):
    place(tmp_path, organs=False)
    for z in range(SLICES):
        write_png(
            tmp_path / "mri_dataset" / "train" / "label" / f"IMG-0001-000{z + 3:02}.png",
            np.full((24, 20), 63, np.uint8),
        )
    with pytest.raises(DataError, match="20 x 24 .*image.* 24 x 20"):
        read(AttentPng(tmp_path))


def test_a_picture_that_is_no_slice_is_not_unpacked(tmp_path):
    huge = place(tmp_path, cases=("img0001_{}",)) / "train" / "image" / "img0001_5.png"
    Image.new("1", (2**14, 2**13)).save(huge)
    with pytest.raises(DataError, match="img0001_5.png .*16384 x 8192 pixels|img0001_5.png is not a whole PNG"):
        read(AttentPng(tmp_path))


def test_a_grey_picture_stored_as_colours_is_still_grey(tmp_path):
    place(tmp_path)
    for path in (tmp_path / "mri_dataset" / "train" / "image").iterdir():
        z = int(path.stem[-2:]) - 3
        write_png(path, np.clip(body()[0][:, :, z].T // 4, 0, 255).astype(np.uint8), "RGB")
    assert np.array_equal(read(AttentPng(tmp_path)).image.array, np.clip(body()[0] // 4, 0, 255))


def test_both_modalities_are_parts_and_a_data_set_is_read_from_inside(tmp_path, monkeypatch):
    attent_png(tmp_path / "CHAOS" / "mri_dataset")
    attent_png(tmp_path / "MBLBCV" / "ct_dataset", cases=("img0034_{}",))
    assert AttentPng.parts(tmp_path) == ("mri", "ct")
    with pytest.raises(ConfigError, match="--part, of mri, ct"):
        AttentPng(tmp_path)
    assert [(e.id, e.modality) for e in AttentPng(tmp_path, "CT").entries()] == [("img0034", "ct")]
    monkeypatch.chdir(tmp_path / "CHAOS" / "mri_dataset")
    assert [(e.id, e.modality) for e in AttentPng(".").entries()] == [("IMG-0001", "mr"), ("IMG-0002", "mr")]


@pytest.mark.parametrize("name", ["nonumber.png", "_1.png", "5.png"])
def test_a_slice_that_names_no_patient_is_refused(tmp_path, name):
    write_png(place(tmp_path) / "train" / "image" / name, np.zeros((20, 24), np.uint8))
    with pytest.raises(DataError, match="patient and slice"):
        AttentPng(tmp_path).entries()


# SIFA


def test_an_npz_is_read_and_its_doubts_are_told(tmp_path):
    layout = SifaNpz(sifa_npz(tmp_path))
    assert SifaNpz.recognises(tmp_path) and SifaNpz.parts(tmp_path) == ()
    assert [(entry.id, entry.modality) for entry in layout.entries()] == [("ct_1", "ct"), ("ct_2", "ct")]
    scan = read(layout)
    image = body()[0]
    assert np.allclose(scan.image.array, (image - image.mean()) / image.std(), atol=1e-6)
    assert np.array_equal(scan.labels.array, body()[1]) and scan.labels.array.dtype == np.uint8
    assert "only the organs tell the sides" in one(scan.doubts, "no affine") and not scan.image.placed
    assert "does not name its labels" in one(scan.doubts, "1 to 4") and layout.organs.organs == ORGANS
    assert "--per-volume" in one(scan.doubts, "not HU")


def test_ct_and_mr_in_one_folder_are_parts(tmp_path):
    sifa_npz(tmp_path, names=("test_ct_1003", "mr1007"))
    assert SifaNpz.parts(tmp_path) == ("ct", "mr")
    assert [entry.id for entry in SifaNpz(tmp_path, "mr").entries()] == ["mr1007"]
    with pytest.raises(ConfigError, match="--part, of ct, mr"):
        SifaNpz(tmp_path)


class Bomb:
    """Unpickling it says so."""

    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was opened')",)


def header(claim):
    """An .npy that claims this shape and has one byte behind it."""
    with io.BytesIO() as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": claim})
        return file.getvalue() + b"\0"


ARRAYS = {
    "pickled image": (
        dict(arr_0=np.array([Bomb()], object), arr_1=body()[1]),
        "arr_0 is a pickle, which is never opened",
    ),
    "pickled labels": (
        dict(arr_0=body()[0], arr_1=np.array([Bomb()], object)),
        "arr_1 is a pickle, which is never opened",
    ),
    "no labels": (dict(arr_0=body()[0]), "has no arr_1"),
    "other names": (dict(image=body()[0], label=body()[1]), "has no arr_0"),
    "two axes": (dict(arr_0=body()[0][0], arr_1=body()[1][0]), "where numbers \\[X, Y, Z\\] are needed"),
    "one-hot": (dict(arr_0=body()[0], arr_1=np.eye(5)[body()[1]]), "arr_1 is float64 of shape"),
    "words": (dict(arr_0=np.array([[["a"]]]), arr_1=body()[1]), "arr_0 is <U1"),
    "other size": (dict(arr_0=body()[0], arr_1=body()[1][1:]), "arr_1 is .*, but arr_0 is"),
    "fractions": (dict(arr_0=body()[0], arr_1=body()[1] * 0.5), "values that are not integers"),
    "constant": (dict(arr_0=body()[0] * 0, arr_1=body()[1]), "constant"),
    "NaN": (dict(arr_0=body()[0] * np.nan, arr_1=body()[1]), "NaN"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_no_image_and_labels_are_refused(tmp_path, kind):
    arrays, sentence = ARRAYS[kind]
    np.savez(tmp_path / "case.npz", **arrays)
    with pytest.raises(DataError, match=f"case.npz.*{sentence}"):
        read(SifaNpz(tmp_path))


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        ((1024, 1024, 1025), "which no scan has"),
        ((10**9,) * 3, "which no scan has"),
        ((2, 2, 2), "is damaged"),
        ((-1, 5, 5), "is damaged"),
    ],
)
def test_a_shape_that_is_not_behind_its_header_is_refused(tmp_path, claim, sentence):
    with zipfile.ZipFile(tmp_path / "case.npz", "w") as archive:
        archive.writestr("arr_0.npy", header(claim))
        archive.writestr("arr_1.npy", header(claim))
    with pytest.raises(DataError, match=f"case.npz.*{sentence}"):
        read(SifaNpz(tmp_path))


def test_a_truncated_npz_is_one_sentence(tmp_path):
    layout = SifaNpz(sifa_npz(tmp_path))
    content = (tmp_path / "ct_1.npz").read_bytes()
    for length in (0, 10, 300, len(content) // 2, len(content) - 1):
        (tmp_path / "ct_1.npz").write_bytes(content[:length])
        with pytest.raises(DataError, match="ct_1.npz is damaged"):
            read(layout)
