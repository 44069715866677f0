"""From a folder of NIfTI files to one prepared file, and what a reader finds in it."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.prepare import prepare
from attent_kit.data.prepared.file import IGNORE, Prepared, encode
from attent_kit.data.prepared.hdf5 import put_text
from attent_kit.data.scans.volumes import read_volume
from attent_kit.data.sets.pairs import case_name, find_pairs
from attent_kit.data.sets.splits import divide
from attent_kit.errors import AttentKitError, ConfigError, DataError
from support.commands import without_bytecode
from support.messages import quotes

RAS = np.diag([1.0, 1.0, 3.0, 1.0])
ORGANS = {"liver": 6, "spleen": 1}


def write_case(folder, case, seed, labelled=True, affine=RAS, liver=6):
    """8 x 8 x 5: a liver of 3 x 4 x 3 voxels at high x, the patient's right, a spleen at low x, the top slice blank."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 20, (8, 8, 5)).astype(np.float32)
    labels = np.zeros((8, 8, 5), np.uint8)
    labels[5:, 2:6, 1:4] = liver
    labels[:2, 2:4, 1:4] = 1
    image[labels == liver] += 100
    image[..., 4] = -1000
    for kind, array in [("images", image), ("labels", labels)][: 2 if labelled else 1]:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), folder / kind / f"{case}.nii.gz")
    return image, labels


@pytest.fixture
def five(tmp_path):
    for n in range(1, 6):
        write_case(tmp_path, f"img{n:04}", seed=n)
    return tmp_path


def run(folder, out="ct.h5", **options):
    pairs = options.pop("pairs", None) or find_pairs(folder / "images", folder / "labels", allow_unlabelled=True)
    report = options.pop("report", None)
    chosen = PrepareOptions(**{"modality": "ct", "organs": ORGANS, "size": 8, **options})
    return prepare(pairs, folder / out, chosen, report=report).manifest, Prepared.open(folder / out)


# Finding


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("img0001.nii.gz", "0001"),
        ("label0001.nii.gz", "0001"),
        ("liver_12_0000.nii.gz", "liver_12_0000"),
        ("ct_case1_labels_totalsegmentator.nii.gz", "ct_case1"),
        ("DET0000101_avg_seg.NII", "DET0000101_avg"),
        ("1.3.6.1.4.nii.gz", "1.3.6.1.4"),
        ("a.b_labels.nii", "a.b"),
        ("labelled.nii.gz", "labelled"),
    ],
)
def test_the_case_is_what_image_and_labels_have_in_common(name, case):
    assert case_name(name) == case


