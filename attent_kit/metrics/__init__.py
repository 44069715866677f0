"""How good a segmentation is. Arrays in, numbers out: no torch, no files."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from attent_kit.errors import DataError
from attent_kit.metrics.overlap import check_same_grid, dice
from attent_kit.metrics.surface import (
    SurfaceMetrics,
    Surfaces,
    assd,
    hd95,
    surface_distances,
    surface_metrics,
    surfaces,
)

__all__ = [
    "OrganMetric",
    "SurfaceMetrics",
    "Surfaces",
    "assd",
    "dice",
    "hd95",
    "organ_metrics",
    "surface_distances",
    "surface_metrics",
    "surfaces",
]


class OrganMetric(NamedTuple):
    """One number about one organ of one volume."""

    organ: str
    metric: str
    value: float
    unit: str


def organ_metrics(
    prediction: np.ndarray, truth: np.ndarray, organs: Sequence[str], spacing: Sequence[float]
) -> list[OrganMetric]:
    """Dice (fraction), ASSD and HD95 (mm, then voxel), volume and true volume (ml): always seven rows an organ.

    `prediction` and `truth` are integer label maps of one shape; organ i of `organs` has label i + 1; `spacing` is in
    mm, one value an axis. An organ in neither map has NaN everywhere; in one map only, Dice 0 and distances NaN.
    Raises `DataError` for maps of different shapes, of floats, or with labels that `organs` does not name.
    """
    check_same_grid(prediction, truth)
    if prediction.flags.fnc and truth.flags.fnc:
        # nibabel's order of axes. Nothing here depends on it, and the search for boxes is twice as fast along rows.
        prediction, truth, spacing = prediction.T, truth.T, tuple(spacing)[::-1]
    boxes = [_boxes(name, labels, organs) for name, labels in (("prediction", prediction), ("truth", truth))]
    ml = float(np.prod(spacing)) / 1000
    rows = []
    for label, (organ, *found) in enumerate(zip(organs, *boxes, strict=True), start=1):
        box = _hull([box for box in found if box is not None], prediction.ndim)
        masks = prediction[box] == label, truth[box] == label
        points = surfaces(*masks)
        mm, voxel = points.metrics(spacing), points.metrics((1,) * prediction.ndim)
        rows += [
            OrganMetric(organ, "dice", dice(*masks), "fraction"),
            OrganMetric(organ, "assd", mm.assd, "mm"),
            OrganMetric(organ, "assd", voxel.assd, "voxel"),
            OrganMetric(organ, "hd95", mm.hd95, "mm"),
            OrganMetric(organ, "hd95", voxel.hd95, "voxel"),
            OrganMetric(organ, "volume", float(masks[0].sum()) * ml, "ml"),
            OrganMetric(organ, "true volume", float(masks[1].sum()) * ml, "ml"),
        ]
    return rows


def _boxes(name: str, labels: np.ndarray, organs: Sequence[str]) -> list[tuple[slice, ...] | None]:
    """The bounding box of each organ, None where it is absent."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"The {name} is {labels.dtype}, not integer labels. Convert it: `.astype(np.uint8)`.")
    lowest, highest = (labels.min(), labels.max()) if labels.size else (0, 0)
    if lowest < 0 or highest > len(organs):
        raise DataError(
            f"The {name} has labels {lowest}-{highest} but {len(organs)} organs are named (0-{len(organs)}). "
            f"Name every label, or set the others to 0."
        )
    return find_objects(labels, max_label=len(organs))


def _hull(boxes: list[tuple[slice, ...]], axes: int) -> tuple[slice, ...]:
    """The smallest box around `boxes`; an empty one around none."""
    if not boxes:
        return (slice(0, 0),) * axes
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
