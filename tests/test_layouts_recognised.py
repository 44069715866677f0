"""Which layout reads a place, what a stranger's files are called, and that only one sentence comes of all others."""

import json
import os
import re
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attent_kit.data.scans.pictures import natural
from attent_kit.data.sets.recognise import open_layout
from attent_kit.errors import AttentKitError, DataError
from attent_kit.layouts import Layout
from attent_kit.plugins import load
from attent_kit.testing import check_layout
from attentkit_builtin import attentkit_layouts
from attentkit_builtin.layouts.folders import files, modality_of
from attentkit_builtin.layouts.pictures import read_picture
from support.layout_folders import (
    MSD,
    NNUNET,
    attent_png,
    body,
    btcv,
    msd,
    nnunet,
    sifa_npz,
    totalsegmentator,
    write_nifti,
    write_png,
)

LAYOUTS = {name: load().registry.layout(name) for name in attentkit_layouts()}
EXAMPLES = {
    "btcv": btcv,
    "nnunet": nnunet,
    "msd": msd,
    "totalsegmentator": totalsegmentator,
    "attent_png": lambda folder: attent_png(folder / "mri_dataset"),
    "sifa_npz": sifa_npz,
    "pairs": lambda folder: write_nifti(folder / "images" / "a.nii.gz", body()[0]),
}
FEW = settings(max_examples=60, deadline=None)


def chaos(folder):
    from support.dicom_slices import write_series

    case = folder / "Train_Sets" / "MR" / "1" / "T2SPIR"
    write_series(case / "DICOM_anon", names=[f"IMG-{z}.dcm" for z in range(5)])
    for z in range(5):
        write_png(case / "Ground" / f"IMG-{z}.png", np.full((3, 4), 63, np.uint8))


def use(layout, place, part=None):
    """Everything that is asked of a layout; what it raises is an AttentKitError or a mistake of ours."""
    try:
        if not isinstance(layout.recognises(place), bool):
            raise TypeError("recognises says neither yes nor no")
        layout.parts(place)
        opened = layout(place, part)
        for entry in opened.entries():
            opened.read(entry)
    except AttentKitError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return str(error)
    return ""


# Recognising


@pytest.mark.parametrize("example", [*EXAMPLES, "chaos"])
def test_every_data_set_is_recognised_by_its_own_layout_alone(tmp_path, example):
    if example == "chaos":
        pytest.importorskip("pydicom")
    {**EXAMPLES, "chaos": chaos}[example](tmp_path)
    assert [name for name, layout in LAYOUTS.items() if layout.recognises(tmp_path)] == [example]
    assert isinstance(open_layout(tmp_path, load().registry), LAYOUTS[example])
    (tmp_path / "elsewhere").mkdir()
    check_layout(LAYOUTS[example], tmp_path, elsewhere=tmp_path / "elsewhere")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_a_summary_and_is_asked_about_any_place(tmp_path, name):
    layout = LAYOUTS[name]
    assert issubclass(layout, Layout) and (layout.__doc__ or "").strip()
    assert load().registry.find("layouts", name).summary() == layout.__doc__.partition("\n")[0]
    (tmp_path / "file").write_text("words")
    (tmp_path / "empty").mkdir()
    for place in ("file", "empty", "missing", "missing/deeper", "a" * 300, "nul\0"):
        assert not layout.recognises(tmp_path / place)
        assert use(layout, tmp_path / place)


def test_files_are_in_natural_order_and_equal_numbers_by_name(tmp_path):
    for name in ("10", "9", "09", "1a", "a1"):
        (tmp_path / f"{name}.png").touch()
    found = files(tmp_path, re.compile("png$"))
    assert [path.stem for path in found] == ["1a", "09", "9", "10", "a1"]
    assert natural("x2") < natural("x10") and natural("2x") < natural("x2")


@pytest.mark.parametrize(
    ("name", "modality"),
    [("CT", "ct"), ("T2-SPIR", "mr"), ("mri_dataset", "mr"), ("ct_test_1001", "ct"), ("mr1007", "mr"), ("T1w", "mr"),
     ("project", None), ("ct and mr", None), ("actual", None), ("noNorm", None)],
)  # fmt: skip
def test_a_modality_is_a_word_of_its_own(name, modality):
    assert modality_of(name) == modality


def test_no_layout_names_a_file_by_what_cannot_be_printed(tmp_path):
    for name in ("a\nb", os.fsdecode(b"\xff")):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_nifti(folder / "x.nii.gz", body()[0]).rename(folder / f"{name}.nii.gz")
        with pytest.raises(DataError, match="cannot name a case"):
            LAYOUTS["pairs"](folder).entries()


# Any JSON, any names, any bytes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted({*NNUNET, *MSD, "dataset", "regions_class_order"})


