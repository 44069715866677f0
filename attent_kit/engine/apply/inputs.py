"""What `predict` is given: one NIfTI volume, a folder of them, or a DICOM series."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attent_kit.data.scans.dicom import ENDINGS, Series, choose_series, read_series
from attent_kit.data.scans.dicom_file import is_dicom
from attent_kit.data.scans.volumes import Volume, read_volume, sha256
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.errors import ConfigError, DataError

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Input:
    """One image as it lies on disk. Nothing of its voxels is read yet."""

    name: str
    """Of the file, or of the folder of a series."""
    files: tuple[Path, ...]
    series: Series | None = None
    """None for NIfTI."""

    @property
    def stem(self) -> str:
        """The name without its ending, by which what is made of it is called."""
        return without_ending(self.name)

    def read(self) -> tuple[Volume, tuple[str, ...]]:
        """The image, and notes on how it was read. DataError if it cannot be read for certain."""
        return (read_volume(self.files[0]), ()) if self.series is None else read_series(self.series)

    def digest(self) -> dict[str, Any]:
        """Name and SHA-256; of a series that of all its files, and the hash of each by its name, as plain values."""
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
    volumes = [path for path in _files(place) if path.name.endswith(NIFTI)]
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
            f"{place} is no DICOM, of which --series chooses a series: leave it out, or name their folder."
        )
    if not slices and not any(_may_be_dicom(path) for path in place.rglob("*")):
        raise DataError(
            f"{place} holds no .nii or .nii.gz file, and no DICOM series: name the folder that the volumes lie in directly."
        )
    chosen = choose_series(place, series, by="type --series UID")
    return [Input(Path(os.path.abspath(place)).name or "series", chosen.files, chosen)]


def without_ending(name: str) -> str:
    """The name of a file without the ending of NIfTI or DICOM."""
    endings = (".nii.gz", ".nii", ".img", ".hdr", *ENDINGS)
    return next((name[: -len(end)] for end in endings if name.lower().endswith(end)), name)


def _files(place: Path) -> list[Path]:
    found = [place] if place.is_file() else sorted(place.iterdir()) if place.is_dir() else []
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def _may_be_dicom(path: Path) -> bool:
    try:
        return path.is_file() and (path.suffix.lower() in ENDINGS or is_dicom(path))
    except OSError:
        return False
