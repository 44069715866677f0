"""NIfTI volumes and label maps, read with every doubt about them turned into a sentence.

Arrays are [X, Y, Z] in the order of the file; what turns them into slices is `attent_kit.data.geometry`.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from attent_kit.errors import DataError
from attent_kit.files import write_whole

AFFINE_TOLERANCE = 1e-3
"""Largest difference, in mm, between entries of two affines of the same grid: headers round, patients do not move."""

_UNREADABLE = (EOFError, OSError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError, HeaderDataError)


@dataclass(frozen=True)
class Volume:
    """An image or a label map as stored, with the grid that places it in the patient."""

    array: np.ndarray = field(repr=False)
    """[X, Y, Z], float32 for an image, an integer type for a label map."""
    affine: np.ndarray
    """[4, 4] float64, voxel index to mm in RAS."""
    header: nib.Nifti1Header = field(repr=False)
    path: Path

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between voxel centres along X, Y, Z."""
        x, y, z = nib.affines.voxel_sizes(self.affine)
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """Three letters, the patient's side that each axis points to: 'RAS', 'LPS', ..."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def placed(self) -> bool:
        """Whether the header says where the patient's right is (a qform or an sform code above 0)."""
        return int(self.header["qform_code"]) > 0 or int(self.header["sform_code"]) > 0


def read_volume(path: Path | str) -> Volume:
    """An image: [X, Y, Z] float32, finite and not constant. DataError otherwise."""
    image = _open(Path(path))
    array = _values(image, Path(path), np.float32)
    if not np.isfinite(array).all():
        raise DataError(
            f"{path} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite voxel(s): "
            "replace them, for example by the value of air, and run this again."
        )
    if array.min() == array.max():
        raise DataError(f"{path} is constant, every voxel is {array.flat[0]:g}: leave it out or export it again.")
    return Volume(array, np.asarray(image.affine, np.float64), image.header, Path(path))


def read_labels(path: Path | str, like: Volume | None = None) -> Volume:
    """A label map: [X, Y, Z] integers. With `like` it comes back in the axis order of that image.

    DataError if a value is no integer, or if the grid (shape, affine within 1e-3 mm) is not the one of `like`. A map
    that covers the same voxels in another axis order, such as LAS beside RAS, is the same grid.
    """
    path = Path(path)
    image = _open(path)
    array = _integers(_values(image, path, None), path)
    affine = np.asarray(image.affine, np.float64)
    if like is not None:
        turn = ornt_transform(io_orientation(affine), io_orientation(like.affine))
        turned = apply_orientation(array, turn)
        turned_affine = affine @ nib.orientations.inv_ornt_aff(turn, array.shape)
        if turned.shape != like.array.shape or np.abs(turned_affine - like.affine).max() > AFFINE_TOLERANCE:
            raise DataError(
                f"{path} is not on the grid of {like.path}: {_grid_in_words(array.shape, affine)}, but the "
                f"image is {_grid_in_words(like.array.shape, like.affine)}; resample the labels to the image."
            )
        array, affine = turned, turned_affine
    return Volume(array, affine, image.header, path)


def write_labels(
    path: Path | str, labels: np.ndarray, affine: np.ndarray, header: nib.Nifti1Header | None = None
) -> None:
    """Writes a label map [X, Y, Z] as uint8 NIfTI; the file is whole or not there. RunError if it cannot be written.

    With the `header` of the image that was labelled, its sform, qform, units and description are kept as they are.
    """
    labels, affine = np.asarray(labels, np.uint8), np.asarray(affine, np.float64)
    if header is None:
        image = nib.Nifti1Image(labels, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
    else:
        header = header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0
        image = nib.Nifti1Image(labels, None, header)
    content = image.to_bytes()
    if str(path).endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    write_whole(Path(path), lambda temporary: _write(temporary, content))


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _open(path: Path) -> nib.Nifti1Pair:
    if not path.exists():
        raise DataError(f"{path} does not exist: check the spelling of the path.")
    if path.is_dir():
        raise DataError(f"{path} is a folder: name one .nii or .nii.gz file.")
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise DataError(
            f"{path} is not a readable NIfTI file: convert it to .nii.gz, for DICOM with dcm2niix, or copy it again."
        ) from error
    if not isinstance(image, nib.Nifti1Pair):
        raise DataError(f"{path} is {type(image).__name__}, not NIfTI: convert it to .nii.gz.")
    affine = image.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path} has an affine that places no volume (a zero or NaN axis): export it again.")
    return image


def _values(image: nib.Nifti1Pair, path: Path, dtype: type | None) -> np.ndarray:
    shape = image.shape
    if 0 in shape or not shape:
        raise DataError(f"{path} is empty, its shape is {_times(shape)}: export it again.")
    kept = shape[:3] if all(n == 1 for n in shape[3:]) else shape
    if len(kept) != 3:
        wanted = "split it into one file a frame" if len(kept) > 3 else "a volume of slices is needed"
        raise DataError(f"{path} has {len(kept)} dimensions ({_times(shape)}) where 3 are needed: {wanted}.")
    kind = image.get_data_dtype().kind
    if kind not in "iuf":
        raise DataError(f"{path} holds {image.get_data_dtype()} values, not numbers: convert it to grey values.")
    try:
        if path.name.endswith(".gz"):
            # nibabel stops at the last voxel, before the checksum; zlib compares it only at the end of the stream.
            with gzip.open(path) as file:
                while file.read(2**24):
                    pass
        array = np.asanyarray(image.dataobj) if dtype is None else image.get_fdata(caching="unchanged", dtype=dtype)
    except _UNREADABLE as error:
        raise DataError(f"{path} ends before its last voxel or is damaged: copy or download it again.") from error
    return array.reshape(kept)


def _integers(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if not np.isfinite(array).all() or np.abs(array - whole).max() > 1e-3:
            raise DataError(
                f"{path} holds values that are no integers, as after linear interpolation: give the label map, "
                "or resample it again with nearest neighbour."
            )
        array = whole
    low, high = int(array.min()), int(array.max())
    if not np.iinfo(np.int32).min <= low <= high <= np.iinfo(np.int32).max:
        raise DataError(f"{path} holds values from {low} to {high}, which are no labels: is it an image?")
    return array.astype(np.uint8 if low >= 0 and high <= 255 else np.int32, copy=False)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def _grid_in_words(shape: tuple[int, ...], affine: np.ndarray) -> str:
    spacing = " x ".join(f"{s:.4g}" for s in nib.affines.voxel_sizes(affine))
    origin = ", ".join(f"{o:.2f}" for o in affine[:3, 3])
    return f"{_times(shape)} voxels of {spacing} mm, {''.join(nib.aff2axcodes(affine))}, origin ({origin})"
