"""Whether a translated slice still shows the anatomy of the slice that it was made from. Slices [H, W] in, numbers out.

    edge             correlation of the gradient magnitudes of both
    self-similarity  1 - mean |MIND(x) - MIND(y)| where either has edges: how each place is like its neighbours;
                     Heinrich et al., MedIA 2012
    agreement        mean Dice of the organs in two label maps
    volume drift     (what was found - what should be) / what should be, by volume

The first two need no labels and no network. Neither knows grey values: both are 1 for a negative or an image of other contrast,
and fall where edges are moved, lost or invented. The last two judge what grey values mean.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from attent_kit.metrics.overlap import dice

EDGE_SIGMA, PATCH_SIGMA = 1.0, 0.5
"""Pixels: of the Gaussian before the gradient, and of the patches that MIND compares."""
_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))
_RANGE = 2.0
"""From the darkest value to the brightest."""


def edges(image: np.ndarray) -> np.ndarray:
    """Gradient magnitude of the smoothed slice, per pixel."""
    return np.asarray(gaussian_gradient_magnitude(image.astype(np.float64), EDGE_SIGMA, mode="nearest"))


def edge_agreement(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of the edges, -1 to 1; 1 if neither slice has any, 0 if one of them has none."""
    a, b = (edges(image) for image in (x, y))
    a, b = a - a.mean(), b - b.mean()
    norms = np.sqrt((a**2).sum()), np.sqrt((b**2).sum())
    there = [norm > 1e-9 * a.size for norm in norms]
    return float((a * b).sum() / (norms[0] * norms[1])) if all(there) else float(not any(there))


def mind(image: np.ndarray) -> np.ndarray:
    """Modality-independent neighbourhood descriptor: how much a patch is like the patches one pixel away, [4, H, W] in (0, 1].

    exp(-D_r / V), D_r the squared distance of the patches, V the mean of the four D_r and never below the millionth part of
    the squared range, over the largest of the four. So 1 everywhere in a flat slice.
    """
    x = image.astype(np.float64)
    padded = np.pad(x, 1, mode="edge")
    height, width = x.shape
    distances = np.stack(
        [
            gaussian_filter(
                (padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] - x) ** 2, PATCH_SIGMA, mode="nearest"
            )
            for dy, dx in _NEIGHBOURS
        ]
    )
    like = np.exp(-distances / np.maximum(distances.mean(0), 1e-6 * _RANGE**2))
    return np.asarray(like / like.max(0))


def self_similarity(x: np.ndarray, y: np.ndarray) -> float:
    """1 if each place of both slices is like its neighbours in the same way; above 0.

    Places weigh as much as their edges do among those of x and among those of y: in air and within an organ there is noise
    alone, whose descriptors are unlike those of any other noise, and that covers most of a slice.
    """
    strengths = [strength for strength in (edges(x), edges(y)) if strength.sum() > 1e-9 * x.size]
    if not strengths:
        return 1.0
    weight = sum(strength / strength.sum() for strength in strengths) / len(strengths)
    return float(1 - (weight * np.abs(mind(x) - mind(y)).mean(0)).sum())


def agreement(found: np.ndarray, expected: np.ndarray, organs: int) -> float:
    """Mean Dice over the organs that are in one of the label maps or in both; NaN if none is."""
    scores = [dice(found == organ, expected == organ) for organ in range(1, organs + 1)]
    known = [score for score in scores if not np.isnan(score)]
    return float(np.mean(known)) if known else np.nan


def volume_drift(found: np.ndarray, expected: np.ndarray, organ: int) -> float:
    """-1 for an organ that is lost, 0 for one that kept its volume, 1 for one that doubled; NaN if none is expected."""
    volume = int((expected == organ).sum())
    return (int((found == organ).sum()) - volume) / volume if volume else np.nan
