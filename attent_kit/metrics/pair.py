"""A prediction beside its truth, organ by organ: each cut out of the volume, so that what is measured is small."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from attent_kit.errors import DataError
from attent_kit.metrics.overlap import check_same_grid
from attent_kit.metrics.surface import grown


@dataclass(frozen=True)
class MaskPair:
    """A predicted label map and the true one: integers of one shape, organ i of `organs` has label i + 1."""

    prediction: np.ndarray
    truth: np.ndarray
    organs: Sequence[str]
    spacing: tuple[float, ...]
    """mm, one value per axis."""
    axial: int
    """The axis across axial slices: from feet to head, or back."""

    @classmethod
    def of(
        cls, prediction: np.ndarray, truth: np.ndarray, organs: Sequence[str], spacing: Sequence[float], axes: str
    ) -> "MaskPair":
        """`axes` names the patient's side that each axis points to, such as 'RAS'.

        Raises `DataError` for maps of different shapes, of floats, or with labels that `organs` does not name.
        """
        check_same_grid(prediction, truth)
        for name, labels in (("prediction", prediction), ("truth", truth)):
            _check_labels(name, labels, organs)
        if len(axes) != truth.ndim or sum(side in "IS" for side in axes) != 1:
            raise DataError(
                f"'{axes}' does not name the sides of {truth.ndim} axes: write three letters, such as 'RAS'."
            )
        spacing = tuple(float(side) for side in spacing)
        if prediction.flags.fnc and truth.flags.fnc:
            # nibabel's order of axes. No metric depends on it, and the search for boxes is twice as fast along rows.
            prediction, truth, spacing, axes = prediction.T, truth.T, spacing[::-1], axes[::-1]
        return cls(prediction, truth, organs, spacing, next(axis for axis, side in enumerate(axes) if side in "IS"))

    def masks(self) -> Iterator[tuple[str, np.ndarray, np.ndarray, tuple[slice, ...]]]:
        """Each organ with its two masks, cut to a box that holds both and one voxel more, and that box."""
        boxes = [_boxes(labels, len(self.organs)) for labels in (self.prediction, self.truth)]
        for label, (organ, *found) in enumerate(zip(self.organs, *boxes, strict=True), start=1):
            box = grown(_hull([box for box in found if box], self.truth.ndim), self.truth.shape)
            yield organ, self.prediction[box] == label, self.truth[box] == label, box


def _check_labels(name: str, labels: np.ndarray, organs: Sequence[str]) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"The {name} is {labels.dtype}, not integer labels. Convert it: `.astype(np.uint8)`.")
    lowest, highest = (labels.min(), labels.max()) if labels.size else (0, 0)
    if lowest < 0 or highest > len(organs):
        raise DataError(
            f"The {name} has labels {lowest}-{highest} but {len(organs)} organs are named (0-{len(organs)}). "
            f"Name every label, or set the others to 0."
        )


def _boxes(labels: np.ndarray, organs: int) -> list[tuple[slice, ...] | None]:
    """The bounding box of each organ, None where it is absent."""
    # Along the first axis whole planes are compared at once, so what lies outside all organs is cheaply left out.
    planes = np.flatnonzero(labels.reshape(len(labels), -1).any(axis=1))
    if not planes.size:
        return [None] * organs
    first = int(planes[0])
    found = find_objects(labels[first : int(planes[-1]) + 1], max_label=organs)
    return [box and (slice(box[0].start + first, box[0].stop + first), *box[1:]) for box in found]


def _hull(boxes: list[tuple[slice, ...]], axes: int) -> tuple[slice, ...]:
    """The smallest box around `boxes`; an empty one around none."""
    if not boxes:
        return (slice(0, 0),) * axes
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
