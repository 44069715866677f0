"""The output-space discriminator of AdaptSegNet, ADVENT and AttENT.

Tsai et al. CVPR 2018. https://arxiv.org/abs/1802.10349; Vu et al. CVPR 2019. https://arxiv.org/abs/1811.12833
"""

from itertools import pairwise
from typing import Any

from pydantic import PositiveInt
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Discriminator
from attentkit_builtin.networks.sizes import require_at_least


class FCNDiscriminator(Discriminator):
    """Fully convolutional discriminator of AdaptSegNet and ADVENT: five convolutions of stride 2, no norm.

    One logit for each 32 x 32 pixels, of which it sees 94 x 94. PyTorch's own initialisation, as in the authors' code.
    """

    class Config(ComponentConfig):
        small = {"width": 4}

        width: PositiveInt = 64
        """Channels of the first convolution; doubled by each of the next three."""

    def __init__(self, config: Any, channels: int, heads: int = 1) -> None:
        super().__init__(config, channels, heads)
        widths = [channels, *(config.width * 2**n for n in range(4))]
        parts: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            parts += [nn.Conv2d(narrow, wide, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(widths[-1], heads, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        require_at_least(32, x, "fcn")
        return self.layers(x)
