"""What only a CUDA device can show. Skipped without one."""

import json
from functools import partial

import pytest
import torch

from attent_kit.build import Builder, configure
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.assemble import setup, train_only
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.capture import CudaGraph, capturing
from attent_kit.engine.train.fit import seed_step
from attent_kit.engine.train.train import TrainWatcher, task_of, train
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.plugins import load

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
REGISTRY = load().registry
ALIGNMENTS = [component.name for component in REGISTRY.of("alignments")]


def small(name, fabric, prepared, resident=True):
    """An alignment of small networks on the device, its optimizers, its update, and batches for it."""
    component = REGISTRY.alignment(name)
    source, target = Prepared.open(prepared / "mr.h5"), Prepared.open(prepared / "ct.h5")
    task = task_of(source, target)
    encoder = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8], "auxiliary": 2}
    options = {"segmentor": {"name": "smp", **encoder}}
    for option in ("translator", "image_discriminator"):
        if option in component.Config.model_fields:
            options[option] = {"width": 4, "blocks": 1} if option == "translator" else {"width": 4, "layers": 1}
    alignment = component(configure(component, options, REGISTRY), Builder(REGISTRY, task, 0), task)
    optimizers = setup(alignment, fabric)
    batches = training_batches(source, target, Augmentation(), 0, fabric.device, component.uses_target_labels, resident)
    return alignment, optimizers, FabricUpdate(fabric, optimizers), batches


@pytest.mark.parametrize("name", ALIGNMENTS)
@pytest.mark.parametrize("resident", [True, False])
def test_no_step_waits_for_the_device(name, resident, prepared):
    """CUDA's sync debug mode raises at the first read-back; batches that are streamed may copy to the device."""
    alignment, optimizers, update, batches = small(name, launch("cuda"), prepared, resident)
    for stage in alignment.stages():
        train_only(alignment, optimizers, stage)
        for step in range(3):  # the first steps allocate optimizer state and image pools
            stage.step(batches.batch(step, 2), update)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(3, 6):
                seed_step(0, step)
                stage.step(batches.batch(step, 2), update)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_run_on_the_gpu_trains_predicts_and_scores(prepared, tmp_path):
    segmentor = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    options = {"name": "source_only", "segmentor": segmentor, "segment_steps": 5}
    data = {"source": str(prepared / "mr.h5"), "target": str(prepared / "ct.h5")}
    scores = train(run_settings({"alignment": options, "data": data}, REGISTRY), tmp_path / "run", REGISTRY, "cuda")
    assert {score.metric for score in scores} >= {"dice", "assd", "hd95"}


def stages_taken(name, prepared, wanted, steps=12):
    """Losses of every step of every stage, whether the last was repeated, and what was said."""
    fabric = launch("cuda", "32-true")
    alignment, optimizers, update, batches = small(name, fabric, prepared)
    losses, repeated, said = [], [], []
    for stage in alignment.stages():
        train_only(alignment, optimizers, stage)
        take = capturing(lambda batch, s=stage: s.step(batch, update), stage, alignment, optimizers, fabric, wanted)
        for step in range(steps):
            reseed = partial(seed_step, 0, step)
            reseed()
            losses.append({key: float(loss.detach()) for key, loss in take(batches.batch(step, 2), reseed).items()})
        repeated.append(take.repeats)
        said.append(take.told())
    return losses, repeated, said


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_a_repeated_step_is_the_step_itself(name, prepared):
    """All but rounding: kernels that add in any order, and rates in single precision. Adam lets such differences grow."""
    captured, repeated, said = stages_taken(name, prepared, True)
    assert all(repeated) and not any(said), said
    plain, _, _ = stages_taken(name, prepared, False)
    for ours, theirs in zip(captured, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=0.02, abs=0.01)


def test_random_numbers_of_a_graph_are_those_of_the_seed(prepared):
    graph, made = CudaGraph(torch.device("cuda")), torch.zeros(8, device="cuda")
    graph.warm(lambda: {"L": made.uniform_()})
    graph.record(lambda: made.uniform_())
    for seed in (3, 4, 3):
        seed_step(seed, 0)
        graph.replay()
        repeated = made.clone()
        seed_step(seed, 0)
        assert torch.equal(repeated, torch.zeros(8, device="cuda").uniform_())


def test_a_recording_that_failed_leaves_a_device_that_draws():
    graph, x = CudaGraph(torch.device("cuda")), torch.ones(8, device="cuda")

    def step():
        torch.rand(8, device="cuda")
        x.sum().item()

    with pytest.raises(RuntimeError):
        graph.record(step)
    graph.forget()
    seed_step(3, 0)
    first = torch.rand(8, device="cuda")
    seed_step(3, 0)
    assert torch.equal(first, torch.rand(8, device="cuda"))


def test_a_captured_run_goes_on_near_where_it_would_have_been(prepared, tmp_path):
    segmentor = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    options = {"name": "source_only", "segmentor": segmentor, "segment_steps": 30}
    data = {"source": str(prepared / "mr.h5"), "target": str(prepared / "ct.h5")}
    whole = {"alignment": options, "data": data, "capture": True, "save_seconds": 0.0, "precision": "32-true"}
    train(run_settings(whole, REGISTRY), tmp_path / "one", REGISTRY, "cuda")

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 20:
            raise Stop

    with pytest.raises(Stop):
        train(run_settings(whole, REGISTRY), tmp_path / "two", REGISTRY, "cuda", watcher=TrainWatcher(stepped=stop))
    train(run_settings(whole, REGISTRY), tmp_path / "two", REGISTRY, "cuda")
    one, two = (json.loads((tmp_path / run / "log.jsonl").read_text().splitlines()[-1]) for run in ("one", "two"))
    assert two["L_seg"] == pytest.approx(one["L_seg"], rel=0.05)
    assert json.loads((tmp_path / "one/speed.json").read_text())["segment"]["captured"] is True
