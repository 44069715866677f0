"""What smp can be built on: its architectures, its encoders, and those of timm as "tu-" and a timm name.

Everything is built of tensors without values, so that an encoder of 300 million parameters costs no memory.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from segmentation_models_pytorch.encoders import encoders as SMP_ENCODERS

from attent_kit.backbone import Backbone
from attentkit_builtin.segmentors.smp_networks import (
    ARCHITECTURES,
    PLAIN,
    Built,
    Wanted,
    answer,
    default,
    fits,
    refusal,
    tried,
    without_memory,
)

CHANNELS, CLASSES, DEPTH = 1, 5, 5
PYRAMID = "unet"


def names() -> tuple[str, ...]:
    """Architectures, encoders of smp, encoders of timm."""
    return (*ARCHITECTURES, *SMP_ENCODERS, *(f"tu-{name}" for name in timm.list_models()))


def describe(name: str) -> Backbone:
    """What is known about one of `names`."""
    with _without_warnings():
        return _architecture(name) if name in ARCHITECTURES else _encoder(name)


def _architecture(name: str) -> Backbone:
    encoder = "tu-vit_tiny_patch16_224" if name == PLAIN else "resnet18"
    built = without_memory(lambda: tried(_wanted(name, encoder)))
    decoder = _size(built.network) - _size(built.network.encoder)
    notes = [f"on {encoder}"]
    if stride := default(name, "encoder_output_stride"):
        notes.append(f"dilates the encoder to 1/{stride} of the image")
    if name == PLAIN:
        notes.append("for encoders of one resolution")
    if _needs_two_images(built):
        notes.append("cannot be trained on single images")
    return Backbone(
        part="architecture",
        options={"architecture": name} if name != PLAIN else {"architecture": name, "encoder": encoder},
        parameters=decoder,
        strides=(built.feature_stride,),
        channels=(built.stage_channels[-1],),
        auxiliary={"auxiliary": len(built.stage_channels) - 2},
        note="; ".join(notes),
    )


def _encoder(name: str) -> Backbone:
    weights = _weights(name)
    try:
        built = without_memory(lambda: tried(_wanted(PYRAMID, name)))
    except Exception as error:
        return _of_one_resolution(name, weights, error)
    stages = [(2**n, channels) for n, channels in enumerate(built.stage_channels) if n and channels]
    notes = []
    if not built.stage_channels[1]:
        notes.append("no map at 1/2 of the image, which decoders make do without")
    if name.startswith("timm-"):
        notes.append("smp will drop names that start with timm-: use the tu- encoder like it")
    return Backbone(
        options={"encoder": name},
        parameters=_size(built.network.encoder),
        strides=tuple(stride for stride, _ in stages),
        channels=tuple(channels for _, channels in stages),
        auxiliary={"auxiliary": DEPTH - 1},
        weights=weights,
        fits=_architectures(name),
        note="; ".join(notes),
    )


def _of_one_resolution(name: str, weights: dict[str, str], error: Exception) -> Backbone:
    """An encoder that decoders of several resolutions refuse."""
    try:
        built = without_memory(lambda: tried(_wanted(PLAIN, name)))
    except Exception:
        sentence = refusal(error, _wanted(PYRAMID, name), decoders=())
        return Backbone(options={"encoder": name}, weights=weights, refused=sentence)
    return Backbone(
        options={"encoder": name, "architecture": PLAIN},
        parameters=_size(built.network.encoder),
        strides=(built.feature_stride,),
        channels=(built.stage_channels[-1],),
        auxiliary={"auxiliary": len(built.stage_channels) - 2},
        weights=weights,
        fits=PLAIN,
        note=f"one resolution only, since it is a plain transformer: architecture = '{PLAIN}' takes it",
    )


_takers: dict[Any, tuple[str, ...]] = {}
"""Architectures by the kind of encoder that they take: smp's class of it, or timm's module. All of a kind dilate, or none."""


def _architectures(name: str) -> str:
    """Those that take an encoder which `PYRAMID` takes, in words. `PLAIN` is proposed for plain transformers alone."""
    kind = timm.model_entrypoint(name[3:]).__module__ if name.startswith("tu-") else SMP_ENCODERS[name]["encoder"]
    if kind not in _takers:
        _takers[kind] = tuple(a for a in ARCHITECTURES if a != PLAIN and _takes(a, name))
    others = [a for a in ARCHITECTURES if a not in _takers[kind]]
    return f"all but {', '.join(others)}" if others else "all"


def _takes(architecture: str, encoder: str) -> bool:
    # Of timm's encoders smp makes the same stages for all that dilate nothing; of its own some are refused by name.
    if encoder.startswith("tu-") and default(architecture, "encoder_output_stride") is None:
        return True
    return fits(_wanted(architecture, encoder))


@torch.no_grad()
def _needs_two_images(built: Built) -> bool:
    """Whether the decoder normalises one value per image over the batch."""
    with torch.device("meta"):
        x = torch.zeros(1, CHANNELS, built.smallest, built.smallest)
    try:
        answer(built.network.train(), x)
    except ValueError:
        return True
    return False


def _weights(name: str) -> dict[str, str]:
    """Pretrained weights by the name that `encoder_weights` takes, or of other tags of timm by the encoder's whole name."""
    if not name.startswith("tu-"):
        settings: dict[str, Any] = SMP_ENCODERS[name]["pretrained_settings"]
        return {
            tag: f"hf://{its['repo_id']}@{its['revision']}/model.safetensors" if "repo_id" in its else its["url"]
            for tag, its in settings.items()
        }
    found = {}
    for tagged in timm.list_pretrained(f"{name[3:]}.*") or timm.list_pretrained(name[3:]):
        known = timm.get_pretrained_cfg(tagged)
        if known is None:
            continue
        if known.hf_hub_id:
            found[f"tu-{tagged}"] = f"hf://{known.hf_hub_id}/{known.hf_hub_filename or 'model.safetensors'}"
        elif isinstance(known.url, str) and known.url:
            found[f"tu-{tagged}"] = known.url
    return found


def _wanted(architecture: str, encoder: str) -> Wanted:
    return Wanted(architecture, encoder, default(architecture, "encoder_depth"), CHANNELS, CLASSES)


def _size(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@contextmanager
def _without_warnings() -> Iterator[None]:
    """smp and timm warn of names that they will drop, which `describe` says itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
