"""The segmentor of SIFA: an encoder that its decoder shares, and a linear head at one depth or two.

Chen, Dou, Chen, Qin, Heng. AAAI 2019 (v1). https://arxiv.org/abs/1901.08211
The same. IEEE TMI 2020 (v2). https://arxiv.org/abs/2002.02255

    features  = encoder(x)                                 [B, 32 width, h, w], not negative
    logits    = 1 x 1 convolution of features              both without bias, resized to the image
    auxiliary = 1 x 1 convolution of the low-level map     v2 alone

BatchNorm is TensorFlow's: it keeps 0.9 of its running statistics per step and adds 0.001 to the variance. Convolutions
have no bias and pad with zeros. The logits are resized with pixel centres in place; the authors' resize, TensorFlow 1's,
moves them by 3.5 pixels, which their head learns away.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attentkit_builtin.networks.init import truncated_normal_
from attentkit_builtin.networks.pool import MaxPool2d
from attentkit_builtin.networks.sifa import Block, conv


class SifaSegmentor(Segmentor):
    """Dilated residual encoder of SIFA at an eighth of the resolution, with linear heads: no weights to fetch."""

    class Config(ComponentConfig):
        small = {"width": 2}

        width: PositiveInt = 16
        """Channels of the first convolution; 32 times as many in the features."""
        stride: Literal[2, 4, 8] = 8
        """Pixels of the image along one of the features, 8 as published; 4 leaves out the last pooling and 2 the last two,
        for images smaller than 256: one feature sees 474, 262 or 140 pixels."""
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
        """Probability of dropping a value after each convolution in training, also in the heads: v1 has 0.25, v2 has 0."""
        auxiliary: bool = True
        """A second head on the low-level map, before the dilated convolutions: v2 has one, v1 has none."""

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        width = config.width
        self.feature_channels = 32 * width
        self.feature_stride = config.stride
        self.has_auxiliary = config.auxiliary

        def block(inputs: int, outputs: int, dilation: int = 1) -> Block:
            return Block(inputs * width, outputs * width, batch_norm, dilation=dilation, dropout=config.dropout)

        def pool(stride: int) -> nn.Module:
            return MaxPool2d(2, ceil_mode=True) if stride <= config.stride else nn.Identity()

        def head() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(32 * width, task.classes, 1, bias=False),
                nn.Dropout(config.dropout),
            )

        self.to_low_level = nn.Sequential(
            conv(task.channels, width, batch_norm, kernel=7, dropout=config.dropout),
            block(1, 1), pool(2),
            block(1, 2), pool(4),
            block(2, 4), block(4, 4), pool(8),
            block(4, 8), block(8, 8),
            block(8, 16), block(16, 16), block(16, 16), block(16, 16),
            block(16, 32), block(32, 32),
        )  # fmt: skip
        self.to_features = nn.Sequential(
            block(32, 32, dilation=2),
            block(32, 32, dilation=2),
            conv(32 * width, 32 * width, batch_norm, dropout=config.dropout),
            conv(32 * width, 32 * width, batch_norm, dropout=config.dropout),
        )
        self.head = head()
        if self.has_auxiliary:
            self.auxiliary_head = head()
        truncated_normal_(self, 0.01)

    def forward(self, x: Tensor) -> Segmentation:
        low_level = self.to_low_level(x)
        features = self.to_features(low_level)
        logits = self._enlarge(self.head(features), x)
        auxiliary = self._enlarge(self.auxiliary_head(low_level), x) if self.has_auxiliary else None
        return Segmentation(logits, features, auxiliary)

    def _enlarge(self, logits: Tensor, image: Tensor) -> Tensor:
        """Logits at the resolution of the image: [B, K, ceil(H / stride), ceil(W / stride)] -> [B, K, H, W]."""
        height, width = image.shape[2:]
        fine = interpolate(logits, scale_factor=float(self.feature_stride), mode="bilinear", align_corners=False)
        return fine[..., :height, :width]


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with TensorFlow's constant: [B, channels, h, w] -> the same."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)
