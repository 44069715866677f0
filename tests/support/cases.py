"""Small volumes with organs in boxes, and what lies in a folder."""

from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.array([[2.0, 0, 0, -31], [0, 2.0, 0, -31], [0, 0, 5.0, 10], [0, 0, 0, 1]])
"""RAS, 2 x 2 x 5 mm."""
BOXES = {
    1: (slice(18, 28), slice(18, 26), slice(1, 4)),
    2: (slice(19, 25), slice(6, 12), slice(1, 3)),
    3: (slice(7, 13), slice(6, 12), slice(1, 3)),
    4: (slice(4, 9), slice(16, 22), slice(1, 4)),
}
"""Liver, right kidney, left kidney and spleen; the patient's right is at high x."""
GREY = {"ct": (40, 110, 170, 170, 130), "mr": (200, 300, 520, 520, 620)}
"""Of the body and of each organ."""


def write_case(folder: Path, case: str, modality: str = "ct", seed: int = 0) -> None:
    """FOLDER/images/CASE.nii.gz and FOLDER/labels/CASE.nii.gz, 32 x 32 x 4 voxels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((32, 32, 4), np.uint8)
    for organ, box in BOXES.items():
        labels[box] = organ
    image = np.asarray(GREY[modality], np.float32)[labels] + rng.normal(0, 8, labels.shape).astype(np.float32)
    image[:2] = image[-2:] = -1000 if modality == "ct" else 0
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, AFFINE), folder / kind / f"{case}.nii.gz")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, hidden ones too, lock files left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
