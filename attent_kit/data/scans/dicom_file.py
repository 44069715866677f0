"""One DICOM file: what its header says about the slices in it, and their values. Every failure is a sentence with its name.

Positions and directions are millimetres in the patient as DICOM has them, x to the left, y to the back, z to the head
(PS3.3 C.7.6.2); the names of the tags are those of the standard. Files are never trusted: what pydicom and its decoders
raise on damaged ones has no common base class, so everything that they raise becomes a DataError.
"""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from attent_kit.data.scans.codestreams import HARMLESS, CodedSize, coded_size, unpacked_rle
from attent_kit.data.scans.limits import refuse_too_large
from attent_kit.errors import ConfigError, DataError

NOT_IMAGES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "REG", "FID", "DOC", "PLAN", "AU")
"""Modalities whose files hold no image, or one that is computed from images."""
MOST_DEFLATED_BYTES = 2**31
"""Bytes that a file may unpack to which is deflated as a whole."""
LARGEST = 32767
"""Most voxels along an axis of a NIfTI grid."""


@dataclass(frozen=True)
class Plane:
    """Where one slice lies, and how its stored values become grey values."""

    path: Path
    frame: int | None
    """Counts from 0 in a file of several frames."""
    shape: tuple[int, int]
    """Rows and columns."""
    position: np.ndarray = field(repr=False)
    """[3] mm, centre of the first voxel."""
    along_row: np.ndarray = field(repr=False)
    """[3], unit vector in which the column index grows."""
    along_column: np.ndarray = field(repr=False)
    """[3], unit vector in which the row index grows."""
    spacing: tuple[float, float]
    """mm between columns, then mm between rows: along X and Y of a volume."""
    slope: float
    intercept: float
    inverted: bool
    """MONOCHROME1: the highest stored value is black."""
    thickness: float | None
    """SliceThickness in mm, which says nothing about the distance to the next slice."""

    @property
    def name(self) -> str:
        return str(self.path) if self.frame is None else f"{self.path} (frame {self.frame + 1})"

    @property
    def normal(self) -> np.ndarray:
        """[3], unit vector across the slice."""
        across = np.cross(self.along_row, self.along_column)
        return across / np.linalg.norm(across)


