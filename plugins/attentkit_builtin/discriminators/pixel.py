"""The feature discriminator of CyCADA's third stage.

Hoffman et al. CyCADA: cycle-consistent adversarial domain adaptation. ICML 2018. https://arxiv.org/abs/1711.03213
"""

from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Discriminator


class PixelDiscriminator(Discriminator):
    """1 x 1 convolutions, as in CyCADA: judges each position of a feature map on its own.

    The authors end in a softmax over the two domains; one logit is the difference of theirs, and the same model.
    """

    class Config(ComponentConfig):
        small = {"hidden": (8,)}

        hidden: tuple[PositiveInt, ...] = (512, 256)
        """Channels of the layers between; CyCADA takes 512, 256 on class scores and 1024, 512 on 4096 features."""
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
        """Probability of dropping a channel in training."""

    def __init__(self, config: Any, channels: int, heads: int = 1) -> None:
        super().__init__(config, channels, heads)
        widths = [channels, *config.hidden]
        parts: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            parts += [nn.Conv2d(narrow, wide, 1), nn.Dropout2d(config.dropout), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(widths[-1], heads, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
