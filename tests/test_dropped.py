"""What a finished run may do without: it stays finished, predicts and is scored as before, and says what it lacks."""

import json
import shutil

import numpy as np
import pytest
import torch

import attent_kit as ak
from attent_kit.cli import run as main
from attent_kit.config import read_toml
from attent_kit.engine.apply.trained import load_run, open_run
from attent_kit.engine.run.assemble import network_states
from attent_kit.engine.run.checkpoint import read_weights, write_weights
from attent_kit.engine.run.exported import read_networks
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.settings import RunSettings, WarmStart
from attent_kit.engine.run.warm_start import digest_of, with_digest
from attent_kit.engine.snapshots.look import Viewer
from attent_kit.engine.snapshots.snapshots import load_selectors
from attent_kit.engine.study.runs import whole
from attent_kit.plugins import load
from attent_kit.report.selection import Scored, read_selection, write_selection
from support.cases import contents
from support.commands import says, train_words
from support.small_runs import equal, weights

REGISTRY = load().registry
SMALL = (
    "--set=translate_steps=1", "--set=segment_steps=4", "--set=translator.width=4", "--set=translator.blocks=1",
    "--set=image_discriminator.width=4", "--set=image_discriminator.layers=1", "--set=snapshots=2",
)  # fmt: skip


def words(prepared, out, *more):
    return train_words(prepared, out, *SMALL, *more, alignment="pixel")


