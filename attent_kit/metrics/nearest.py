"""How far voxels lie from the nearest of a set: neighbours are looked up ring by ring, a k-d tree finds the rest.

Most surface voxels of a prediction lie within a few voxels of the truth. Looking up their neighbours in order of
distance settles them faster than any tree; only those far away are worth one.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from attent_kit.errors import DataError

_NEIGHBOURS = 1024
"""Most voxels of a ball that are looked up."""
_REACH = 16
"""Most voxels that a ball reaches along the axis of the smallest spacing."""
_BATCH, _WORTH = 64, 0.1
"""Looking up ends when so many neighbours settle less than this share of the voxels that are left."""
_FEW = 2000
"""Voxels for which a tree is as fast."""


def nearest(points: np.ndarray, targets: np.ndarray, spacing: Sequence[float], limit: float = math.inf) -> np.ndarray:
    """Distance of each voxel of `points`, in C order, to the nearest of `targets`, in the unit of `spacing`.

    Both are boolean masks of one shape. What is farther than `limit` may come back as infinite; without any target all
    is NaN.
    """
    scale = _checked_spacing(spacing, points.ndim)
    if not targets.any():
        return np.full(np.count_nonzero(points), math.nan)
    found = np.full(np.count_nonzero(points), math.inf)
    left, searched = np.arange(len(found)), -1.0
    if len(left) > _FEW:
        left, searched = _look_up(points, targets, tuple(scale.tolist()), limit, found)
    if len(left) and searched < limit:
        at, others = np.argwhere(points)[left], np.argwhere(targets)
        # Grid points are spread evenly: median splits and tight boxes cost more to build than they save in the search.
        tree = cKDTree(others * scale, leafsize=32, balanced_tree=False, compact_nodes=False)
        closest = tree.query(at * scale, workers=1)[1]
        found[left] = _lengths(at - others[closest], scale)
    return found


def _look_up(
    points: np.ndarray, targets: np.ndarray, spacing: tuple[float, ...], limit: float, found: np.ndarray
) -> tuple[np.ndarray, float]:
    """Fills `found` ring by ring; what of it is left, and the distance up to which all is found."""
    rings, reach = _rings(spacing)
    margin = [(side, side) for side in reach]
    near = np.ascontiguousarray(np.pad(targets, margin))
    strides = np.array(near.strides)  # a voxel is one byte
    at, near = np.flatnonzero(np.pad(points, margin)), near.ravel()
    left, before, tried = np.arange(len(at)), len(at), 0
    searched = 0.0
    for distance, offsets in rings:
        if distance > limit:
            return left, limit
        steps = offsets @ strides
        hit = near.take(at + steps[0])
        for step in steps[1:]:
            hit |= near.take(at + step)
        found[left[hit]] = distance
        left, at = left[~hit], at[~hit]
        searched, tried = distance, tried + len(offsets)
        if tried >= _BATCH:
            if len(left) > (1 - _WORTH) * before:
                break
            before, tried = len(left), 0
        if not len(left):
            break
    return left, searched


@lru_cache(maxsize=32)
def _rings(spacing: tuple[float, ...]) -> tuple[list[tuple[float, np.ndarray]], tuple[int, ...]]:
    """The offsets [n, D] of a ball by their length, in order of length; and the largest along each axis."""
    axes = len(spacing)
    unit_ball = math.pi ** (axes / 2) / math.gamma(axes / 2 + 1)
    radius = min((_NEIGHBOURS * math.prod(spacing) / unit_ball) ** (1 / axes), _REACH * min(spacing))
    reach = tuple(int(radius / side) for side in spacing)
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, axes)
    lengths = _lengths(offsets, np.array(spacing))
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius]
    offsets, lengths = offsets[order], lengths[order]
    starts = np.flatnonzero(np.diff(lengths, prepend=-1.0))
    rings = [(float(lengths[start]), ring) for start, ring in zip(starts, np.split(offsets, starts[1:]), strict=True)]
    return rings, reach


def _lengths(offsets: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Of [N, D] whole voxels: so that a distance of exactly a tolerance does not depend on where the voxels lie."""
    return np.sqrt(((offsets * scale) ** 2).sum(axis=1))


def _checked_spacing(spacing: Sequence[float], axes: int) -> np.ndarray:
    scale = np.asarray(spacing, dtype=float)
    if scale.shape != (axes,) or not (np.isfinite(scale) & (scale > 0)).all():
        raise DataError(
            f"Spacing {spacing} does not fit a mask with {axes} axes. Give one positive number per axis, "
            f"such as {(1.0,) * axes} for voxels."
        )
    return scale
