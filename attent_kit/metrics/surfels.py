"""Normalized surface Dice: the share of two surfaces that lies within a tolerance of the other.

Nikolov et al., Clinically applicable segmentation of head and neck anatomy, J Med Internet Res 2021, e26151.

    NSD = (area of P within t of T + area of T within t of P) / (area of P + area of T)

The surface is that of marching cubes (Lorensen and Cline 1987) on the lattice of voxel centres, one piece, a surfel,
for each 2 x 2 x 2 voxels that are not all alike; it is placed in their middle, where eight voxels meet. What lies
outside the array is background. These are the numbers of google-deepmind's surface-distance.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product

import numpy as np

from attent_kit.errors import DataError
from attent_kit.metrics.nearest import nearest
from attent_kit.metrics.overlap import check_masks

Corner = tuple[int, int, int]
CORNERS: tuple[Corner, ...] = tuple((a, b, c) for a, b, c in product((0, 1), repeat=3))
"""Corner n of a cube of eight voxels is bit n of its code."""


def nsd(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], tolerance: float) -> float:
    """Normalized surface Dice of two boolean volumes: 1 all within the tolerance, in the unit of `spacing`, 0 nothing.

    0 when one mask is empty, NaN when both are. Raises `DataError` for masks of different shapes or with other than
    three axes and `TypeError` if an array is not boolean.
    """
    check_masks(prediction, truth)
    if prediction.ndim != 3:
        raise DataError(f"The surface Dice is for volumes, and these masks have {prediction.ndim} axes. Give three.")
    codes = neighbour_codes(prediction), neighbour_codes(truth)
    # 0 is all outside and 255 all inside: one more, and what is above 1 is neither.
    on = [code + np.uint8(1) > 1 for code in codes]
    area = surfel_areas(tuple(float(side) for side in spacing))
    within = total = 0.0
    for code, own, other in zip(codes, on, on[::-1], strict=True):
        areas = area[code[own]]
        within += areas[nearest(own, other, spacing, limit=tolerance) <= tolerance].sum()
        total += areas.sum()
    return within / total if total else math.nan


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Which of the eight voxels around each meeting point are inside: [X, Y, Z] bool to [X + 1, Y + 1, Z + 1] uint8."""
    code = np.pad(mask.view(np.uint8), 1)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):  # the corners n and n + bits are neighbours along the axis
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        code = code[tuple(low)] | code[tuple(high)] << np.uint8(bits)
    return code


@lru_cache(maxsize=32)
def surfel_areas(spacing: tuple[float, float, float]) -> np.ndarray:
    """Area of the surfel of each code, [256], in the squared unit of `spacing`.

    The surface cuts off whichever corners are fewer, those inside if it is four and four; corners that no edge joins
    are cut off each by themselves.
    """
    areas = np.zeros(256)
    for code in range(256):
        inside = [corner for bit, corner in enumerate(CORNERS) if code >> bit & 1]
        fewer = inside if len(inside) <= 4 else [corner for corner in CORNERS if corner not in inside]
        areas[code] = sum(_cut(group, spacing) for group in _joined(fewer))
    return areas


def _cut(corners: list[Corner], spacing: Sequence[float]) -> float:
    """Area of the sheet through the middles of the edges that leave a group of at most four joined corners.

    A flat piece of it that is a, b and c large as seen along the three axes has the area |(a, b, c)|, and each of the
    three is so many eighths of a voxel's face.
    """
    x, y, z = spacing
    face = np.array([y * z, x * z, x * y])
    tip = float(np.linalg.norm(face)) / 8
    """The triangle that cuts one corner off."""
    steps = [(axis, {a, b}) for a, b in combinations(corners, 2) if (axis := _axis(a, b)) is not None]
    along = {axis for axis, _ in steps}
    across = [axis for axis in range(3) if axis not in along]
    match len(corners):
        case 1:
            return tip
        case 2:  # a flat roof over the edge
            return _hypot(face, across) / 2
        case 3:  # half of the face that they lie on, and a trapezium of three tips
            return float(face[across[0]]) / 2 + 3 * tip
        case _ if across:  # a whole face
            return float(face[across[0]])
    ends = [corner for corner in corners if sum(corner in pair for _, pair in steps) == 1]
    if len(ends) == 3:  # a corner and its three neighbours: a flat hexagon
        return 6 * tip
    # A chain: a trapezium of four tips, and two triangles beside its middle step.
    (middle,) = (axis for axis, pair in steps if not pair & set(ends))
    return 4 * tip + sum(_hypot(face, (middle, axis)) for axis in range(3) if axis != middle) / 4


def _hypot(face: np.ndarray, axes: Sequence[int]) -> float:
    return math.hypot(*(face[axis] for axis in axes))


def _axis(a: Corner, b: Corner) -> int | None:
    """Along which two corners are neighbours, if they are."""
    apart = [axis for axis in range(3) if a[axis] != b[axis]]
    return apart[0] if len(apart) == 1 else None


def _joined(corners: Sequence[Corner]) -> list[list[Corner]]:
    """The corners in groups that edges of the cube join."""
    groups: list[list[Corner]] = []
    for corner in corners:
        touching = [group for group in groups if any(_axis(corner, other) is not None for other in group)]
        groups = [group for group in groups if group not in touching] + [[corner, *sum(touching, [])]]
    return groups
