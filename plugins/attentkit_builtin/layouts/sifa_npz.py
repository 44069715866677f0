"""Volumes as SIFA's code stores them (github.com/cchen-cc/SIFA): one .npz per case, arr_0 the image and arr_1 the labels.

Both are [X, Y, Z] as medpy reads NIfTI, and nothing says which way the axes point or how long a voxel is: the code turns them
by two hard-coded flips. Pickled arrays are refused, since reading one can run anything.
"""

import math
import re
import zipfile
from pathlib import Path

import numpy as np

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, Layout, Scan, Volume, integers
from attentkit_builtin.layouts.folders import checked, chosen, files, modality_of, names, nearest, only
from attentkit_builtin.layouts.masks import FOUR_ORGANS
from attentkit_builtin.layouts.pictures import grey_values, unplaced

_NPZ = re.compile(r"\.npz$", re.IGNORECASE)
LARGEST = 2**30
"""Voxels that are still believed, so that no file of a few kilobytes fills the memory."""
_EXPECTED = ".npz files of SIFA (arr_0 image, arr_1 labels)"
_UNPLACED = (
    "an .npz has no affine: taken as left, back, head of 1 mm, so only the organs tell the sides, and distances "
    "are in voxels."
)
_UNNAMED = "an .npz does not name its labels: 1 to 4 are taken as liver, right kidney, left kidney and spleen."
_SCALED = "its grey values have mean 0 and standard deviation 1, so they are not HU: let --per-volume find the window of a CT."


class SifaNpz(Layout):
    """SIFA's .npz files: arr_0 image, arr_1 labels, no affine; part chooses ct or mr where the names hold both."""

    organs = FOUR_ORGANS
    plane = "axial"

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        self.folder = _folder(self.path)
        self.part = chosen(part, _modalities(self.folder), self.path) or None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(nearest(Path(path), _has_npz, 1))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        there = _modalities(_folder(Path(path)))
        return there if len(there) > 1 else ()

    def entries(self) -> list[Entry]:
        found = [
            Entry(path.stem, (path,), (path,), modality_of(path.stem) or modality_of(path.parent.name))
            for path in files(self.folder, _NPZ)
        ]
        return checked((entry for entry in found if self.part in (None, entry.modality)), self.folder)

    def read(self, entry: Entry) -> Scan:
        path = entry.images[0]
        image, labels = read_arrays(path)
        if labels.shape != image.shape:
            raise DataError(
                f"{path}: arr_1 is {labels.shape}, but arr_0 is {image.shape}: export it again, both alike."
            )
        volume = unplaced(grey_values(image, path), path)
        ground = Volume(integers(labels, path), volume.affine, volume.header, path)
        mean, deviation = float(volume.array.mean()), float(volume.array.std())
        scaled = abs(mean) < 0.1 and 0.9 < deviation < 1.1
        return Scan(volume, ground, (), (_UNPLACED, _UNNAMED, *([_SCALED] if scaled else [])))


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """arr_0 and arr_1 of an .npz, numbers [X, Y, Z]. DataError for anything else; a pickle is not opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _array(archive, "arr_0", path), _array(archive, "arr_1", path)
    except DataError:
        raise
    except Exception as error:
        # zipfile, zlib and numpy's reader of headers raise what has no common base class, down to a tokenizer's error.
        raise DataError(f"{path} is damaged or not an .npz: copy or download it again.") from error


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """One member, whose header is read before anything else of it."""
    if f"{name}.npy" not in archive.namelist():
        raise DataError(f"{path} has no {name}: SIFA's files hold the image as arr_0 and the labels as arr_1.")
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
        if dtype.hasobject:
            raise DataError(f"{path}: {name} is a pickle, which is never opened here: save it as plain numbers.")
        if dtype.kind not in "biuf" or len(shape) != 3 or 0 in shape:
            raise DataError(f"{path}: {name} is {dtype} of shape {shape}, where numbers [X, Y, Z] are needed.")
        if math.prod(shape) > LARGEST:
            raise DataError(f"{path}: {name} would be {shape} voxels, which no scan has: it is damaged, or not a scan.")
        claimed, inside = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{name}.npy")
        if claimed > inside.file_size or claimed > 1032 * inside.compress_size:
            raise DataError(f"{path}: {name} would be {shape} voxels, for which the file is too small: copy it again.")
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _folder(path: Path) -> Path:
    return only(nearest(path, _has_npz, 1), path, _EXPECTED)


def _has_npz(folder: Path) -> bool:
    return bool(names(folder, _NPZ))


def _modalities(folder: Path) -> tuple[str, ...]:
    """ct and mr, if the names hold both."""
    found = {modality_of(_NPZ.sub("", name)) for name in names(folder, _NPZ)}
    return ("ct", "mr") if found == {"ct", "mr"} else ()
