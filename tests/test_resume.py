"""A run that is killed at any step and started again ends in the same bits as one that never stopped."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from attent_kit.config import dump, to_toml
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from support.small_runs import REGISTRY, SMALL, Killed, equal, settings, weights, with_components


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


@pytest.fixture(scope="module")
def undisturbed(domains, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    scores = train(settings(domains), folder, REGISTRY, "cpu")
    return folder, scores


@pytest.mark.parametrize("killed_after", [1, 4, 6, 7, 11])
def test_resuming_equals_never_stopping(domains, undisturbed, tmp_path, killed_after):
    folder, scores = undisturbed

    def kill(progress):
        if progress.step == killed_after + 1:
            raise Killed  # after the step moved the networks and before its checkpoint

    with pytest.raises(Killed):
        train(settings(domains), tmp_path / "run", REGISTRY, "cpu", watcher=TrainWatcher(stepped=kill))
    assert weights(tmp_path / "run")["step"] == killed_after
    again = train(settings(domains), tmp_path / "run", REGISTRY, "cpu")
    assert equal(weights(tmp_path / "run"), weights(folder))
    assert np.array_equal([s.value for s in again], [s.value for s in scores], equal_nan=True)
    assert (tmp_path / "run/log.jsonl").read_text() == (folder / "log.jsonl").read_text()
    assert (tmp_path / "run/segmentor.safetensors").read_bytes() == (folder / "segmentor.safetensors").read_bytes()


def test_a_run_that_has_its_scores_has_all_else_that_it_answers_with(domains, undisturbed, tmp_path, monkeypatch):
    folder, scores = undisturbed

    def kill(*given):
        raise Killed

    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr("attent_kit.engine.train.train.keep_slices", kill)
        train(settings(domains), tmp_path / "run", REGISTRY, "cpu")
    assert not (tmp_path / "run/scores.csv").exists()
    again = train(settings(domains), tmp_path / "run", REGISTRY, "cpu")
    assert np.array_equal([s.value for s in again], [s.value for s in scores], equal_nan=True)
    assert (tmp_path / "run/slices.npz").read_bytes() == (folder / "slices.npz").read_bytes()


STOPS = """
import sys, time
from pathlib import Path
from attent_kit.config import read_toml
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.train import TrainWatcher, train
from attent_kit.plugins import load

def stop(progress):
    if progress.step == int(sys.argv[3]):
        print(progress.stage, flush=True)
        time.sleep(3600)

registry = load().registry
settings = run_settings(read_toml(Path(sys.argv[1])), registry)
train(settings, Path(sys.argv[2]), registry, "cpu", watcher=TrainWatcher(stepped=stop))
"""
"""A run that stands still in a step, before its checkpoint, and is killed there."""


@pytest.mark.parametrize("stage, steps_before", [("translate", 2), ("segment", 8)])
def test_a_process_killed_inside_either_stage_goes_on_to_the_same_bits(
    domains, undisturbed, tmp_path, stage, steps_before
):
    folder, _ = undisturbed
    (tmp_path / "run.toml").write_text(to_toml(dump(settings(domains))))
    words = [sys.executable, "-c", STOPS, str(tmp_path / "run.toml"), str(tmp_path / "run"), str(steps_before + 1)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        standing_in = process.stdout.readline().strip()
        process.kill()
    assert standing_in == stage
    assert weights(tmp_path / "run")["step"] == steps_before and not (tmp_path / "run/scores.csv").exists()
    train(settings(domains), tmp_path / "run", REGISTRY, "cpu")
    assert equal(weights(tmp_path / "run"), weights(folder))
    assert (tmp_path / "run/selection.csv").read_bytes() == (folder / "selection.csv").read_bytes()


def test_one_changed_bit_of_the_data_or_the_seed_would_be_noticed(domains, undisturbed, tmp_path):
    """The comparison above can fail: another seed ends elsewhere."""
    train(settings(domains, seed=6), tmp_path / "run", REGISTRY, "cpu")
    assert not equal(weights(tmp_path / "run"), weights(undisturbed[0]))


def test_a_shared_translation_stage_gives_the_bits_of_a_stage_of_ones_own(domains, undisturbed, tmp_path):
    """pixel leaves its first stage; attent takes it over and ends as if it had trained it itself."""
    fields = REGISTRY.alignment("pixel").Config.model_fields
    pixel = {**{k: v for k, v in SMALL.items() if k in fields}, "name": "pixel"}
    shared = TrainOptions(shared=tmp_path / "shared")
    train(settings(domains, pixel), tmp_path / "pixel", REGISTRY, "cpu", shared)
    stages = []
    watcher = TrainWatcher(stepped=lambda progress: stages.append(progress.stage))
    train(settings(domains), tmp_path / "attent", REGISTRY, "cpu", shared, watcher)
    assert set(stages) == {"segment"}
    assert equal(weights(tmp_path / "attent")["networks"], weights(undisturbed[0])["networks"])


def test_a_method_that_asks_for_target_labels_without_declaring_it_finds_none(domains, tmp_path):
    """The field of the batch is None: an unsupervised method cannot peek."""

    class Peeking(REGISTRY.alignment("source_only")):
        """Tries to use the labels of the target."""

        def segment(self, batch, update):
            assert batch.y_t is not None, "no target labels here"
            return {}

    registry = with_components(REGISTRY, ("alignments", "peeking", Peeking))
    options = {"name": "peeking", "segmentor": SMALL["segmentor"], "segment_steps": 2, "segment_batch_size": 2}
    data = {"source": str(domains[0]), "target": str(domains[1])}
    peek = run_settings({"alignment": options, "data": data}, registry)
    with pytest.raises(AssertionError, match="no target labels here"):
        train(peek, tmp_path / "run", registry, "cpu")


def test_target_labels_are_not_even_read_from_the_file(domains, tmp_path, monkeypatch):
    source, target = (Prepared.open(path) for path in domains)

    def forbidden(self, *args):
        raise AssertionError("target labels were read")

    monkeypatch.setattr(target, "labels", forbidden.__get__(target))
    monkeypatch.setattr(target, "label_row", forbidden.__get__(target))
    for resident in (True, False):
        batches = training_batches(source, target, Augmentation(), 0, torch.device("cpu"), False, resident)
        assert batches.batch(0, 2).y_t is None
