"""How large a volume may be: what a header claims is checked against the file and the memory before it is believed."""

import math
from pathlib import Path

from attent_kit.data.workers import host_memory
from attent_kit.errors import DataError

MOST_VOXELS = 2**30
"""Voxels that are still believed, 1024 x 1024 x 1024: a CT of a whole body has half of it."""
MOST_DEFLATED = 1032
"""Bytes that zlib can make of one byte at most."""
BYTES_A_VOXEL = 6
"""Of memory: as stored, and as float32."""


def refuse_too_large(path: Path, shape: tuple[int, ...]) -> None:
    """DataError for a volume that no scan has, or that does not fit into memory."""
    voxels = math.prod(int(n) for n in shape)
    if voxels > MOST_VOXELS:
        raise DataError(
            f"{path} would be {' x '.join(map(str, shape))} voxels by its header, which is more than the {MOST_VOXELS:.3g} that "
            "are read here: divide it, or copy it again if it is damaged."
        )
    if (needed := voxels * BYTES_A_VOXEL) > (free := host_memory()):
        raise DataError(
            f"{path} does not fit into memory: its {voxels:.3g} voxels need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB "
            "are free. Close other programs, or use a larger machine."
        )
