"""Which way round a stack of masks belongs to the slices of an image, seen from the grey values.

An organ has grey values of its own and a border where they change. Where its mask lies on it, the grey values under the
mask spread little, and they differ more across the border of the mask than inside; where the stack is turned round, the
mask lies on whatever is there. For each organ two ratios of one way to the other are taken, of the standard deviations
under the mask and of the steps across its border to those inside; the geometric mean of them all counts. On the phantom, a
real CT and a real MR it is 2.3 or more; on noise it is 1.
"""

import math

import numpy as np

CLEAR_EVIDENCE = 1.5
"""What `slice_order_evidence` must reach before one way round is believed."""
LARGEST = 1e15
"""Grey values beyond are made smaller first, as a scale gone wrong leaves them: their squares are no numbers in float32."""
SMALLEST = 20
"""Fewest voxels of an organ that is asked."""


def slice_order_evidence(image: np.ndarray, labels: np.ndarray, other: np.ndarray) -> float:
    """How much better `labels` lie on the organs of the image [X, Y, Z] than `other`: 1 is no better, below 1 worse.

    1 also where there is no organ of 20 voxels, or both are equal.
    """
    masked = (labels != 0) | (other != 0)
    if not masked.any():
        return 1.0
    window = tuple(
        slice(max(low - 1, 0), high + 2) for low, high in map(_extent, (masked.any((1, 2)), masked.any((0, 2))))
    )
    image, labels, other = (array[window].astype(np.float32, copy=False) for array in (image, labels, other))
    largest = max(float(image.max()), -float(image.min()))
    if largest > LARGEST:
        image = image / np.float32(largest)
    floor = 1e-3 * float(image.std()) + 1e-12
    logs = []
    for organ in np.unique(labels[labels != 0]):
        one, two = labels == organ, other == organ
        if min(one.sum(), two.sum()) < SMALLEST:
            continue
        (spread, edge), (other_spread, other_edge) = _fit(image, one, floor), _fit(image, two, floor)
        logs += [math.log(other_spread / spread), math.log(edge / other_edge)]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def _fit(image: np.ndarray, mask: np.ndarray, floor: float) -> tuple[float, float]:
    """Standard deviation under the mask, and the mean step across its border in plane over that inside."""
    across, inside = [], []
    for axis in (0, 1):
        step = np.abs(np.diff(image, axis=axis))
        first, second = np.split(mask, [-1], axis=axis)[0], np.split(mask, [1], axis=axis)[1]
        across.append(step[first != second])
        inside.append(step[first & second])
    steps = [float(np.concatenate(kind).mean()) if sum(map(len, kind)) else 0.0 for kind in (across, inside)]
    return float(image[mask].std()) + floor, (steps[0] + floor) / (steps[1] + floor)


def _extent(occupied: np.ndarray) -> tuple[int, int]:
    found = np.flatnonzero(occupied)
    return int(found[0]), int(found[-1])