def require_pydicom() -> ModuleType:
    """pydicom; ConfigError that says what to install where it is missing."""
    try:
        import pydicom
        import pydicom.encaps
        import pydicom.pixels
    except Exception as error:  # also what its decoders raise when pydicom looks for them
        raise ConfigError(
            f"DICOM needs pydicom, which cannot be imported ({_reason(error)}): pip install 'attent-kit[dicom]'."
        ) from error
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether the first bytes are those of DICOM, with the preamble of PS3.10 or, as in old exports, without. OSError."""
    with path.open("rb") as file:
        start = file.read(132)
    # Without preamble a file begins with an element of group 2 or 8 in little endian, whose number is small.
    bare = len(start) >= 8 and start[:2] in (b"\x02\x00", b"\x08\x00") and start[3] == 0
    return start[128:132] == b"DICM" or bare


def read_header(path: Path) -> Any:
    """The pydicom data set of a file without its pixels. DataError if it cannot be read."""
    return read_whole(path, stop_before_pixels=True)


def text(dataset: Any, keyword: str) -> str:
    """The value of a tag in one line, "" where it is missing or not text."""
    try:
        with quiet():
            value = dataset.get(keyword)
        words = "" if value is None or isinstance(value, bytes) else str(value)
    except Exception:
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())[:200]


def instance_uids(dataset: Any) -> tuple[str, str]:
    """SOPClassUID and SOPInstanceUID; those of the meta header where anonymisation has emptied them. "" where there is none."""
    meta = getattr(dataset, "file_meta", {})
    kind = text(dataset, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID")
    return kind, text(dataset, "SOPInstanceUID") or text(meta, "MediaStorageSOPInstanceUID")


def number(dataset: Any, keyword: str) -> float | None:
    """The value of a tag with one number; None where it is missing or not one number."""
    values = _values(dataset, keyword)
    return values[0] if values is not None and len(values) == 1 and np.isfinite(values[0]) else None


def has_image(dataset: Any, path: Path) -> bool:
    """Whether a header is that of an image. DataError if too little of it is left to tell."""
    modality = text(dataset, "Modality")
    if modality.upper() in NOT_IMAGES or "MediaStorageDirectory" in _storage(dataset):
        return False
    if "Rows" in dataset:
        return True
    if modality.upper() in ("", "CT", "MR", "PT", "NM", "US", "XA", "CR", "DX", "OT"):
        raise DataError(f"{path} ends within its header or is damaged: copy it again, or remove it.")
    return False


def planes_of(dataset: Any, path: Path) -> list[Plane]:
    """The slices of a file, one but for enhanced multi-frame. DataError for a tag that is missing or senseless."""
    if not has_image(dataset, path):
        raise DataError(
            f"{path} holds no image (its modality is {text(dataset, 'Modality') or 'not given'}): "
            "name the folder of the images."
        )
    frames = 1
    if _given(dataset, "NumberOfFrames"):
        frames = _integer(dataset, "NumberOfFrames", path)
    if _given(dataset, "PerFrameFunctionalGroupsSequence"):
        return [_plane(dataset, path, frame) for frame in range(_groups(dataset, frames, path))]
    if frames != 1:
        raise DataError(
            f"{path} holds {frames} frames without a position for each: convert it to .nii.gz, for example with dcm2niix."
        )
    return [_plane(dataset, path, None)]


def read_planes(path: Path) -> Iterator[tuple[Plane, np.ndarray]]:
    """Each slice of a file with its grey values [rows, columns] float32, as RescaleSlope and -Intercept make them."""
    dataset = read_whole(path)
    planes = planes_of(dataset, path)
    refuse_too_large(path, (len(planes), *planes[0].shape))
    stored = _stored_values(dataset, path, planes)
    expected = (len(planes), *planes[0].shape)
    if stored.size != np.prod(expected):
        raise DataError(f"{path} decodes to {stored.shape} values, not to {expected}: copy or export it again.")
    if stored.dtype.kind not in "iu":
        raise DataError(f"{path} holds {stored.dtype} values, not integers: convert it to .nii.gz, as dcm2niix does.")
    for plane, values in zip(planes, stored.reshape(expected), strict=True):
        if plane.inverted:
            bits = _integer(dataset, "BitsStored", path)
            # Signed values run from -2^(bits - 1) to 2^(bits - 1) - 1, unsigned ones from 0 to 2^bits - 1.
            values = (-1 if stored.dtype.kind == "i" else 2**bits - 1) - values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            grey = (values * plane.slope + plane.intercept).astype(np.float32)
        if not np.isfinite(grey).all():
            raise DataError(
                f"{plane.name}: RescaleSlope {plane.slope:g} and RescaleIntercept {plane.intercept:g} lead to values "
                "that are not numbers: export it again."
            )
        yield plane, grey


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings: pydicom has one for every oddity of a header, and those that matter here are errors of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_whole(path: Path, *, stop_before_pixels: bool = False) -> Any:
    """The pydicom data set of a file. DataError if it cannot be read."""
    pydicom = require_pydicom()
    try:
        with quiet(), path.open("rb") as file:
            return pydicom.dcmread(_Bounded(file, path), force=True, stop_before_pixels=stop_before_pixels)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check the file and its rights.") from error
    except Exception as error:
        raise DataError(
            f"{path} is not a readable DICOM file ({_reason(error)}): copy it again, or remove it."
        ) from error


class _Bounded:
    """A file for pydicom, which reads all that is left at once only where it is deflated, and unpacks that in one piece."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        if size is None or size < 0:
            _refuse_deflated_without_end(content, self._path)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _refuse_deflated_without_end(packed: bytes, path: Path) -> None:
    """DataError for what unpacks to more than any slice has."""
    unpacking, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while packed and not unpacking.eof:
        size += len(unpacking.decompress(packed, 2**24))
        packed = unpacking.unconsumed_tail
        if size > MOST_DEFLATED_BYTES:
            raise DataError(
                f"{path} unpacks to more than {MOST_DEFLATED_BYTES / 2**30:.0f} GiB, which no slice has: leave it out."
            )


