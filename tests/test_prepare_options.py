"""What `prepare` can be told: slices with an organ only, pixels in mm, folds, organs; and the manifest beside the file."""

import hashlib
import tomllib

import nibabel as nib
import numpy as np
import pytest
import torch

from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.plan import PairList, plan
from attent_kit.data.prepare.prepare import prepare
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared, encode
from attent_kit.data.scans.volumes import read_volume
from attent_kit.data.sets.labelmap import LabelMap
from attent_kit.data.sets.splits import Fold, divide_into_folds
from attent_kit.data.space.geometry import Grid
from attent_kit.data.space.intensity import POOLED, sample
from attent_kit.data.space.slicing import Slicing
from attent_kit.data.workers import WORTHWHILE, sensible_workers
from attent_kit.errors import ConfigError, DataError
from attent_kit.layouts import Entry
from support.cases import AFFINE, contents, write_case
from support.commands import prepare_words, says, train_words
from support.messages import quotes

# Slices with an organ only. The volumes of conftest have four slices, and organs in slices 1 to 3.


@pytest.fixture(scope="module")
def foreground(volumes, tmp_path_factory):
    """mr.h5 and ct.h5, both with --foreground-only; mr_1 is for training and for testing."""
    from attent_kit.cli import run

    folder = tmp_path_factory.mktemp("foreground")
    for modality in ("mr", "ct"):
        words = prepare_words(volumes / modality, folder / f"{modality}.h5", modality, "--foreground-only")
        assert run([*words, f"--test={modality}_1,{modality}_3"]) == 0
    return folder


def test_the_source_is_trained_on_slices_with_an_organ_and_the_target_on_all(foreground):
    source, target = Prepared.open(foreground / "mr.h5"), Prepared.open(foreground / "ct.h5")
    for resident in (True, False):
        for uses_target_labels in (True, False):
            batches = training_batches(
                source, target, Augmentation(), 0, torch.device("cpu"), uses_target_labels, resident
            )
            assert (batches.source.count, batches.target.count) == (3, 4)
            x, y = batches.source.take(np.arange(3), torch.device("cpu"))
            assert torch.equal(x, torch.from_numpy(source.slices("mr_1")[1:4]).float())
            assert torch.equal(y, torch.from_numpy(source.label_slices("mr_1")[1:4]).long())


def test_all_slices_of_a_test_case_are_predicted_even_if_it_is_trained_on(foreground):
    domain = Prepared.open(foreground / "mr.h5")
    assert domain.ids("test") == ("mr_1", "mr_3") and domain.ids("train") == ("mr_1",)
    assert domain.slices("mr_1").shape[0] == domain.slices("mr_3").shape[0] == 4
    assert domain.case("mr_1").with_organ == (1, 2, 3) and domain.case("mr_1").kept == (0, 1, 2, 3)
    assert domain.case("mr_3").with_organ == domain.case("mr_3").kept == (0, 1, 2, 3)


def test_the_file_says_that_labels_chose_its_training_slices(foreground, prepared):
    stamped, plain = Prepared.open(foreground / "mr.h5"), Prepared.open(prepared / "mr.h5")
    assert len(stamped.manifest["label_driven"]) == 1 and quotes(
        stamped.manifest["label_driven"][0], "source ... organ"
    )
    assert plain.manifest["label_driven"] == [] and stamped.content_hash() != plain.content_hash()
    records = {record["id"]: record for record in stamped.manifest["cases"]}
    assert records["mr_1"]["without_organ"] == [0] and "without_organ" not in records["mr_3"]


def test_without_labels_or_organs_it_is_refused(attentkit, volumes, tmp_path):
    words = [volumes / "ct" / "images", "--modality", "ct", "--size", 8, "--foreground-only", "-o", tmp_path / "x.h5"]
    words.append("--allow-unlabelled")
    assert says(attentkit("prepare", *words), 2, "--foreground-only ... labels ... 'ct_")
    words += ["--labels", volumes / "ct" / "labels", "--organs", "pancreas=11,*=0"]
    assert says(attentkit("prepare", *words), 3, "training cases ... organ ... --organs")
    assert list(tmp_path.iterdir()) == []


