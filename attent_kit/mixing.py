"""Views of a batch for self-training: classes of one image pasted onto another, blocks blanked, grey values jittered.

Shapes: B batch, C channels, H W pixels. Every random number is drawn on the device of what is given.
"""

import torch
from torch import Tensor

__all__ = ["blocks", "half_of_the_classes", "jittered"]


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
    B, _, H, W = x.shape
    coarse = torch.rand(B, 1, -(-H // side), -(-W // side), device=x.device) < ratio
    return coarse.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :H, :W]


def jittered(x: Tensor, most: float) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] with another contrast, 1 +- `most`, and brightness, +- `most`, drawn for each image; cut at
    -1 and 1. Stands for the colour jitter of DACS where slices are grey."""
    contrast, brightness = ((2 * torch.rand(2, len(x), 1, 1, 1, device=x.device) - 1) * most).unbind(0)
    return (x * (1 + contrast) + brightness).clamp(-1, 1)
