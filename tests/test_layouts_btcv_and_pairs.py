"""BTCV wherever its Training lies, and plain pairs."""

import os
import pickle

import numpy as np
import pytest

from attent_kit.errors import ConfigError, DataError
from attentkit_builtin.layouts.btcv import BTCV
from attentkit_builtin.layouts.pairs import Pairs
from support.layout_folders import LPS, ORGANS, body, btcv, write_nifti

NESTED = ["", "Training", "RawData/Training", "Abdomen/RawData/Training", "Abdomen/RawData/RawData/Training_small"]


def organs_of(layout, scan):
    """Classes in the order of `layout_folders.body`."""
    return layout.organs.in_task_order().apply(scan.labels.array, "labels")


# BTCV


@pytest.mark.parametrize("inner", NESTED)
def test_btcv_is_found_however_deep_it_was_unpacked(tmp_path, inner):
    btcv(tmp_path / inner)
    (tmp_path / inner / "img" / "._img0001.nii.gz").write_bytes(b"of macOS")
    for aside in ("__MACOSX", ".Trash"):
        btcv(tmp_path / aside)
    assert BTCV.recognises(tmp_path) and BTCV.parts(tmp_path) == ()
    entries = BTCV(tmp_path).entries()
    assert [(e.id, e.modality, e.split) for e in entries] == [("0001", "ct", None), ("0002", "ct", None)]
    assert [path.name for path in entries[1].images + entries[1].labels] == ["img0002.nii.gz", "label0002.nii.gz"]


def test_btcv_names_its_thirteen_organs_and_liver_is_six_not_one(tmp_path):
    layout = BTCV(btcv(tmp_path))
    assert len(layout.organs.organs) == 13 and layout.organs.in_task_order().organs == ORGANS
    scan = layout.read(layout.entries()[0])
    assert np.array_equal(scan.image.array, body(1)[0])
    assert np.array_equal(organs_of(layout, scan), body(1)[1])


def test_images_without_labels_are_a_part_of_their_own(tmp_path):
    btcv(tmp_path / "RawData" / "Training")
    write_nifti(tmp_path / "RawData" / "Testing" / "img" / "img0061.nii.gz", body(7)[0])
    assert BTCV.parts(tmp_path) == ("training", "testing")
    assert [e.id for e in BTCV(tmp_path).entries()] == [e.id for e in BTCV(tmp_path, "training").entries()]
    layout = BTCV(tmp_path, "testing")
    (entry,) = layout.entries()
    assert entry.id == "0061" and entry.labels == () and layout.read(entry).labels is None
    with pytest.raises(ConfigError, match="no part 'test'.*It has: training, testing"):
        BTCV(tmp_path, "test")
    alone = BTCV(tmp_path / "RawData" / "Testing")
    assert alone.part == "testing" and [e.id for e in alone.entries()] == ["0061"]


def test_folders_called_image_and_label_are_btcv_too(tmp_path):
    btcv(tmp_path)
    (tmp_path / "img").rename(tmp_path / "image")
    assert [entry.id for entry in BTCV(tmp_path).entries()] == ["0001", "0002"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: (f / "label" / "label0002.nii.gz").unlink(), "no label map .*img0002"),
        (lambda f: (f / "img" / "img0002.nii.gz").unlink(), "no image .*label0002"),
        (lambda f: write_nifti(f / "img" / "img0001.nii", body()[0]), "both the image of case '0001'"),
    ],
)
def test_files_of_btcv_without_their_counterpart_are_named(tmp_path, spoil, sentence):
    spoil(btcv(tmp_path))
    with pytest.raises(DataError, match=sentence):
        BTCV(tmp_path).entries()


def test_two_copies_of_btcv_side_by_side_are_not_guessed_between(tmp_path):
    btcv(tmp_path / "Training")
    btcv(tmp_path / "Training_small", cases=(1,))
    with pytest.raises(DataError, match="several .*Training and .*Training_small"):
        BTCV(tmp_path)


@pytest.mark.parametrize("field", ["shape", "spacing", "origin"])
def test_labels_of_btcv_on_another_grid_are_refused(tmp_path, field):
    layout = BTCV(btcv(tmp_path))
    labels, affine = body(1)[1], LPS.copy()
    if field == "shape":
        labels = labels[:, :, :-1]
    else:
        affine[(2, 2) if field == "spacing" else (2, 3)] += 0.5
    write_nifti(tmp_path / "label" / "label0001.nii.gz", labels, affine)
    with pytest.raises(DataError, match=r"label0001\.nii\.gz .*grid of .*img0001\.nii\.gz"):
        layout.read(layout.entries()[0])


