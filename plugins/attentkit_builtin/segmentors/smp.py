"""Every architecture of segmentation_models.pytorch on every encoder of smp or timm.

https://github.com/qubvel-org/segmentation_models.pytorch, https://github.com/huggingface/pytorch-image-models
"""

import inspect
from pathlib import Path
from typing import Annotated, Any

import segmentation_models_pytorch as smp
import timm
import torch
from pydantic import Field, PositiveInt, ValidationInfo, field_validator
from segmentation_models_pytorch.encoders import encoders as SMP_ENCODERS
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from attent_kit.config import ComponentConfig
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attentkit_builtin.networks.weights import SUFFIXES, load_encoder

ARCHITECTURES = smp.MODEL_ARCHITECTURES_MAPPING
TIMM_WEIGHTS = ("pretrained", "imagenet")


class SmpSegmentor(Segmentor):
    """Any architecture of segmentation_models.pytorch on any of its or timm's encoders."""

    class Config(ComponentConfig):
        small = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": (8, 8, 8)}

        architecture: str = "unet"
        """Decoder: unet, unetplusplus, manet, linknet, fpn, pspnet, deeplabv3, deeplabv3plus, pan, upernet, ..."""
        encoder: str = "resnet18"
        """Backbone: an smp name, or "tu-" and a timm name, such as tu-convnext_tiny."""
        encoder_weights: str = "none"
        """"none", a name that smp knows for the encoder ("imagenet"; for timm "pretrained"), or a local file."""
        encoder_depth: Annotated[int, Field(ge=1, le=5)] | None = None
        """Stages of the encoder, each half the resolution of the last; left out: 5, and 3 for pspnet, 4 for dpt."""
        decoder_channels: tuple[PositiveInt, ...] | None = None
        """Channels of the decoder's stages from coarse to fine; left out: the architecture's own."""
        auxiliary: PositiveInt | None = None
        """Encoder stage that a second, shallower head reads (AdaptSegNet: 4 of 5); left out: no such head."""

        @field_validator("architecture")
        @classmethod
        def _architecture_exists(cls, name: str) -> str:
            if name not in ARCHITECTURES:
                raise ValueError(f"smp has no architecture '{name}'.{did_you_mean(name, ARCHITECTURES)}")
            return name

        @field_validator("encoder")
        @classmethod
        def _encoder_exists(cls, name: str) -> str:
            if name in SMP_ENCODERS or _in_timm(name):
                return name
            if _in_timm(f"tu-{name}"):
                raise ValueError(f"'{name}' is an encoder of timm: write 'tu-{name}'.")
            arch, _, tag = name.partition(".")
            if tag and _in_timm(arch):
                known = [f"tu-{n}" for n in timm.list_pretrained(f"{arch[3:]}.*")]
                raise ValueError(f"'{arch}' has no weights called '{tag}'.{did_you_mean(name, known)}")
            nearest = did_you_mean(name, [*SMP_ENCODERS, *(f"tu-{n}" for n in timm.list_models())])
            raise ValueError(f"neither smp nor timm has an encoder '{name}'.{nearest}")

        @field_validator("encoder_weights")
        @classmethod
        def _weights_exist(cls, weights: str, info: ValidationInfo) -> str:
            encoder = info.data.get("encoder")
            if encoder is None or weights == "none" or weights.endswith(SUFFIXES):
                return weights
            if encoder.startswith("tu-"):
                known = TIMM_WEIGHTS if timm.models.is_model_pretrained(encoder[3:]) else ()
            else:
                known = tuple(SMP_ENCODERS[encoder]["pretrained_settings"])
            if weights not in known:
                raise ValueError(
                    f"encoder '{encoder}' has no weights '{weights}'. Write {', '.join(map(repr, (*known, 'none')))}, "
                    f"or the path of a {' or '.join(SUFFIXES[:2])} file."
                )
            return weights

        @field_validator("decoder_channels")
        @classmethod
        def _one_for_each_stage(cls, given: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
            if given is None or not {"architecture", "encoder_depth"} <= info.data.keys():
                return given
            architecture = info.data["architecture"]
            default = _default(architecture, "decoder_channels")
            if default is None:
                raise ValueError(f"'{architecture}' takes no decoder_channels: leave them out.")
            wanted = 1 if isinstance(default, int) else _depth(architecture, info.data["encoder_depth"])
            if len(given) != wanted:
                raise ValueError(f"'{architecture}' takes {wanted} of them here, not {len(given)}.")
            return given

        @field_validator("auxiliary")
        @classmethod
        def _shallower_than_the_deepest(cls, stage: int | None, info: ValidationInfo) -> int | None:
            if stage is None or not {"architecture", "encoder_depth"} <= info.data.keys():
                return stage
            depth = _depth(info.data["architecture"], info.data["encoder_depth"])
            if stage >= depth:
                raise ValueError(f"a stage shallower than the deepest is meant: 1 to {depth - 1} here, not {stage}.")
            return stage

        def without_weights(self) -> "SmpSegmentor.Config":
            return self.model_copy(update={"encoder_weights": "none"})

        @property
        def depth(self) -> int:
            """Stages of the encoder."""
            return _depth(self.architecture, self.encoder_depth)

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        self.network: Any = _build(config, task)
        channels = list(self.network.encoder.out_channels)
        self.feature_channels = channels[-1]
        self.stride: int = self.network.encoder.output_stride
        self.feature_stride = self.stride
        if config.architecture == "dpt":  # its decoder halves the deepest map once more
            self.stride *= 2
        # A deepest map of one pixel has no batch statistics to train with; pan pools it three times over.
        self.smallest = self.stride * (8 if config.architecture == "pan" else 2)
        self.stage = config.auxiliary
        self.has_auxiliary = self.stage is not None
        if self.stage is not None:
            if len(channels) == config.depth:  # the encoders of dpt do not list the image as stage 0
                self.stage -= 1
            if channels[self.stage] == 0:
                raise ConfigError(
                    f"encoder '{config.encoder}' has no features at stage {config.auxiliary}: "
                    f"choose auxiliary = {config.auxiliary + 1}, or leave it out."
                )
            self.auxiliary_head = nn.Conv2d(channels[self.stage], task.classes, 1)

    def forward(self, x: Tensor) -> Segmentation:
        height, width = x.shape[2:]
        padded = _pad(x, self.stride, self.smallest)
        encoded = self.network.encoder(padded)
        # Encoders of dpt answer features and prefix tokens, all others features alone.
        features, decoder_inputs = (encoded[0], encoded) if isinstance(encoded, tuple) else (encoded, (encoded,))
        try:
            logits = self.network.segmentation_head(self.network.decoder(*decoder_inputs))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"the decoder '{type(self.network).__name__.lower()}' normalises one value per image over the batch "
                f"and cannot be trained on one image at a time: set a batch size of 2 or more, or "
                f"choose architecture = 'unet'."
            ) from error
        auxiliary = None
        if self.stage is not None:
            auxiliary = _fit(self.auxiliary_head(features[self.stage]), padded)[..., :height, :width]
        return Segmentation(_fit(logits, padded)[..., :height, :width], features[-1], auxiliary)


