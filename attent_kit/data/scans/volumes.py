"""NIfTI volumes and label maps, read with every doubt about them turned into a sentence.

Arrays are [X, Y, Z] in the order of the file; what turns them into slices is `attent_kit.data.space.geometry`.
"""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation

from attent_kit.data.scans.grids import apart, in_axis_order, in_words, same_grid
from attent_kit.data.scans.nifti_file import open_nifti, placed_by, require_grid, stored_values
from attent_kit.errors import DataError
from attent_kit.files import write_whole


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


def read_volume(path: Path | str, channel: tuple[int, int] | None = None) -> Volume:
    """An image: [X, Y, Z] float32, finite and not constant. DataError otherwise.

    `channel` (n, count) takes channel n, from 0, of an image [X, Y, Z, count].
    """
    return as_volume(open_nifti(Path(path)), Path(path), channel)


def as_volume(image: nib.Nifti1Pair, path: Path, channel: tuple[int, int] | None = None) -> Volume:
    """The same of an image that is open, or that lies in memory alone: then `path` is what messages call it."""
    require_grid(image, path)
    array = stored_values(image, path, np.float32, channel)
    if not np.isfinite(array).all():
        raise DataError(
            f"{path} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite voxel(s): "
            "replace them, for example by the value of air, and run this again."
        )
    if array.min() == array.max():
        raise DataError(f"{path} is constant, every voxel is {array.flat[0]:g}: leave it out or export it again.")
    return Volume(array, placed_by(image), image.header, path)


def read_labels(path: Path | str, like: Volume | None = None) -> Volume:
    """A label map: [X, Y, Z] integers. With `like` it comes back in the axis order of that image.

    DataError if a value is not an integer, or if a voxel is more than a tenth of its side off that of `like`. A map that
    covers the same voxels in another axis order, such as LAS beside RAS, is the same grid.
    """
    return as_labels(open_nifti(Path(path)), Path(path), like)


def as_labels(image: nib.Nifti1Pair, path: Path, like: Volume | None = None) -> Volume:
    """The same of a label map that is open, or that lies in memory alone: then `path` is what messages call it."""
    require_grid(image, path)
    array = integers(stored_values(image, path, None), path)
    affine = placed_by(image)
    if like is not None:
        turn, turned_affine = in_axis_order(affine, array.shape, like.affine)
        if not same_grid(array.shape, affine, like.array.shape, like.affine):
            distance = apart(array.shape, affine, like.array.shape, like.affine)
            far = f"; a voxel is {distance:.2g} mm off" if np.isfinite(distance) else ""
            raise DataError(
                f"{path} is not on the grid of {like.path}: {in_words(array.shape, affine)}, but the "
                f"image is {in_words(like.array.shape, like.affine)}{far}; resample the labels to the image."
            )
        array, affine = apply_orientation(array, turn), turned_affine
    return Volume(array, affine, image.header, path)


def read_header(path: Path | str) -> tuple[tuple[int, ...], np.ndarray, nib.Nifti1Header]:
    """Shape, affine [4, 4] to mm in RAS, and header; no voxel is read. DataError if it is not a NIfTI file."""
    image = open_nifti(Path(path))
    return image.shape, placed_by(image), image.header


def write_labels(
    path: Path | str, labels: np.ndarray, affine: np.ndarray, header: nib.Nifti1Header | None = None
) -> None:
    """Writes a label map [X, Y, Z] as uint8 NIfTI; the file is whole or not there. RunError if it cannot be written.

    With the `header` of the image that was labelled it is that image's grid in every field: shape, sform, qform, units
    and description. Whatever describes grey values or statistics is cleared.
    """
    content = label_image(labels, affine, header).to_bytes()
    if str(path).lower().endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    write_whole(Path(path), lambda temporary: _write(temporary, content))


def label_image(
    labels: np.ndarray, affine: np.ndarray, header: nib.Nifti1Header | None = None
) -> nib.Nifti1Image | nib.Nifti2Image:
    """A label map [X, Y, Z] as a uint8 image in memory, with the grid of `header` as in `write_labels`."""
    labels, affine = np.asarray(labels, np.uint8), np.asarray(affine, np.float64)
    if header is None:
        image = nib.Nifti1Image(labels, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        return image
    return _image_like(header, labels.reshape(header.get_data_shape()))


def map_image(scores: np.ndarray, header: nib.Nifti1Header) -> nib.Nifti1Image | nib.Nifti2Image:
    """One map [X, Y, Z] or several [X, Y, Z, count] as a float32 image in memory on the grid of `header`."""
    native = header.get_data_shape()
    shape = (*native[:3], scores.shape[3]) if scores.ndim == 4 else native
    return _image_like(header, np.asarray(scores, np.float32).reshape(shape))


def _image_like(header: nib.Nifti1Header, array: np.ndarray) -> nib.Nifti1Image | nib.Nifti2Image:
    made = _header_like(header, array.dtype.type, array.shape)
    kind = nib.Nifti2Image if isinstance(made, nib.Nifti2Header) else nib.Nifti1Image
    return kind(array, made.get_best_affine(), made)


def write_maps(path: Path | str, scores: Iterable[np.ndarray], count: int, header: nib.Nifti1Header) -> None:
    """Writes `count` maps [X, Y, Z] as one float32 .nii.gz on the grid of `header`: [X, Y, Z, count], or 3-D where it is 1.

    They are taken one by one, so that only one of them is in memory. The file is whole or not there, as for labels.
    """
    native = header.get_data_shape()
    header = _header_like(header, np.float32, (*native[:3], count) if count > 1 else native)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as file:
            header.write_to(file)
            for score in scores:
                file.write(np.asfortranarray(score, header.get_data_dtype()).tobytes(order="F"))

    write_whole(Path(path), write)


def _header_like(header: nib.Nifti1Header, dtype: type, shape: tuple[int, ...]) -> nib.Nifti1Header:
    """The header of a single file on the grid of another: `shape` and `dtype` are its own, the grid and the words are kept."""
    kind = nib.Nifti2Header if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header
    # Field by field, since nibabel's own conversion, of a pair to a single file, forgets sform and qform.
    made = kind(endianness=header.endianness)
    for field_name in header:
        if field_name not in ("sizeof_hdr", "magic", "vox_offset"):
            made[field_name] = header[field_name]
    made.extensions[:] = header.extensions[:]
    made.set_data_dtype(dtype)
    made.set_data_shape(shape)
    made.set_slope_inter(1, 0)
    made.set_intent("none", (), "")
    made["cal_min"], made["cal_max"] = 0, 0
    return made


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def integers(array: np.ndarray, path: Path) -> np.ndarray:
    """Label values as uint8 or, where they do not fit, int32. DataError for what cannot be labels."""
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if not np.isfinite(array).all() or np.abs(array - whole).max() > 1e-3:
            raise DataError(
                f"{path} holds values that are not integers, as after linear interpolation: give the label map, "
                "or resample it again with nearest neighbour."
            )
        array = whole
    low, high = int(array.min()), int(array.max())
    if not np.iinfo(np.int32).min <= low <= high <= np.iinfo(np.int32).max:
        raise DataError(
            f"{path} holds values from {low} to {high}, which are not labels: if it is an image, give its label map."
        )
    return array.astype(np.uint8 if low >= 0 and high <= 255 else np.int32, copy=False)