def _refuse_other_sizes(dataset: Any, path: Path, planes: list[Plane]) -> None:
    """DataError for compressed pixels that decode to something else than the header says: how large, nobody knows."""
    pydicom = require_pydicom()
    syntax = pydicom.uid.UID(text(dataset.file_meta, "TransferSyntaxUID"))
    if not syntax.is_valid or syntax.is_private or not syntax.is_compressed or syntax.is_deflated:
        return
    rows, columns = planes[0].shape
    for frame in pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=len(planes)):
        if syntax == pydicom.uid.RLELossless:
            stored = rows * columns * _integer(dataset, "BitsAllocated", path) // 8
            # Each row may be padded to an even number of bytes.
            if (size := unpacked_rle(frame)) > 2 * stored and (
                len(frame) > HARMLESS or len(frame) > 2 * stored + 2**10
            ):
                raise DataError(f"{path} unpacks to {size} bytes where its header tells of {stored}: export it again.")
            continue
        found = coded_size(frame)
        if found != CodedSize(rows, columns, 1):
            said = "say nothing of their size" if found is None else f"are {' x '.join(map(str, found))}"
            raise DataError(
                f"{path} has compressed pixels that {said}, where its header tells of {rows} x {columns} grey ones: copy or "
                "export it again."
            )


