"""The cases of a phantom one after the other, and their bytes as NIfTI."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from attent_kit.data.phantom.case import PhantomCase, phantom_case
from attent_kit.data.phantom.options import PhantomOptions
from attent_kit.data.phantom.patient import MODALITIES
from attent_kit.data.workers import ReportDone, counted

CaseFacts = dict[str, dict]
"""What phantom.toml says about each case, by the name that the case has in its layout."""


class Numbered(NamedTuple):
    """One patient of the phantom."""

    modality: str
    patient: int
    """From 1 in each modality."""
    name: str
    case: PhantomCase


def every_case(
    options: PhantomOptions, report: ReportDone | None, modalities: tuple[str, ...] = MODALITIES
) -> Iterator[Numbered]:
    """Each case of that size; `report` hears of it once it is used."""
    grid = options.grid
    names = [(m, n, f"{m}_{n:02d}") for m in modalities for n in range(1, getattr(grid, f"{m}_patients") + 1)]
    tell = counted(report, len(names))
    for modality, patient, name in names:
        yield Numbered(modality, patient, name, phantom_case(modality, patient, grid, options.seed))
        tell(name)


def compressed(array: np.ndarray, case: PhantomCase) -> bytes:
    """The bytes of a .nii.gz: no time stamp and no file name in it, so that equal volumes are equal files."""
    volume = nib.Nifti1Image(array, case.affine)
    volume.header.set_xyzt_units("mm")
    volume.set_sform(case.affine, code=1)
    volume.set_qform(case.affine, code=1)
    return gzip.compress(volume.to_bytes(), 6, mtime=0)


def save(path: Path, content: bytes) -> None:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