def test_labels_stored_the_other_way_round_come_back_in_the_order_of_the_image(tmp_path):
    layout = BTCV(btcv(tmp_path))
    _, labels = body(1)
    affine = LPS @ np.array([[-1.0, 0, 0, 23], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_nifti(tmp_path / "label" / "label0001.nii.gz", np.array([0, 6, 2, 3, 1], np.uint8)[labels[::-1]], affine)
    assert np.array_equal(organs_of(layout, layout.read(layout.entries()[0])), labels)


def test_a_truncated_volume_is_named(tmp_path):
    layout = BTCV(btcv(tmp_path))
    path = tmp_path / "label" / "label0002.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="label0002.nii.gz ends before its last voxel"):
        layout.read(layout.entries()[1])


# Pairs


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("img", "mask"), ("imagesTr", "labelsTr"), ("Images", "GT")]
)
def test_folders_of_images_and_labels_are_found_in_a_folder(tmp_path, images, labels):
    for case in ("b", "a"):
        write_nifti(tmp_path / images / f"{case}.nii.gz", body()[0])
        write_nifti(tmp_path / labels / f"{case}_seg.nii.gz", body()[1])
    assert Pairs.recognises(tmp_path) and Pairs.parts(tmp_path) == ()
    layout = Pairs(tmp_path)
    assert layout.organs is None
    assert [(e.id, len(e.labels), e.modality) for e in layout.entries()] == [("a", 1, None), ("b", 1, None)]
    scan = layout.read(layout.entries()[0])
    assert np.array_equal(scan.image.array, body()[0]) and np.array_equal(scan.labels.array, body()[1])


def test_one_folder_may_hold_both_where_labels_are_named_so(tmp_path):
    for name in ("a.nii", "a_seg.nii", "b.nii.gz", "b_label.nii.gz"):
        write_nifti(tmp_path / name, body()[name.find("_") > 0])
    assert [(e.id, e.labels[0].name) for e in Pairs(tmp_path).entries()] == [
        ("a", "a_seg.nii"),
        ("b", "b_label.nii.gz"),
    ]
    for name in ("a_seg.nii", "b_label.nii.gz"):
        (tmp_path / name).unlink()
    assert [(e.id, e.labels) for e in Pairs(tmp_path).entries()] == [("a", ()), ("b", ())]


def test_label_maps_elsewhere_are_named_and_an_image_without_one_is_an_error_unless_allowed(tmp_path):
    for case in ("a", "b"):
        write_nifti(tmp_path / "scans" / f"{case}.nii.gz", body()[0])
    write_nifti(tmp_path / "truth" / "a.nii.gz", body()[1])
    with pytest.raises(DataError, match=r"no label map .*truth .*b\.nii\.gz"):
        Pairs(tmp_path / "scans", labels=tmp_path / "truth").entries()
    entries = Pairs(tmp_path / "scans", labels=tmp_path / "truth", allow_unlabelled=True).entries()
    assert [len(entry.labels) for entry in entries] == [1, 0]
    assert [e.id for e in Pairs(tmp_path / "scans" / "a.nii.gz", labels=tmp_path / "truth" / "a.nii.gz").entries()] == [
        "a"
    ]


def test_a_list_of_pairs_is_a_place_too(tmp_path):
    write_nifti(tmp_path / "x.nii.gz", body()[0])
    (tmp_path / "list.csv").write_text("image,labels,case\nx.nii.gz,,first\n")
    assert Pairs.recognises(tmp_path / "list.csv")
    assert [(e.id, e.images[0].name, e.labels) for e in Pairs(tmp_path / "list.csv").entries()] == [
        ("first", "x.nii.gz", ())
    ]


def test_two_folders_of_images_are_not_guessed_between(tmp_path):
    write_nifti(tmp_path / "images" / "a.nii.gz", body()[0])
    write_nifti(tmp_path / "imgs" / "b.nii.gz", body()[0])
    with pytest.raises(DataError, match="both hold images"):
        Pairs(tmp_path).entries()


def test_pairs_have_no_parts(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", body()[0])
    with pytest.raises(ConfigError, match="no part 'mr'"):
        Pairs(tmp_path, "mr")


# Links


def test_a_link_to_a_volume_is_followed_and_one_to_nothing_is_not(tmp_path):
    store = write_nifti(tmp_path / "store" / "x.nii.gz", body(1)[0])
    data = btcv(tmp_path / "data" / "Training")
    (data / "img" / "img0001.nii.gz").unlink()
    (data / "img" / "img0001.nii.gz").symlink_to(store)
    layout = BTCV(data)
    assert np.array_equal(layout.read(layout.entries()[0]).image.array, body(1)[0])
    store.unlink()
    with pytest.raises(DataError, match="img0001.nii.gz does not exist"):
        layout.read(layout.entries()[0])


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert not BTCV.recognises(tmp_path)
    with pytest.raises(DataError, match="holds no BTCV"):
        BTCV(tmp_path)


def test_a_layout_goes_to_another_process_and_to_another_folder(tmp_path, monkeypatch):
    layout = pickle.loads(pickle.dumps(BTCV(btcv(tmp_path))))
    assert layout.organs == BTCV.organs and [entry.id for entry in layout.entries()] == ["0001", "0002"]
    monkeypatch.chdir(tmp_path)
    assert [entry.id for entry in BTCV(".").entries()] == ["0001", "0002"] and os.getcwd() == str(tmp_path)
