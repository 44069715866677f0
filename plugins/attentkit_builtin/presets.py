"""Published settings that several methods share, as parts of their `presets`. The sources stand beside each.

Published lengths are epochs of the authors' own slices; the steps here are what these come to for about a thousand slices
of each domain. Input size and augmentation belong to `attentkit prepare` and to the run's settings, not to a preset.
"""

from types import MappingProxyType
from typing import Any

Preset = MappingProxyType[str, Any]

CYCLEGAN_TRANSLATION: Preset = MappingProxyType(
    {
        "translator": {"name": "resnet", "width": 64, "blocks": 9, "upsampling": "transposed"},
        "image_discriminator": {"name": "patch", "width": 64, "layers": 3},
        "gan": "lsgan",
        "cycle": 10.0,
        "identity": 5.0,
        "pool": 50,
        "translate_learning_rate": 2e-4,
        "translate_steps": 200_000,
        "translate_batch_size": 1,
    }
)
"""Zhu et al. 2017 and their code: 200 epochs, the last 100 with a falling rate; an identity loss of half the cycle's weight."""

SIFA_SEGMENTATION: Preset = MappingProxyType(
    {
        "segmentor": {"name": "sifa", "width": 16, "stride": 8, "auxiliary": False},
        "cross_entropy": "balanced",
        "dice": 1.0,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "betas": [0.9, 0.999],
        "weight_decay": 1e-4,
        "schedule": "constant",
        "segment_steps": 20_000,
        "segment_batch_size": 8,
    }
)
"""Chen et al. 2020 (SIFA): the slides of AttENT take these rows over from them, who give all rows one segmentor."""

DEEPLAB_SEGMENTATION: Preset = MappingProxyType(
    {
        "segmentor": {"name": "deeplabv2", "head": "four-dilations", "head_learning_rate": 10.0},
        "auxiliary": 0.1,
        "optimizer": "sgd",
        "learning_rate": 2.5e-4,
        "weight_decay": 5e-4,
        "schedule": "poly",
        "schedule_steps": 250_000,
        "segment_batch_size": 1,
        "adversarial": 1e-3,
        "auxiliary_adversarial": 2e-4,
        "discriminator_learning_rate": 1e-4,
    }
)
"""Tsai et al. 2018 and Vu et al. 2019: DeepLabV2 at two levels. Both start from ImageNet weights: `segmentor.weights`."""

ATTENT_SEGMENTATION: Preset = MappingProxyType(
    {
        "segmentor": {"name": "deeplabv2", "head": "four-dilations", "head_learning_rate": 1.0},
        "auxiliary": 0.1,
        "optimizer": "adam",
        "learning_rate": 1e-5,
        "betas": [0.9, 0.99],
        "schedule": "constant",
        "segment_steps": 8_000,
        "segment_batch_size": 1,
    }
)
"""Code of Li et al. 2021, MR to CT: ten epochs of twice about 400 slices. Its poly schedule starts anew each epoch, so that
the rate never falls. From ImageNet weights: `segmentor.weights`."""

ATTENT_CRITICS: Preset = MappingProxyType(
    {"adversarial": 1e-3, "auxiliary_adversarial": 2e-4, "discriminator_learning_rate": 1e-4}
)
"""Code of Li et al. 2021: weights and rate of its two discriminators, those of Vu et al. 2019."""

ATTENT_SLIDES_TRANSLATION: Preset = MappingProxyType(
    {
        **CYCLEGAN_TRANSLATION,
        "translator": {"name": "attention", "upsampling": "resize", "gate": "single", "gate_norm": "none"},
        "gan": "bce",
        "identity": 0.0,
    }
)
"""Slides of Li et al. 2021: the log-loss, no identity loss, a gate without norm that is not doubled."""

ATTENT_CODE_TRANSLATION: Preset = MappingProxyType(
    {
        **CYCLEGAN_TRANSLATION,
        "translator": {"name": "attention", "upsampling": "resize", "gate": "doubled", "gate_norm": "batch"},
        "image_discriminator": {"name": "patch", "width": 64, "layers": 3, "pooled": True},
    }
)
"""Code of Li et al. 2021: least squares on one answer an image, identity loss 5, BatchNorm in the doubled gate."""