def _in_timm(name: str) -> bool:
    """Whether "tu-" and the rest names a model of timm, with or without one of its weight tags."""
    if not name.startswith("tu-") or not timm.is_model(name[3:]):
        return False
    return "." not in name or name[3:] in timm.list_pretrained()


def _default(architecture: str, option: str) -> Any:
    """The architecture's own value of an option, None if it has no such option."""
    parameter = inspect.signature(ARCHITECTURES[architecture].__init__).parameters.get(option)
    return None if parameter is None else parameter.default


def _depth(architecture: str, given: int | None) -> int:
    return given or _default(architecture, "encoder_depth")


def _build(config: Any, task: Task) -> Any:
    """The smp model of a Config, or a ConfigError that names the encoder."""
    named = config.encoder_weights != "none" and not config.encoder_weights.endswith(SUFFIXES)
    options: dict[str, Any] = {"encoder_depth": config.depth, "in_channels": task.channels, "classes": task.classes}
    default = _default(config.architecture, "decoder_channels")
    if config.decoder_channels is not None:
        single = isinstance(default, int)
        options["decoder_channels"] = config.decoder_channels[0] if single else config.decoder_channels
    elif isinstance(default, tuple | list):
        options["decoder_channels"] = tuple(default[-config.depth :])
    if named:
        options["encoder_weights"] = True if config.encoder.startswith("tu-") else config.encoder_weights
    else:
        options["encoder_weights"] = None
    try:
        network = _create(config, options)
    except Exception as error:
        if named and _buildable(config, options):
            raise ConfigError(
                f"the weights '{config.encoder_weights}' of encoder '{config.encoder}' could not be fetched "
                f"({type(error).__name__}): go online once, give a local file, or set encoder_weights = 'none'."
            ) from error
        raise ConfigError(
            f"smp cannot build '{config.architecture}' with {config.depth} stages on encoder '{config.encoder}' "
            f"({str(error).strip(' .')}): 'resnet18' and 'tu-convnext_tiny' fit nearly every architecture, "
            f"'tu-vit_tiny_patch16_224' fits 'dpt'."
        ) from error
    if config.encoder_weights.endswith(SUFFIXES):
        load_encoder(network.encoder, Path(config.encoder_weights).expanduser())
    return network


def _buildable(config: Any, options: dict[str, Any]) -> bool:
    """Whether the same model can be had without its weights."""
    try:
        _create(config, {**options, "encoder_weights": None})
    except Exception:
        return False
    return True


def _create(config: Any, options: dict[str, Any]) -> Any:
    architecture = ARCHITECTURES[config.architecture]
    known = timm.get_pretrained_cfg(config.encoder[3:]) if config.encoder.startswith("tu-") else None
    if known is None or not known.fixed_input_size:
        return architecture(config.encoder, **options)
    try:
        return architecture(config.encoder, **options, dynamic_img_size=True)
    except TypeError:
        network = architecture(config.encoder, **options)
        _require_any_size(network.encoder, options["in_channels"])
        return network


@torch.no_grad()
def _require_any_size(encoder: Any, channels: int) -> None:
    """ValueError unless the encoder answers an image of an arbitrary size: some of timm know only their own."""
    encoder.eval()
    try:
        encoder(torch.zeros(1, channels, 2 * encoder.output_stride, 3 * encoder.output_stride))
    except Exception as error:
        raise ValueError(f"it takes images of one size only: {error}") from error
    encoder.train()


def _pad(x: Tensor, stride: int, smallest: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of the stride: [B, C, H, W] -> [B, C, H', W']."""
    below, right = (max(-size % stride, smallest - size) for size in x.shape[2:])
    return pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def _fit(logits: Tensor, image: Tensor) -> Tensor:
    """Logits at the resolution of the image: [B, K, h, w] -> [B, K, H, W]."""
    if logits.shape[2:] == image.shape[2:]:
        return logits
    return interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)
