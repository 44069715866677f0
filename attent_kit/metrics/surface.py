"""Distances between the surfaces of two masks.

The surface of a mask is its voxels with a face neighbour (6 in a volume, 4 in a slice) outside the mask. What lies
outside the array counts as background, so an organ cut by the border of the field of view has a surface there: as in
MONAI and MedPy, unlike the CHAOS evaluation. With d(P, T) the distance of each surface voxel of P to the nearest of T,
voxel centre to voxel centre,

    ASSD = mean of d(P, T) and d(T, P) pooled
    HD95 = max(95th percentile of d(P, T), 95th percentile of d(T, P))

These equal MONAI's compute_average_surface_distance(symmetric=True) and compute_hausdorff_distance(percentile=95).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from attent_kit.errors import DataError
from attent_kit.metrics.overlap import check_masks


class SurfaceMetrics(NamedTuple):
    """Both in the unit of the spacing; NaN if a mask is empty."""

    assd: float
    hd95: float


@dataclass(frozen=True)
class Surfaces:
    """Surface voxels of a prediction and of the truth, found once and measured in any unit."""

    prediction: np.ndarray
    """[N, D] voxel indices."""
    truth: np.ndarray
    """[M, D] voxel indices, same origin."""
    prediction_apart: np.ndarray
    """[N] bool, not on the truth's surface. The others have distance 0 and need no search."""
    truth_apart: np.ndarray
    """[M] bool, not on the prediction's surface."""

    def distances(self, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """d(P, T) [N] and d(T, P) [M] in the unit of `spacing`, one value an axis; NaN where the other is empty."""
        scale = _checked_spacing(spacing, self.prediction.shape[1])
        prediction, truth = self.prediction * scale, self.truth * scale
        return _nearest(prediction, self.prediction_apart, truth), _nearest(truth, self.truth_apart, prediction)

    def metrics(self, spacing: Sequence[float]) -> SurfaceMetrics:
        """ASSD and HD95 in the unit of `spacing`."""
        distances = self.distances(spacing)
        return SurfaceMetrics(_assd(*distances), _hd95(*distances))


def surfaces(prediction: np.ndarray, truth: np.ndarray) -> Surfaces:
    """Surface voxels of two boolean masks of one shape, cropped to the box that holds both.

    Raises `DataError` if the shapes differ and `TypeError` if an array is not boolean.
    """
    check_masks(prediction, truth)
    # The box is tight, so what it cuts off is background: the surface does not change.
    box = (find_objects((prediction | truth).view(np.uint8), max_label=1) or [None])[0]
    if box is None:
        box = (slice(0, 0),) * prediction.ndim
    on_prediction, on_truth = surface(prediction[box]), surface(truth[box])
    at_prediction, at_truth = np.flatnonzero(on_prediction), np.flatnonzero(on_truth)
    return Surfaces(
        prediction=np.stack(np.unravel_index(at_prediction, on_prediction.shape), axis=1),
        truth=np.stack(np.unravel_index(at_truth, on_truth.shape), axis=1),
        prediction_apart=~on_truth.ravel()[at_prediction],
        truth_apart=~on_prediction.ravel()[at_truth],
    )


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a boolean mask with a face neighbour outside it, as a mask; the array's border is background."""
    padded = np.pad(mask, 1)
    interior = mask.copy()
    for axis in range(mask.ndim):
        for shifted in (slice(None, -2), slice(2, None)):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = shifted
            interior &= padded[tuple(window)]
    return mask & ~interior


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Prediction to truth and truth to prediction, one distance a surface voxel: mm, or voxels with (1, 1, 1)."""
    return surfaces(prediction, truth).distances(spacing)


def surface_metrics(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> SurfaceMetrics:
    """ASSD and HD95 of one search, in the unit of `spacing`; for a second unit, call `surfaces(...).metrics` twice."""
    return surfaces(prediction, truth).metrics(spacing)


def assd(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], mean_of_means: bool = False) -> float:
    """Average symmetric surface distance, pooled over both surfaces; NaN if a mask is empty.

    Pooling gives the larger surface more weight. `mean_of_means` averages the two directed means instead, the
    definition behind the numbers of SIFA (Chen et al., IEEE TMI 2020), which are in voxels.
    """
    return _assd(*surface_distances(prediction, truth, spacing), mean_of_means=mean_of_means)


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
    """95th percentile Hausdorff distance, the larger of the two directions; NaN if a mask is empty."""
    return _hd95(*surface_distances(prediction, truth, spacing))


def _assd(to_truth: np.ndarray, to_prediction: np.ndarray, mean_of_means: bool = False) -> float:
    if not to_truth.size or not to_prediction.size:
        return float("nan")
    if mean_of_means:
        return float(to_truth.mean() + to_prediction.mean()) / 2
    return float(to_truth.sum() + to_prediction.sum()) / (to_truth.size + to_prediction.size)


def _hd95(to_truth: np.ndarray, to_prediction: np.ndarray) -> float:
    if not to_truth.size or not to_prediction.size:
        return float("nan")
    return float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))


def _nearest(points: np.ndarray, apart: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each of `points` [N, D] to the nearest of `others` [M, D]."""
    if not others.size:
        return np.full(len(points), np.nan)
    distances = np.zeros(len(points))
    # Grid points are spread evenly: median splits and tight boxes cost more to build than they save in the search.
    tree = cKDTree(others, leafsize=32, balanced_tree=False, compact_nodes=False)
    distances[apart] = tree.query(points[apart], workers=1)[0]
    return distances


def _checked_spacing(spacing: Sequence[float], axes: int) -> np.ndarray:
    scale = np.asarray(spacing, dtype=float)
    if scale.shape != (axes,) or not (np.isfinite(scale) & (scale > 0)).all():
        raise DataError(
            f"Spacing {spacing} does not fit a mask with {axes} axes. Give one positive number an axis, "
            f"such as {(1.0,) * axes} for voxels."
        )
    return scale
