"""A label map as a DICOM Segmentation object beside the series that it was made from (PS3.3 A.51), as viewers overlay it.

Binary, one bit a voxel, a frame for each slice of each organ that has any. Patient, study and frame of reference are those of
the series; each organ has its code, its colour and the algorithm that drew it, and each frame the slice that it lies on.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit import __version__
from attent_kit.data.scans.dicom import Series
from attent_kit.data.scans.dicom_file import Plane, instance_uids, planes_of, quiet, read_header, require_pydicom, text
from attent_kit.data.scans.organ_codes import ANATOMICAL, ORGAN_CODES, OWN_SCHEME, SIDES, OrganCode
from attent_kit.errors import DataError
from attent_kit.files import write_whole

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_COPIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "StudyDescription", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip
"""What a segmentation has from the images that it was made from."""
_EMPTY = _COPIED[:4] + _COPIED[5:10] + ("PositionReferenceIndicator",)
"""What has to be there, even if nothing is known."""


class Algorithm(NamedTuple):
    """What drew the labels."""

    name: str
    version: str
    """With whatever tells one training from another."""


class _Slice(NamedTuple):
    """One slice of the series, and the file that it is in."""

    plane: Plane
    sop_class: str
    sop_instance: str


def write_segmentation(
    path: Path,
    labels: np.ndarray,
    organs: Sequence[str],
    series: Series,
    algorithm: Algorithm,
    colours: Sequence[str],
) -> None:
    """Writes labels [X, Y, Z] of classes, n for the n-th of `organs`, on the grid of `read_series(series)`.

    `colours` are '#RRGGBB', one after another for the organs. The file is whole or not there. DataError if the slices lack
    what a segmentation must refer to, RunError if it cannot be written.
    """
    pydicom = require_pydicom()
    slices = _slices(series)
    with quiet():
        made = _head(read_header(series.files[0]), series, algorithm)
        made.SegmentSequence = [
            _segment(n, organ, algorithm, colours[(n - 1) % len(colours)]) for n, organ in enumerate(organs, start=1)
        ]
        frames = [(n, z) for n in range(1, len(organs) + 1) for z in range(len(slices)) if (labels[..., z] == n).any()]
        _add_frames(made, frames or [(1, 0)], labels, slices)
        made.ReferencedSeriesSequence = [_item(
            SeriesInstanceUID=_series_uid(series), ReferencedInstanceSequence=_instances(slices),
        )]  # fmt: skip
        write_whole(path, lambda temporary: pydicom.dcmwrite(temporary, made, enforce_file_format=True))


def require_references(series: Series) -> None:
    """DataError if the slices lack what a segmentation refers to."""
    _slices(series)


def _slices(series: Series) -> list[_Slice]:
    """In the order of the volume."""
    found = []
    for file in series.files:
        header = read_header(file)
        uids = instance_uids(header)
        if not all(uids):
            raise DataError(
                f"{file} has no SOPInstanceUID or no SOPClassUID, to which a segmentation refers: leave --dicom-seg out, or use "
                "the series as it came from the scanner."
            )
        found += [_Slice(plane, *uids) for plane in planes_of(header, file)]
    normal = found[0].plane.normal
    return sorted(found, key=lambda one: float(one.plane.position @ normal))


def _head(source: Any, series: Series, algorithm: Algorithm) -> Any:
    """Everything that is said of the object as a whole."""
    pydicom = require_pydicom()
    now = datetime.now()
    made = pydicom.Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _COPIED:
        if keyword in source:
            setattr(made, keyword, source[keyword].value)
        elif keyword in _EMPTY:
            setattr(made, keyword, "")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not text(made, keyword):
            # Anonymised away. Made from what is left, so that all segmentations of this series agree.
            setattr(made, keyword, pydicom.uid.generate_uid(entropy_srcs=[keyword, _series_uid(series)]))
    made.SOPClassUID, made.SOPInstanceUID = SEGMENTATION, pydicom.uid.generate_uid()
    made.Modality, made.SeriesInstanceUID, made.SeriesNumber = "SEG", pydicom.uid.generate_uid(), 1
    made.InstanceNumber = 1
    made.SeriesDescription = f"attent-kit {algorithm.name}"[:64]
    made.SeriesDate = made.ContentDate = made.InstanceCreationDate = now.strftime("%Y%m%d")
    made.SeriesTime = made.ContentTime = made.InstanceCreationTime = now.strftime("%H%M%S")
    made.Manufacturer, made.ManufacturerModelName = "attent-kit", algorithm.name[:64]
    made.DeviceSerialNumber, made.SoftwareVersions = "0", __version__
    made.ContentLabel, made.ContentDescription = "SEGMENTATION", "For research only"
    made.ContentCreatorName = ""
    made.ImageType = ["DERIVED", "PRIMARY"]
    lossy = text(source, "LossyImageCompression") == "01"
    made.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in source:
                setattr(made, keyword, source[keyword].value)
    made.BurnedInAnnotation = "NO"
    made.SegmentationType, made.SegmentsOverlap = "BINARY", "NO"
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return made


def _segment(order: int, organ: str, algorithm: Algorithm, colour: str) -> Any:
    code = ORGAN_CODES.get(organ)
    kind = (
        _coded(code)
        if code
        else _coded(OrganCode("".join(filter(str.isalnum, organ))[:16] or "organ", organ[:64]), OWN_SCHEME)
    )
    if code and code.side:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(SIDES[code.side])]
    return _item(
        SegmentNumber=order,
        SegmentLabel=organ[:64],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=algorithm.name[:64],
        SegmentedPropertyCategoryCodeSequence=[_coded(ANATOMICAL)],
        SegmentedPropertyTypeCodeSequence=[kind],
        RecommendedDisplayCIELabValue=cielab(colour),
        SegmentationAlgorithmIdentificationSequence=[_item(
            AlgorithmFamilyCodeSequence=[_coded(OrganCode("123110", "Artificial Intelligence"), "DCM")],
            AlgorithmName=algorithm.name[:64],
            AlgorithmVersion=algorithm.version[:64],
            AlgorithmSource="attent-kit",
        )],
    )  # fmt: skip


def _add_frames(made: Any, frames: Sequence[tuple[int, int]], labels: np.ndarray, slices: Sequence[_Slice]) -> None:
    """Pixels, and where each frame lies; `frames` are pairs of a class and a slice."""
    pydicom = require_pydicom()
    first = slices[0].plane
    step = abs(float((slices[-1].plane.position - first.position) @ first.normal)) / max(len(slices) - 1, 1)
    made.Rows, made.Columns = first.shape
    made.NumberOfFrames = len(frames)
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 1, 1, 0
    organization = pydicom.uid.generate_uid()
    made.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    tag = pydicom.datadict.tag_for_keyword
    made.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization, DimensionIndexPointer=tag(pointer),
            FunctionalGroupPointer=tag(group), DimensionDescriptionLabel=label,
        )
        for pointer, group, label in (
            ("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment"),
            ("ImagePositionPatient", "PlanePositionSequence", "Position"),
        )
    ]  # fmt: skip
    made.SharedFunctionalGroupsSequence = [_item(
        PixelMeasuresSequence=[_item(
            PixelSpacing=_decimals([first.spacing[1], first.spacing[0]]),
            SliceThickness=_decimals([first.thickness or step])[0], SpacingBetweenSlices=_decimals([step])[0],
        )],
        PlaneOrientationSequence=[_item(
            ImageOrientationPatient=_decimals([*first.along_row, *first.along_column])
        )],
    )]  # fmt: skip
    used = sorted({z for _, z in frames})
    made.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[_item(DimensionIndexValues=[order, used.index(z) + 1])],
            PlanePositionSequence=[_item(ImagePositionPatient=_decimals(slices[z].plane.position))],
            SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=order)],
            DerivationImageSequence=[_item(
                DerivationCodeSequence=[_coded(OrganCode("113076", "Segmentation"), "DCM")],
                SourceImageSequence=[_source(slices[z])],
            )],
        )
        for order, z in frames
    ]  # fmt: skip
    bits = np.stack([(labels[..., z] == order).T for order, z in frames])
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    made.add_new("PixelData", "OB", packed + b"\0" * (len(packed) % 2))


def _source(one: _Slice) -> Any:
    item = _item(
        ReferencedSOPClassUID=one.sop_class,
        ReferencedSOPInstanceUID=one.sop_instance,
        PurposeOfReferenceCodeSequence=[
            _coded(OrganCode("121322", "Source image for image processing operation"), "DCM")
        ],
    )
    if one.plane.frame is not None:
        item.ReferencedFrameNumber = one.plane.frame + 1
    return item


def _instances(slices: Sequence[_Slice]) -> list[Any]:
    """Each file of the series once."""
    instances = dict.fromkeys((one.sop_class, one.sop_instance) for one in slices)
    return [_item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid) for kind, uid in instances]


def _series_uid(series: Series) -> str:
    """Its SeriesInstanceUID; where anonymisation left none that the files have in common, one made from its first slice."""
    if series.uid:
        return series.uid
    _, first = instance_uids(read_header(series.files[0]))
    return str(require_pydicom().uid.generate_uid(entropy_srcs=["SeriesInstanceUID", first]))


def _coded(code: OrganCode, scheme: str = "SCT") -> Any:
    return _item(CodeValue=code.value, CodingSchemeDesignator=scheme, CodeMeaning=code.meaning)


def _decimals(values: Any) -> list[str]:
    """Numbers as a DS has them, in 16 characters at most."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(value)) for value in values]


def _item(**tags: Any) -> Any:
    made = require_pydicom().Dataset()
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    return made


def cielab(colour: str) -> list[int]:
    """A colour '#RRGGBB' of sRGB as L, a and b under D50, each scaled to 0 to 65535 (PS3.3 C.10.7.1.1).

    By the definition of sRGB in IEC 61966-2-1 with the matrix for D50 of Lindbloom, and CIE 15 for L*a*b*.
    """
    channels = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    )
    x, y, z = (
        value ** (1 / 3) if value > (6 / 29) ** 3 else value / (3 * (6 / 29) ** 2) + 4 / 29
        for value in matrix @ linear / matrix.sum(axis=1)
    )
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    scaled = (lightness / 100, (a + 128) / 255, (b + 128) / 255)
    return [int(round(min(max(value, 0.0), 1.0) * 65535)) for value in scaled]
