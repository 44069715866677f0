"""Implicit shapes in millimetres, and the canvas of tissues they are painted on.

A shape is a level function of three coordinate arrays, below 1 inside and above 1 outside, and a box around it.
Coordinates are RAS: +x towards the patient's right, +y anterior, +z superior.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Point = Sequence[float] | np.ndarray


class Shape(Protocol):
    """Level function of a solid, and the corners (lowest, highest) of a box around it."""

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray: ...

    def bounds(self) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Ellipsoid:
    """Semi-axes `radii` in mm around `center`, turned by the rotation matrix `axes` (its columns are the semi-axes)."""

    center: Point
    radii: Point
    axes: np.ndarray | None = None

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        d = [np.float32(1) * (v - np.float32(c)) for v, c in zip((x, y, z), self.center, strict=True)]
        if self.axes is not None:
            a = self.axes.astype(np.float32)
            d = [d[0] * a[0, k] + d[1] * a[1, k] + d[2] * a[2, k] for k in range(3)]
        return np.sqrt(sum((v / np.float32(r)) ** 2 for v, r in zip(d, self.radii, strict=True)))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        radii, center = np.asarray(self.radii, float), np.asarray(self.center, float)
        half = radii if self.axes is None else np.sqrt(((self.axes * radii) ** 2).sum(1))
        return center - half, center + half


@dataclass(frozen=True)
class Tube:
    """A chain of capsules through `points` whose radius goes linearly from one of `radii` to the next."""

    points: Sequence[Point] | np.ndarray
    radii: Sequence[float] | np.ndarray

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        best = np.full(x.shape, np.float32(1e3))
        spans = zip(self.points[:-1], self.points[1:], self.radii[:-1], self.radii[1:], strict=True)
        for p, q, r, s in spans:
            px, py, pz = (np.float32(v) for v in p)
            dx, dy, dz = (np.float32(b - a) for a, b in zip(p, q, strict=True))
            t = ((x - px) * dx + (y - py) * dy + (z - pz) * dz) / np.float32(dx * dx + dy * dy + dz * dz)
            np.clip(t, 0, 1, out=t)
            distance = np.sqrt((x - px - t * dx) ** 2 + (y - py - t * dy) ** 2 + (z - pz - t * dz) ** 2)
            np.minimum(best, distance / (np.float32(r) + t * np.float32(s - r)), out=best)
        return best

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        points, radii = np.asarray(self.points, float), np.asarray(self.radii, float)[:, None]
        return (points - radii).min(0), (points + radii).max(0)


def smooth_union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Union of two level functions whose seam is rounded over `blend` units of level."""
    h = np.clip(0.5 + (b - a) / np.float32(2 * blend), 0, 1)
    return b + (a - b) * h - np.float32(blend) * h * (1 - h)


def smooth_intersection(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Intersection of two level functions whose edge is rounded over `blend` units of level."""
    return -smooth_union(-a, -b, blend)


def turn(about_x: float = 0.0, about_y: float = 0.0, about_z: float = 0.0) -> np.ndarray:
    """Rotation matrix of three angles in degrees, applied about x first and z last."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(t), np.sin(t)) for t in np.radians([about_x, about_y, about_z]))
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx


def spline(coarse: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Cubic B-spline surface over the control values `coarse`, corner to corner, at the points of `shape`."""
    field = coarse
    for axis, (n, m) in enumerate(zip(shape, coarse.shape, strict=True)):
        place = np.linspace(0, m - 1, n)
        cell = np.minimum(place.astype(int), m - 1)
        t = (place - cell).astype(np.float32)
        weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
        # Sums of products in a fixed order: a matrix product may round differently from machine to machine.
        along = [-1 if k == axis else 1 for k in range(field.ndim)]
        field = sum(
            w.reshape(along) * np.take(field, np.clip(cell + k - 1, 0, m - 1), axis=axis) for k, w in enumerate(weights)
        )
    return field


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
    """Field [shape] of zero mean and unit SD that varies smoothly between random values on a grid of `nodes` points."""
    nodes = [max(2, min(n, s)) for n, s in zip(nodes, shape, strict=True)]
    field = spline(rng.standard_normal(nodes, np.float32), shape)
    return (field - field.mean()) / field.std()


class Canvas:
    """Tissue map [X, Y, Z] over coordinate arrays of the same shape; axes run right, anterior and superior."""

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        self.x, self.y, self.z = x, y, z
        self.tissue = np.zeros(x.shape, np.uint8)
        self._lowest = [v.min(others) for v, others in ((x, (1, 2)), (y, (0, 2)), (z, (0, 1)))]
        self._highest = [v.max(others) for v, others in ((x, (1, 2)), (y, (0, 2)), (z, (0, 1)))]

    def window(self, low: Iterable[float], high: Iterable[float]) -> tuple[slice, slice, slice] | None:
        """The block of voxels that may lie in a box of millimetres, or None where the canvas does not reach it."""
        block = []
        for mn, mx, a, b in zip(self._lowest, self._highest, low, high, strict=True):
            inside = np.flatnonzero((mx >= a) & (mn <= b))
            if not len(inside):
                return None
            block.append(slice(inside[0], inside[-1] + 1))
        x, y, z = block
        return x, y, z

    def paint(self, shape: Shape, *layers: tuple[float, int], where: Callable | None = None) -> None:
        """Paint level < threshold for each (threshold, tissue), outermost first.

        `where(tissue, x, y, z)` may restrict it to some of the block.
        """
        low, high = shape.bounds()
        center, half = (low + high) / 2, (high - low) / 2 * max(threshold for threshold, _ in layers)
        if (block := self.window(center - half, center + half)) is None:
            return
        x, y, z, tissue = self.x[block], self.y[block], self.z[block], self.tissue[block]
        level = shape.level(x, y, z)
        allowed = True if where is None else where(tissue, x, y, z)
        for threshold, value in layers:
            tissue[(level < threshold) & allowed] = value
