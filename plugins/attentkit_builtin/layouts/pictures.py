"""PNG slices -> arrays: one file, or a stack of them."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from attent_kit.errors import DataError
from attent_kit.layouts import Volume, read_picture

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Columns to the patient's left, rows to the back, slices to the head, 1 mm: what is taken where nothing says better."""


def read_stack(paths: Sequence[Path]) -> np.ndarray:
    """Slices [X, Y, Z]: columns, rows, and the files in the given order. DataError if sizes differ, naming both."""
    pictures = [read_picture(path) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise DataError(
                f"{path} has {_size(picture)} pixels, but {paths[0]} has {_size(pictures[0])}: slices of one case must be "
                "alike, so replace the wrong one."
            )
    return np.stack(pictures, axis=-1).transpose(1, 0, 2)


def unplaced(array: np.ndarray, path: Path) -> Volume:
    """A volume [X, Y, Z] that came without a header: taken as LPS of 1 mm, and `placed` says that no header said so."""
    return Volume(array, LPS.copy(), nib.Nifti1Header(), path)


def grey_values(array: np.ndarray, path: Path) -> np.ndarray:
    """An image as float32. DataError if a value is not finite or all are the same."""
    with np.errstate(over="ignore"):
        image = array.astype(np.float32)
    if not np.isfinite(image).all():
        raise DataError(f"{path} holds NaN or infinite voxels: replace them, for example by the value of air.")
    if image.min() == image.max():
        raise DataError(f"{path} is constant, every voxel is {image.flat[0]:g}: leave it out or export it again.")
    return image


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
