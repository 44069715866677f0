"""Parts of SIFA's networks, and its decoder from target to source.

Chen, Dou, Chen, Qin, Heng. Synergistic image and feature adaptation: towards cross-modality domain adaptation for
medical image segmentation. AAAI 2019 (v1). https://arxiv.org/abs/1901.08211
The same. Unsupervised bidirectional cross-modality adaptation via deeply synergistic image and feature alignment for
medical image segmentation. IEEE TMI 2020 (v2). https://arxiv.org/abs/2002.02255

    x_ts = tanh(x_t + U(E(x_t)))        E: the segmentor's encoder, U: all of the decoder but the sum and tanh

A convolution is followed by dropout, norm and ReLU, in this order. Convolutions pad with zeros, as many on each side;
TensorFlow's "SAME" pads one of stride 2 below and on the right only. Instance norm has affine parameters, as the
authors' code has by TensorFlow's default.

B batch, C image channels, F feature channels, H W pixels, h w a coarser grid.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from attentkit_builtin.networks.init import truncated_normal_
from attentkit_builtin.networks.norm import instance_norm

Norm = Callable[[int], nn.Module]


def affine_instance_norm(channels: int) -> nn.GroupNorm:
    """Instance norm with a learned scale and shift per channel: [B, channels, h, w] -> the same."""
    return instance_norm(channels, affine=True)


def conv(
    inputs: int,
    outputs: int,
    norm: Norm,
    *,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    dropout: float = 0.0,
    bias: bool = False,
    relu: bool = True,
) -> nn.Sequential:
    """Convolution, dropout, norm, ReLU: [B, inputs, h, w] -> [B, outputs, ceil(h / stride), ceil(w / stride)]."""
    padding = dilation * (kernel // 2)
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=bias),
        nn.Dropout(dropout),
        norm(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class Block(nn.Module):
    """ReLU of x plus two 3 x 3 convolutions of x: [B, inputs, h, w] -> [B, outputs, h, w], outputs >= inputs.

    Where x has fewer channels than the branch, channels of zeros stand for the rest: half of them before x, half after.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: Norm, *, dilation: int = 1, dropout: float = 0.0, bias: bool = False
    ) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.behind = outputs - inputs - self.before
        self.branch = nn.Sequential(
            conv(inputs, outputs, norm, dilation=dilation, dropout=dropout, bias=bias),
            conv(outputs, outputs, norm, dilation=dilation, dropout=dropout, bias=bias, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = pad(x, (0, 0, 0, 0, self.before, self.behind)) if self.behind else x
        return (self.branch(x) + shortcut).relu_()


class SifaUp(nn.Module):
    """Transposed 3 x 3 convolution of stride 2: [B, inputs, h, w] and a size -> [B, outputs, *size], of 2n or 2n - 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1)
        self.after = nn.Sequential(affine_instance_norm(outputs), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return self.after(self.conv(x, output_size=list(size)))


class SifaDecoder(nn.Module):
    """Decoder of SIFA from target to source: features [B, F, h, w] and their image [B, C, H, W] -> [B, C, H, W] in [-1, 1].

    `doublings`, 1 or more, is how often it doubles the resolution: 3 for features at an eighth of the image's, as
    published, 2 for a quarter, 1 for a half. Features of another size are first resized, bilinearly, to the grid that
    this begins on.

    `dropout` is the probability of dropping a value after each convolution of the residual blocks, in train mode. The authors'
    blocks drop a quarter of them at all times, at predict too, by a default that their decoder inherits: here none are
    dropped, and `dropout=0.25` drops them in train mode only.
    """

    def __init__(self, features: int, channels: int, width: int = 32, doublings: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        wide = 4 * width
        widths = [wide, *[2 * width] * (doublings - 1), width]
        self.doublings = doublings
        self.stem = conv(features, wide, affine_instance_norm)
        self.trunk = nn.Sequential(*(Block(wide, wide, affine_instance_norm, dropout=dropout) for _ in range(4)))
        self.ups = nn.ModuleList(SifaUp(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.residual = nn.Conv2d(width, channels, 7, padding=3, bias=False)
        truncated_normal_(self, 0.02)
        truncated_normal_(self.trunk, 0.01)

    def forward(self, latent: Tensor, image: Tensor) -> Tensor:
        coarse, *finer = self._sizes(image)
        if latent.shape[2:] != coarse:
            latent = interpolate(latent, size=coarse, mode="bilinear", align_corners=False)
        g = self.trunk(self.stem(latent))
        for up, size in zip(self.ups, finer, strict=True):
            g = up(g, size)
        return (image + self.residual(g)).tanh()

    def _sizes(self, image: Tensor) -> list[tuple[int, int]]:
        """Height and width, rounded up, at each resolution from coarse to the image's own."""
        height, width = image.shape[2:]
        return [(-(-height // 2**n), -(-width // 2**n)) for n in range(self.doublings, -1, -1)]
