"""MONAI's networks as segmentors: BasicUNet, SegResNet and SwinUNETR of slices, BasicUNet and SegResNet of volumes.

Each returns logits at the size of its input and, as `features`, the map of its deepest encoder block, so that every
alignment can use it. Inputs are padded to sides that the network can halve evenly, and the logits are cropped back.

    attentkit train attent ... --set segmentor=monai_segresnet --set segmentor.init_filters=16
    attentkit train gin ... --set segmentor=monai_segresnet_3d --set segmentor.patch=[32,128,128]
"""

from typing import Any

import torch.nn.functional as F
from monai.networks.nets import BasicUNet, SegResNet, SwinUNETR
from pydantic import Field, field_validator
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attent_kit.options import PatchOptions


class MonaiSegmentor(Segmentor):
    """A network of MONAI, whose module `deepest` yields the features."""

    def __init__(
        self, config: Any, task: Task, network: nn.Module, deepest: nn.Module, channels: int, stride: int
    ) -> None:
        super().__init__(config, task)
        self.network = network
        self.feature_channels, self.feature_stride = channels, stride
        self._seen: list[Tensor] = []
        # MONAI's forward answers logits alone; the hook keeps the map until this forward has taken it.
        deepest.register_forward_hook(self._keep)

    def _lacking(self, side: int, least: int = 2) -> int:
        """Pixels up to a multiple of the stride of the deepest map, of which norms need two pixels along each side of a slice."""
        return max(-(-side // self.feature_stride), least) * self.feature_stride - side

    def _keep(self, module: nn.Module, inputs: Any, answer: Tensor) -> None:
        self._seen.append(answer)

    def forward(self, x: Tensor) -> Segmentation:
        H, W = x.shape[-2:]
        lacking = [0, self._lacking(W), 0, self._lacking(H)]
        if self.dims == 3:
            lacking += [0, self._lacking(x.shape[2], least=1)]
        padded = F.pad(x, lacking, mode="replicate")
        self._seen.clear()
        logits = self.network(padded)[..., :H, :W]
        return Segmentation(logits if self.dims == 2 else logits[:, :, : x.shape[2]], self._seen.pop())


class MonaiBasicUNet(MonaiSegmentor):
    """MONAI's BasicUNet: a U-Net with instance norms (Falk et al., Nature Methods 2019)."""

    class Config(ComponentConfig):
        """Options of BasicUNet."""

        small = {"features": [8, 8, 16, 16, 32, 8]}

        features: tuple[int, int, int, int, int, int] = (32, 32, 64, 128, 256, 32)
        """Channels of the five encoder levels and of the last decoder level."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Probability of dropout in each block."""

    def __init__(self, config: Config, task: Task) -> None:
        network = BasicUNet(self.dims, task.channels, task.classes, features=config.features, dropout=config.dropout)
        super().__init__(config, task, network, network.down_4, config.features[4], 16)


class MonaiSegResNet(MonaiSegmentor):
    """MONAI's SegResNet: residual encoder, light decoder (Myronenko, BrainLes 2018), without the autoencoder."""

    class Config(ComponentConfig):
        """Options of SegResNet."""

        small = {"init_filters": 8}

        init_filters: int = Field(16, ge=8, multiple_of=8)
        """Channels of the first level; each level doubles them. A multiple of 8, the groups of its norms."""
        blocks_down: tuple[int, ...] = Field((1, 2, 2, 4), min_length=2)
        """Residual blocks of each encoder level."""

    def __init__(self, config: Config, task: Task) -> None:
        levels = len(config.blocks_down)
        network = SegResNet(
            self.dims, config.init_filters, task.channels, task.classes,
            blocks_down=config.blocks_down, blocks_up=(1,) * (levels - 1),
        )  # fmt: skip
        halved = 2 ** (levels - 1)
        super().__init__(config, task, network, network.down_layers[-1], config.init_filters * halved, halved)


class MonaiBasicUNet3D(MonaiBasicUNet):
    """MONAI's BasicUNet of volumes (after Cicek et al., MICCAI 2016)."""

    dims = 3

    class Config(MonaiBasicUNet.Config, PatchOptions):
        """Options of BasicUNet, and the patch."""

        small = {**MonaiBasicUNet.Config.small, "patch": [4, 32, 32]}

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        self.patch = config.seen_at_once


class MonaiSegResNet3D(MonaiSegResNet):
    """MONAI's SegResNet of volumes, as it was published (Myronenko, BrainLes 2018)."""

    dims = 3

    class Config(MonaiSegResNet.Config, PatchOptions):
        """Options of SegResNet, and the patch."""

        small = {**MonaiSegResNet.Config.small, "patch": [4, 32, 32]}

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        self.patch = config.seen_at_once


class MonaiSwinUNETR(MonaiSegmentor):
    """MONAI's SwinUNETR: Swin transformer encoder, convolutional decoder (Hatamizadeh et al., BrainLes 2021)."""

    class Config(ComponentConfig):
        """Options of SwinUNETR."""

        small = {"feature_size": 12}

        feature_size: int = Field(24, ge=12)
        """Channels of the first level, a multiple of 12."""
        depths: tuple[int, int, int, int] = (2, 2, 2, 2)
        """Transformer blocks of each level."""

        @field_validator("feature_size")
        @classmethod
        def _heads_divide_it(cls, size: int) -> int:
            if size % 12:
                raise ValueError("must be a multiple of 12, which its attention heads divide evenly")
            return size

    def __init__(self, config: Config, task: Task) -> None:
        network = SwinUNETR(
            task.channels, task.classes, depths=config.depths, feature_size=config.feature_size, spatial_dims=2
        )
        super().__init__(config, task, network, network.encoder10, 16 * config.feature_size, 32)
