"""DICOM as a scanner exports it: one series per case; labels, if any, as NIfTI."""

import os
from itertools import islice
from pathlib import Path

from attent_kit.errors import DataError
from attent_kit.layouts import (
    DICOM_ENDINGS,
    Entry,
    Layout,
    Scan,
    choose_series,
    find_pairs,
    find_series,
    is_dicom,
    read_labels,
    read_series,
)
from attentkit_builtin.layouts.attent_png import AttentPng
from attentkit_builtin.layouts.chaos import Chaos
from attentkit_builtin.layouts.folders import NIFTI, checked, chosen, folders, listing

FILES_LOOKED_AT = 5
"""Files of a folder that are opened to see whether they are DICOM: strays lie beside slices, but not so many."""
_MODALITIES = {"CT": "ct", "MR": "mr"}


class DicomFolders(Layout):
    """DICOM series: the folder of one, or a folder of folders with a series each; label maps are NIfTI, named as the folders."""

    def __init__(
        self, path: Path, part: str | None = None, labels: Path | None = None, allow_unlabelled: bool = False
    ) -> None:
        """`labels` is a NIfTI file for the folder of one series, or the folder of such files. A part is a series' UID."""
        super().__init__(path, part)
        parts = self.parts(self.path)
        self.part = chosen(part, parts, self.path) if part or parts else None
        self.labels = None if labels is None else Path(labels)
        self.allow_unlabelled = allow_unlabelled or labels is None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        path = Path(path)
        if any(layout.recognises(path) for layout in (Chaos, AttentPng)):
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
            labels = self._labels_of(name)
            if labels is None and not self.allow_unlabelled:
                raise DataError(
                    f"{self.labels} holds no label map of {folder}: call it {name}.nii.gz, or type --allow-unlabelled if "
                    "the case is for training on the target side only."
                )
            label_files = () if labels is None else (labels,)
            found.append(Entry(name, series.files, label_files, _MODALITIES.get(series.modality)))
        self._refuse_spare_labels([entry.id for entry in found])
        return checked(found, self.path)

    def read(self, entry: Entry) -> Scan:
        folder = dict(self._cases())[entry.id]
        image, notes = read_series(choose_series(folder, self.part))
        return Scan(image, read_labels(entry.labels[0], like=image) if entry.labels else None, doubts=notes)

    def _cases(self) -> list[tuple[str, Path]]:
        """Name and folder of each case."""
        if not os.path.isdir(self.path):
            raise DataError(
                f"{self.path} is not a folder: name the folder of a DICOM series, or of several such folders."
            )
        if _holds_slices(self.path):
            return [(self.path.resolve().name, self.path)]
        return [(folder.name, folder) for folder in folders(self.path)]

    def _labels_of(self, case: str) -> Path | None:
        if self.labels is None:
            return None
        if not os.path.isdir(self.labels):
            if len(self._cases()) > 1:
                raise DataError(f"{self.labels} is one file for several series: name the folder of their label maps.")
            return self.labels
        return {pair.case: pair.image for pair in find_pairs(self.labels)}.get(case)

    def _refuse_spare_labels(self, cases: list[str]) -> None:
        if self.labels is None or not os.path.isdir(self.labels):
            return
        if spare := [pair.image.name for pair in find_pairs(self.labels) if pair.case not in cases]:
            raise DataError(
                f"no series in {self.path} goes with {listing(spare)}: name it as the folder of its series."
            )


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