def test_images_and_labels_may_share_a_folder(tmp_path):
    for name in ("a.nii.gz", "a_seg.nii.gz", "b.nii", "b_labels.nii", "._a.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    pairs = find_pairs(tmp_path, tmp_path)
    assert [(p.case, p.image.name, p.labels.name) for p in pairs] == [
        ("a", "a.nii.gz", "a_seg.nii.gz"),
        ("b", "b.nii", "b_labels.nii"),
    ]
    assert find_pairs(tmp_path / "b.nii", tmp_path / "a_seg.nii.gz")[0].case == "b"


def test_files_without_a_counterpart_and_empty_folders_are_named(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    with pytest.raises(DataError, match="images holds no .nii"):
        find_pairs(images)
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_pairs(tmp_path / "nowhere")
    (images / "a.nii").touch()
    (images / "b.nii").touch()
    (labels / "a_seg.nii").touch()
    with pytest.raises(DataError, match="goes with b.nii"):
        find_pairs(images, labels)
    assert [p.labels is None for p in find_pairs(images, labels, allow_unlabelled=True)] == [False, True]
    (labels / "c_seg.nii").touch()
    with pytest.raises(DataError, match="goes with c_seg.nii"):
        find_pairs(images, labels, allow_unlabelled=True)
    (images / "a_0000.nii").touch()
    assert [p.case for p in find_pairs(images)] == ["a", "a_0000", "b"]
    (images / "a_img.nii").touch()
    with pytest.raises(DataError, match=r"a\.nii and a_img\.nii .*'a'"):
        find_pairs(images)


# Splitting


def test_fractions_are_dealt_to_patients_whatever_their_order():
    cases = [f"case{n}" for n in range(20)]
    split = divide(cases, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert [len(split[name]) for name in ("train", "val", "test")] == [14, 2, 4]
    assert sorted(sum(split.values(), ())) == sorted(cases)
    assert split == divide(cases[::-1], {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert split != divide(cases, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=4)
    assert [len(members) for members in divide(cases[:3], None, 0).values()] == [1, 1, 1]


def test_the_rest_is_for_training():
    split = divide(["a", "b", "c"], {"test": ["c"]}, seed=0)
    assert split == {"train": ("a", "b"), "val": (), "test": ("c",)}


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ({"tset": ["a"]}, "Did you mean 'test'"),
        ({"test": ["case2"]}, "Did you mean 'case1'"),
        ({"train": 0.5, "test": 0.6}, "add up to 1.1"),
        ({"train": 0.5, "test": ["case1"]}, "must be a list"),
        ({"train": 0.5, "test": 0.5}, "train=case1 test=case1"),
    ],
)
def test_an_impossible_split_is_one_sentence(split, sentence):
    with pytest.raises(ConfigError, match=sentence):
        divide(["case1"], split, seed=0)


# Preparing


def test_a_prepared_file_holds_what_training_and_scoring_need(five):
    manifest, prepared = run(five, test=["0005"], val=["0004"])
    assert prepared.organs == ("liver", "spleen") and prepared.domain == prepared.modality == "ct"
    assert prepared.ids("train") == ("0001", "0002", "0003") and prepared.ids("test") == ("0005",)
    images, labels = prepared.images(prepared.ids("train")), prepared.labels(prepared.ids("train"))
    assert images.shape == (12, 1, 8, 8) and images.dtype == np.float16 and np.abs(images).max() <= 1
    assert labels.shape == (12, 8, 8) and labels.dtype == np.uint8
    assert [int((labels == n).sum()) for n in (0, 1, 2)] == [12 * 64 - 3 * 48, 3 * 36, 3 * 12]
    truth, spacing = prepared.truth("0005")
    stored = np.asarray(nib.load(five / "labels" / "img0005.nii.gz").dataobj)
    assert np.array_equal(truth, (stored == 6) + 2 * (stored == 1)) and spacing == (1.0, 1.0, 3.0)
    assert np.array_equal(prepared.grid("0005").to_native(prepared.label_slices("0005")), truth)
    assert manifest == prepared.manifest == json.loads(json.dumps(manifest))
    record = manifest["cases"][0]
    digest = hashlib.sha256((five / "images" / "img0001.nii.gz").read_bytes()).hexdigest()
    assert record["image"] == {"name": "img0001.nii.gz", "sha256": digest}
    assert record["affine"] == RAS.tolist() and record["labels"]["voxels"] == {"liver": 36, "spleen": 12}
    assert str(five) not in json.dumps(manifest) and manifest["warnings"] == []


def test_the_liver_is_on_the_patients_right_in_every_axis_order(tmp_path):
    write_case(tmp_path, "ras", seed=1)
    write_case(tmp_path, "las", seed=2, affine=np.diag([-1.0, 1, 3, 1]))  # the same array, so a mirrored patient
    manifest, prepared = run(tmp_path)
    columns = np.nonzero(prepared.label_slices("ras") == 1)[2]
    assert columns.max() < 4
    (warning,) = [w for w in manifest["warnings"] if "left of" in w]
    assert quotes(warning, "las: ", "liver", "left of the spleen", "orientation", "label values")


def test_a_row_read_by_itself_is_the_row_of_the_whole(five):
    _, prepared = run(five, channels=3)
    ids = prepared.ids("train")
    images, labels, index = prepared.images(ids), prepared.labels(ids), prepared.index(ids)
    assert len(index) == len(images) and images.shape[1:] == (3, 8, 8)
    for row, (case, z) in enumerate(index):
        assert np.array_equal(prepared.image_row(case, z), images[row])
        assert np.array_equal(prepared.label_row(case, z), labels[row])
    slices = prepared.slices(ids[0])
    assert np.array_equal(slices[0, 0], slices[0, 1]) and np.array_equal(slices[1, 2], slices[2, 1])
    again = pickle.loads(pickle.dumps(prepared))
    assert np.array_equal(again.images(ids), images)
    prepared.close()
    assert np.array_equal(prepared.images(ids), images)


def test_blank_slices_are_kept_for_prediction_and_left_out_of_training(five):
    _, prepared = run(five)
    assert prepared.cases[0].slices == 5 and prepared.cases[0].kept == (0, 1, 2, 3)
    assert prepared.slices("0001").shape == (5, 1, 8, 8) and len(prepared.images(["0001"])) == 4


def test_a_volume_encoded_by_itself_is_what_the_prepared_file_holds(five):
    _, prepared = run(five, size=6)
    volume = read_volume(five / "images" / "img0002.nii.gz")
    slices, grid = encode(volume, prepared.slicing, prepared.intensity, "ct", prepared.channels)
    assert np.array_equal(slices, prepared.slices("0002")) and grid == prepared.grid("0002")


def test_constants_come_from_the_training_cases_alone(five):
    pairs = find_pairs(five / "images", five / "labels")
    before, _ = run(five, modality="mr", test=["0005"])
    image = nib.load(pairs[4].image)
    nib.save(nib.Nifti1Image(image.get_fdata() * 50, image.affine), pairs[4].image)
    after, _ = run(five, modality="mr", test=["0005"])
    assert before["intensity"] == after["intensity"] and before["intensity"]["kind"] == "percentiles"
    assert before["intensity"] != run(five, modality="mr", test=["0001"])[0]["intensity"]


def test_preparing_twice_gives_the_same_bytes(five):
    calls = []
    first, one = run(five, "a.h5", report=lambda *call: calls.append(call))
    second, two = run(five, "b.h5", pairs=find_pairs(five / "images", five / "labels")[::-1])
    assert (five / "a.h5").read_bytes() == (five / "b.h5").read_bytes()
    assert (five / "a.toml").read_bytes() == (five / "b.toml").read_bytes()
    assert calls == [("", 0, 5), *((f"000{n}", n, 5) for n in range(1, 6))]
    assert one.content_hash() == two.content_hash() != run(five, seed=1)[1].content_hash()


def test_unlabelled_cases_can_be_trained_on_but_not_scored(tmp_path):
    write_case(tmp_path, "a", seed=1)
    write_case(tmp_path, "b", seed=2, labelled=False)
    _, prepared = run(tmp_path, train=["a", "b"], test=["b"])
    assert [case.has_labels for case in prepared.cases] == [True, False] and prepared.shared_cases == ("b",)
    assert (prepared.labels(["b"]) == IGNORE).all() and (prepared.label_row("b", 0) == IGNORE).all()
    with pytest.raises(DataError, match="no labels"):
        prepared.truth("b")
    with pytest.raises(DataError, match="training only"):
        prepared.truth("a")


def test_one_patient_is_in_every_split_and_the_file_says_so(tmp_path):
    write_case(tmp_path, "only", seed=1)
    manifest, prepared = run(tmp_path)
    assert prepared.ids("train") == prepared.ids("val") == prepared.ids("test") == ("only",)
    assert prepared.shared_cases == ("only",) and "unseen patients: only" in manifest["warnings"][0]


def test_ignore_is_the_label_that_the_losses_ignore():
    from attent_kit import interfaces

    assert IGNORE == interfaces.IGNORE


# Refusing


def stray_value(folder):
    write_case(folder, "img0003", seed=3, liver=9)


def twice_the_same(folder):
    write_case(folder, "img0003", seed=2)


def truncated(folder):
    path = folder / "images" / "img0005.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def no_contrast(folder):
    path = folder / "images" / "img0005.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(5000, 1, (8, 8, 5)).astype(np.float32), RAS), path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (stray_value, "the value 9,"),
        (twice_the_same, "'0002' and '0003'"),
        (truncated, "damaged"),
        (no_contrast, "-125 and 275"),
    ],
)
def test_a_failure_leaves_the_file_that_was_there_as_it_was(five, spoil, sentence):
    run(five)
    before = (five / "ct.h5").read_bytes(), (five / "ct.toml").read_bytes()
    spoil(five)
    with pytest.raises(DataError, match=sentence):
        run(five)
    assert ((five / "ct.h5").read_bytes(), (five / "ct.toml").read_bytes()) == before
    assert sorted(path.name for path in five.iterdir()) == ["ct.h5", "ct.toml", "images", "labels"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("room", [0, 3000, 20_000, 100_000])
def test_a_full_disk_is_one_sentence(five, room):
    run(five)
    before = (five / "ct.h5").read_bytes(), (five / "ct.toml").read_bytes()
    script = f"""
import resource
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.prepare import prepare
from attent_kit.errors import AttentKitError
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
try:
    prepare(find_pairs("images", "labels"), "ct.h5", PrepareOptions(modality="ct", organs={ORGANS!r}, size=64))
except AttentKitError as error:
    print("sentence:", error)
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=five, capture_output=True, text=True, env=without_bytecode())
    assert done.returncode == 0 and "sentence: ct.h5 " in done.stdout and done.stderr == ""
    assert ((five / "ct.h5").read_bytes(), (five / "ct.toml").read_bytes()) == before
    assert sorted(path.name for path in five.iterdir()) == ["ct.h5", "ct.toml", "images", "labels"]


def test_options_that_cannot_be_meant_are_one_sentence(five):
    for options in ({"size": 0}, {"channels": 2}, {"organs": {}}, {"test": 2.0}, {"out": "images"}):
        with pytest.raises(AttentKitError):
            run(five, **options)
    image = five / "images" / "img0001.nii.gz"
    for pairs in ([("a", image, None)] * 2, [("a/b", image, None)], [("a", five / "none.nii", None)]):
        with pytest.raises(DataError):
            prepare(pairs, five / "ct.h5", PrepareOptions(modality="ct", organs=ORGANS))
    with pytest.raises(DataError, match="no case to prepare"):
        prepare([], five / "ct.h5", PrepareOptions(modality="ct"))
    with pytest.raises(ConfigError, match="no case is for training"):
        run(five, modality="mr", train=[], test=["0001"])


def test_a_file_that_was_not_prepared_is_one_sentence(five):
    with pytest.raises(DataError, match="make it with `attentkit prepare`"):
        Prepared.open(five / "none.h5")
    (five / "words.h5").write_text("words")
    with h5py.File(five / "other.h5", "w") as file:
        file["x"] = 1
    for name in ("words.h5", "other.h5"):
        with pytest.raises(DataError, match="not a prepared domain"):
            Prepared.open(five / name)
    run(five)
    with h5py.File(five / "ct.h5", "a") as file:
        manifest = json.loads(file["manifest"][()]) | {"version": 99}
        put_text(file, "manifest", json.dumps(manifest))
    with pytest.raises(DataError, match="format 99.*run `attentkit prepare` again"):
        Prepared.open(five / "ct.h5")


def test_importing_the_data_modules_does_not_load_torch():
    script = "import sys, attent_kit.data.prepare.prepare; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent)
