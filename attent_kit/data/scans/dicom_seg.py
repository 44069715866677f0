"""DICOM Segmentation objects as label maps (PS3.3 A.51 and C.8.20): each frame a plane of a segment, each segment an organ.

A frame belongs to the slice at its position, and the slice that it names as its source has to be that one; the order of
frames means nothing, and a plane without any voxel of a segment has no frame. Binary, fractional and label map are read.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit.data.scans.dicom import Series
from attent_kit.data.scans.dicom_file import (
    functional_group,
    instance_uids,
    number,
    numbers,
    quiet,
    read_header,
    read_whole,
    require_pydicom,
    text,
)
from attent_kit.data.scans.grids import rounding
from attent_kit.data.scans.organ_codes import organ_coded
from attent_kit.data.scans.volumes import Volume
from attent_kit.errors import DataError

CLASSES = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.[47](?![0-9.])")
"""SOP class UIDs of segmentations and of label maps."""
MOST_SEGMENTS = 255


class Segment(NamedTuple):
    """One structure of a segmentation."""

    number: int
    label: str
    """SegmentLabel, as somebody wrote it."""
    organ: str | None
    """What its codes say, where they are known here."""


@dataclass(frozen=True)
class SegmentationFile:
    """A segmentation object. None of its frames is read yet."""

    path: Path
    series: str
    """SeriesInstanceUID of the images that it refers to; "" if it names none."""
    segments: tuple[Segment, ...]
    instances: frozenset[str] = frozenset()
    """SOPInstanceUIDs of those images."""
    drawn_by: str = ""
    """Name of the algorithm that drew its segments without anybody's help; "" if a person had a hand in each."""

    def refers_to(self, series: Series) -> bool:
        """Whether it was drawn on this series, by the UID of that or, where anonymisation left none, by those of its slices."""
        if self.series and self.series == series.uid:
            return True
        return instance_uids(read_header(series.files[0]))[1] in self.instances


def find_segmentations(place: Path | str) -> list[SegmentationFile]:
    """The segmentation objects in a file or below a folder, sorted by path. DataError for one that cannot be read."""
    place = Path(place)
    return [_segmentation(path) for path in _files(place) if _is_segmentation(path)]


