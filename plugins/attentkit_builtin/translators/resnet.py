"""The CycleGAN generator.

Zhu, Park, Isola, Efros. ICCV 2017. https://doi.org/10.1109/ICCV.2017.244, after Johnson, Alahi, Fei-Fei. ECCV 2016.
"""

from typing import Any

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Task, Translator
from attentkit_builtin.networks.init import normal_
from attentkit_builtin.networks.resnet import Residual, Up, Upsampling, down, encoded, encoded_channels, stem, to_image


class ResNetTranslator(Translator):
    """Residual generator of CycleGAN: two halvings, nine residual blocks, two doublings."""

    class Config(ComponentConfig):
        small = {"width": 4, "blocks": 1}

        width: PositiveInt = 64
        """Channels at full resolution; twice and four times as many below."""
        blocks: NonNegativeInt = 9
        """Residual blocks at a quarter of the resolution."""
        upsampling: Upsampling = "transposed"
        """"transposed" convolution as published, or bilinear "resize" and a 3 x 3 convolution (no checkerboards)."""

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        width = config.width
        self.encoder_channels = encoded_channels(task.channels, width, config.blocks)
        self.stem = stem(task.channels, width)
        self.down1 = down(width)
        self.down2 = down(2 * width)
        self.trunk = nn.Sequential(*(Residual(4 * width) for _ in range(config.blocks)))
        self.up1 = Up(4 * width, 2 * width, config.upsampling, kernel=3)
        self.up2 = Up(2 * width, width, config.upsampling, kernel=3)
        self.to_image = to_image(width, task.channels)
        normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        f1 = self.stem(x)
        f2 = self.down1(f1)
        g = self.trunk(self.down2(f2))
        g = self.up1(g, f2.shape[2:])
        g = self.up2(g, f1.shape[2:])
        return self.to_image(g)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return encoded(x, self.stem, (self.down1, self.down2), self.trunk)
