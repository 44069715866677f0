"""Overlap of two label maps, which two selectors share."""

import torch
from torch import Tensor


def overlap(a: Tensor, b: Tensor, classes: int) -> Tensor:
    """Dice of each organ over all pixels of two label maps of one shape: [classes - 1], NaN for an organ in neither."""
    both = torch.bincount(a[a == b].flatten(), minlength=classes)
    total = torch.bincount(a.flatten(), minlength=classes) + torch.bincount(b.flatten(), minlength=classes)
    return 2 * both[1:].float() / total[1:].float()
