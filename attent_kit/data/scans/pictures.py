"""Slices as pictures: a PNG of grey values -> array; the order of numbered files."""

import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from attent_kit.errors import DataError

LARGEST = 2**26
"""Pixels of a slice that are still believed; a scan has less than 2**22."""


def read_picture(path: Path) -> np.ndarray:
    """A grey picture [H, W], integers as stored; black and white become 0 and 255. DataError for colours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as picture:
                if picture.width * picture.height > LARGEST:
                    raise DataError(
                        f"{path} has {picture.width} x {picture.height} pixels, which no slice has: remove it."
                    )
                # Decoding stops at the last pixel; this compares every checksum to the end of the file.
                picture.verify()
            with Image.open(path, formats=("PNG",)) as picture:
                plain = {"1": "L", "P": "RGBA", "PA": "RGBA", "LA": "RGBA"}.get(picture.mode, picture.mode)
                pixels = np.asarray(picture if plain == picture.mode else picture.convert(plain))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has more pixels than any slice has ({error}): remove it.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its rights.") from error
        # Pillow raises OSError, SyntaxError, ValueError and others on damaged files.
        raise DataError(f"{path} is not a whole PNG picture: copy or download it again.") from error
    if pixels.ndim == 2:
        return pixels
    colours, rest = pixels[..., :3], pixels[..., 3:]
    if (colours != colours[..., :1]).any() or (rest != 255).any():
        raise DataError(f"{path} is in colours or partly transparent, not grey: save it as a grey picture.")
    return np.ascontiguousarray(colours[..., 0])


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key by which slice 2 comes before slice 10."""
    words = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(word), "") if word.isascii() and word.isdigit() else (1, 0, word) for word in words]
