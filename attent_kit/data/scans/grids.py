"""Where the voxels of a grid lie: shape [X, Y, Z] and affine [4, 4], voxel index to mm in RAS."""

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation, ornt_transform

from attent_kit.errors import DataError

ROUNDING = 0.1
"""mm, and share of the smallest side of a voxel, by which voxels of the same grid may be apart: headers round, patients do
not move."""
SHEAR = 0.5
"""Degrees off a right angle between two axes that pass as rounding of the header."""


def apart(shape: tuple[int, ...], affine: np.ndarray, like_shape: tuple[int, ...], like_affine: np.ndarray) -> float:
    """How far in mm the voxels of two grids lie apart at most, in one axis order; infinite if the shapes differ."""
    turn, turned = in_axis_order(affine, shape, like_affine)
    if tuple(np.array(shape)[np.argsort(turn[:, 0])]) != tuple(like_shape):
        return float("inf")
    return float(corners_apart(turned, like_affine, like_shape).diagonal().max())


def same_grid(shape: tuple[int, ...], affine: np.ndarray, like_shape: tuple[int, ...], like_affine: np.ndarray) -> bool:
    """Whether two grids have the same voxels, but for the rounding of headers, perhaps in another axis order."""
    return apart(shape, affine, like_shape, like_affine) <= rounding(like_affine)


def rounding(affine: np.ndarray) -> float:
    """mm by which voxels of the same grid may be apart."""
    return ROUNDING * min(1.0, float(nib.affines.voxel_sizes(affine).min()))


def corners_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[8, 8] mm from each corner of a grid placed by one affine to each placed by the other."""
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    here, there = (one @ ends)[:3], (other @ ends)[:3]
    return np.linalg.norm(here[:, :, None] - there[:, None], axis=0)


def shear(affine: np.ndarray) -> float:
    """Degrees by which two axes of a grid are off a right angle, at most."""
    axes = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    cosines = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(np.clip(cosines, 0, 1))).max())


def refuse_sheared(affine: np.ndarray, name: str, advice: str) -> None:
    """DataError for a grid along whose axes no distance can be measured."""
    if (degrees := shear(affine)) > SHEAR:
        raise DataError(
            f"{name} has axes that are {degrees:.1f} degrees off a right angle (a sheared affine), along which no distance can "
            f"be measured: {advice}."
        )


def turns(affine: np.ndarray) -> bool:
    """Whether each axis of a grid points to a side of the patient; with one far longer than another, that is lost."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(io_orientation(affine)).all())


def in_axis_order(affine: np.ndarray, shape: tuple[int, ...], like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The turn that brings a grid into the axis order of the affine `like`, and its affine afterwards."""
    turn = ornt_transform(io_orientation(affine), io_orientation(like))
    return turn, affine @ nib.orientations.inv_ornt_aff(turn, shape)


def times(shape: tuple[int, ...]) -> str:
    """3x4x5"""
    return "x".join(str(n) for n in shape)


def in_words(shape: tuple[int, ...], affine: np.ndarray) -> str:
    """A grid as an error names it."""
    spacing = " x ".join(f"{s:.4g}" for s in nib.affines.voxel_sizes(affine))
    origin = ", ".join(f"{o:.2f}" for o in affine[:3, 3])
    return f"{times(shape)} voxels of {spacing} mm, {''.join(nib.aff2axcodes(affine))}, origin ({origin})"
