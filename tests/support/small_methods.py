"""Every built-in alignment, small enough for a test, and a batch for it."""

import torch

from attent_kit.build import Builder, configure
from attent_kit.engine.run.assemble import setup
from attent_kit.engine.run.device import launch
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load

REGISTRY = load().registry
SMALL_SEGMENTOR = {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}
SMALL_SEGMENTORS = {
    "smp": SMALL_SEGMENTOR,
    "deeplabv2": {"width": 4, "blocks": [1, 1, 1, 1]},
    "resnet": {"width": 4, "blocks": 1},
    "sifa": {"width": 2},
}
SMALL = {
    "segmentor": {"name": "smp", **SMALL_SEGMENTOR},
    "translator": {"width": 4, "blocks": 1},
    "image_discriminator": {"width": 4},
    "entropy_discriminator": {"width": 4},
    "output_discriminator": {"width": 4},
    "feature_discriminator": {"hidden": [8]},
}
ALIGNMENTS = [c.name for c in REGISTRY.of("alignments")]
TASK = Task(organs=("liver", "spleen"))
TWO_HEADS = {"name": "smp", **SMALL_SEGMENTOR, "auxiliary": 2}
OF_ONE = {"sifa": {"segmentor": TWO_HEADS, "decoder_width": 4}}
VARIANTS = [
    *((name, {}) for name in ALIGNMENTS),
    ("sifa", {"version": "v1", "segmentor": {"name": "smp", **SMALL_SEGMENTOR}}),
    ("sifa", {"segmentor": {"name": "sifa", "width": 2}}),
    ("cycada", {"adversary": "features", "semantic": 0.0}),
    ("entropy", {"objective": "minimize", "segmentor": TWO_HEADS}),
    ("ada_output", {"segmentor": TWO_HEADS}),
    ("entropy", {"segmentor": TWO_HEADS}),
    ("attent", {"segmentor": TWO_HEADS}),
    ("attent", {"gan": "bce", "entropy": "summed"}),
    ("ada_output", {"segmentor": {"name": "deeplabv2", "width": 4, "blocks": [1, 1, 1, 1]}, "optimizer": "sgd"}),
    ("source_only", {"cross_entropy": "balanced", "dice": 1.0, "optimizer": "sgd", "weight_decay": 1e-4}),
]
"""Every alignment as it comes, and those with a branch of their own."""


def options(name, **more):
    fields = REGISTRY.alignment(name).Config.model_fields
    return {**{k: v for k, v in SMALL.items() if k in fields}, **OF_ONE.get(name, {}), **more}


def made(name, task=TASK, **more):
    """An alignment on the CPU in float32, its optimizers, and its update."""
    component = REGISTRY.alignment(name)
    alignment = component(configure(component, options(name, **more), REGISTRY), Builder(REGISTRY, task, 0), task)
    fabric = launch("cpu", "32-true")
    optimizers = setup(alignment, fabric)
    return alignment, optimizers, FabricUpdate(fabric, optimizers)


def batch(task=TASK, size=2, pixels=64, labelled=False):
    torch.manual_seed(3)
    x_s, x_t = torch.rand(2, size, task.channels, pixels, pixels) * 2 - 1
    y = torch.randint(task.classes, (2, size, pixels, pixels))
    return Batch(x_s, y[0], x_t, y[1] if labelled else None)
