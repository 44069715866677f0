"""A run of AttENT of a second, ended where a test wants it, and what it has become."""

import torch

from attent_kit.engine.run.settings import run_settings
from attent_kit.plugins import load
from attent_kit.registry import Component, Registry

REGISTRY = load().registry
SMALL = {
    "name": "attent",
    "segmentor": {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]},
    "translator": {"width": 4, "blocks": 1, "gate_norm": "batch"},
    "image_discriminator": {"width": 4, "layers": 1},
    "entropy_discriminator": {"width": 4},
    "translate_steps": 6,
    "segment_steps": 6,
    "translate_batch_size": 2,
    "segment_batch_size": 2,
    "pool": 3,
}


def settings(domains, alignment=SMALL, registry=REGISTRY, **more):
    source, target = domains
    data = {"source": str(source), "target": str(target)}
    return run_settings({"alignment": alignment, "data": data, "save_seconds": 0.0, "seed": 5, **more}, registry)


def weights(folder):
    return torch.load(folder / "checkpoint.ckpt", weights_only=True)


def equal(a, b):
    """Bit for bit, whatever is in them."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


class Killed(Exception):
    """Stands for SIGKILL where a process of its own would only cost time."""


def with_components(registry, *components):
    """The registry and these (kind, name, class) of a test."""
    more = Registry()
    for component in registry:
        more.add(component)
    for kind, name, found in components:
        more.add(Component(kind, name, found, "test", "test", "0"))
    return more
