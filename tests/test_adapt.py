"""Test-time adaptation: where it happens, that it follows from the scan alone, and that it leaves the run as it was."""

import random

import nibabel as nib
import numpy as np
import pytest
import torch

from attent_kit.build import Builder, configure
from attent_kit.config import dump
from attent_kit.engine.apply.export import export_run
from attent_kit.engine.apply.volumes import PredictOptions, predict_volumes
from attent_kit.engine.compare.costs import measure_costs, read_costs
from attent_kit.engine.compare.suite import Suite, expand
from attent_kit.engine.run.adapt import adapted, unchanged
from attent_kit.engine.run.assemble import setup
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.predict import segment_slices
from attent_kit.engine.train.train import train
from attent_kit.errors import ConfigError, RunError
from attent_kit.interfaces import Task
from attent_kit.testing.trial import differing, values
from support.adapting_methods import SEGMENTOR, AtTestTime
from support.small_runs import REGISTRY, settings, weights, with_components

CPU = torch.device("cpu")
REGISTRY_OF_IT = with_components(REGISTRY, ("alignments", "at_test_time", AtTestTime))


def method(precision="32-true"):
    config = configure(AtTestTime, {"segmentor": SEGMENTOR}, REGISTRY)
    alignment = AtTestTime(config, Builder(REGISTRY, Task(), 0), Task())
    setup(alignment, launch("cpu", precision))
    return alignment.eval()


def volume(seed=0, slices=4):
    return np.random.default_rng(seed).uniform(-1, 1, (slices, 1, 32, 32)).astype(np.float16)


@pytest.fixture(scope="module")
def started(prepared, tmp_path_factory):
    """A run of source_only, and one of the method that starts from it."""
    folder = tmp_path_factory.mktemp("adapting")
    options = {"name": "source_only", "segmentor": SEGMENTOR, "segment_steps": 3, "segment_batch_size": 2}
    train(settings((prepared / "mr.h5", prepared / "ct.h5"), options), folder / "first", REGISTRY, "cpu")
    asked = {"name": "at_test_time", "segmentor": SEGMENTOR}
    data = {"unread": "mr", "target": str(prepared / "ct.h5")}
    made = settings((1, 2), asked, data=data, warm_start={"run": str(folder / "first")}, registry=REGISTRY_OF_IT)
    scores = train(made, folder / "run", REGISTRY_OF_IT, "cpu")
    return folder, scores


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_buffers_and_random_numbers_are_afterwards_as_they_were(precision):
    alignment = method(precision)
    before, states = values(alignment), (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    with adapted(alignment, volume(), CPU):
        assert len(differing(before, values(alignment))) > 10
    assert not differing(before, values(alignment))
    assert not any(p.requires_grad or p.grad is not None for p in alignment.parameters())
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_what_a_method_replaces_or_breaks_off_is_put_back_too():
    alignment = method()
    norm = next(m for m in alignment.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before, mean = values(alignment), norm.running_mean
    with pytest.raises(ZeroDivisionError), unchanged(alignment):
        norm.running_mean = torch.full_like(norm.running_mean, 7.0)
        norm.weight = torch.nn.Parameter(torch.zeros_like(norm.weight))
        norm.train()
        alignment.teacher = torch.nn.Linear(2, 2)
        raise ZeroDivisionError
    assert (
        norm.running_mean is mean
        and not hasattr(alignment, "teacher")
        and not differing(before, values(alignment))
        and not norm.training
    )


def test_a_gradient_that_training_has_left_is_not_there_while_adapting_and_is_afterwards():
    alignment = method()
    p = next(alignment.parameters())
    p.grad = left = torch.ones_like(p)
    with adapted(alignment, volume(), CPU):
        found = values(alignment)
    assert p.grad is left and torch.equal(left, torch.ones_like(p))
    p.grad = None
    with adapted(alignment, volume(), CPU):
        assert not differing(found, values(alignment))


def test_an_answer_follows_from_the_scan_and_from_nothing_before_it():
    alignment = method()
    torch.manual_seed(1)
    first = segment_slices(alignment, volume(0), CPU)
    other = segment_slices(alignment, volume(1), CPU)
    torch.manual_seed(2)
    assert np.array_equal(segment_slices(alignment, volume(0), CPU), first) and not np.array_equal(first, other)
    assert segment_slices(alignment, volume(0, slices=1), CPU).shape == (5, 1, 32, 32)
    assert alignment.adapted == [(4, 1, 32, 32)] * 3 + [(1, 1, 32, 32)]


def test_too_little_memory_is_said_with_what_to_lower(monkeypatch):
    def adapt_to(self, volume):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(AtTestTime, "adapt_to", adapt_to)
    with pytest.raises(RunError, match="a volume of 4 slices: lower the batch size"):
        segment_slices(method(), volume(), CPU)


def test_a_run_is_scored_on_what_predict_writes_and_holds_the_weights_that_it_started_from(started, prepared, volumes):
    folder, scores = started
    assert scores and weights(folder / "run")["step"] == 0
    theirs, ours = (weights(folder / name)["networks"]["S"] for name in ("first", "run"))
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    image = volumes / "ct" / "images" / "ct_3.nii.gz"
    predict_volumes(folder / "run", image, folder / "again.nii.gz", REGISTRY_OF_IT, PredictOptions(device="cpu"))
    there = nib.load(folder / "run/predictions/ct_3.nii.gz").get_fdata()
    assert np.array_equal(nib.load(folder / "again.nii.gz").get_fdata(), there)
    plain = nib.load(folder / "first/predictions/ct_3.nii.gz").get_fdata()
    assert (there != plain).any()


def test_figures_show_how_certain_it_was_after_adapting(started, prepared):
    folder, _ = started
    with np.load(folder / "run/slices.npz") as kept, np.load(folder / "first/slices.npz") as first:
        assert kept.files == first.files
        assert any((kept[name] != first[name]).any() for name in kept.files if name.endswith("entropy"))


def test_its_time_is_in_the_cost_of_a_prediction(started, prepared, monkeypatch):
    """Prediction is timed through the one function that adapts."""
    folder, _ = started
    row = {
        "label": "It",
        "alignment": "at_test_time",
        "start": str(folder / "first"),
        "options": {"segmentor": SEGMENTOR},
    }
    asked = {
        "name": "s",
        "directions": ["mr2ct"],
        "rows": [row],
        "domains": {m: prepared / f"{m}.h5" for m in ("mr", "ct")},
    }
    suite = Suite.model_validate(asked, context={"registry": REGISTRY_OF_IT})
    (cell,) = expand(suite, REGISTRY_OF_IT, suite.domains, folder / "out")
    assert dump(cell.settings)["data"] == {"unread": "mr", "target": str(prepared / "ct.h5")}
    train(cell.settings, cell.folder, REGISTRY_OF_IT, "cpu")
    seen = []
    monkeypatch.setattr(AtTestTime, "adapt_to", lambda self, volume: seen.append(len(volume)) or self.predict)
    measure_costs([cell], REGISTRY_OF_IT, "cpu", lambda *told: None)
    (cost,) = read_costs(folder / "out", ["It"])
    assert cost.stage == "as it is" and cost.prediction > 0 and seen and {*seen} == {16}


def test_it_cannot_be_exported_as_a_file_of_layers(started, tmp_path):
    folder, _ = started
    with pytest.raises(ConfigError, match="at_test_time.*attentkit predict.*export the run that it started from"):
        export_run(folder / "run", tmp_path / "model.onnx", REGISTRY_OF_IT)
    assert not [*tmp_path.iterdir()]
