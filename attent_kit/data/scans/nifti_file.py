"""One NIfTI file: opened, its header checked against the file, its values. Every failure is a sentence with its name."""

import gzip
import logging
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from attent_kit.data.scans.grids import times, turns
from attent_kit.data.scans.limits import MOST_DEFLATED, refuse_too_large
from attent_kit.errors import DataError
from attent_kit.reading import of_git

UNITS = {1: ("metre", 1e3), 2: ("mm", 1.0), 3: ("micron", 1e-3)}
"""Name of the unit of length by its code in xyzt_units, and its length in mm, as ITK takes them; without a code it is mm."""
_UNREADABLE = (
    EOFError,
    OSError,
    OverflowError,
    ValueError,
    zlib.error,
    gzip.BadGzipFile,
    ImageFileError,
    HeaderDataError,
)
_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_GZIP = b"\x1f\x8b"
_SIZES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
"""First number of a file, which is the length of the header."""
_LATEST = 2**26
"""Byte at which voxels may begin at most: what stands before them is read into memory."""
_SLACK = 2**24
"""Bytes behind the last voxel of a compressed file that are still unpacked, for the checksum at its end."""


def open_nifti(path: Path) -> nib.Nifti1Pair:
    """The image, whose header has been read and fits the file. DataError otherwise."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name one .nii or .nii.gz file.")
    with _in_words(
        path, f"{path} is not a readable NIfTI file: convert it to .nii.gz, for DICOM with dcm2niix, or copy it again."
    ):
        header = _look_inside(path)
        with _quiet():
            image = _load(path, header)
    return require_grid(image, path)


def _load(path: Path, header: nib.Nifti1Header | None) -> object:
    """nibabel's image. Where `a.Nii.gz` is asked for, nibabel would look for `a.nii.gz`."""
    ending = _ENDING.search(path.name)
    if ending is None or ending[0] in (ending[0].lower(), ending[0].upper()):
        return nib.load(path)
    if header is None:
        raise ImageFileError("no header")
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind.from_file_map({"image": nib.FileHolder(filename=str(path))})