def facts(base):
    """A dataset.json in which any entry, or a part of one, has become something else."""
    spoiled = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3)
    labels = st.dictionaries(st.sampled_from(["background", "liver", "0", "1", "ignore", ""]), JSON, max_size=4)
    listed = st.lists(
        st.fixed_dictionaries({"image": JSON | st.just("imagesTr/x_1.nii.gz"), "label": JSON}), max_size=2
    )
    some = st.fixed_dictionaries({}, optional={"labels": labels, "training": listed, "test": listed})
    return st.one_of(JSON, st.builds(lambda a, b: base | a | b, spoiled, some))


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A data set of each kind that has a dataset.json."""
    folder = tmp_path_factory.mktemp("described")
    return {"nnunet": (nnunet(folder / "nnunet"), NNUNET), "msd": (msd(folder / "msd"), MSD)}


@pytest.mark.parametrize("name", ["nnunet", "msd"])
@given(data=st.data())
@FEW
def test_any_dataset_json_is_read_or_is_one_sentence(described, name, data):
    folder, base = described[name]
    content = data.draw(facts(base))
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    use(LAYOUTS[name], folder, data.draw(st.sampled_from([None, "training", "CT"])))


@pytest.mark.parametrize("content", [{"\n": None}, {"a\nb": {"images": "x"}}])
def test_the_name_of_a_listed_case_does_not_break_a_sentence(described, content):
    folder, base = described["nnunet"]
    (folder / "dataset.json").write_text(json.dumps(base | {"dataset": content}), encoding="utf-8")
    assert "must give each case its 'images'" in use(LAYOUTS["nnunet"], folder)


@given(
    content=st.one_of(JSON, st.lists(st.fixed_dictionaries({"train": JSON | st.just(["a"]), "val": JSON}), max_size=1))
)
@FEW
def test_any_list_of_splits_is_followed_or_is_one_sentence(described, content):
    folder, base = described["nnunet"]
    (folder / "dataset.json").write_text(json.dumps(base), encoding="utf-8")
    (folder / "splits_final.json").write_text(json.dumps(content), encoding="utf-8")
    try:
        use(LAYOUTS["nnunet"], folder)
    finally:
        (folder / "splits_final.json").unlink()


WORDS = [
    "MR", "CT", "1", "Train_Sets", "T2SPIR", "T1DUAL", "DICOM_anon", "InPhase", "Ground", "img", "label", "images", "labels",
    "imagesTr", "labelsTr", "imagesTs", "segmentations", "train", "image", "mri_dataset", "mri_list", "liver_label",
    "img0001.nii.gz", "label0001.nii.gz", "a_0000.nii.gz", "a.nii.gz", "ct.nii.gz", "liver.nii.gz", "IMG-1.dcm", "IMG-1.png",
    "amos_0001.nii.gz", "imagesVa", "imagesVal", "labelsVal", "FLARE_LabeledCase50", "train_CT_pseudolabel",
    "train_MRI_unlabeled", "validation", "MRI_imagesVal", "ct_train_1001_image.nii.gz", "ct_train_1001_label.nii.gz",
    "PATIENT_DICOM", "MASKS_DICOM", "3Dircadb1.1", "x_t1.nii.gz", "x_t1ce.nii.gz", "x_t2.nii.gz", "x_seg.nii.gz",
    "image.nii.gz", "spleen.nii.gz", "masks",
    "a_1.png", "x.npz", "dataset.json", "meta.csv", "train.txt", "._a.nii.gz",
]  # fmt: skip
NAMES = st.sampled_from(WORDS) | st.text(string.ascii_letters + " .-_\u00e9\u00b2'{%\\", min_size=1, max_size=6)
TREES = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=5), st.sampled_from(["file", "folder", "link"])), max_size=8
)


@given(tree=TREES, content=st.sampled_from([b"", b"words", b"{}", b"image_id;split\n1;2"]))
@settings(max_examples=120, deadline=None)
def test_any_tree_of_names_is_read_or_is_one_sentence(tree, content):
    with tempfile.TemporaryDirectory() as folder:
        for names, kind in tree:
            path = Path(folder, *(name for name in names if name.strip(".")))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "file":
                    path.write_bytes(content)
                elif kind == "folder":
                    path.mkdir(exist_ok=True)
                else:
                    path.symlink_to(folder)
            except OSError:
                continue  # a name that is taken, or a file where a folder is wanted
        for layout in LAYOUTS.values():
            use(layout, Path(folder))


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_a_png_with_a_changed_byte_is_the_same_picture_or_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    content = bytearray(write_png(path, picture).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        assert np.array_equal(read_picture(path), picture)
    except DataError as error:
        assert "fuzz.png is not a whole PNG picture" in str(error)


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_an_npz_with_changed_bytes_is_read_or_one_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "npz"
    path = sifa_npz(folder, names=("ct_1",)) / "ct_1.npz"
    content = bytearray(path.read_bytes())
    # The headers of the archive and of its arrays, where a change is more than another voxel.
    places = [*range(200), *range(len(content) - 250, len(content))]
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.sampled_from(places))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    use(LAYOUTS["sifa_npz"], folder)
