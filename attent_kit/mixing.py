"""Views of a batch: classes of one image pasted onto another, blocks blanked, grey values jittered or painted anew.

Shapes: B batch, C channels, H W pixels; of volumes D H W stand for H W throughout. Every random number is drawn on the device of
what is given.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["blocks", "half_of_the_classes", "jittered", "mixing_map", "painted"]


def half_of_the_classes(labels: Tensor, classes: int) -> Tensor:
    """Pixels of a random half, rounded up, of the classes that each label map holds, background among them.

    [B, H, W] int64 -> [B, H, W] bool, False where the label is IGNORE. Source images are pasted onto target images there: class
    mixing of Olsson et al. (ClassMix, WACV 2021), across domains as in Tranheden et al. (DACS, WACV 2021).
    https://arxiv.org/abs/2007.08702
    """
    valid = labels.clamp(0, classes - 1)
    there = torch.zeros(len(labels), classes, device=labels.device).scatter_(1, valid.flatten(1), 1.0)
    order = (torch.rand_like(there) + 2 * (1 - there)).argsort(1).argsort(1)
    chosen = order < (there.sum(1, keepdim=True) / 2).ceil()
    return chosen.gather(1, valid.flatten(1)).view(labels.shape) & (labels < classes)


def blocks(x: Tensor, side: int, ratio: float) -> Tensor:
    """A fraction `ratio` of the square blocks of each image, `side` pixels long, drawn one by one: [B, C, H, W] -> [B, 1, H, W]
    bool. Masks of Hoyer et al. (MIC, CVPR 2023). https://arxiv.org/abs/2212.01322"""
    size = x.shape[2:]
    mask = torch.rand(len(x), 1, *(-(-n // side) for n in size), device=x.device) < ratio
    for axis, n in enumerate(size, start=2):
        mask = mask.repeat_interleave(side, axis).narrow(axis, 0, n)
    return mask


def jittered(x: Tensor, most: float) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] with another contrast, 1 +- `most`, and brightness, +- `most`, drawn for each image; cut at
    -1 and 1. Stands for the colour jitter of DACS where slices are grey."""
    ones = (1,) * (x.ndim - 1)
    contrast, brightness = ((2 * torch.rand(2, len(x), *ones, device=x.device) - 1) * most).unbind(0)
    return (x * (1 + contrast) + brightness).clamp(-1, 1)


@torch.no_grad()
def painted(x: Tensor, layers: int, channels: int) -> Tensor:
    """Each image of a batch [B, C, H, W] through a random network of its own, blended with itself, at its own norm.

    The network has so many `layers`, convolutions of random weights with so many `channels` between them and leaky ReLU after
    each but the last: GIN of Ouyang et al., IEEE TMI 2022. https://arxiv.org/abs/2111.12525. The channels of an image are
    neighbouring slices: each goes through the same network by itself, so that none shows what lies above or below it.
    """
    (B, C, *size), dims = x.shape, x.ndim - 2
    convolved = F.conv2d if dims == 2 else F.conv3d
    y = x.float()
    for layer in range(layers):
        # Kernels are 1 or 3 wide for the whole batch, as one draw decides in the paper: a host-side coin, no device wait.
        width = 1 if torch.rand(()) < 0.5 else 3
        into, out = (1 if layer == 0 else channels), (1 if layer == layers - 1 else channels)
        weight = torch.randn(B, 1, out, into, *[width] * dims, device=x.device).expand(-1, C, *[-1] * (2 + dims))
        shift = torch.randn(B, 1, out, device=x.device).expand(-1, C, -1)
        y = y.reshape(1, -1, *size)
        y = convolved(y, weight.flatten(0, 2), shift.flatten(), padding=width // 2, groups=B * C).view(
            B, C * out, *size
        )
        if layer < layers - 1:
            y = F.leaky_relu(y)
    a = torch.rand(B, *(1,) * (x.ndim - 1), device=x.device)
    y = a * y + (1 - a) * x
    norm = x.float().flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1).clamp(min=1e-5)
    return (y * norm.view_as(a)).to(x.dtype)


@torch.no_grad()
def mixing_map(x: Tensor, points: int) -> Tensor:
    """A smooth random map in [0, 1] for each image of [B, C, H, W], from `points` random numbers along each side: [B, 1, H, W].
    Two paintings are mixed by it (IPA of Ouyang et al. 2022)."""
    numbers = torch.rand(len(x), 1, *[points] * (x.ndim - 2), device=x.device)
    m = F.interpolate(numbers, x.shape[2:], mode="bicubic" if x.ndim == 4 else "trilinear")
    return m.clamp(0, 1).to(x.dtype)
