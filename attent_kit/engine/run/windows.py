"""Volumes through a segmentor that sees a patch of them at once: windows that slide, averaged with Gaussian weights.

The deviation of the weights is an eighth of the patch along each side, as nnU-Net and MONAI have it, so that a voxel is decided
by the windows in whose middle it lies.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from attent_kit.engine.run.probe import answering, in_batches, probabilities
from attent_kit.interfaces import Alignment, Patch

DEVIATION = 1 / 8
"""Of the Gaussian weights, as a part of each side of a patch."""


def segment_windows(
    predict: Callable[[Tensor], Tensor], alignment: Alignment, patch: Patch, images: np.ndarray, device: torch.device
) -> np.ndarray:
    """Class probabilities of a volume: slices [Z, 1, H, W] in [-1, 1] -> float32 [K, Z, H, W].

    What a patch has beyond the volume repeats its edge. RunError if not even one patch fits the memory of the device.
    """
    volume, before = _as_large_as(images[:, 0], patch.size)
    total = torch.zeros(alignment.task.classes, *volume.shape)
    weights = torch.zeros(volume.shape)
    gaussian = gaussian_weights(patch.size)
    with answering(alignment):
        for window in windows(volume.shape, patch):
            answers = in_batches(lambda x: probabilities(predict(x)), volume[window][None, None], device)
            assert answers is not None
            total[(slice(None), *window)] += gaussian * answers[0][0]
            weights[window] += gaussian
    inside = tuple(slice(b, b + n) for b, n in zip(before, (len(images), *images.shape[2:]), strict=True))
    return (total / weights)[(slice(None), *inside)].numpy()


def windows(size: tuple[int, ...], patch: Patch) -> Iterator[tuple[slice, ...]]:
    """Where patches lie in a volume [Z, H, W] of at least their size, evenly spaced, so that each overlaps the next by
    `patch.overlap` of its side or more."""
    sides = []
    for whole, side in zip(size, patch.size, strict=True):
        step = max(1, int(side * (1 - patch.overlap)))
        count = 1 + -(-(whole - side) // step)
        sides.append([slice(start, start + side) for start in np.linspace(0, whole - side, count).round().astype(int)])
    return product(*sides)


def gaussian_weights(size: tuple[int, int, int]) -> Tensor:
    """[D, H, W], 1 in the middle."""
    sides = []
    for side in size:
        x = (torch.arange(side) - (side - 1) / 2) / (side * DEVIATION)
        sides.append(torch.exp(-x.square() / 2))
    D, H, W = sides
    return D[:, None, None] * H[:, None] * W


def _as_large_as(volume: np.ndarray, size: tuple[int, int, int]) -> tuple[np.ndarray, list[int]]:
    """A volume with its edges repeated on both sides up to `size`, and how much stands before it along each axis."""
    lacking = [max(side - n, 0) for n, side in zip(volume.shape, size, strict=True)]
    before = [more // 2 for more in lacking]
    return np.pad(volume, [(b, more - b) for b, more in zip(before, lacking, strict=True)], mode="edge"), before
