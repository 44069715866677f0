"""Volumes for chaos.toml: one set of label values, the body alone and in the middle, written as NIfTI below OUT.

    python benchmarks/chaos.py OUT --mr CHAOS_IMAGES CHAOS_LABELS \\
        --ct IMAGES LABELS "liver=6,right kidney=2,left kidney=3,spleen=1,*=0"

--ct may be given several times, since the CT comes from data sets with label values of their own; IMAGES is a NIfTI file, a
folder of them or the folder of a DICOM series. No label is looked at to find the body.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from attent_kit.data.scans.dicom import read_series
from attent_kit.data.scans.volumes import read_volume
from attent_kit.data.sets.labelmap import TASK_ORGANS, LabelMap

CT_BODY = -250.0
"""HU above which a voxel may be body."""
MR_BODY = 0.035
"""The same for MR, as a part of the 99.5th percentile."""
SLICE = np.ones((3, 3, 1), bool)


def body_of(image: np.ndarray, threshold: float) -> np.ndarray:
    """The largest part above the threshold, [X, Y, Z] with slices along Z, filled slice by slice: no table, no noise."""
    parts, count = ndimage.label(ndimage.binary_opening(image > threshold, SLICE, iterations=2))
    if count == 0:
        return np.ones(image.shape, bool)
    sizes = ndimage.sum_labels(np.ones_like(parts), parts, np.arange(1, count + 1))
    padded = np.pad(parts == 1 + np.argmax(sizes), ((6, 6), (6, 6), (0, 0)))
    body = ndimage.binary_closing(padded, SLICE, iterations=5)[6:-6, 6:-6]
    return np.stack([ndimage.binary_fill_holes(body[..., z]) for z in range(body.shape[2])], axis=2)


def middle(body: np.ndarray) -> tuple[float, float]:
    """Centre of the body's box, X and Y: the median over slices, so that an arm in some of them does not move it."""
    boxes = []
    for z in range(body.shape[2]):
        if body[..., z].sum() > 100:
            x, y = (np.flatnonzero(body[..., z].any(axis)) for axis in (1, 0))
            boxes.append((x[0] + x[-1], y[0] + y[-1]))
    x, y = np.median(boxes, axis=0) / 2
    return float(x), float(y)


def write(out: Path, case: str, image: np.ndarray, labels: np.ndarray, affine: np.ndarray, modality: str) -> None:
    """Image and labels of a case, with air around the body and margins that put it in the middle."""
    ct = modality == "ct"
    air = -1024.0 if ct else 0.0
    body = body_of(image, CT_BODY if ct else MR_BODY * np.percentile(image, 99.5))
    image = np.where(ndimage.binary_dilation(body, SLICE), np.maximum(image, air), air)
    moves = [round(2 * c - (n - 1)) for c, n in zip(middle(body), image.shape[:2], strict=True)]
    margins = [(max(-move, 0), max(move, 0)) for move in moves] + [(0, 0)]
    affine = affine.copy()
    affine[:3, 3] = (affine @ [-margins[0][0], -margins[1][0], 0, 1])[:3]
    for folder, array in (
        ("images", np.pad(image, margins, constant_values=air).astype(np.int16)),
        ("labels", np.pad(labels, margins).astype(np.uint8)),
    ):
        (out / modality / folder).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), out / modality / folder / f"{case}.nii.gz")


def one(out: Path, image: Path, labels: Path, organs: LabelMap, modality: str) -> None:
    """One case; the labels may lie in another axis order than the image."""
    volume = read_series(image)[0] if image.is_dir() else read_volume(image)
    drawn = nib.load(labels)
    turn = ornt_transform(io_orientation(drawn.affine), io_orientation(volume.affine))
    array = apply_orientation(np.asarray(drawn.dataobj).astype(np.int64), turn)
    if not np.allclose(drawn.affine @ inv_ornt_aff(turn, drawn.shape), volume.affine, atol=1e-2):
        raise SystemExit(f"{labels} does not lie on the grid of {image}.")
    case = image.name.partition(".")[0]
    write(out, case, np.asarray(volume.array, np.float32), organs.apply(array, str(labels)), volume.affine, modality)
    print(f"{modality} {case}")


def cases(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Pairs of files: of two folders of NIfTI by name, or the two themselves."""
    found = sorted(images.glob("*.nii*")) if images.is_dir() else []
    return [(image, labels / image.name) for image in found] or [(images, labels)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mr", nargs=2, type=Path, required=True)
    parser.add_argument("--ct", nargs=3, action="append", required=True)
    given = parser.parse_args()
    task = LabelMap.of({organ: value for value, organ in enumerate(TASK_ORGANS, start=1)})
    for pair in cases(*given.mr):
        one(given.out, *pair, task, "mr")
    for images, labels, organs in given.ct:
        for pair in cases(Path(images), Path(labels)):
            one(given.out, *pair, LabelMap.parse(organs), "ct")
