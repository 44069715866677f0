"""The attention-gated generator of AttENT.

Li, Luo, Chen, He, Wu, Tan. BIBM 2021. https://doi.org/10.1109/BIBM52615.2021.9669620
Gate after Oktay et al. Attention U-Net. MIDL 2018. https://arxiv.org/abs/1804.03999

    m = sigmoid{ norm(W_th . ReLU[ norm(W_f f + b_f) + norm(W_g g + b_g) ] + b_th) }    one map for all channels
    gated f = 2 m f                                                                     concatenated with g

f is an encoder feature and g the decoder signal at the same resolution.

|               | gate      | gate_norm  |                                                       |
|---------------|-----------|------------|-------------------------------------------------------|
| here, default | "doubled" | "instance" | 2 m f, each image normalised by its own statistics    |
| authors' code | "doubled" | "batch"    | 2 m f, BatchNorm on the three projections             |
| slides        | "single"  | "none"     | m f                                                   |

The authors train with batches of one, where BatchNorm in training is instance norm with affine parameters; in
eval it switches to running statistics, pooled over the images, cycles and identities it met, and is another
function. Instance norm is the function they trained, in training and at predict, for any batch size. Its affine
shift is learned, so the mean of m is not tied to 1/2.
"""

from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, cat, nn

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Task, Translator
from attentkit_builtin.networks.init import normal_
from attentkit_builtin.networks.norm import instance_norm
from attentkit_builtin.networks.resnet import Residual, Up, Upsampling, down, encoded, encoded_channels, stem, to_image

GateNorm = Literal["instance", "batch", "none"]


class AttentionGate(nn.Module):
    """Weighs an encoder feature pixel by pixel: f, g [B, width, h, w] -> [B, width, h, w]."""

    def __init__(self, width: int, norm: GateNorm, factor: float) -> None:
        super().__init__()
        inner = max(width // 2, 1)
        self.factor = factor
        self.of_feature = nn.Sequential(nn.Conv2d(width, inner, 1), _norm(norm, inner))
        self.of_signal = nn.Sequential(nn.Conv2d(width, inner, 1), _norm(norm, inner))
        self.to_map = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(inner, 1, 1), _norm(norm, 1), nn.Sigmoid())

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        m = self.to_map(self.of_feature(f) + self.of_signal(g))
        return f * (self.factor * m)


class AttentionTranslator(Translator):
    """Generator of AttENT: CycleGAN's trunk with attention-gated skips and resize upsampling."""

    class Config(ComponentConfig):
        small = {"width": 4, "blocks": 1}

        width: PositiveInt = 64
        """Channels at full resolution; twice and four times as many below."""
        blocks: NonNegativeInt = 9
        """Residual blocks at a quarter of the resolution."""
        upsampling: Upsampling = "resize"
        """Bilinear "resize" and a 1 x 1 convolution (the authors' model 5), or "transposed" convolution (model 4)."""
        gate: Literal["doubled", "single", "none"] = "doubled"
        """A skip f passes as 2 m f (authors' code: m = 1/2 is identity), as m f (slides), or as f (their model 3)."""
        gate_norm: GateNorm = "instance"
        """Affine norm of the gate's three projections: "batch" is the authors' code, "none" the slides."""

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__(config, task)
        width = config.width
        self.encoder_channels = encoded_channels(task.channels, width, config.blocks)
        self.stem = stem(task.channels, width)
        self.down1 = down(width)
        self.down2 = down(2 * width)
        self.trunk = nn.Sequential(*(Residual(4 * width) for _ in range(config.blocks)))
        self.up1 = Up(8 * width, 2 * width, config.upsampling, kernel=1)
        self.up2 = Up(4 * width, width, config.upsampling, kernel=1)
        self.to_image = to_image(2 * width, task.channels)
        self.gated = config.gate != "none"
        if self.gated:
            factor = 2.0 if config.gate == "doubled" else 1.0
            self.gate3 = AttentionGate(4 * width, config.gate_norm, factor)
            self.gate2 = AttentionGate(2 * width, config.gate_norm, factor)
            self.gate1 = AttentionGate(width, config.gate_norm, factor)
        normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        f1 = self.stem(x)
        f2 = self.down1(f1)
        f3 = self.down2(f2)
        g = self.trunk(f3)
        g = self.up1(cat([self.gate3(f3, g) if self.gated else f3, g], 1), f2.shape[2:])
        g = self.up2(cat([self.gate2(f2, g) if self.gated else f2, g], 1), f1.shape[2:])
        return self.to_image(cat([self.gate1(f1, g) if self.gated else f1, g], 1))

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return encoded(x, self.stem, (self.down1, self.down2), self.trunk)


def _norm(norm: GateNorm, channels: int) -> nn.Module:
    if norm == "instance":
        return instance_norm(channels, affine=True)
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()
