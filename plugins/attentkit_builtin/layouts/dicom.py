"""DICOM as a scanner exports it: one series per case; labels, if any, as NIfTI or as DICOM Segmentations.

A segmentation belongs to the series that it refers to, wherever it lies: beside the slices, or below the folder of labels.
Its segments are the organs that their codes say, or else their labels.
"""

import os
from itertools import islice
from pathlib import Path

from attent_kit.errors import DataError
from attent_kit.layouts import (
    DICOM_ENDINGS,
    Entry,
    Layout,
    Scan,
    SegmentationFile,
    Series,
    Volume,
    choose_series,
    find_pairs,
    find_segmentations,
    find_series,
    is_dicom,
    organ_called,
    plainly,
    read_labels,
    read_segmentation,
    read_series,
)
from attentkit_builtin.layouts.attent_png import AttentPng
from attentkit_builtin.layouts.chaos import Chaos
from attentkit_builtin.layouts.folders import NIFTI, checked, chosen, folders, listing
from attentkit_builtin.layouts.ircadb import Ircadb
from attentkit_builtin.layouts.masks import of_all_cases

FILES_LOOKED_AT = 5
"""Files of a folder that are opened to see whether they are DICOM: strays lie beside slices, but not so many."""
_MODALITIES = {"CT": "ct", "MR": "mr"}


class DicomFolders(Layout):
    """DICOM series: the folder of one, or a folder of such; labels are DICOM Segmentations or NIfTI named as the folders."""

    def __init__(
        self, path: Path, part: str | None = None, labels: Path | None = None, allow_unlabelled: bool = False
    ) -> None:
        """`labels` is a NIfTI file or a segmentation for the folder of one series, or a folder of them. A part is a UID."""
        super().__init__(path, part)
        parts = self.parts(self.path)
        self.part = chosen(part, parts, self.path) if part or parts else None
        self.labels = None if labels is None else Path(labels)
        self.allow_unlabelled = allow_unlabelled or labels is None
        found = find_segmentations(self.path if self.labels is None else self.labels)
        self.drawn = {one.path: one for one in found}
        """Segmentations by file."""
        if found:
            organs = {str(path): _segments(one) for path, one in self.drawn.items()}
            self.organs = of_all_cases(organs, self.path)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        path = Path(path)
        if any(layout.recognises(path) for layout in (Chaos, AttentPng, Ircadb)):
            return False
        return _holds_slices(path) or any(_holds_slices(inner) for inner in folders(path)[:FILES_LOOKED_AT])

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        if not _holds_slices(path):
            return ()
        uids = [series.uid for series in find_series(path)]
        return tuple(uids) if len(uids) > 1 and len(set(uids)) == len(uids) else ()

    def entries(self) -> list[Entry]:
        found = []
        for name, folder in self._cases():
            series = choose_series(folder, self.part, by="choose one with --part UID")
            labels = self._drawn_on(series) if self.drawn else self._labels_of(name)
            if not labels and not self.allow_unlabelled:
                raise DataError(
                    f"{self.labels} holds no label map of {folder}: call it {name}.nii.gz, or type --allow-unlabelled if the "
                    "case is for training on the target side only. A DICOM Segmentation has to refer to its series."
                )
            drawn = self.drawn.get(labels[0]) if labels else None
            organs = None if drawn is None else frozenset(_segments(drawn))
            found.append(Entry(name, series.files, labels, _MODALITIES.get(series.modality), organs=organs))
        self._refuse_spare_labels(found)
        return checked(found, self.path)

    def read(self, entry: Entry) -> Scan:
        folder = dict(self._cases())[entry.id]
        series = choose_series(folder, self.part)
        image, notes = read_series(series)
        if not entry.labels:
            return Scan(image, doubts=notes)
        if entry.labels[0] not in self.drawn:
            return Scan(image, read_labels(entry.labels[0], like=image), doubts=notes)
        assert self.organs is not None
        drawn = self.drawn[entry.labels[0]]
        segments = _segments(drawn)
        values = {segments[organ]: value for organ, (value,) in self.organs.values if organ in segments}
        labels, decisions, doubts = read_segmentation(drawn, series, image, values)
        notes = tuple(note for note in notes if not note.startswith("skipped, SEG"))
        joined = Volume(labels, image.affine, image.header, entry.labels[0])
        return Scan(image, joined, decisions, (*notes, *doubts))

    def _drawn_on(self, series: Series) -> tuple[Path, ...]:
        """The segmentation that refers to a series."""
        own = [path for path, drawn in self.drawn.items() if drawn.refers_to(series)]
        if len(own) > 1:
            raise DataError(
                f"{own[0]} and {own[1]} are both segmentations of the series {series.uid}: keep one of them."
            )
        return tuple(own)

    def _cases(self) -> list[tuple[str, Path]]:
        """Name and folder of each case."""
        if not os.path.isdir(self.path):
            raise DataError(
                f"{self.path} is not a folder: name the folder of a DICOM series, or of several such folders."
            )
        if _holds_slices(self.path):
            return [(self.path.resolve().name, self.path)]
        return [(folder.name, folder) for folder in folders(self.path)]

    def _labels_of(self, case: str) -> tuple[Path, ...]:
        """The NIfTI file of a case."""
        if self.labels is None:
            return ()
        if not os.path.isdir(self.labels):
            if len(self._cases()) > 1:
                raise DataError(f"{self.labels} is one file for several series: name the folder of their label maps.")
            return (self.labels,)
        return tuple(pair.image for pair in find_pairs(self.labels) if pair.case == case)

    def _refuse_spare_labels(self, found: list[Entry]) -> None:
        if self.drawn:
            used = {path for entry in found for path in entry.labels}
            if spare := [path for path in self.drawn if path not in used]:
                raise DataError(
                    f"{spare[0]} is a segmentation of the series '{self.drawn[spare[0]].series}', which is not here: add "
                    "the series, or remove the segmentation."
                )
            return
        if self.labels is None or not os.path.isdir(self.labels):
            return
        cases = [entry.id for entry in found]
        if spare := [pair.image for pair in find_pairs(self.labels) if pair.case not in cases]:
            raise DataError(
                f"no series in {self.path} goes with {listing([path.name for path in spare])}: name it as the folder of its "
                "series."
            )


def _segments(found: SegmentationFile) -> dict[str, int]:
    """The number of the segment of each organ. DataError if its code and its label disagree, or two are one organ."""
    numbers: dict[str, int] = {}
    for segment in found.segments:
        called = organ_called(segment.label)
        if segment.organ and called and segment.organ != called:
            raise DataError(
                f"{found.path}: segment {segment.number} is labelled '{segment.label}' and coded as {segment.organ}: correct one."
            )
        organ = segment.organ or called or plainly(segment.label or f"segment {segment.number}")
        if organ in numbers:
            raise DataError(
                f"{found.path}: the segments {numbers[organ]} and {segment.number} are both the organ '{organ}': join them."
            )
        numbers[organ] = segment.number
    return numbers


def _holds_slices(folder: Path) -> bool:
    """Whether DICOM files lie directly in the folder."""
    try:
        with os.scandir(folder) as inside:
            named = (Path(one.path) for one in inside if one.name[0] != "." and one.is_file())
            return any(
                path.suffix.lower() in DICOM_ENDINGS or (not NIFTI.search(path.name) and is_dicom(path))
                for path in islice(named, FILES_LOOKED_AT)
            )
    except (OSError, ValueError):
        return False