def prefer(run, step):
    """Let `im` choose the snapshot of a step."""
    rows = [row._replace(value=float(row.step == step)) for row in read_selection(run / "selection.csv")]
    write_selection(run / "selection.csv", [row for row in rows if row.selector == "im"])


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """A run of a method that translates first, with snapshots after 3 and 5 steps, of which `im` chooses the first."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(words(prepared, folder)) == 0
    prefer(folder, 3)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def clean(attentkit, place, keep):
    return attentkit("doctor", place, "--keep", keep, "--clean", "--yes")


@pytest.fixture
def untrained(monkeypatch):
    """No step is taken."""

    def refuse(*_, **__):
        raise AssertionError("trained once more")

    monkeypatch.setattr("attent_kit.engine.train.fit._step", refuse)


def test_doctor_says_what_would_go_and_takes_that_and_nothing_else(attentkit, run):
    before = contents(run)
    heavy = {name for name in before if name.endswith(".ckpt")}
    outcome = attentkit("doctor", run, "--keep", "prediction")
    assert outcome.code == 0 and "checkpoint.ckpt and snapshots of it may go" in outcome.out
    assert "--keep prediction --clean" in outcome.out and contents(run) == before
    found = ak.doctor(run, keep="prediction").results
    assert found.freed == sum(len(before[name]) for name in heavy) and not ak.doctor(run).results.removable
    assert clean(attentkit, run, "prediction").code == 0
    after = contents(run)
    assert after.keys() - before.keys() == {name for name in after if name.endswith("dropped.json")}
    assert before.keys() - after.keys() == heavy and len(heavy) == 2
    assert not ak.doctor(run, keep="prediction").results.removable


def test_a_run_without_what_training_needs_stays_done_and_scores_as_before(attentkit, run, prepared, untrained):
    assert clean(attentkit, run, "prediction").code == 0
    before = contents(run)
    assert attentkit(*words(prepared, run)).code == 0 and contents(run) == before
    for name in ("scores.csv", "predictions/ct_3.nii.gz"):
        (run / name).unlink()
    assert attentkit(*words(prepared, run)).code == 0 and contents(run) == before
    # The way back from source style needs a network that is gone.
    for name in ("scores.csv", "slices.npz"):
        (run / name).unlink()
    assert attentkit(*words(prepared, run)).code == 0
    with np.load(run / "slices.npz") as slices:
        assert {name.rpartition("-")[2] for name in slices.files} == {"entropy", "translation"}
    assert says(attentkit(*words(prepared, run, "--set", "dice=1.0")), 2, "another configuration")
    assert attentkit("report", run).code in (0, 2) and RunFolder(run).has_scores


def test_what_needs_more_than_prediction_says_what_to_type(attentkit, run, prepared, untrained):
    assert clean(attentkit, run, "prediction").code == 0
    assert says(attentkit("train", run, "--more-steps", 2), 2, "checkpoint.ckpt ... dropped ... --out ... --from")
    assert says(attentkit(*words(prepared, run, "--select", "im")), 2, "of --select last ... another --out")
    assert says(attentkit("select", run, "-d", "cpu"), 2, "checkpoint.ckpt is missing ... another --out")
    with pytest.raises(ak.ConfigError, match="keeps what predicts alone.*train"):
        whole(open_run(run, REGISTRY))
    with pytest.raises(ak.ConfigError, match="of --select last"):
        load_run(open_run(run, REGISTRY), REGISTRY, "cpu", "im")


def test_a_selection_that_was_made_stays_and_answers(attentkit, run, prepared, untrained):
    assert attentkit(*words(prepared, run, "--select", "im")).code == 0
    before = load_run(open_run(run, REGISTRY), REGISTRY, "cpu", "im")
    assert clean(attentkit, run, "prediction").code == 0
    after = load_run(open_run(run, REGISTRY), REGISTRY, "cpu", "im")
    assert before.steps == after.steps == 3 and after.networks == {"S", "G_ts"} and after.selection == "im"
    states = [network_states(loaded.alignment) for loaded in (before, after)]
    assert all(equal(states[0][name], states[1][name]) for name in after.networks)
    assert attentkit(*words(prepared, run, "--select", "im")).code == 0


def test_without_snapshots_a_run_goes_on_and_the_longer_one_chooses_among_its_own(attentkit, run, prepared, tmp_path):
    assert clean(attentkit, run, "training").code == 0
    assert not (run / "snapshots").exists() and (run / "checkpoint.ckpt").exists()
    assert says(attentkit(*words(prepared, run, "--select", "im")), 2, "dropped its snapshots ... another --out")
    assert says(attentkit("select", run, "-d", "cpu"), 2, "dropped its snapshots")
    assert attentkit("train", run, "--more-steps", 2, "-d", "cpu", "--out", tmp_path / "more").code == 0
    steps = {row.step for row in read_selection(tmp_path / "more/selection.csv")}
    kept = {path.name for path in (tmp_path / "more/snapshots").iterdir()}
    assert 3 not in steps and kept == {f"step{step:07d}.ckpt" for step in steps - {7}}


def test_a_run_may_keep_less_from_the_beginning(attentkit, prepared, tmp_path):
    out = tmp_path / "run"
    assert attentkit(*words(prepared, out, "--set=keep=prediction", "--select=im")).code == 0
    assert not list(out.rglob("*.ckpt")) and json.loads((out / "dropped.json").read_text())["keep"] == "prediction"
    assert read_toml(out / "config.toml")["keep"] == "prediction"
    assert load_run(open_run(out, REGISTRY), REGISTRY, "cpu", "im").selection == "im"
    with pytest.raises(ak.ConfigError, match="of --select im"):
        load_run(open_run(out, REGISTRY), REGISTRY, "cpu")


def test_a_run_is_known_by_the_weights_that_it_had(attentkit, run):
    whole_digest = digest_of(RunFolder(run))
    begun = RunSettings.model_construct(warm_start=WarmStart(run=run, digest=whole_digest))
    assert clean(attentkit, run, "prediction").code == 0
    assert digest_of(RunFolder(run)) == whole_digest
    with pytest.raises(ak.ConfigError, match="keeps what predicts alone.*--from"):
        with_digest(begun)
    left = with_digest(RunSettings.model_construct(warm_start=WarmStart(run=run)))
    assert left.warm_start.digest not in (None, whole_digest)


def test_what_is_not_finished_or_was_exported_by_an_earlier_version_keeps_all(attentkit, run):
    exported, facts = read_weights(run / "segmentor.safetensors")
    earlier = {name: value for name, value in facts.items() if name != "networks"}
    write_weights(run / "segmentor.safetensors", exported, earlier)
    assert not ak.doctor(run, keep="prediction").results.removable
    write_weights(run / "segmentor.safetensors", exported, facts)
    (run / "scores.csv").unlink()
    assert not ak.doctor(run, keep="prediction").results.removable
    assert says(attentkit("doctor", "--keep", "training"), 2, "name the folder")


# Half precision


def test_in_half_precision_selectors_score_the_weights_that_a_choice_exports(attentkit, finished, prepared, tmp_path):
    out = tmp_path / "run"
    assert attentkit(*words(prepared, out, "--set=half_snapshots=true")).code == 0
    # Training is as it was.
    assert equal(weights(out)["networks"], weights(finished)["networks"])
    exact, half = (torch.load(f / "snapshots/step0000003.ckpt", weights_only=True)["networks"] for f in (finished, out))
    floats = [name for name, value in exact["S"].items() if value.dtype == torch.float32]
    assert floats and all(equal(half["S"][name], exact["S"][name].half()) for name in floats)
    rows = {(row.step, row.selector): row for row in read_selection(out / "selection.csv")}
    prefer(out, 3)
    assert attentkit(*words(prepared, out, "--set=half_snapshots=true", "--select=im")).code == 0
    states, _ = read_networks(out / "selections/im/segmentor.safetensors")
    assert all(equal(states["S"][name], exact["S"][name].half().float()) for name in floats)
    loaded = load_run(open_run(out, REGISTRY), REGISTRY, "cpu", "im")
    domains = [ak.open_prepared(prepared / f"{name}.h5") for name in ("mr", "ct")]
    look = Viewer(*domains, 0, torch.device("cpu")).look(loaded.alignment)
    for name, selector in load_selectors(REGISTRY).items():
        if (3, name) in rows:
            assert rows[3, name] == Scored(3, name, float(selector.score(look)), selector.better)
