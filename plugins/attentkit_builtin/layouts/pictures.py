"""PNG slices -> arrays: one file, or a stack of them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from attent_kit.data.volumes import Volume
from attent_kit.errors import DataError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Columns to the patient's left, rows to the back, slices to the head, 1 mm: what is taken where nothing says better."""
LARGEST = 2**26
"""Pixels of a slice that are still believed; a scan has less than 2**22."""


def read_picture(path: Path) -> np.ndarray:
    """A grey picture [H, W], integers as stored; black and white become 0 and 255. DataError for colours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Decoding stops at the last pixel; this compares every checksum to the end of the file.
            with Image.open(path, formats=("PNG",)) as picture:
                picture.verify()
            with Image.open(path, formats=("PNG",)) as picture:
                if picture.width * picture.height > LARGEST:
                    raise DataError(
                        f"{path} has {picture.width} x {picture.height} pixels, which no slice has: remove it."
                    )
                plain = {"1": "L", "P": "RGBA", "PA": "RGBA", "LA": "RGBA"}.get(picture.mode, picture.mode)
                pixels = np.asarray(picture if plain == picture.mode else picture.convert(plain))
    except DataError:
        raise
    except Exception as error:
        # Pillow raises OSError, SyntaxError, ValueError and others on damaged files.
        raise DataError(f"{path} is not a whole PNG picture: copy or download it again.") from error
    if pixels.ndim == 2:
        return pixels
    colours, rest = pixels[..., :3], pixels[..., 3:]
    if (colours != colours[..., :1]).any() or (rest != 255).any():
        raise DataError(f"{path} is in colours or partly transparent, not grey: save it as a grey picture.")
    return np.ascontiguousarray(colours[..., 0])


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
    """A volume [X, Y, Z] that came without a header: taken as LPS of 1 mm, and `placed` says that nothing told so."""
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
