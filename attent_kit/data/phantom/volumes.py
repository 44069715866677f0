"""The cases of a phantom one after the other, and their bytes as NIfTI."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from attent_kit.data.phantom.case import PhantomCase, PhantomSize, phantom_case
from attent_kit.data.phantom.options import PhantomOptions
from attent_kit.data.phantom.patient import MODALITIES
from attent_kit.data.workers import ReportDone, WorkerEnded, asking, counted, most_workers
from attent_kit.errors import RunError

WORTH_A_PROCESS = 8
"""Patients that take longer than starting a process."""
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
    """Each case of that size; `report` hears of it once it is used. Many are made in several processes, with the same bytes."""
    grid = options.grid
    patients = [(m, n, grid, options.seed) for m in modalities for n in range(1, getattr(grid, f"{m}_patients") + 1)]
    tell = counted(report, len(patients))
    try:
        with asking(most_workers(len(patients) // WORTH_A_PROCESS), patients) as ask:
            for (modality, patient, *_), case in zip(patients, ask(_case, patients), strict=True):
                name = f"{modality}_{patient:02d}"
                yield Numbered(modality, patient, name, case)
                tell(name)
    except WorkerEnded as error:
        raise RunError(
            "a process was ended before its patient was done, as happens when memory runs out, and nothing was left behind. "
            "Start the same command again when there is more."
        ) from error


def _case(task: tuple[str, int, PhantomSize, int]) -> PhantomCase:
    return phantom_case(*task)


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