def _plane(dataset: Any, path: Path, frame: int | None) -> Plane:
    measures = functional_group(dataset, frame, "PixelMeasuresSequence")
    position = numbers(functional_group(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient", 3, path)
    orientation = numbers(
        functional_group(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, path
    )
    rows_apart, columns_apart = numbers(measures, "PixelSpacing", 2, path)
    if not (1e-3 <= rows_apart <= 1e3 and 1e-3 <= columns_apart <= 1e3):
        raise _senseless(path, "PixelSpacing", f"{rows_apart:g} x {columns_apart:g} mm")
    if max(abs(x) for x in position) > 1e6:
        raise _senseless(path, "ImagePositionPatient", position)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    # Rounded to two decimals a direction is off by less than a hundredth.
    if max(abs(length - 1) for length in lengths) > 1e-2 or abs(row @ column) > 1e-2:
        raise _senseless(path, "ImageOrientationPatient", orientation)
    shape = _integer(dataset, "Rows", path), _integer(dataset, "Columns", path)
    samples = _integer(dataset, "SamplesPerPixel", path) if "SamplesPerPixel" in dataset else 1
    colours = text(dataset, "PhotometricInterpretation").upper()
    if samples != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(
            f"{path} is not a grey image (PhotometricInterpretation '{colours}', SamplesPerPixel {samples}): "
            "leave it out; a series of slices is MONOCHROME2."
        )
    values = functional_group(dataset, frame, "PixelValueTransformationSequence")
    if _given(dataset, "ModalityLUTSequence"):
        raise DataError(f"{path} maps its values by a ModalityLUTSequence: convert it to .nii.gz, as dcm2niix does.")
    slope, intercept = (
        numbers(values, keyword, 1, path)[0] if keyword in values else default
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0:
        raise _senseless(path, "RescaleSlope", slope)
    return Plane(
        path, frame, shape, np.array(position), row / lengths[0], column / lengths[1], (columns_apart, rows_apart),
        slope, intercept, colours == "MONOCHROME1", number(measures, "SliceThickness"),
    )  # fmt: skip


def _groups(dataset: Any, frames: int, path: Path) -> int:
    """Number of frames, which must be that of their functional groups."""
    try:
        with quiet():
            described = len(dataset["PerFrameFunctionalGroupsSequence"].value)
    except Exception:
        described = 0
    if described != frames:
        raise DataError(f"{path} has {frames} frame(s) and describes {described}: copy or export it again.")
    return frames


def functional_group(dataset: Any, frame: int | None, sequence: str) -> Any:
    """The data set with the tags of a functional group: of the frame, else shared by all, else the file itself."""
    if frame is not None:
        for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
            try:
                with quiet():
                    return dataset[groups].value[index][sequence].value[0]
            except Exception:
                continue
    return dataset


def _stored_values(dataset: Any, path: Path, planes: list[Plane]) -> np.ndarray:
    pydicom = require_pydicom()
    if not _given(dataset, "PixelData"):
        raise DataError(f"{path} has no PixelData, or ends before it: copy it again, or leave it out.")
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    if not syntax:
        # Old exports have no meta header. Then nothing can say that the pixels are compressed.
        implicit, _ = dataset.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    name = syntax
    try:
        with quiet():
            name = pydicom.uid.UID(syntax).name
            decoder = pydicom.pixels.get_decoder(syntax)
    except Exception:
        raise DataError(
            f"{path} is stored as '{name}', which is not read here: convert it, for example with dcm2niix."
        ) from None
    if not decoder.is_available:
        raise ConfigError(f"{path} is compressed as '{name}': to decode it, pip install 'attent-kit[dicom]'.")
    if syntax == pydicom.uid.RLELossless:
        # pylibjpeg-rle ends on some damaged streams in a panic of Rust, which is not an Exception and writes to stderr.
        dataset.pixel_array_options(decoding_plugin="pydicom")
    try:
        with quiet():
            _refuse_other_sizes(dataset, path, planes)
            return np.asarray(dataset.pixel_array)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} has pixels that end too early or are damaged ({_reason(error)}): copy it again."
        ) from error


def _given(dataset: Any, keyword: str) -> bool:
    """Whether a tag is there and holds something: an empty sequence or count says nothing."""
    try:
        with quiet():
            value = dataset[keyword].value
    except Exception:
        return keyword in dataset
    return value is not None and not (hasattr(value, "__len__") and len(value) == 0)


def _values(dataset: Any, keyword: str) -> list[float] | None:
    """The numbers of a tag; None where it is missing or holds something else."""
    try:
        with quiet():
            value = dataset[keyword].value
        if value is None or isinstance(value, bytes | str):
            return None
        return [float(x) for x in (value if hasattr(value, "__len__") else [value])]
    except Exception:
        return None


def numbers(dataset: Any, keyword: str, count: int, path: Path) -> list[float]:
    """The values of a tag, `count` of them, finite. DataError if it is missing or holds something else."""
    values = _values(dataset, keyword)
    if values is None and keyword not in dataset:
        raise DataError(
            f"{path} has no {keyword}, so that nothing tells where its voxels lie: export the series again with it."
        )
    if values is None or len(values) != count or not np.isfinite(values).all():
        raise _senseless(path, keyword, text(dataset, keyword))
    return values


def _integer(dataset: Any, keyword: str, path: Path) -> int:
    (value,) = numbers(dataset, keyword, 1, path)
    if value != int(value) or not 1 <= value <= LARGEST:
        raise _senseless(path, keyword, value)
    return int(value)


def _senseless(path: Path, keyword: str, value: Any) -> DataError:
    shown = ", ".join(f"{x:g}" for x in value) if isinstance(value, list) else value
    return DataError(
        f"{path}: its {keyword} is '{shown}', which is impossible: export the series again, or leave it out."
    )


def _storage(dataset: Any) -> str:
    """Name of the kind of object, as the meta header has it."""
    try:
        with quiet():
            return str(dataset.file_meta["MediaStorageSOPClassUID"].value.keyword)
    except Exception:
        return ""


def _reason(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0][:160].rstrip(".:")
    return first or type(error).__name__
