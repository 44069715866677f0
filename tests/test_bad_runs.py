"""Prepared files, run folders and disks that fail a run: one sentence, an exit code, earlier results as they were."""

import shutil

import pytest
import torch

from attent_kit.engine.run.checkpoint import write
from support.cases import contents
from support.commands import on_a_full_disk, prepare_words, says, train_words
from support.messages import quotes

# Prepared files


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.h5", "does not exist ... `attentkit prepare`"),
        ("text.h5", "is not a prepared domain"),
        ("truncated.h5", "is not a prepared domain"),
    ],
)
def test_a_file_that_is_no_prepared_domain_ends_in_3(attentkit, prepared, tmp_path, name, sentence):
    content = (prepared / "ct.h5").read_bytes()
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "truncated.h5").write_bytes(content[: len(content) // 2])
    words = train_words(prepared, tmp_path / "run", "--target", tmp_path / name)
    assert says(attentkit(*words), 3, f"{tmp_path / name} {sentence}")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def own_data(prepared, tmp_path):
    """A copy of `prepared` that a test may spoil."""
    return shutil.copytree(prepared, tmp_path / "data")


def test_domains_that_do_not_fit_each_other_end_in_3(attentkit, own_data, volumes, tmp_path):
    assert attentkit(*prepare_words(volumes / "ct", own_data / "ct.h5", "ct", "--size", 48)).code == 0
    assert says(attentkit(*train_words(own_data, tmp_path / "run")), 3, "differ in size: 32 and 48.")


def test_a_source_without_labels_ends_in_3_and_its_folder_is_free_for_the_next_attempt(
    attentkit, own_data, volumes, tmp_path
):
    mr, words = volumes / "mr", train_words(own_data, tmp_path / "run")
    unlabelled = [w for w in prepare_words(mr, own_data / "mr.h5", "mr") if w not in ("--labels", str(mr / "labels"))]
    assert attentkit(*unlabelled, "--allow-unlabelled").code == 0
    assert says(attentkit(*words), 3, "training case mr_1 has no labels")
    assert attentkit(*prepare_words(mr, own_data / "mr.h5", "mr")).code == 0
    assert attentkit(*words).code == 0


def test_data_that_changed_since_the_run_are_refused(attentkit, own_data, volumes, tmp_path):
    folder = tmp_path / "run"
    assert attentkit(*train_words(own_data, folder)).code == 0
    before = contents(folder)
    assert attentkit(*prepare_words(volumes / "ct", own_data / "ct.h5", "ct", "--window", "0", "200")).code == 0
    sentence = f"{own_data / 'ct.h5'} is not what the run in {folder} was made with."
    assert says(attentkit(*train_words(own_data, folder)), 2, sentence)
    words = ["train", "--config", folder / "config.toml", "--out", tmp_path / "new", "-d", "cpu"]
    assert says(attentkit(*words), 2, f"{own_data / 'ct.h5'} no longer")
    assert contents(folder) == before
    assert not (tmp_path / "new").exists()


# Run folders


def test_a_folder_of_another_configuration_is_refused_with_the_lines_that_differ(attentkit, own_run, prepared):
    before = contents(own_run)
    outcome = attentkit(*train_words(prepared, own_run, "--seed", 4, "--set", "dice=1.0"))
    lines = ["  -seed = 0", "  +seed = 4", "  -dice = 0.0", "  +dice = 1.0"]
    assert says(outcome, 2, f"{own_run} ... another configuration")
    assert [line for line in outcome.err.splitlines() if line.startswith(("  -", "  +"))] == lines
    assert contents(own_run) == before


def test_how_often_a_run_saves_and_logs_may_change(attentkit, own_run, prepared):
    assert attentkit(*train_words(prepared, own_run, "--set", "save_seconds=60", "--set", "log_steps=7")).code == 0


def test_a_folder_that_holds_something_else_is_refused(attentkit, prepared, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert says(attentkit(*train_words(prepared, tmp_path)), 2, f"{tmp_path} ... other files")
    assert says(attentkit(*train_words(prepared, tmp_path / "notes.txt")), 2, "notes.txt ... folder")
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_an_option_may_be_mended_where_nothing_was_trained(attentkit, trained, prepared, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(trained / "config.toml", tmp_path / "run" / "config.toml")
    assert attentkit(*train_words(prepared, tmp_path / "run", "--set", "segment_steps=1")).code == 0
    assert "segment_steps = 1\n" in (tmp_path / "run" / "config.toml").read_text()


def without_a_weight(path):
    state = torch.load(path, weights_only=True)
    state["networks"]["S"].popitem()
    write(path, state)


def with_another_step(path):
    """Nothing but a number that stands beside the weights."""
    state = torch.load(path, weights_only=True)
    torch.save({**state, "step": state["step"] + 1}, path)


CORRUPT = {
    "junk": (lambda path: path.write_bytes(b"junk" * 100), "is not a readable checkpoint. Delete it"),
    "empty": (lambda path: path.write_bytes(b""), "is not a readable checkpoint. Delete it"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "is not a readable checkpoint. Delete it"),
    "another dict": (lambda path: torch.save({"format": 1}, path), "is not a checkpoint of attent-kit. Delete it"),
    "a list": (lambda path: torch.save([1], path), "is not a checkpoint of attent-kit. Delete it"),
    "a weight less": (without_a_weight, "does not fit the networks of this run"),
    "another step": (with_another_step, "has changed since it was written"),
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_a_corrupt_checkpoint_ends_train_and_predict_in_1(attentkit, own_run, prepared, volumes, tmp_path, kind):
    spoil, sentence = CORRUPT[kind]
    checkpoint = own_run / "checkpoint.ckpt"
    spoil(checkpoint)
    before = contents(own_run)
    image = volumes / "ct" / "images" / "ct_1.nii.gz"
    assert says(attentkit("predict", own_run, image, tmp_path / "p.nii.gz", "-d", "cpu"), 1, f"{checkpoint} {sentence}")
    assert contents(own_run) == before
    assert not (tmp_path / "p.nii.gz").exists()
    assert says(attentkit(*train_words(prepared, own_run)), 1, f"{checkpoint} {sentence}")
    after = contents(own_run)
    assert {n: b for n, b in after.items() if n != "env.json"} == {n: b for n, b in before.items() if n != "env.json"}


@pytest.mark.parametrize("content", [None, "junk", "{}", '{"channels": 1, "organs": ["liver"], "size": 32}'])
def test_a_run_whose_domain_is_missing_or_damaged_ends_predict_in_1(attentkit, own_run, volumes, tmp_path, content):
    (own_run / "domain.json").unlink()
    if content is not None:
        (own_run / "domain.json").write_text(content)
    words = ["predict", own_run, volumes / "ct" / "images", tmp_path / "p", "-d", "cpu"]
    assert says(attentkit(*words), 1, "domain.json ... `attentkit train` again")
    assert not (tmp_path / "p").exists()


def test_predicting_with_an_unfinished_run_says_how_far_it_is(attentkit, own_run, volumes, tmp_path):
    state = torch.load(own_run / "checkpoint.ckpt", weights_only=True)
    write(own_run / "checkpoint.ckpt", {**state, "step": 2})
    words = ["predict", own_run, volumes / "ct" / "images", tmp_path / "p", "-d", "cpu"]
    assert says(attentkit(*words), 2, "step 2 of 3")


# A full disk: the kernel refuses every write beyond `limit` bytes of a file.


def test_training_on_a_full_disk_leaves_the_earlier_checkpoint(attentkit, own_run, prepared):
    state = torch.load(own_run / "checkpoint.ckpt", weights_only=True)
    write(own_run / "checkpoint.ckpt", {**state, "step": 2})
    for name in ("scores.csv", "segmentor.safetensors", "predictions/ct_3.nii.gz"):
        (own_run / name).unlink()
    before = contents(own_run)
    code, err = on_a_full_disk(100_000, *train_words(prepared, own_run))
    assert code == 1
    assert f"RunError: {own_run / 'checkpoint.ckpt'} could not be written" in err
    assert "unchanged: make room" in err
    after = contents(own_run)
    assert after.keys() == before.keys()
    assert after["checkpoint.ckpt"] == before["checkpoint.ckpt"]
    assert attentkit(*train_words(prepared, own_run)).code == 0
    assert (own_run / "scores.csv").exists()


@pytest.mark.parametrize("limit", [0, 3_000, 20_000])
def test_preparing_on_a_full_disk_leaves_the_earlier_file(own_data, volumes, limit):
    before = contents(own_data)
    code, err = on_a_full_disk(limit, *prepare_words(volumes / "ct", own_data / "ct.h5", "ct", "--window", "0", "200"))
    assert code == 1
    assert quotes(err, f"{own_data / 'ct.h5'} ... (File too large)")
    assert contents(own_data) == before


def test_a_phantom_on_a_full_disk_leaves_nothing(tmp_path):
    code, err = on_a_full_disk(3_000, "phantom", tmp_path / "phantom")
    assert code in (1, 3)
    assert quotes(err, f"{tmp_path / 'phantom'} ... (File too large)")
    assert list(tmp_path.iterdir()) == []


def test_predicting_and_evaluating_on_a_full_disk_leaves_the_earlier_file(trained, volumes, tmp_path):
    (tmp_path / "p.nii.gz").write_text("earlier")
    (tmp_path / "s.csv").write_text("earlier")
    labels = volumes / "ct" / "labels" / "ct_1.nii.gz"
    image = volumes / "ct" / "images" / "ct_1.nii.gz"
    predict = on_a_full_disk(40, "predict", trained, image, tmp_path / "p.nii.gz", "-d", "cpu", "--overwrite")
    evaluate = on_a_full_disk(40, "evaluate", labels, labels, "--out", tmp_path / "s.csv")
    assert (predict[0], evaluate[0]) == (1, 1)
    assert quotes(predict[1], "p.nii.gz ... (File too large)")
    assert "File too large" in evaluate[1]
    assert contents(tmp_path) == {"p.nii.gz": b"earlier", "s.csv": b"earlier"}
