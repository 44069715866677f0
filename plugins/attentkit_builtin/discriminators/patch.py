"""The PatchGAN discriminator of pix2pix and CycleGAN.

Isola, Zhu, Zhou, Efros. CVPR 2017; Zhu, Park, Isola, Efros. ICCV 2017. https://doi.org/10.1109/ICCV.2017.244
"""

from typing import Any, Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Discriminator
from attentkit_builtin.networks.init import normal_
from attentkit_builtin.networks.norm import instance_norm
from attentkit_builtin.networks.sizes import require_at_least


class PatchDiscriminator(Discriminator):
    """PatchGAN of CycleGAN: one logit for each overlapping patch of 70 x 70 pixels."""

    class Config(ComponentConfig):
        small = {"width": 4}

        width: PositiveInt = 64
        """Channels of the first convolution; doubled by each further one, at most eightfold."""
        layers: PositiveInt = 3
        """Convolutions of stride 2. The patch is 16, 34, 70, 142 pixels wide for 1, 2, 3, 4 of them."""
        padding: Literal[1, 2] = 1
        """Zeros around each convolution; 2 gives the slightly larger map of SIFA and SynSeg-Net."""
        pooled: bool = False
        """Average the map to one logit per image, [B, N, 1, 1], as the authors of AttENT do."""

    def __init__(self, config: Any, channels: int, heads: int = 1) -> None:
        super().__init__(config, channels, heads)
        self.smallest = 3 * 2**config.layers if config.padding == 1 else 2
        widths = [config.width * min(2**n, 8) for n in range(config.layers + 1)]
        parts = [nn.Conv2d(channels, widths[0], 4, 2, config.padding), nn.LeakyReLU(0.2, inplace=True)]
        for n, (narrow, wide) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            stride = 2 if n < config.layers else 1
            parts += [
                nn.Conv2d(narrow, wide, 4, stride, config.padding),
                instance_norm(wide),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        parts.append(nn.Conv2d(widths[-1], heads, 4, 1, config.padding))
        if config.pooled:
            parts.append(nn.AdaptiveAvgPool2d(1))
        self.layers = nn.Sequential(*parts)
        normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        require_at_least(self.smallest, x, "patch")
        return self.layers(x)
