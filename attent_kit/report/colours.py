"""The colour of each organ: the same one in every figure, and another one than that of any other organ."""

from functools import cache

import numpy as np

FIRST = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2")
"""Told apart by colour-blind readers, black aside (Okabe and Ito 2008)."""
MOST = 254
"""Organs that a label map names at most."""
COLOURFUL, DARKEST, BRIGHTEST = 35.0, 35.0, 92.0
"""Chroma and lightness (CIELAB) in which an organ is seen on a grey image, white paper and a dark page."""


def organ_colour(index: int) -> str:
    """Of the organ `index` in the order of the data, from 0: `#RRGGBB`."""
    return _colours()[index]


@cache
def _colours() -> tuple[str, ...]:
    """The first seven, then each time the one that is furthest from all before it."""
    levels = np.linspace(0, 255, 11).round().astype(int)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = cielab(grid)
    seen = (np.hypot(lab[:, 1], lab[:, 2]) >= COLOURFUL) & (lab[:, 0] >= DARKEST) & (lab[:, 0] <= BRIGHTEST)
    grid, lab = grid[seen], lab[seen]
    chosen = [*FIRST]
    nearest = np.min([np.linalg.norm(lab - cielab(red_green_blue(c)), axis=1) for c in chosen], axis=0)
    while len(chosen) < MOST:
        furthest = int(nearest.argmax())
        chosen.append("#{:02X}{:02X}{:02X}".format(*grid[furthest]))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[furthest], axis=1))
    return tuple(chosen)


def red_green_blue(colour: str) -> np.ndarray:
    """`#RRGGBB` as [3] in 0 to 255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def cielab(colours: np.ndarray) -> np.ndarray:
    """sRGB [..., 3] in 0 to 255 as L* a* b* (CIE 1976, D65), in which equal distances look about equally large."""
    s = np.asarray(colours, np.float64) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