# Pixels in mm. The volumes of conftest have 32 x 32 pixels of 2 mm.


def test_a_pixel_of_the_native_size_cuts_or_pads_about_the_centre():
    labels = np.random.default_rng(0).integers(0, 4, (10, 12, 3), np.uint8)
    whole = Grid.of(labels.shape, AFFINE, 12).labels_to_slices(labels)
    small, large = (Grid.of(labels.shape, AFFINE, size, 2.0) for size in (6, 20))
    assert small.pixel == large.pixel == 2.0
    assert np.array_equal(small.labels_to_slices(labels), whole[:, 3:9, 3:9])
    assert np.array_equal(large.labels_to_slices(labels), np.pad(whole, ((0, 0), (4, 4), (4, 4))))
    assert np.array_equal(large.to_native(large.labels_to_slices(labels)), labels)
    cut = np.zeros_like(labels)
    cut[2:8, 3:9] = labels[2:8, 3:9]
    assert np.array_equal(small.to_native(small.labels_to_slices(labels)), cut)
    scores = (small.labels_to_slices(labels) == np.arange(4)[:, None, None, None]).astype(np.float16)
    assert np.array_equal(small.to_native(scores), cut)


def test_a_pixel_of_twice_the_native_size_is_the_mean_of_four():
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    slices = Grid.of(image.shape, np.diag([-1.0, -1, 1, 1]), 4, 2.0).to_slices(image)
    assert slices[0].tolist() == [[0, 0, 0, 0], [0, 2.5, 10.5, 0], [0, 4.5, 12.5, 0], [0, 0, 0, 0]]


def test_the_share_of_organs_that_is_cut_off_is_told(attentkit, volumes, tmp_path):
    labels = np.zeros((8, 8, 2), np.uint8)
    labels[0, 3, :], labels[4, 4, :], labels[5, 5, 0] = 1, 2, 1
    assert Grid.of(labels.shape, AFFINE, 4, 2.0).outside(labels) == pytest.approx(2 / 5)
    assert Grid.of(labels.shape, AFFINE, 4).outside(labels) == 0
    # Of 240 + 72 + 72 + 90 voxels, those with x and y from 8 to 23 are inside: 6*6*3 + 5*4*2 + 5*4*2 + 1*6*3 = 206.
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--pixel", 2, "--size", 16)
    outcome = attentkit(*words)
    assert quotes(outcome.err, "ct_1: 57 % ... 16 pixels of 2 mm")
    assert "16 px of 2 mm" in outcome.out


def test_a_run_on_pixels_in_mm_predicts_on_the_grid_of_the_scan(attentkit, volumes, tmp_path):
    for modality in ("mr", "ct"):
        words = prepare_words(volumes / modality, tmp_path / f"{modality}.h5", modality, "--pixel", 1.5, "--size", 32)
        assert attentkit(*words).code == 0
    domain = Prepared.open(tmp_path / "ct.h5")
    volume = read_volume(volumes / "ct" / "images" / "ct_3.nii.gz")
    slices, grid = encode(volume, Slicing(32, 1.5), domain.intensity, "ct")
    assert np.array_equal(slices, domain.slices("ct_3")) and grid == domain.grid("ct_3") and grid.pixel == 1.5
    assert attentkit(*train_words(tmp_path, tmp_path / "run")).code == 0
    assert attentkit("predict", tmp_path / "run", volume.path, tmp_path / "p.nii.gz", "-d", "cpu").code == 0
    predicted = [nib.load(tmp_path / name) for name in ("p.nii.gz", "run/predictions/ct_3.nii.gz")]
    assert np.array_equal(*(np.asarray(image.dataobj) for image in predicted)) and predicted[0].shape == (32, 32, 4)
    assert not np.asarray(predicted[0].dataobj)[:3].any()  # 4 pixels of 2 mm lie outside of 48 mm on each side


