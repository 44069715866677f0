"""Parts of the nine-block residual generator that both translators and a segmentor are made of.

Johnson, Alahi, Fei-Fei. Perceptual losses for real-time style transfer. ECCV 2016, supplement.
Zhu, Park, Isola, Efros. Unpaired image-to-image translation using cycle-consistent adversarial networks. ICCV 2017.

Instance normalisation without affine parameters; reflection padding except where a convolution changes the resolution.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import interpolate

from attentkit_builtin.networks.norm import instance_norm

Upsampling = Literal["transposed", "resize"]


def stem(channels: int, width: int) -> nn.Sequential:
    """Image to features at its own resolution: [B, channels, H, W] -> [B, width, H, W]."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 7, padding=3, padding_mode="reflect"),
        instance_norm(width),
        nn.ReLU(inplace=True),
    )


def down(width: int) -> nn.Sequential:
    """Half the resolution, twice the channels: [B, width, H, W] -> [B, 2 width, ceil(H / 2), ceil(W / 2)]."""
    return nn.Sequential(
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        instance_norm(2 * width),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """x plus two 3 x 3 convolutions of x, with no activation after the sum: [B, width, h, w] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect"),
            instance_norm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect"),
            instance_norm(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Up(nn.Module):
    """Twice the resolution: [B, inputs, h, w] and a size -> [B, outputs, *size], each of size 2n or 2n - 1.

    "transposed" is a 3 x 3 transposed convolution of stride 2; "resize" is a bilinear resize with aligned corners and
    an ordinary convolution of the given kernel.
    """

    def __init__(self, inputs: int, outputs: int, upsampling: Upsampling, kernel: int) -> None:
        super().__init__()
        self.transposed = upsampling == "transposed"
        self.conv = (
            nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1)
            if self.transposed
            else nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")
        )
        # Interpolation weights sum to one, so a 1 x 1 convolution gives the same before the resize, at a quarter of
        # the pixels.
        self.resize_last = kernel == 1
        self.after = nn.Sequential(instance_norm(outputs), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        if self.transposed:
            return self.after(self.conv(x, output_size=list(size)))
        if self.resize_last:
            return self.after(resize(self.conv(x), size))
        return self.after(self.conv(resize(x, size)))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, with the corner pixels kept in place: [B, C, h, w] -> [B, C, *size]."""
    return interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def encoded_channels(channels: int, width: int, blocks: int) -> tuple[int, ...]:
    """Channels of the maps of `encoded` for a trunk of so many blocks."""
    return channels, 2 * width, *(4 * width for _ in range(1 + len(_early_and_middle(blocks))))


def encoded(x: Tensor, stem: nn.Module, halvings: Sequence[nn.Module], trunk: nn.Sequential) -> tuple[Tensor, ...]:
    """The image itself, the map after each halving, and those after the first and the middle block of the trunk.

    Of nine blocks these are the five maps whose patches Park et al. (CUT, ECCV 2020) compare.
    """
    maps, f = [x], stem(x)
    for down in halvings:
        f = down(f)
        maps.append(f)
    shown = _early_and_middle(len(trunk))
    for n in range(max(shown, default=-1) + 1):
        f = trunk[n](f)
        if n in shown:
            maps.append(f)
    return tuple(maps)


def _early_and_middle(blocks: int) -> list[int]:
    return sorted({0, blocks // 2}) if blocks > 1 else [0] * blocks


def last(width: int, outputs: int) -> nn.Conv2d:
    """Features to what the network answers, unbounded: [B, width, H, W] -> [B, outputs, H, W]."""
    return nn.Conv2d(width, outputs, 7, padding=3, padding_mode="reflect")


def to_image(width: int, channels: int) -> nn.Sequential:
    """Features to an image: [B, width, H, W] -> [B, channels, H, W] in [-1, 1]."""
    return nn.Sequential(last(width, channels), nn.Tanh())
