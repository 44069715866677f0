"""Networks of segmentation_models.pytorch, built and tried on an image, or refused with one that can be built.

https://github.com/qubvel-org/segmentation_models.pytorch, https://github.com/huggingface/pytorch-image-models
"""

import functools
import inspect
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from attent_kit.errors import ConfigError, out_of_memory
from attentkit_builtin.networks.hub import fetching
from attentkit_builtin.networks.pool import with_fast_pools
from attentkit_builtin.networks.weights import is_path, load_encoder

ARCHITECTURES = smp.MODEL_ARCHITECTURES_MAPPING
PLAIN = "dpt"
"""The architecture for encoders that answer one resolution."""
SAFE_ENCODERS = ("resnet18", "tu-convnext_tiny", "tu-vit_tiny_patch16_224")
"""What is proposed instead of an encoder that does not fit: a residual network, ConvNeXt, a plain transformer."""
SAFE_ARCHITECTURES = ("unet", "fpn", PLAIN)
SIDE = 32
"""Multiple of pixels to which sides are padded where that of the deepest map is not enough: HRNet always goes so far."""


class Wanted(NamedTuple):
    """What determines a network."""

    architecture: str
    encoder: str
    depth: int
    """Stages of the encoder."""
    channels: int
    classes: int
    decoder_channels: tuple[int, ...] | None = None
    weights: str = "none"


class Built(NamedTuple):
    """A network, and what it did to an image."""

    network: Any
    stage_channels: list[int]
    """Of stages 0, 1, ... `depth`; stage 0 is the image, and a stage that the encoder does not have has 0."""
    feature_stride: int
    multiple: int
    """Pixels that the sides of an image must be a multiple of."""
    smallest: int
    """Pixels that a side must have to be trained on."""


@functools.cache
def default(architecture: str, option: str) -> Any:
    """The architecture's own value of an option, None if it has no such option."""
    parameter = inspect.signature(ARCHITECTURES[architecture].__init__).parameters.get(option)
    return None if parameter is None else parameter.default


def build(wanted: Wanted) -> Built:
    """The network, with its weights; ConfigError that says what can be built instead, or what to do about the weights."""
    named = wanted.weights != "none" and not is_path(wanted.weights)
    try:
        with fetching() if named else nullcontext():
            built = tried(wanted)
    except Exception as error:
        if out_of_memory(error):
            raise
        if named and fits(wanted):
            raise ConfigError(
                f"the weights '{wanted.weights}' of encoder '{wanted.encoder}' could not be fetched "
                f"({type(error).__name__}): go online once (`attentkit backbones {wanted.encoder}` says what is here), "
                f"give a file or folder as in encoder_weights=./{wanted.encoder}.safetensors, or set encoder_weights = 'none'."
            ) from error
        raise ConfigError(refusal(error, wanted)) from error
    if is_path(wanted.weights):
        load_encoder(built.network.encoder, Path(wanted.weights).expanduser())
    return built


@cache
def fits(wanted: Wanted) -> bool:
    """Whether the network can be had, its weights aside. Nothing is allocated where the encoder allows that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of smp, about what is only being tried
        try:
            without_memory(lambda: tried(wanted._replace(weights="none")))
        except Exception:
            return False
    return True


DRAWING = {Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.fill_}


class _Unfilled(TorchFunctionMode):
    """Leaves out drawing initial weights that have no values, which takes most of the time of building a network."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DRAWING and isinstance(args[0], Parameter) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def without_memory(make: Any) -> Any:
    """`make()` with tensors that have a shape and no values; with values, if it asks for some, as MiT does."""
    try:
        with torch.device("meta"), _Unfilled():
            return make()
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
        return make()


def _create(wanted: Wanted) -> Any:
    architecture, encoder = ARCHITECTURES[wanted.architecture], wanted.encoder
    options: dict[str, Any] = {
        "encoder_depth": wanted.depth, "in_channels": wanted.channels, "classes": wanted.classes, "encoder_weights": None,
    }  # fmt: skip
    own = default(wanted.architecture, "decoder_channels")
    if wanted.decoder_channels is not None:
        options["decoder_channels"] = wanted.decoder_channels[0] if isinstance(own, int) else wanted.decoder_channels
    elif isinstance(own, tuple | list):
        options["decoder_channels"] = tuple(own[-wanted.depth :])
    if wanted.weights != "none" and not is_path(wanted.weights):
        options["encoder_weights"] = True if encoder.startswith("tu-") else wanted.weights
    known = timm.get_pretrained_cfg(encoder[3:]) if encoder.startswith("tu-") else None
    if known is not None and known.fixed_input_size:
        try:
            return architecture(encoder, **options, dynamic_img_size=True)
        except TypeError:
            pass
    return architecture(encoder, **options)