@pytest.mark.parametrize("pixel", ["0", "-1", "nan", "inf"])
def test_a_pixel_that_cannot_be_is_refused(attentkit, volumes, tmp_path, pixel):
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--pixel", pixel)
    assert says(attentkit(*words), 2, f"a side of {float(pixel):g} mm")


# Folds and splits


@pytest.mark.parametrize("count", [2, 5, 7, 20])
@pytest.mark.parametrize("parts", [2, 5])
def test_folds_test_each_patient_once_and_differ_by_one_patient_at_most(count, parts):
    ids = [f"case{n}" for n in range(count)]
    if count < parts:
        with pytest.raises(ConfigError, match="cannot be dealt into 5 folds"):
            divide_into_folds(ids, Fold(0, parts), 0)
        return
    folds = [divide_into_folds(ids[::-1], Fold(k, parts), 3) for k in range(parts)]
    assert sorted(case for fold in folds for case in fold["test"]) == sorted(ids)
    assert all(sorted(fold["train"] + fold["test"]) == sorted(ids) and fold["val"] == () for fold in folds)
    sizes = [len(fold["test"]) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert folds == [divide_into_folds(ids, Fold(k, parts), 3) for k in range(parts)]


def test_another_seed_deals_other_folds():
    ids = [f"case{n}" for n in range(20)]
    three, four = ([divide_into_folds(ids, Fold(k, 5), seed) for k in range(5)] for seed in (3, 4))
    assert three != four


@pytest.mark.parametrize("text", ["5/5", "0/1", "0", "1/0", "-1/5", "a/b", "0/5/2", ""])
def test_a_fold_that_is_none_is_one_sentence(text):
    with pytest.raises(ConfigError, match="K/N"):
        Fold.parse(text)


def test_a_fold_is_kept_in_the_file_and_excludes_other_splits(attentkit, volumes, tmp_path):
    words = ["prepare", volumes / "ct", "--modality", "ct", "--size", 8, "-o", tmp_path / "ct.h5", "--fold", "1/3"]
    assert attentkit(*words).code == 0
    domain = Prepared.open(tmp_path / "ct.h5")
    assert domain.manifest["split_rule"] == {"fold": 1, "of": 3} and domain.split is None
    assert len(domain.ids("train")) == 2 and len(domain.ids("test")) == 1
    assert says(attentkit(*words, "--test", "ct_1"), 2, "--fold and --test ... one of them")


class Organized(PairList):
    """Three labelled cases, and two test cases whose labels the organizer keeps."""

    def entries(self):
        found = [Entry(f"c{n}", (self.path,), (self.path,), split="train") for n in (1, 2, 3)]
        return [*found, *(Entry(f"t{n}", (self.path,), split="test") for n in (1, 2))]


def test_test_cases_without_labels_are_left_out_of_what_is_dealt(tmp_path):
    layout = Organized([])
    layout.path = tmp_path
    own = plan(layout, PrepareOptions(modality="ct"))
    assert own.splits == {"train": ("c1", "c2", "c3"), "val": (), "test": ("t1", "t2")} and own.rule == "layout"
    assert quotes(own.warnings[0], "no test case ... labels")
    for split in ({"fold": Fold(0, 3)}, {"train": 0.5, "test": 0.5}, {"test": ["c1"]}):
        dealt = plan(layout, PrepareOptions(modality="ct", **split))
        assert sorted(dealt.splits["train"] + dealt.splits["test"]) == ["c1", "c2", "c3"]
        assert len(dealt.decisions) == 1 and quotes(dealt.decisions[0], "test cases without labels: t1, t2")
        assert [entry.id for entry in dealt.entries] == ["c1", "c2", "c3"]
    named = plan(layout, PrepareOptions(modality="ct", test=["t1"]))
    assert named.splits["test"] == ("t1",) and "t2" not in named.splits["train"]


def test_a_split_that_a_data_set_makes_up_is_refused(tmp_path):
    layout = Organized([])
    layout.path, layout.entries = tmp_path, lambda: [Entry("a", (tmp_path,), split="training")]
    with pytest.raises(DataError, match="'a' .*'training'.* train, val, test"):
        plan(layout, PrepareOptions(modality="ct"))


# Organs


def test_organs_are_known_by_name_whatever_capitals_and_order_of_words():
    ward = LabelMap.of({"Spleen": 1, "kidney_left": 3, "Right-Kidney": (2, 12), "LIVER": 6, "liver tumour": 7})
    assert str(ward.in_task_order()) == "liver=6,right kidney=2+12,left kidney=3,spleen=1,*=0"
    four = LabelMap.of({"spleen": 4, "liver": 1, "left kidney": 3, "right kidney": 2})
    assert str(four.in_task_order()) == "liver=1,right kidney=2,left kidney=3,spleen=4"
    assert LabelMap.parse(str(ward)) == ward
    hearts = LabelMap.of({"aorta": 1, "atrium": 2})
    assert hearts.in_task_order() is hearts


# The manifest


def test_the_manifest_beside_the_file_says_what_the_file_says(attentkit, volumes, tmp_path):
    words = prepare_words(volumes / "mr", tmp_path / "mr.h5", "mr", "--channels", 3, "--workers", 1)
    assert attentkit(*words).code == 0
    manifest = tomllib.loads((tmp_path / "mr.toml").read_text())
    inside = Prepared.open(tmp_path / "mr.h5").manifest
    assert {name: manifest[name] for name in ("splits", "intensity", "organs", "warnings", "versions")} == {
        name: inside[name] for name in ("splits", "intensity", "organs", "warnings", "versions")
    }
    assert manifest["options"] == {
        "labels": "labels", "modality": "mr", "size": 32, "channels": 3, "train": "mr_1", "val": "mr_2", "test": "mr_3",
    }  # fmt: skip
    assert manifest["layout"]["origin"].startswith("pairs of attent-kit ")
    for record, kept in zip(manifest["cases"], inside["cases"], strict=True):
        assert record == {name: value for name, value in kept.items() if value is not None}
        image = volumes / "mr" / "images" / record["image"]["name"]
        assert record["image"]["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
        assert record["affine"] == AFFINE.tolist() and record["orientation"] == "RAS"
        assert record["labels"]["voxels"] == {
            "liver": 10 * 8 * 3, "right kidney": 6 * 6 * 2, "left kidney": 6 * 6 * 2, "spleen": 5 * 6 * 3,
        }  # fmt: skip
    text = (tmp_path / "mr.toml").read_text()
    assert str(tmp_path) not in text and str(volumes) not in text and "\nlow = " in text


class Series(PairList):
    """One case of two files, of which the first is read."""

    def entries(self):
        (pair,) = self.pairs
        return [Entry("a", (pair.image, self.path / "images" / "header.txt"), (pair.labels,))]


def test_of_a_case_of_several_files_each_has_its_hash(volumes, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        (tmp_path / "set" / kind / "1.nii.gz").write_bytes((volumes / "ct" / kind / "ct_1.nii.gz").read_bytes())
    (tmp_path / "set" / "images" / "header.txt").write_text("words")
    layout = Series([("a", tmp_path / "set" / "images" / "1.nii.gz", tmp_path / "set" / "labels" / "1.nii.gz")])
    layout.path = tmp_path / "set"
    record = prepare(layout, tmp_path / "x.h5", PrepareOptions(modality="ct", size=8)).manifest["cases"][0]
    image = hashlib.sha256((tmp_path / "set" / "images" / "1.nii.gz").read_bytes()).hexdigest()
    words = hashlib.sha256(b"words").hexdigest()
    assert record["image"] == {
        "name": "images",
        "sha256": hashlib.sha256((image + words).encode()).hexdigest(),
        "files": {"1.nii.gz": image, "header.txt": words},
    }
    assert record["labels"]["name"] == "labels/1.nii.gz" and "files" not in record["labels"]


def test_a_list_of_pairs_may_lead_out_of_its_folder_and_that_is_told(attentkit, volumes, tmp_path):
    (tmp_path / "ct").symlink_to(volumes / "ct")
    (tmp_path / "lists").mkdir()
    lines = ["image,labels,case", *(f"../ct/images/ct_{n}.nii.gz,../ct/labels/ct_{n}.nii.gz,c{n}" for n in (1, 2, 3))]
    (tmp_path / "lists" / "pairs.csv").write_text("\n".join(lines))
    words = [tmp_path / "lists" / "pairs.csv", "--modality", "ct", "--size", 8, "-o", tmp_path / "x.h5"]
    outcome = attentkit("prepare", *words)
    assert outcome.code == 0 and "3 case(s)" in outcome.out and "3 labelled" in outcome.out
    assert quotes(outcome.err, "Warning: c2: ct_2.nii.gz and 1 more ... outside")
    assert Prepared.open(tmp_path / "x.h5").manifest["cases"][0]["image"]["name"] == "ct_1.nii.gz"


def test_preparing_again_writes_over_its_own_manifest_and_gives_the_same_bytes(attentkit, volumes, tmp_path):
    made = []
    for more in ([], ["--workers", 2], ["--workers", 1, "--json"]):
        assert attentkit(*prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", *more)).code == 0
        made.append(contents(tmp_path))
    assert made[0] == made[1] == made[2] and set(made[0]) == {"ct.h5", "ct.toml"}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--organs", ""], "a label map names 1 to 254 organs, not 0"),
        (["--split", ""], "no split is named ''"),
        (["--fold", ""], "'' is not a fold"),
        (["--modality", ""], "type --modality ct or --modality mr"),
        (["--workers", "0"], "Invalid value for '--workers'"),
    ],
)
def test_an_option_without_a_value_is_one_sentence(attentkit, volumes, tmp_path, more, sentence):
    words = ["prepare", volumes / "ct", "-o", tmp_path / "x.h5", "--modality", "ct"]
    assert says(attentkit(*words, *more), 2, sentence) and list(tmp_path.iterdir()) == []


# How much at once


def test_small_data_is_prepared_in_one_process_and_large_in_no_more_than_there_are_cases():
    assert sensible_workers(1000, WORTHWHILE - 1) == 1
    assert sensible_workers(1, WORTHWHILE) == 1
    assert 1 <= sensible_workers(1000, WORTHWHILE) <= 8


def test_volumes_share_what_the_percentiles_are_taken_of():
    array = np.arange(1000, dtype=np.float32)
    assert len(sample(array)) == 999 and len(sample(array, volumes=POOLED // 100)) <= 100
    assert sample(array, volumes=POOLED // 100)[:3].tolist() == [1, 11, 21]


def test_training_with_it_needs_no_other_option(attentkit, foreground, tmp_path):
    assert attentkit(*train_words(foreground, tmp_path / "run")).code == 0
    predicted = sorted(path.name for path in (tmp_path / "run" / "predictions").iterdir())
    assert predicted == ["ct_1.nii.gz", "ct_3.nii.gz"]


def test_write_case_has_organs_in_three_of_four_slices(tmp_path):
    write_case(tmp_path, "a")
    labels = np.asarray(nib.load(tmp_path / "labels" / "a.nii.gz").dataobj)
    assert labels.any(axis=(0, 1)).tolist() == [False, True, True, True]


@pytest.mark.parametrize(("name", "value"), [("size", 10**9), ("channels", 10**9 + 1), ("size", 0), ("channels", 2)])
def test_a_slice_that_could_not_be_read_back_is_not_prepared(name, value):
    with pytest.raises(ConfigError, match=str(value)):
        PrepareOptions(organs={"liver": 1}, modality="ct", **{name: value})
