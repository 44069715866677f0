"""What a run is given: one NIfTI volume, a folder of them, or a DICOM series; or an image that lies in memory."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from attent_kit.data.scans.dicom import DICOM_ENDINGS, Series, choose_series, read_series
from attent_kit.data.scans.dicom_file import is_dicom
from attent_kit.data.scans.nifti_file import open_nifti, require_grid
from attent_kit.data.scans.volumes import Volume, as_volume, read_volume
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.errors import ConfigError, DataError
from attent_kit.files import sha256

NIFTI = (".nii", ".nii.gz")
MAPS = ("probabilities", "entropy", "translation")
"""What `predict` writes beside a label map, where it is asked to: CASE_entropy.nii.gz and so on."""

ImageLike = str | os.PathLike[str] | SpatialImage | np.ndarray
"""A path, a nibabel image, or an array [X, Y, Z], which needs an affine beside it."""


@dataclass(frozen=True)
class Input:
    """One image as it lies on disk or in memory. None of its voxels is read yet."""

    name: str
    """Of the file, or of the folder of a series."""
    files: tuple[Path, ...]
    series: Series | None = None
    """None for NIfTI."""
    image: nib.Nifti1Pair | None = None
    """One that lies in memory; then there are no files."""

    @property
    def stem(self) -> str:
        """The name without its ending, after which everything made from it is named."""
        return without_ending(self.name)

    def read(self) -> tuple[Volume, tuple[str, ...]]:
        """The image, and notes on how it was read. DataError if it cannot be read for certain."""
        if self.image is not None:
            return as_volume(self.image, Path(self.name)), ()
        return (read_volume(self.files[0]), ()) if self.series is None else read_series(self.series)

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "in memory" if self.image is not None else "NIfTI" if self.series is None else "DICOM series"

    def digest(self) -> dict[str, Any]:
        """Name and SHA-256; of a series that of all its files, and the hash of each by its name, as plain values.

        Of an image in memory the hash is that of its voxels as float32 in the order of the array.
        """
        if self.image is not None:
            voxels = np.ascontiguousarray(self.read()[0].array)
            return {"name": self.name, "sha256": hashlib.sha256(voxels.data.cast("B")).hexdigest()}
        each = [sha256(path) for path in self.files]
        if self.series is None:
            return {"name": self.name, "sha256": each[0]}
        folder = os.path.commonpath([path.parent for path in self.files])
        names = [path.relative_to(folder).as_posix() for path in self.files]
        together = hashlib.sha256("".join(each).encode()).hexdigest()
        return {"name": self.name, "sha256": together, "files": dict(sorted(zip(names, each, strict=True)))}


def find_inputs(place: Path, series: str | None = None) -> list[Input]:
    """The images at a place, sorted by name: several only of a folder of NIfTI files. `series` is the UID of a DICOM series.

    ConfigError where it is not clear what is meant, DataError if there is no image.
    """
    if not place.exists():
        raise DataError(f"{place} does not exist: check the spelling of the path.")
    volumes = [path for path in _files(place) if path.name.lower().endswith(NIFTI)]
    slices = [path for path in _files(place) if path not in volumes and _may_be_dicom(path)]
    if series is None and place.is_dir() and volumes and slices:
        raise ConfigError(
            f"{place} holds NIfTI and DICOM, as {volumes[0].name} and {slices[0].name}: name the one file, or choose a series "
            "with --series UID."
        )
    if series is None and not slices and (volumes or not place.is_dir()):
        return sorted((Input(pair.image.name, (pair.image,)) for pair in find_pairs(place)), key=lambda each: each.name)
    if not place.is_dir() and not slices:
        raise ConfigError(
            f"{place} is not DICOM, and --series chooses a DICOM series: leave it out, or name the folder of one."
        )
    if not slices and not any(_may_be_dicom(path) for path in place.rglob("*")):
        raise DataError(
            f"{place} holds no .nii or .nii.gz file, and no DICOM series: name the folder that the volumes lie in directly."
        )
    chosen = choose_series(place, series, by="type --series UID")
    return [Input(Path(os.path.abspath(place)).name or "series", chosen.files, chosen)]


def as_input(image: ImageLike, affine: np.ndarray | None = None, series: str | None = None) -> Input:
    """One image: of a path, as `find_inputs` finds it, or in memory. ConfigError if a path holds several."""
    if affine is not None and isinstance(image, (str, os.PathLike, SpatialImage)):
        raise ConfigError("the image has an affine of its own: leave affine out.")
    if isinstance(image, (str, os.PathLike)):
        found = find_inputs(Path(image), series)
        if len(found) != 1:
            raise ConfigError(f"{image} holds {len(found)} images, as {found[0].name}: name one of them.")
        return found[0]
    if series is not None:
        raise ConfigError("series chooses among the DICOM series of a folder: leave it out for an image in memory.")
    return Input("the image", (), image=as_nifti(image, affine, "the image")[0])


def as_nifti(
    image: ImageLike, affine: np.ndarray | None, name: str, labels: bool = False
) -> tuple[nib.Nifti1Pair, Path]:
    """An image or, with `labels`, a label map as nibabel has it, and what messages call it; `affine` is that of an array.

    DataError for what is neither.
    """
    if isinstance(image, (str, os.PathLike)):
        return open_nifti(Path(image)), Path(image)
    if isinstance(image, SpatialImage):
        stale = isinstance(image, nib.Nifti1Pair) and not np.array_equal(image.affine, image.header.get_best_affine())
        whole = type(image)(image.dataobj, image.affine, image.header) if stale else image
        return require_grid(whole, Path(name)), Path(name)
    array, placed = np.asarray(image), np.asarray(affine if affine is not None else (), np.float64)
    if placed.shape != (4, 4):
        raise DataError(
            f"{name} is an array, which lies nowhere: give its affine [4, 4], from voxels to mm in RAS, beside it."
        )
    if not np.isfinite(placed).all() or abs(np.linalg.det(placed[:3, :3])) < 1e-9:
        raise DataError(f"{name} has an affine that places no volume (a zero or NaN axis): give another one.")
    if array.ndim != 3 or not array.size:
        raise DataError(f"{name} is an array of shape {array.shape}, where [X, Y, Z] is needed.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {array.dtype} values, not numbers: convert it to grey values.")
    made = nib.Nifti1Image(_storable(array, labels), placed)
    made.set_sform(placed, code=1)
    made.set_qform(placed, code=1)
    made.header.set_xyzt_units("mm")
    return made, Path(name)


def _storable(array: np.ndarray, labels: bool) -> np.ndarray:
    """In a type that NIfTI knows and that loses nothing which counts."""
    if not labels:
        return array.astype(np.float32, copy=False)
    small = array.dtype.kind in "bu" and array.dtype.itemsize == 1
    return array.astype(np.uint8 if small else np.float64, copy=False)


def without_ending(name: str) -> str:
    """The name of a file without the ending of NIfTI or DICOM."""
    endings = (".nii.gz", ".nii", ".img", ".hdr", *DICOM_ENDINGS)
    return next((name[: -len(end)] for end in endings if name.lower().endswith(end)), name)


def _files(place: Path) -> list[Path]:
    found = [place] if place.is_file() else sorted(place.iterdir()) if place.is_dir() else []
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def _may_be_dicom(path: Path) -> bool:
    try:
        return path.is_file() and (path.suffix.lower() in DICOM_ENDINGS or is_dicom(path))
    except OSError:
        return False