def read_segmentation(
    found: SegmentationFile, series: Series, image: Volume, values: Mapping[int, int]
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Labels [X, Y, Z] uint8 on the grid of `image`, the volume of `series`; decisions and doubts, a sentence each.

    `values` has the label of each segment that is wanted, by its number; where two share voxels the smaller label gets them,
    and a doubt says so. DataError for a frame that does not lie on a slice, or lies on another than the one it refers to.
    """
    dataset = read_whole(found.path)
    places = _Places(dataset, found.path, series, image)
    labels = np.zeros(image.array.shape, np.uint8)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    rule = _Rule.of(dataset, found.path)
    for frame, pixels in enumerate(_frames(dataset, found.path)):
        for segment, mask in rule.masks(dataset, frame, pixels, values):
            where = places.of(frame, mask)
            there, value = labels[where], values[segment]
            for other in np.unique(there[(there != 0) & (there != value)]):
                shared[min(value, int(other)), max(value, int(other))] += int((there == other).sum())
            labels[where] = np.where((there == 0) | (there > value), value, there)
    names = {value: _called(found, segment) for segment, value in values.items()}
    automatic = [f"{found.path.name} was drawn by {found.drawn_by}, not by an expert."] if found.drawn_by else []
    doubts = [
        *automatic,
        *(
            f"{count} voxels are in the segments {names[one]} and {names[other]}, and are given to {names[one]}."
            for (one, other), count in sorted(shared.items())
        ),
    ]
    return (
        labels,
        (f"labels are {len(values)} segments of {found.path.name}, placed by position.", *rule.said),
        tuple(doubts),
    )


class _Rule:
    """How stored values become masks of segments."""

    def __init__(self, kind: str, threshold: float, said: tuple[str, ...]) -> None:
        self.kind, self.threshold, self.said = kind, threshold, said

    @classmethod
    def of(cls, dataset: Any, path: Path) -> "_Rule":
        kind = text(dataset, "SegmentationType").upper()
        if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise DataError(f"{path} has the SegmentationType '{kind}', which is not read here: export it as BINARY.")
        if kind != "FRACTIONAL":
            return cls(kind, 0.5, ())
        most = number(dataset, "MaximumFractionalValue") or 255.0
        what = text(dataset, "SegmentationFractionalType").lower() or "fractional"
        least = int(np.ceil(most / 2))
        return cls(kind, least, (f"a {what} segmentation: values from {least} of {most:g} are the organ.",))

    def masks(
        self, dataset: Any, frame: int, pixels: np.ndarray, values: Mapping[int, int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Number of a wanted segment and its mask [rows, columns], of every one that the frame holds."""
        if self.kind == "LABELMAP":
            yield from ((segment, pixels == segment) for segment in values if (pixels == segment).any())
            return
        group = functional_group(dataset, frame, "SegmentIdentificationSequence")
        segment = number(group, "ReferencedSegmentNumber")
        if segment is not None and int(segment) in values:
            yield int(segment), pixels >= self.threshold


class _Places:
    """Where the pixels of frames lie in an image."""

    def __init__(self, dataset: Any, path: Path, series: Series, image: Volume) -> None:
        self.dataset, self.path, self.image = dataset, path, image
        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and to the back
        self.from_mm = np.linalg.inv(to_ras @ image.affine)
        self.slice_of = _slices(series, image)
        self.same_frame = _same_frame_of_reference(dataset, series)

    def of(self, frame: int, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices [N] along X, Y and Z of the pixels of a mask [rows, columns]."""
        rows, columns = np.nonzero(mask)
        origin, along_row, along_column = self._grid(frame, mask.shape)
        voxels = origin[:, None] + along_row[:, None] * columns + along_column[:, None] * rows
        outside = (voxels < 0) | (voxels >= np.array(self.image.array.shape)[:, None])
        if outside.any():
            raise DataError(
                f"{self._name(frame)} has voxels outside of the image {self.image.path}: it belongs to another series, so move "
                "it there, or leave it out."
            )
        return voxels[0], voxels[1], voxels[2]

    def _grid(self, frame: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxel [3] of the first pixel, and the steps [3] to the next column and to the next row, whole numbers."""
        referred = self._referred(frame)
        where = functional_group(self.dataset, frame, "PlanePositionSequence")
        if "ImagePositionPatient" not in where or not (self.same_frame or referred):
            return self._by_reference(frame, shape, referred)
        position = numbers(where, "ImagePositionPatient", 3, self.path)
        turn = functional_group(self.dataset, frame, "PlaneOrientationSequence")
        directions = numbers(turn, "ImageOrientationPatient", 6, self.path)
        measures = functional_group(self.dataset, frame, "PixelMeasuresSequence")
        rows_apart, columns_apart = numbers(measures, "PixelSpacing", 2, self.path)
        origin = self.from_mm @ [*position, 1.0]
        steps = (
            self.from_mm[:3, :3]
            @ np.array([np.array(directions[:3]) * columns_apart, np.array(directions[3:]) * rows_apart]).T
        )
        exact = np.column_stack(
            [origin[:3], origin[:3] + steps[:, 0] * (shape[1] - 1), origin[:3] + steps[:, 1] * (shape[0] - 1)]
        )
        whole = np.column_stack([np.rint(origin[:3]), np.rint(steps)])
        ends = np.column_stack(
            [whole[:, 0], whole[:, 0] + whole[:, 1] * (shape[1] - 1), whole[:, 0] + whole[:, 2] * (shape[0] - 1)]
        )
        off = float((np.abs(exact - ends) * np.array(self.image.spacing)[:, None]).max())
        if off > rounding(self.image.affine) or (np.abs(whole[:, 1:]).sum(axis=0) != 1).any():
            raise DataError(
                f"{self._name(frame)} does not lie on a slice of {self.image.path}: they are {off:.2g} mm apart; resample "
                "the segmentation to the image."
            )
        self._agree(frame, whole, referred)
        first, along_row, along_column = whole.astype(int).T
        return first, along_row, along_column

    def _agree(self, frame: int, whole: np.ndarray, referred: set[int]) -> None:
        in_one_slice = not whole[2, 1:].any()
        if referred and in_one_slice and int(whole[2, 0]) not in referred:
            raise DataError(
                f"{self._name(frame)} lies at slice {int(whole[2, 0]) + 1} of {self.image.path} and names slice "
                f"{min(referred) + 1} as its source: export it again."
            )

    def _by_reference(
        self, frame: int, shape: tuple[int, ...], referred: set[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns, rows, _ = self.image.array.shape
        if len(referred) != 1 or shape != (rows, columns):
            raise DataError(
                f"{self._name(frame)} has no position in the frame of reference of {self.image.path}, and names none of its "
                "slices as its source, so nothing tells where it lies: export it again with the position of each frame."
            )
        return np.array([0, 0, *referred]), np.array([1, 0, 0]), np.array([0, 1, 0])

    def _referred(self, frame: int) -> set[int]:
        """Slices that a frame names as its source, as far as they are of this series."""
        derived = functional_group(self.dataset, frame, "DerivationImageSequence")
        sources = _items(derived, "SourceImageSequence")
        uids = (text(source, "ReferencedSOPInstanceUID") for source in sources)
        return {self.slice_of[uid] for uid in uids if uid in self.slice_of}

    def _name(self, frame: int) -> str:
        return f"{self.path} (frame {frame + 1})"


def _segmentation(path: Path) -> SegmentationFile:
    header = read_header(path)
    segments = []
    for item in _items(header, "SegmentSequence"):
        order = number(item, "SegmentNumber")
        if order is None or order != int(order) or not 0 <= order < 2**16:
            raise DataError(f"{path} has a segment without a number: export it again.")
        kinds = _items(item, "SegmentedPropertyTypeCodeSequence") + _items(item, "AnatomicRegionSequence")
        sides = [
            side
            for kind in kinds
            for keyword in ("SegmentedPropertyTypeModifierCodeSequence", "AnatomicRegionModifierSequence")
            for side in _items(kind, keyword)
        ]
        if order > 0:  # 0 is the background of a label map
            segments.append(Segment(int(order), text(item, "SegmentLabel"), organ_coded(kinds, sides)))
    given = [segment.number for segment in segments]
    if not segments or len(set(given)) < len(given) or len(given) > MOST_SEGMENTS:
        raise DataError(
            f"{path} describes {len(given)} segments, {len(set(given))} of them with numbers of their own: export it again."
        )
    referred = _items(header, "ReferencedSeriesSequence")
    series = text(referred[0], "SeriesInstanceUID") if referred else ""
    instances = frozenset(
        text(one, "ReferencedSOPInstanceUID") for item in referred for one in _items(item, "ReferencedInstanceSequence")
    )
    automatic = [
        item for item in _items(header, "SegmentSequence") if text(item, "SegmentAlgorithmType") == "AUTOMATIC"
    ]
    drawn_by = text(automatic[0], "SegmentAlgorithmName") or "an algorithm" if automatic else ""
    return SegmentationFile(path, series, tuple(segments), instances - {""}, drawn_by)


def _frames(dataset: Any, path: Path) -> Iterator[np.ndarray]:
    """Stored values [rows, columns] of each frame, one after another."""
    pydicom = require_pydicom()
    count = number(dataset, "NumberOfFrames") or 1
    described = len(_items(dataset, "PerFrameFunctionalGroupsSequence"))
    if described != count:
        raise DataError(f"{path} has {count:g} frame(s) and describes {described}: copy or export it again.")
    try:
        with quiet():
            yield from pydicom.pixels.iter_pixels(dataset)
    except Exception as error:
        raise DataError(f"{path} has frames that end too early or are damaged ({error}): copy it again.") from error


def _slices(series: Series, image: Volume) -> dict[str, int]:
    """Index along Z by SOPInstanceUID; empty where one file holds several slices."""
    if len(series.files) != image.array.shape[2]:
        return {}
    uids = [instance_uids(read_header(path))[1] for path in series.files]
    return {uid: z for z, uid in enumerate(uids) if uid} if len(set(uids)) == len(uids) else {}


def _same_frame_of_reference(dataset: Any, series: Series) -> bool:
    own, other = (text(one, "FrameOfReferenceUID") for one in (dataset, read_header(series.files[0])))
    return not own or not other or own == other


def _called(found: SegmentationFile, segment: int) -> str:
    return next((one.label or str(segment) for one in found.segments if one.number == segment), str(segment))


def _items(dataset: Any, keyword: str) -> list[Any]:
    """The items of a sequence; none where it is missing or something else."""
    try:
        with quiet():
            return list(dataset[keyword].value) if keyword in dataset else []
    except Exception:
        return []


def _files(place: Path) -> list[Path]:
    if not os.path.isdir(place):
        return [place] if os.path.isfile(place) else []
    return sorted(
        Path(folder, name) for folder, _, names in os.walk(place) for name in names if not name.startswith(".")
    )


def _is_segmentation(path: Path) -> bool:
    """By the SOP class in the meta header, so that slices need not be read."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return False
    return start[128:132] == b"DICM" and CLASSES.search(start) is not None
