"""The default segmentor of SynSeg-Net: CycleGAN's generator, with classes in place of image channels.

Huo, Xu, Moon, Bao, Assad, Moyo, Savona, Abramson, Landman. SynSeg-Net: synthetic segmentation without target modality
ground truth. TMI 2019. https://arxiv.org/abs/1810.06498, after Johnson, Alahi, Fei-Fei. ECCV 2016.
"""

from typing import Any

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attentkit_builtin.networks.init import normal_
from attentkit_builtin.networks.resnet import Residual, Up, Upsampling, down, last, stem


class ResNetSegmentor(Segmentor):
    """CycleGAN's residual generator with classes as output, as in SynSeg-Net: no weights to fetch, no batch statistics."""

    class Config(ComponentConfig):
        small = {"width": 4, "blocks": 1}

        width: PositiveInt = 64
        """Channels at full resolution; twice and four times as many below."""
        blocks: NonNegativeInt = 9
        """Residual blocks at a quarter of the resolution."""
        upsampling: Upsampling = "transposed"
        """"transposed" convolution as published, or bilinear "resize" and a 3 x 3 convolution (no checkerboards)."""
        tanh: bool = False
        """End in tanh as the authors do: logits lie in [-1, 1], and no class of five gets a probability above .649."""

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        width = config.width
        self.stem = stem(task.channels, width)
        self.down1 = down(width)
        self.down2 = down(2 * width)
        self.trunk = nn.Sequential(*(Residual(4 * width) for _ in range(config.blocks)))
        self.up1 = Up(4 * width, 2 * width, config.upsampling, kernel=3)
        self.up2 = Up(2 * width, width, config.upsampling, kernel=3)
        self.to_logits = last(width, task.classes)
        self.tanh: bool = config.tanh
        self.feature_channels = 4 * width
        self.feature_stride = 4
        normal_(self)

    def forward(self, x: Tensor) -> Segmentation:
        f1 = self.stem(x)
        f2 = self.down1(f1)
        features = self.trunk(self.down2(f2))
        g = self.up1(features, f2.shape[2:])
        g = self.up2(g, f1.shape[2:])
        logits = self.to_logits(g)
        return Segmentation(logits.tanh() if self.tanh else logits, features)
