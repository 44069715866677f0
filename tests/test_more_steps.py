"""A finished run that goes on: to the bits of a run that was asked for as much at once, from wherever it is killed."""

import json
import shutil

import pytest
import torch

from attent_kit.config import read_toml
from attent_kit.engine.conduct.train import TrainRequest
from attent_kit.engine.conduct.train import train as conduct
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.stages import parts_of
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from support.cases import contents
from support.commands import says, train_words
from support.small_methods import made
from support.small_runs import REGISTRY, SMALL, Killed, equal, settings, weights

CONSTANT = {**SMALL, "schedule": "constant"}
TEXTS = ("log.jsonl", "monitor.json", "selection.csv", "scores.csv")


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


@pytest.fixture(scope="module")
def finished(domains, tmp_path_factory):
    """AttENT, 6 steps of either stage with a falling rate, two snapshots."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(settings(domains, snapshots=2), folder, REGISTRY, "cpu")
    return folder


@pytest.fixture(scope="module")
def at_once(domains, tmp_path_factory):
    """What the finished run and 4 more steps come to if the settings ask for both from the beginning."""
    folder = tmp_path_factory.mktemp("at_once") / "run"
    train(settings(domains, snapshots=2, more_steps=[4]), folder, REGISTRY, "cpu")
    return folder


def ends_as(folder, other):
    assert equal(weights(folder), weights(other))
    for name in TEXTS:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    snapshots = [[path.name for path in RunFolder(run).all_snapshots()] for run in (folder, other)]
    assert snapshots[0] == snapshots[1] and len(snapshots[0]) == 3
    for name in snapshots[0]:
        assert equal(*(torch.load(run / "snapshots" / name, weights_only=True) for run in (folder, other)))
    assert read_toml(folder / "config.toml")["more_steps"] == [4]


def test_parts_count_on_and_stretch_the_schedule():
    parts = parts_of(made("cyclegan", segment_steps=6, translate_steps=5)[0], [2, 4])
    assert [(part.name, part.first, part.last) for part in parts] == [
        ("translate", 0, 5), ("segment", 5, 11), ("segment from 6", 11, 13), ("segment from 8", 13, 17),
    ]  # fmt: skip
    assert [part.in_stage(part.first) for part in parts] == [0, 0, 6, 8]
    assert [part.fraction(part.first) for part in parts] == [0, 0, 6 / 8, 8 / 12]


def test_more_steps_end_in_the_bits_of_the_same_settings_at_once_and_leave_the_run_as_it_was(
    attentkit, finished, at_once, tmp_path
):
    run = shutil.copytree(finished, tmp_path / "run")
    before = contents(run)
    outcome = attentkit("train", run, "--more-steps", 4, "-d", "cpu")
    assert outcome.code == 0, outcome.err
    ends_as(tmp_path / "run-and-4", at_once)
    assert contents(run) == before
    stages = [json.loads(line)["stage"] for line in (tmp_path / "run-and-4" / "log.jsonl").read_text().splitlines()]
    assert {*stages} == {"translate", "segment"}
    assert [*json.loads((tmp_path / "run-and-4" / "speed.json").read_text())][-1] == "segment from 6"
    words = [
        "train", "--config", tmp_path / "run-and-4" / "config.toml", "-o", tmp_path / "run-and-4", "-d", "cpu",
    ]  # fmt: skip
    before = contents(tmp_path / "run-and-4")
    for same in (["train", run, "--more-steps", 4, "-d", "cpu"], words):
        assert attentkit(*same).code == 0
        now = contents(tmp_path / "run-and-4")
        assert {name for name in now if now[name] != before.get(name)} <= {"domain.json"}


@pytest.mark.parametrize("killed_after", [12, 13, 14, 15])
def test_it_goes_on_from_a_kill_to_the_same_bits(finished, at_once, tmp_path, killed_after):
    def kill(progress):
        if progress.step == killed_after + 1:
            raise Killed

    request = TrainRequest(finished, more_steps=4, out=tmp_path / "longer", device="cpu")
    with pytest.raises(Killed):
        conduct(request, REGISTRY, TrainWatcher(stepped=kill))
    assert weights(tmp_path / "longer")["step"] == killed_after and not (tmp_path / "longer/scores.csv").exists()
    conduct(request, REGISTRY)
    ends_as(tmp_path / "longer", at_once)


def test_a_kill_before_anything_is_copied_is_made_good(finished, at_once, tmp_path):
    (tmp_path / "longer").mkdir()
    for name in ("config.toml", "log.jsonl"):
        shutil.copy(at_once / "config.toml" if name == "config.toml" else finished / name, tmp_path / "longer" / name)
    conduct(TrainRequest(finished, more_steps=4, out=tmp_path / "longer", device="cpu"), REGISTRY)
    ends_as(tmp_path / "longer", at_once)


def test_with_a_constant_rate_it_is_the_longer_run_and_the_shared_stage_is_that_of_the_shorter(domains, tmp_path):
    train(settings(domains, CONSTANT), tmp_path / "run", REGISTRY, "cpu")
    conduct(TrainRequest(tmp_path / "run", more_steps=3, out=tmp_path / "a", device="cpu"), REGISTRY)
    longer = conduct(TrainRequest(tmp_path / "a", more_steps=2, out=tmp_path / "b", device="cpu"), REGISTRY)
    assert longer.settings.more_steps == (3, 2)
    train(settings(domains, {**CONSTANT, "segment_steps": 11}), tmp_path / "long", REGISTRY, "cpu")
    assert equal(weights(tmp_path / "b")["networks"], weights(tmp_path / "long")["networks"])
    shared = TrainOptions(shared=tmp_path / "shared")
    train(settings(domains, CONSTANT), tmp_path / "one", REGISTRY, "cpu", shared)
    (stage,) = (tmp_path / "shared").glob("*.ckpt")
    told = []
    watcher = TrainWatcher(stepped=lambda progress: told.append(progress.stage))
    train(settings(domains, CONSTANT, more_steps=[5]), tmp_path / "two", REGISTRY, "cpu", shared, watcher)
    assert {*told} == {"segment"} and [*(tmp_path / "shared").glob("*.ckpt")] == [stage]
    assert equal(weights(tmp_path / "two")["networks"], weights(tmp_path / "long")["networks"])


def test_what_cannot_go_on_is_one_sentence_and_nothing_is_written(attentkit, finished, prepared, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    more = ("--more-steps", 2, "-d", "cpu")
    assert says(attentkit("train", "attent", *more), 2, "--more-steps 2", "attent is not the folder of a run")
    assert says(attentkit("train", *more), 2, "--more-steps 2")
    assert says(attentkit("train", run), 2, f"{run} --more-steps N", f"--config {run / 'config.toml'}")
    assert says(attentkit("train", run, *more, "-o", run), 2, f"{run} stays as it is")
    assert says(attentkit("train", run, *more, "--set", "dice=1.0"), 2, f"--from {run}", "(alignment)")
    assert says(attentkit("train", run, *more, "--seed", 9), 2, "(seed)")
    assert says(attentkit(*train_words(prepared, run)), 2, f"{run} --more-steps N")
    (run / "scores.csv").unlink()
    assert says(attentkit("train", run, *more), 2, f"{run} is not a finished run", "attentkit train --config")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_checkpoint_is_named_where_it_lies(attentkit, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    content = bytearray((run / "checkpoint.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "checkpoint.ckpt").write_bytes(content)
    assert says(attentkit("train", run, "--more-steps", 2, "-d", "cpu"), 1, f"{run / 'checkpoint.ckpt'} ")
