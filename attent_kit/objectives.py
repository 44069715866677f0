"""Pure losses, one equation each, as functions of tensors.

Shapes: B batch, K classes, N discriminator heads, H W pixels, h w a coarser grid. The domain convention stands here and
nowhere else: a discriminator answers 1 for real images and for the source, 0 for fakes and for the target.

Labels come in two forms. [B, H, W] int64 are classes, IGNORE where nothing is known. [B, K, H, W] bool are the classes that
each pixel may be: one; or background with the organs that its case does not annotate; or all, where nothing is known.

Of volumes, D H W stand for H W throughout.
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

    [B, K, H, W], labels in either form, [K] (left out: 1 each) -> scalar. Of a pixel that may be several classes it is the log of
    the sum of their probabilities, with the weight of background: the marginal cross-entropy of Shi et al., Marginal loss and
    exclusion loss for partially supervised multi-organ segmentation, Medical Image Analysis 70, 2021.
    """
    if several_classes(labels):
        y = class_of(labels)
        loss = cross_entropy_map(logits, labels)
        if weight is not None:
            loss = loss * weight.to(loss.dtype)[y.where(y != IGNORE, 0)]
        return loss.sum() / (y != IGNORE).sum().clamp(min=1)
    total = F.cross_entropy(logits, labels, weight, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def cross_entropy_map(logits: Tensor, labels: Tensor) -> Tensor:
    """-log of the probability of each pixel's label, or of all that it may be; 0 where nothing is known.

    [B, K, H, W], labels in either form -> [B, H, W].
    """
    if not several_classes(labels):
        return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return -_log_marginal(logits, labels).where(~labels.all(1), 0)


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in which a class that covers the part f of the batch weighs 1 - f, and p counts as 0.005 at least (SIFA).

    [B, K, H, W], labels in either form -> scalar. IGNORE pixels count nowhere; one that may be several classes counts as
    background, with the sum of their probabilities.
    """
    y = class_of(labels)
    counted = (y != IGNORE).unsqueeze(1)
    n = counted.sum().clamp(min=1)
    g = F.one_hot(y.where(y != IGNORE, 0), logits.shape[1]).movedim(-1, 1) * counted
    weight = 1 - g.sum(dim=_of_each_class(g), keepdim=True) / n
    log_p = logits.log_softmax(dim=1) if not several_classes(labels) else _log_marginal(logits, labels).unsqueeze(1)
    return -(weight * g * log_p.clamp(min=math.log(0.005))).sum() / n


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - mean over all K classes of `2 |p g| / (|p|^2 + |g|)`, sums over the whole batch (Milletari et al. 2016; SIFA).

    [B, K, H, W], labels in either form -> scalar in [0, 1]. IGNORE pixels count in neither sum. In a slice that leaves out
    organs, their probabilities are added to that of background, and they count in neither sum: the marginal Dice of Shi et al.
    """
    y = class_of(labels)
    counted = (y != IGNORE).unsqueeze(1)
    p = logits.softmax(dim=1)
    g = F.one_hot(y.where(y != IGNORE, 0), logits.shape[1]).movedim(-1, 1) * counted
    if several_classes(labels):
        unknown = _unknown(labels)
        p = torch.cat([p[:, :1] + (p * unknown).sum(1, keepdim=True), (p * ~unknown)[:, 1:]], dim=1)
        g = g * ~unknown
    p = p * counted
    over = _of_each_class(p)
    overlap = (p * g).sum(dim=over)
    total = (p * p).sum(dim=over) + g.sum(dim=over)
    return 1 - ((2 * overlap + 1e-7) / (total + 1e-7)).mean()


def exclusion_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of `2 |p e| / (|p|^2 + |e|)` over organs that some slice leaves out, sums over the slices that do (Shi et al. 2021).

    e is 1 where such a slice labels another organ, and there the organ cannot be. [B, K, H, W], labels in either form -> scalar
    in [0, 1], 0 where no slice leaves out an organ.
    """
    if not several_classes(labels):
        return logits.new_zeros(())
    y, unknown = class_of(labels), _unknown(labels)
    p = logits.softmax(dim=1) * ((y != IGNORE).unsqueeze(1) & unknown)
    e = ((y > 0) & (y != IGNORE)).unsqueeze(1) & unknown
    over = _of_each_class(p)
    overlap = (p * e).sum(dim=over)
    total = (p * p).sum(dim=over) + e.sum(dim=over)
    return ((2 * overlap) / (total + 1e-7)).sum() / unknown.any(dim=0).sum().clamp(min=1)


def may_be(labels: Tensor, unknown: Tensor) -> Tensor:
    """The classes that each pixel may be, where background may also be one of the organs that its slice leaves out.

    [B, H, W] int64, [B, K] bool (False for background) -> [B, K, H, W] bool, all True where the label is IGNORE.
    """
    ones = (1,) * (labels.ndim - 1)
    classes = torch.arange(unknown.shape[1], device=labels.device).view(1, -1, *ones)
    y = labels.unsqueeze(1)
    return (y == classes) | ((y == 0) & unknown.view(*unknown.shape, *ones)) | (y == IGNORE)


def several_classes(labels: Tensor) -> bool:
    """Whether labels come as the classes that each pixel may be, [B, K, H, W] bool."""
    return labels.dtype == torch.bool


def class_of(labels: Tensor) -> Tensor:
    """Labels in either form as [B, H, W] int64: background where it may be something else, IGNORE where nothing is known."""
    if not several_classes(labels):
        return labels
    return labels.byte().argmax(1).masked_fill(labels.all(1), IGNORE)


def labels_where(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """The labels of `one` where `mask` is true, else those of `other`, [B, H, W] int64: in the form that `one` has.

    [B, H, W] bool, labels in either form, [B, H, W] int64.
    """
    if not several_classes(one):
        return torch.where(mask, one, other)
    nothing = torch.zeros(one.shape[:2], dtype=torch.bool, device=one.device)
    return torch.where(mask.unsqueeze(1), one, may_be(other, nothing))


def _log_marginal(logits: Tensor, labels: Tensor) -> Tensor:
    """Log of the summed probability of what each pixel may be: [B, K, H, W], [B, K, H, W] bool -> [B, H, W]."""
    return logits.log_softmax(dim=1).masked_fill(~labels, -math.inf).logsumexp(dim=1)


def _unknown(labels: Tensor) -> Tensor:
    """Organs that each slice leaves out, [B, K, 1, 1] bool: what some of its background may be."""
    several = labels[:, :1] & ~labels.all(1, keepdim=True)
    unknown = (labels & several).flatten(2).any(2)
    unknown[:, 0] = False
    return unknown.view(*unknown.shape, *(1,) * (labels.ndim - 2))


def _of_each_class(x: Tensor) -> list[int]:
    """The dimensions of [B, K, H, W] that a sum for each class is over."""
    return [0, *range(2, x.ndim)]


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


def certain_labels(p: Tensor, most: float) -> Tensor:
    """The likeliest class of each pixel, IGNORE where the entropy of its probabilities, 1 for uniform, is above `most`.

    [B, K, H, W], which sum to 1 over K -> [B, H, W] int64.
    """
    entropy = -(p * p.clamp(min=1e-8).log()).sum(1) / math.log(p.shape[1])
    return p.argmax(1).masked_fill(entropy > most, IGNORE)
