"""Distances between the surfaces of two masks.

The surface of a mask is its voxels with a face neighbour (6 in a volume, 4 in a slice) outside the mask. What lies
outside the array counts as background, so an organ cut by the border of the field of view has a surface there: as in
MONAI and MedPy. The CHAOS evaluation counts it as foreground, and the organ has no surface there: `outside=True`.
With d(P, T) the distance of each surface voxel of P to the nearest of T, voxel centre to voxel centre,

    ASSD = mean of d(P, T) and d(T, P) pooled
    HD95 = max(95th percentile of d(P, T), 95th percentile of d(T, P))

These equal MONAI's compute_average_surface_distance(symmetric=True) and compute_hausdorff_distance(percentile=95).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from attent_kit.metrics.nearest import nearest
from attent_kit.metrics.overlap import check_masks


class SurfaceMetrics(NamedTuple):
    """Both in the unit of the spacing; NaN if a mask is empty."""

    assd: float
    hd95: float


@dataclass(frozen=True)
class Surfaces:
    """Surface voxels of a prediction and of the truth, found once and measured in any unit: boolean, of one shape."""

    prediction: np.ndarray
    truth: np.ndarray

    def distances(self, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """d(P, T) [N] and d(T, P) [M] in the unit of `spacing`, one value per axis; NaN where the other is empty."""
        return nearest(self.prediction, self.truth, spacing), nearest(self.truth, self.prediction, spacing)

    def metrics(self, spacing: Sequence[float]) -> SurfaceMetrics:
        """ASSD and HD95 in the unit of `spacing`."""
        distances = self.distances(spacing)
        return SurfaceMetrics(pooled_mean(*distances), _hd95(*distances))


def surfaces(prediction: np.ndarray, truth: np.ndarray, outside: bool = False) -> Surfaces:
    """Surface voxels of two boolean masks of one shape, cropped to a box that holds both.

    `outside` says whether what lies outside the array is foreground. Raises `DataError` if the shapes differ and
    `TypeError` if an array is not boolean.
    """
    check_masks(prediction, truth)
    box = (find_objects((prediction | truth).view(np.uint8), max_label=1) or [None])[0]
    # One voxel more, where the array has one: what the box cuts off is then background, however the border is read.
    box = grown(box or (slice(0, 0),) * prediction.ndim, prediction.shape)
    return Surfaces(surface(prediction[box], outside), surface(truth[box], outside))


def surface(mask: np.ndarray, outside: bool = False) -> np.ndarray:
    """The voxels of a boolean mask with a face neighbour outside it, as a mask.

    `outside` is what the array's border meets: background, unless True.
    """
    padded = np.pad(mask, 1, constant_values=outside)
    interior = mask.copy()
    for axis in range(mask.ndim):
        for shifted in (slice(None, -2), slice(2, None)):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = shifted
            interior &= padded[tuple(window)]
    return mask & ~interior


def grown(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box with one voxel more on each side, where an array of `shape` has one; an empty box stays empty."""
    if any(side.start >= side.stop for side in box):
        return box
    return tuple(slice(max(side.start - 1, 0), min(side.stop + 1, n)) for side, n in zip(box, shape, strict=True))


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Prediction to truth and truth to prediction, one distance per surface voxel: mm, or voxels with (1, 1, 1)."""
    return surfaces(prediction, truth).distances(spacing)


def surface_metrics(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> SurfaceMetrics:
    """ASSD and HD95 of one search, in the unit of `spacing`; for a second unit, call `surfaces(...).metrics` twice."""
    return surfaces(prediction, truth).metrics(spacing)


def assd(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], mean_of_means: bool = False) -> float:
    """Average symmetric surface distance, pooled over both surfaces; NaN if a mask is empty.

    Pooling gives the larger surface more weight. `mean_of_means` averages the two directed means instead, the
    definition behind the numbers of SIFA (Chen et al., IEEE TMI 2020), which are in voxels.
    """
    distances = surface_distances(prediction, truth, spacing)
    return mean_of_directions(*distances) if mean_of_means else pooled_mean(*distances)


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
    """95th percentile Hausdorff distance, the larger of the two directions; NaN if a mask is empty."""
    return _hd95(*surface_distances(prediction, truth, spacing))


def pooled_mean(to_truth: np.ndarray, to_prediction: np.ndarray) -> float:
    """Mean of both directions together; NaN if one is empty."""
    if not to_truth.size or not to_prediction.size:
        return float("nan")
    return float(to_truth.sum() + to_prediction.sum()) / (to_truth.size + to_prediction.size)


def mean_of_directions(to_truth: np.ndarray, to_prediction: np.ndarray) -> float:
    """Mean of the mean of each direction; NaN if one is empty."""
    if not to_truth.size or not to_prediction.size:
        return float("nan")
    return float(to_truth.mean() + to_prediction.mean()) / 2


def _hd95(to_truth: np.ndarray, to_prediction: np.ndarray) -> float:
    if not to_truth.size or not to_prediction.size:
        return float("nan")
    return float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))