def require_grid(image: object, path: Path) -> nib.Nifti1Pair:
    """The image; DataError for an image that is not NIfTI, or that lies nowhere."""
    if not isinstance(image, nib.Nifti1Pair):
        raise DataError(f"{path} is {type(image).__name__}, not NIfTI: convert it to .nii.gz.")
    affine = placed_by(image)
    if not np.isfinite(affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9 or not turns(affine):
        raise DataError(f"{path} has an affine that places no volume (a zero or NaN axis): export it again.")
    return image


def placed_by(image: nib.Nifti1Pair) -> np.ndarray:
    """The affine [4, 4] float64 in mm, whatever unit the header counts in."""
    affine = np.array(image.affine, np.float64)
    affine[:3] *= unit_of(image.header)[1]
    return affine


def unit_of(header: nib.Nifti1Header) -> tuple[str, float]:
    """Name of the unit of length, and its length in mm."""
    return UNITS.get(int(header["xyzt_units"]) & 7, UNITS[2])


def stored_values(
    image: nib.Nifti1Pair, path: Path, dtype: type | None, channel: tuple[int, int] | None = None
) -> np.ndarray:
    """[X, Y, Z] as `dtype`, or as stored; of an image [X, Y, Z, count] channel n, where `channel` is (n, count)."""
    shape = image.shape
    if not shape or min(shape) < 1:
        raise DataError(f"{path} is empty, its shape is {times(shape)}: export it again.")
    refuse_too_large(path, shape)
    if channel is not None:
        if len(shape) != 4 or shape[3] != channel[1]:
            raise DataError(
                f"{path} is {times(shape)} voxels, where {channel[1]} channels are needed as a fourth axis: export it again "
                "with all of them."
            )
        shape = shape[:3]
    kept = shape[:3] if all(n == 1 for n in shape[3:]) else shape
    if len(kept) != 3:
        wanted = "split it into one file per frame" if len(kept) > 3 else "a volume of slices is needed"
        raise DataError(f"{path} has {len(kept)} dimensions ({times(shape)}) where 3 are needed: {wanted}.")
    kind = image.get_data_dtype().kind
    if kind not in "iuf":
        raise DataError(f"{path} holds {image.get_data_dtype()} values, not numbers: convert it to grey values.")
    with _in_words(path, _ended(path)):
        name = image.file_map["image"].filename if nib.is_proxy(image.dataobj) else None
        if name is not None and str(name).lower().endswith(".gz"):
            _compare_checksum(image, Path(name))
        if channel is not None:
            array = np.asarray(image.dataobj[..., channel[0]], dtype)
        else:
            array = np.asanyarray(image.dataobj) if dtype is None else image.get_fdata(caching="unchanged", dtype=dtype)
    return array.reshape(kept)


def _look_inside(path: Path) -> nib.Nifti1Header | None:
    """The header, unchecked, if there is one. DataError if the first bytes are not what the ending of the name says, or tell of
    more than the file can hold."""
    name = path.name.lower()
    with path.open("rb") as file:
        start = file.read(544)
    if not start:
        raise DataError(f"{path} is empty, it has no bytes: copy or download it again.")
    if pointer := of_git(path):
        raise DataError(pointer)
    if not _ENDING.search(name):
        return None
    packed = start.startswith(_GZIP)
    if packed and not name.endswith(".gz"):
        raise DataError(f"{path} is compressed, though its name does not say so: rename it to {path.name}.gz.")
    if name.endswith(".gz") and not packed and _header_of(start) is not None:
        raise DataError(f"{path} is not compressed, though its name says so: rename it to {path.name[:-3]}.")
    if packed:
        with gzip.open(path) as unpacked:
            start = unpacked.read(544)
    if (header := _header_of(start)) is not None:
        _refuse_what_cannot_be(header, path, packed)
    return header


def _header_of(start: bytes) -> nib.Nifti1Header | None:
    """The header in the first bytes of a file, unchecked; None if there is none."""
    for size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
        if size in _SIZES and len(start) >= size:
            return _SIZES[size](start[:size], check=False)
    return None


def _refuse_what_cannot_be(header: nib.Nifti1Header, path: Path, packed: bool) -> None:
    offset, size = float(header["vox_offset"]), path.stat().st_size
    if not 0 <= offset <= _LATEST:
        raise DataError(
            f"{path} says that its voxels begin at byte {offset:g}, which is impossible: copy or export it again."
        )
    axes = max(0, min(int(header["dim"][0]), 7))
    shape = tuple(max(0, int(n)) for n in header["dim"][1 : axes + 1])
    most = size * MOST_DEFLATED if packed else size
    if int(header["sform_code"]) <= 0:
        # nibabel would take 1 mm, and a logged line would be all that says so.
        lost = [n for n, size in zip(shape[:3], header["pixdim"][1:4], strict=False) if n > 1 and not abs(size) > 0]
        if lost:
            raise DataError(
                f"{path} calls its voxels {' x '.join(f'{size:g}' for size in header['pixdim'][1:4])} mm large and has no "
                "sform, so that nothing tells how far they are apart: export it again."
            )
    if offset + math.prod(shape) * int(header["bitpix"]) / 8 > most:
        raise DataError(_ended(path, f" (it has {size} bytes, and its header tells of {times(shape)} voxels)"))


def _compare_checksum(image: nib.Nifti1Pair, path: Path) -> None:
    """Reads a compressed file to its end, where zlib compares the checksum: nibabel stops at the last voxel."""
    expected = math.prod(image.shape) * image.get_data_dtype().itemsize + _LATEST + _SLACK
    with gzip.open(path) as file:
        while block := file.read(2**20):
            expected -= len(block)
            if expected < 0:
                raise DataError(
                    f"{path} goes on long after its last voxel: it is damaged, so copy or download it again."
                )


def _ended(path: Path, why: str = "") -> str:
    return f"{path} ends before its last voxel or is damaged{why}: copy or download it again."


@contextmanager
def _quiet() -> Iterator[None]:
    """nibabel logs what it mends in a header to a stream of its own; what matters of that is refused here by ourselves."""
    logger = nib.imageglobals.logger
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _in_words(path: Path, otherwise: str) -> Iterator[None]:
    """What the system says keeps its words; everything else that readers raise on damaged files is one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the spelling of the path.") from error
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno:
            raise DataError(
                f"{path} cannot be read ({error.strerror}): check the file, its rights and its disk."
            ) from error
        raise DataError(otherwise) from error