@torch.no_grad()
def tried(wanted: Wanted) -> Built:
    """The network, and what it does to images of sides that training may bring; smp's, timm's or torch's error if it
    cannot be built or takes none of them."""
    network = with_fast_pools(_create(wanted))
    encoder = network.encoder
    stride: int = encoder.output_stride
    multiple = 2 * stride if wanted.architecture == PLAIN else stride  # its decoder halves the deepest map once more
    # A deepest map of one pixel has no batch statistics to train with; pan pools it three times over.
    smallest = multiple * (8 if wanted.architecture == "pan" else 2)
    stages = list(encoder.out_channels)
    if len(stages) == wanted.depth:  # the encoders of dpt do not list the image as stage 0
        stages = [wanted.channels, *stages]
    network.eval()
    for sides in dict.fromkeys((multiple, max(multiple, SIDE))):
        x = torch.zeros(1, wanted.channels, max(smallest, 2 * sides), max(smallest, 3 * sides))
        try:
            maps, logits = answer(network, x)
        except RuntimeError as error:
            failed = error
            continue
        except AssertionError as error:
            failed = RuntimeError(f"{ONE_SIZE}: {error}")
            continue
        network.train()
        deepest = maps[-1]
        if deepest.shape[1] != stages[-1] or logits.shape[1] != wanted.classes:
            raise RuntimeError(f"its deepest map has {deepest.shape[1]} channels where {stages[-1]} were announced")
        return Built(network, stages, x.shape[2] // deepest.shape[2], sides, max(smallest, 2 * sides))
    raise failed


def answer(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Maps of the encoder from fine to coarse, and logits: [B, C, H, W] -> [B, F, h, w] each, [B, K, h, w]."""
    encoded = network.encoder(x)
    # Encoders of dpt answer features and prefix tokens, all others features alone.
    maps, inputs = (encoded[0], encoded) if isinstance(encoded, tuple) else (encoded, (encoded,))
    return maps, network.segmentation_head(network.decoder(*inputs))


def refusal(error: Exception, wanted: Wanted, decoders: Iterable[str] = SAFE_ARCHITECTURES) -> str:
    """Why `tried` failed, and what to write instead: the first of `decoders` or of the safe encoders that can be built."""
    return (
        f"smp cannot build '{wanted.architecture}' with {wanted.depth} stages on encoder '{wanted.encoder}': "
        f"{_reason(error, wanted)}.{_instead(wanted, decoders)}"
    )


ONE_SIZE = "it takes images of one size only"
ANOTHER_SIZE = (
    "to broadcast a dimension",
    "invalid for input of size",
    "Expected size for",
    "must match the size of tensor",
)
"""Torch's words for weights made for another number of positions."""


def _reason(error: Exception, wanted: Wanted) -> str:
    """smp's or timm's error in our own words, if theirs do not help a user."""
    said = str(error).strip(" .:\n").partition("\n")[0]
    if "Unsupported model downsampling pattern" in said or "list index out of range" in said:
        return "it answers one resolution, or resolutions that smp cannot put in order, and this decoder needs several"
    if wanted.architecture == PLAIN and not wanted.encoder.startswith("tu-"):
        return f"'{PLAIN}' takes encoders of timm alone"
    dilated = default(wanted.architecture, "encoder_output_stride")
    if dilated and (not said or "output_stride" in said or "dilated mode" in said):
        return (
            f"this decoder wants its deepest map at 1/{dilated} of the image, and the encoder cannot be dilated so far"
        )
    if any(words in said for words in ANOTHER_SIZE):
        return ONE_SIZE
    return said or f"{type(error).__name__} in its code"


def _instead(wanted: Wanted, decoders: Iterable[str]) -> str:
    """ " Write ..., or ...": the same encoder with another decoder, the same decoder with another encoder."""
    others = (wanted._replace(architecture=a, depth=_depth(a), decoder_channels=None) for a in decoders)
    encoders = (wanted._replace(encoder=e) for e in SAFE_ENCODERS)
    words = [f"architecture = '{other.architecture}'" for other in _first(others, wanted)]
    words += [f"encoder = '{other.encoder}'" for other in _first(encoders, wanted)]
    return f" Write {', or '.join(words)}, which can." if words else ""


def _first(others: Iterable[Wanted], wanted: Wanted) -> list[Wanted]:
    return next(([other] for other in others if other != wanted and fits(other)), [])


def _depth(architecture: str) -> int:
    return int(default(architecture, "encoder_depth"))
