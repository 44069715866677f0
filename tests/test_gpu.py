"""What only a CUDA device can show. Skipped without one."""

import pytest
import torch

from attent_kit.build import Builder, configure
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.assemble import setup, train_only
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.fit import seed_step
from attent_kit.engine.train.train import task_of, train
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.plugins import load

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
REGISTRY = load().registry
ALIGNMENTS = [component.name for component in REGISTRY.of("alignments")]


@pytest.mark.parametrize("name", ALIGNMENTS)
@pytest.mark.parametrize("resident", [True, False])
def test_no_step_waits_for_the_device(name, resident, prepared):
    """CUDA's sync debug mode raises at the first read-back; batches that are streamed may copy to the device."""
    component = REGISTRY.alignment(name)
    fabric = launch("cuda")
    source, target = Prepared.open(prepared / "mr.h5"), Prepared.open(prepared / "ct.h5")
    task = task_of(source, target)
    encoder = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8], "auxiliary": 2}
    small = {"segmentor": {"name": "smp", **encoder}}
    for option in ("translator", "image_discriminator"):
        if option in component.Config.model_fields:
            small[option] = {"width": 4, "blocks": 1} if option == "translator" else {"width": 4, "layers": 1}
    alignment = component(configure(component, small, REGISTRY), Builder(REGISTRY, task, 0), task)
    optimizers = setup(alignment, fabric)
    update = FabricUpdate(fabric, optimizers)
    batches = training_batches(source, target, Augmentation(), 0, fabric.device, component.uses_target_labels, resident)
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
