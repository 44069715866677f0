"""Pure losses, one equation each, as functions of tensors.

Shapes: B batch, K classes, N discriminator heads, H W pixels, h w a coarser grid. The domain convention stands here and
nowhere else: a discriminator answers 1 for real images and for the source, 0 for fakes and for the target.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Gan = Literal["lsgan", "bce"]
"""Adversarial objective: least squares (Mao et al. 2017, CycleGAN) or binary cross-entropy on logits (ADVENT)."""

IGNORE = 255
"""Label of a pixel that no loss and no metric counts."""


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of -weight[label] log softmax(logits)[label] over pixels whose label is not IGNORE, 0 if there are none.

    [B, K, H, W], [B, H, W], [K] (left out: 1 each) -> scalar.
    """
    total = F.cross_entropy(logits, labels, weight, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in which a class that covers the part f of the batch weighs 1 - f, and p counts as 0.005 at least (SIFA).

    [B, K, H, W], [B, H, W] -> scalar. IGNORE pixels count nowhere.
    """
    counted = (labels != IGNORE).unsqueeze(1)
    n = counted.sum().clamp(min=1)
    g = F.one_hot(labels.where(labels != IGNORE, 0), logits.shape[1]).movedim(-1, 1) * counted
    weight = 1 - g.sum(dim=(0, 2, 3), keepdim=True) / n
    log_p = logits.log_softmax(dim=1).clamp(min=math.log(0.005))
    return -(weight * g * log_p).sum() / n


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - mean over all K classes of `2 |p g| / (|p|^2 + |g|)`, sums over the whole batch (Milletari et al. 2016; SIFA).

    [B, K, H, W], [B, H, W] -> scalar in [0, 1]. IGNORE pixels count in neither sum.
    """
    counted = (labels != IGNORE).unsqueeze(1)
    p = logits.softmax(dim=1) * counted
    g = F.one_hot(labels.where(labels != IGNORE, 0), logits.shape[1]).movedim(-1, 1) * counted
    overlap = (p * g).sum(dim=(0, 2, 3))
    total = (p * p).sum(dim=(0, 2, 3)) + g.sum(dim=(0, 2, 3))
    return 1 - ((2 * overlap + 1e-7) / (total + 1e-7)).mean()


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean `|a - b|`."""
    return F.l1_loss(a, b)


def real(logits: Tensor, gan: Gan = "bce") -> Tensor:
    """Loss of calling `logits` real (source): mean (d - 1)^2, or mean -log sigmoid(d)."""
    return F.mse_loss(logits, torch.ones_like(logits)) if gan == "lsgan" else F.softplus(-logits).mean()


def fake(logits: Tensor, gan: Gan = "bce") -> Tensor:
    """Loss of calling `logits` fake (target): mean d^2, or mean -log(1 - sigmoid(d))."""
    return F.mse_loss(logits, torch.zeros_like(logits)) if gan == "lsgan" else F.softplus(logits).mean()


def self_information(logits: Tensor) -> Tensor:
    """Weighted self-information of each class, -p_k log p_k / log K (Vu et al. 2019, eq. 4).

    [B, K, H, W] -> [B, K, H, W]. Each value lies in [0, 1 / (e log K)]; their sum over k is the entropy map.
    """
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p) / math.log(logits.shape[1])


def entropy_map(logits: Tensor) -> Tensor:
    """Normalized entropy of each pixel, 0 certain to 1 uniform: [B, K, H, W] -> [B, 1, H, W] (Li et al. 2021)."""
    return self_information(logits).sum(dim=1, keepdim=True)
