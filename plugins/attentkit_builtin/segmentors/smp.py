"""Every architecture of segmentation_models.pytorch on every encoder of smp or timm.

https://github.com/qubvel-org/segmentation_models.pytorch, https://github.com/huggingface/pytorch-image-models
"""

from typing import Annotated, Any

import timm
from pydantic import Field, PositiveInt, ValidationInfo, field_validator
from segmentation_models_pytorch.encoders import encoders as SMP_ENCODERS
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from attent_kit.backbone import Backbone
from attent_kit.config import ComponentConfig
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attentkit_builtin.networks.jitter import GreyJitter
from attentkit_builtin.networks.weights import SUFFIXES, is_path
from attentkit_builtin.segmentors import smp_backbones
from attentkit_builtin.segmentors.smp_networks import ARCHITECTURES, Wanted, answer, build, default

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
        """"none", a name that smp knows for the encoder ("imagenet"; for timm "pretrained"), or a local file or ./folder."""
        encoder_depth: Annotated[int, Field(ge=1, le=5)] | None = None
        """Stages of the encoder, each half the resolution of the last; left out: 5, and 3 for pspnet, 4 for dpt."""
        decoder_channels: tuple[PositiveInt, ...] | None = None
        """Channels of the decoder's stages from coarse to fine; left out: the architecture's own."""
        auxiliary: PositiveInt | None = None
        """Encoder stage that a second, shallower head reads (AdaptSegNet: 4 of 5); left out: no such head."""
        jitter: float = Field(0.0, ge=0, le=1)
        """Random grey values of what it sees in training, from 0, none, to 1: for a source of a few patients."""

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
            if encoder is None or weights == "none" or is_path(weights):
                return weights
            if encoder.startswith("tu-"):
                known = TIMM_WEIGHTS if timm.models.is_model_pretrained(encoder[3:]) else ()
            else:
                known = tuple(SMP_ENCODERS[encoder]["pretrained_settings"])
            if weights not in known:
                raise ValueError(
                    f"encoder '{encoder}' has no weights '{weights}'. Write {', '.join(map(repr, (*known, 'none')))}, "
                    f"or the path of a {' or '.join(SUFFIXES[:2])} file, or of a folder as in ./weights."
                )
            return weights

        @field_validator("decoder_channels")
        @classmethod
        def _one_for_each_stage(cls, given: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
            if given is None or not {"architecture", "encoder_depth"} <= info.data.keys():
                return given
            architecture = info.data["architecture"]
            own = default(architecture, "decoder_channels")
            if own is None:
                raise ValueError(f"'{architecture}' takes no decoder_channels: leave them out.")
            wanted = 1 if isinstance(own, int) else _depth(architecture, info.data["encoder_depth"])
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
                raise ValueError(f"it must be shallower than the deepest stage: 1 to {depth - 1} here, not {stage}.")
            return stage

        def without_weights(self) -> "SmpSegmentor.Config":
            return self.model_copy(update={"encoder_weights": "none"})

        @property
        def depth(self) -> int:
            """Stages of the encoder."""
            return _depth(self.architecture, self.encoder_depth)

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        wanted = Wanted(
            config.architecture, config.encoder, config.depth, task.channels, task.classes, config.decoder_channels,
            config.encoder_weights,
        )  # fmt: skip
        built = build(wanted)
        self.jitter = GreyJitter(config.jitter)
        self.network: Any = built.network
        self.multiple, self.smallest = built.multiple, built.smallest
        self.feature_channels, self.feature_stride = built.stage_channels[-1], built.feature_stride
        self.has_auxiliary = config.auxiliary is not None
        if self.has_auxiliary:
            channels = built.stage_channels[config.auxiliary]
            if channels == 0:
                raise ConfigError(
                    f"encoder '{config.encoder}' has no features at stage {config.auxiliary}: "
                    f"choose auxiliary = {config.auxiliary + 1}, or leave it out."
                )
            # Counted from the deepest, since the encoders of dpt do not answer the image as stage 0.
            self.stage = config.auxiliary - len(built.stage_channels)
            self.auxiliary_head = nn.Conv2d(channels, task.classes, 1)

    def forward(self, x: Tensor) -> Segmentation:
        height, width = x.shape[2:]
        padded = _pad(self.jitter(x), self.multiple, self.smallest)
        try:
            maps, logits = answer(self.network, padded)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"the decoder '{type(self.network).__name__.lower()}' normalises one value per image over the batch "
                f"and cannot be trained on single images: set a batch size of 2 or more, or "
                f"choose architecture = 'unet'."
            ) from error
        auxiliary = None
        if self.has_auxiliary:
            auxiliary = _fit(self.auxiliary_head(maps[self.stage]), padded)[..., :height, :width]
        return Segmentation(_fit(logits, padded)[..., :height, :width], maps[-1], auxiliary)

    @classmethod
    def backbones(cls) -> tuple[str, ...]:
        return smp_backbones.names()

    @classmethod
    def backbone(cls, name: str) -> Backbone:
        return smp_backbones.describe(name)


def _in_timm(name: str) -> bool:
    """Whether "tu-" and the rest names a model of timm, with or without one of its weight tags."""
    if not name.startswith("tu-") or not timm.is_model(name[3:]):
        return False
    return "." not in name or name[3:] in timm.list_pretrained()


def _depth(architecture: str, given: int | None) -> int:
    return given or default(architecture, "encoder_depth")


def _pad(x: Tensor, multiple: int, smallest: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples: [B, C, H, W] -> [B, C, H', W']."""
    below, right = (max(-size % multiple, smallest - size) for size in x.shape[2:])
    return pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def _fit(logits: Tensor, image: Tensor) -> Tensor:
    """Logits at the resolution of the image: [B, K, h, w] -> [B, K, H, W]."""
    if logits.shape[2:] == image.shape[2:]:
        return logits
    return interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)
