"""Where the patient's body lies in an image: found by grey values alone, never by a label.

Shapes: Z H W slices from feet to head, rows from front to back, columns from the patient's right to left.
"""

import numpy as np
from scipy import ndimage

from attent_kit.data.space.intensity import floor_of

HU = -250.0
"""Above it a voxel of a CT in HU may be body, and not air, lung, a mattress or a thin blanket."""
AIR = -1024.0
"""HU that takes the place of what is not body."""
SHARE = 0.035
"""Of the 99.5th percentile above the padding: where the body may begin in an image without a scale, such as an MR."""
UNDERSHOOT = 0.1
"""Share of that percentile by which values may lie below 0 where 0 is air: interpolation leaves such."""
COARSE = 2.0
"""mm of the pixels in which the body is looked for, at least."""
THIN = 2
"""Pixels of that kind that are taken off all round and put back, which parts the body from the table that it lies on."""
NOTCH = 5
"""The same the other way round: dark skin and gaps as wide as this do not open the outline."""
PART = 0.1
"""Share of the largest slice of the body below which a slice says nothing about its middle."""
_AROUND = np.ones((1, 3, 3), bool)


def air_and_threshold(image: np.ndarray, modality: str) -> tuple[float, float]:
    """The value of what is not body, and the one above which something may be body."""
    if modality == "ct" and image.min() < HU:
        return max(AIR, float(image.min())), HU
    air, bright = floor_of(image), float(np.percentile(image, 99.5))
    if -UNDERSHOOT * bright < air < 0:
        air = 0.0
    return air, air + SHARE * (bright - air)


def body_of(image: np.ndarray, threshold: float, spacing: tuple[float, float, float]) -> np.ndarray | None:
    """The largest connected part above the threshold, with its holes filled slice by slice: [Z, H, W] boolean.

    Arms that touch the body in any slice are part of it, the table is not. `spacing` is mm between slices, rows and columns.
    None if nothing stands out.
    """
    steps = [max(1, round(COARSE / side)) for side in spacing[1:]]
    above = np.stack([_coarse(plane, steps) > threshold for plane in image])
    parts, count = ndimage.label(ndimage.binary_opening(above, _AROUND, iterations=THIN))
    if count == 0:
        return None
    largest = 1 + np.argmax(np.bincount(parts.ravel())[1:])
    padded = np.pad(parts == largest, ((0, 0), (NOTCH, NOTCH), (NOTCH, NOTCH)))
    body = ndimage.binary_closing(padded, _AROUND, iterations=NOTCH)
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in body])
    body = ndimage.binary_dilation(body, _AROUND)[:, NOTCH:-NOTCH, NOTCH:-NOTCH]
    return body.repeat(steps[0], axis=1).repeat(steps[1], axis=2)[:, : image.shape[1], : image.shape[2]]


def middle_of(body: np.ndarray) -> tuple[float, float]:
    """Row and column of the middle of the body [Z, H, W], as indices: of its box in a slice, and the median over slices.

    So an arm or a scan's first slices do not move it.
    """
    areas = body.sum(axis=(1, 2))
    boxes = []
    for plane in body[areas >= PART * areas.max()]:
        rows, columns = (np.flatnonzero(plane.any(axis)) for axis in (1, 0))
        boxes.append((rows[0] + rows[-1], columns[0] + columns[-1]))
    row, column = np.median(boxes, axis=0) / 2
    return float(row), float(column)


def _coarse(plane: np.ndarray, steps: list[int]) -> np.ndarray:
    """Means of blocks of `steps` pixels; a block that the plane does not fill repeats its edge."""
    margins = [(0, -n % step) for n, step in zip(plane.shape, steps, strict=True)]
    padded = np.pad(plane, margins, mode="edge")
    rows, columns = (n // step for n, step in zip(padded.shape, steps, strict=True))
    return padded.reshape(rows, steps[0], columns, steps[1]).mean(axis=(1, 3), dtype=np.float32)
