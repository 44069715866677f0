"""Slices as pictures of an HTML page, each in the page itself."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from attent_kit.report.figures import overlay

SMALLEST = 224
"""Side in pixels below which a slice is enlarged by a whole number, so that its contours are thin."""
QUALITIES = (82, 65, 45, 25)
"""Qualities of JPEG: the first with which a picture stays below LARGEST, or the last."""
LARGEST = 24_000
"""Bytes of a picture, so that a page of twelve rows and two directions stays below 10 MB; a usual slice has half as many."""

WIDTH, COLOURS = 1200, 32
"""Pixels and colours of a large drawing, for the same reason; its PNG and SVG beside the page have more."""


def picture(image: np.ndarray, labels: np.ndarray | None = None) -> str:
    """A slice [H, W] in [-1, 1], with the contours of its labels [H, W], as a data URI."""
    grey = _enlarged((np.clip(image, -1, 1) + 1) / 2)
    if labels is None:
        return _uri(grey)
    over = overlay(_enlarged(labels))
    return _uri(grey[..., None] * (1 - over[..., 3:]) + over[..., :3] * over[..., 3:])


def entropy_picture(entropy: np.ndarray) -> str:
    """An entropy map [H, W], 0 black to 1 bright yellow in the colours of `inferno`, as a data URI."""
    from matplotlib import colormaps

    return _uri(colormaps["inferno"](_enlarged(np.clip(entropy, 0, 1)))[..., :3])


def drawn(png: Path) -> str:
    """A large drawing as a data URI: narrower, and in as few colours as lines and marks need."""
    image = Image.open(png).convert("RGB")
    height = round(image.height * WIDTH / image.width)
    if image.width > WIDTH:
        image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _enlarged(array: np.ndarray) -> np.ndarray:
    times = max(1, -(-SMALLEST // max(array.shape)))
    return array.repeat(times, axis=0).repeat(times, axis=1)


def _uri(colours: np.ndarray) -> str:
    """[H, W] or [H, W, 3] in 0 to 1."""
    image = Image.fromarray(np.round(colours * 255).astype(np.uint8))
    for quality in QUALITIES:
        out = io.BytesIO()
        image.save(out, format="JPEG", quality=quality, subsampling=0)
        if out.tell() <= LARGEST:
            break
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
