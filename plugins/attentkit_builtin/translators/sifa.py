"""The generator of SIFA from source to target.

Chen, Dou, Chen, Qin, Heng. AAAI 2019. https://arxiv.org/abs/1901.08211; IEEE TMI 2020. https://arxiv.org/abs/2002.02255

    x_st = tanh(x_s + R(x_s))        R: residual generator after Johnson, Alahi, Fei-Fei. ECCV 2016

Where R is zero the answer is tanh(x_s), not x_s: white, 1, becomes 0.76.
"""

from typing import Any

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Task, Translator
from attentkit_builtin.networks.init import truncated_normal_
from attentkit_builtin.networks.resnet import encoded, encoded_channels
from attentkit_builtin.networks.sifa import Block, SifaUp, affine_instance_norm, conv


class SifaTranslator(Translator):
    """Generator of SIFA: a residual generator, half as wide as CycleGAN's, that adds to the image."""

    class Config(ComponentConfig):
        small = {"width": 4, "blocks": 1}

        width: PositiveInt = 32
        """Channels at full resolution; twice and four times as many below."""
        blocks: NonNegativeInt = 9
        """Residual blocks at a quarter of the resolution."""

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        width, norm = config.width, affine_instance_norm
        self.encoder_channels = encoded_channels(task.channels, width, config.blocks)
        self.stem = conv(task.channels, width, norm, kernel=7, bias=True)
        self.down1 = conv(width, 2 * width, norm, stride=2, bias=True)
        self.down2 = conv(2 * width, 4 * width, norm, stride=2, bias=True)
        self.trunk = nn.Sequential(*(Block(4 * width, 4 * width, norm, bias=True) for _ in range(config.blocks)))
        self.up1 = SifaUp(4 * width, 2 * width)
        self.up2 = SifaUp(2 * width, width)
        self.residual = nn.Conv2d(width, task.channels, 7, padding=3)
        truncated_normal_(self, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        f1 = self.stem(x)
        f2 = self.down1(f1)
        g = self.trunk(self.down2(f2))
        g = self.up1(g, f2.shape[2:])
        g = self.up2(g, f1.shape[2:])
        return (x + self.residual(g)).tanh()

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return encoded(x, self.stem, (self.down1, self.down2), self.trunk)
