"""CHAOS, Combined Healthy Abdominal Organ Segmentation (zenodo.org/records/3431873).

    Train_Sets/MR/1/T2SPIR/DICOM_anon/IMG-0004-00001.dcm, Ground/IMG-0004-00001.png
    Train_Sets/MR/1/T1DUAL/DICOM_anon/{InPhase,OutPhase}/*.dcm, Ground/*.png    drawn on InPhase
    Train_Sets/CT/1/DICOM_anon/i0000,0000b.dcm, Ground/liver_GT_000.png          the liver alone

A mask belongs to the slice of its name, or where names tell nothing (CT) to the slice whose InstanceNumber is one more than
its own number. InstanceNumbers run along the patient or against, names do as they like, and some copies of the data have
them renamed: so the slices are ordered by their positions, and the masks are compared with the grey values both ways round.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attent_kit.errors import DataError
from attent_kit.layouts import (
    CLEAR_EVIDENCE,
    Entry,
    LabelMap,
    Layout,
    Scan,
    Series,
    Volume,
    find_series,
    read_series,
    same_grid,
    slice_order_evidence,
)
from attentkit_builtin.layouts.folders import cases, checked, chosen, files, folders, listing, nearest, only
from attentkit_builtin.layouts.masks import FOUR_ORGANS, binary, decoded
from attentkit_builtin.layouts.pictures import read_stack

_DICOM = re.compile(r"\.(dcm|dicom|ima)$|^(?!DICOMDIR$)[^.]+$", re.IGNORECASE)
_PNG = re.compile(r"\.png$", re.IGNORECASE)
_SEQUENCES = ("T2SPIR", "T1DUAL")
_PARTS = {
    "t2spir": ("MR", "T2SPIR", ""),
    "t1-inphase": ("MR", "T1DUAL", "InPhase"),
    "t1-outphase": ("MR", "T1DUAL", "OutPhase"),
    "ct": ("CT", "", ""),
}
"""Part: folder of the cases, folder of the sequence in a case, folder inside its DICOM_anon."""
_LIVER_ONLY = "CHAOS labels the liver alone in CT: its kidneys and spleen are not labelled and count as background."


class Chaos(Layout):
    """CHAOS: Train_Sets/{MR,CT}, DICOM_anon and Ground of each case; part chooses t2spir, t1-inphase, t1-outphase or ct."""

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        there = _parts(self.path)
        self.part = chosen(part, tuple(there), self.path)
        self.folder = there[self.part]
        self.organs = LabelMap.of({"liver": 1}) if self.part == "ct" else FOUR_ORGANS

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(_homes(Path(path)))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        there = tuple(_parts(Path(path)))
        return there if len(there) > 1 else ()

    def entries(self) -> list[Entry]:
        modality, sequence, phase = _PARTS[str(self.part)]
        found, bare = [], []
        for case in cases(self.folder):
            dicom = case / sequence / "DICOM_anon"
            slices, masks = files(dicom / phase, _DICOM), files(case / sequence / "Ground", _PNG)
            if not slices:
                self.refuse(
                    DataError(
                        f"{dicom / phase} holds no DICOM file: unpack case {case.name} again, or remove its folder."
                    )
                )
                continue
            if not masks:
                bare.append(case.name)
            try:
                if masks:
                    named_alike(files(dicom / "InPhase", _DICOM) if phase == "OutPhase" else slices, masks)
            except DataError as error:
                self.refuse(error)
                masks = []
            found.append(Entry(case.name, tuple(slices), tuple(masks), modality.lower()))
        if bare and len(bare) < len(found):
            self.refuse(
                DataError(f"{self.folder}: the Ground of case {listing(bare)} is missing or empty: unpack it again.")
            )
        return checked(found, self.folder)

    def read(self, entry: Entry) -> Scan:
        folder = entry.images[0].parent
        series = _only_series(folder)
        image, notes = read_series(series)
        if not entry.labels:
            return Scan(image, None, notes)
        drawn_on = image
        if self.part == "t1-outphase":
            series = _only_series(folder.parent / "InPhase")
            drawn_on, _ = read_series(series)
            _require_one_grid(image, drawn_on)
        match = matched(series, entry.labels)
        labels, doubts = self._labels(match.masks, drawn_on)
        labels, decision, doubt = _turned(labels, match, drawn_on)
        ground = Volume(labels, image.affine, image.header, entry.labels[0].parent)
        return Scan(image, ground, (*notes, decision), (*doubts, *doubt, *([_LIVER_ONLY] if self.part == "ct" else [])))

    def _labels(self, masks: Sequence[Path], image: Volume) -> tuple[np.ndarray, list[str]]:
        """The label map [X, Y, Z] of masks in the order of the slices, and what is doubtful about their grey levels."""
        grey = read_stack(masks)
        columns, rows, _ = image.array.shape
        if grey.shape[:2] != (columns, rows):
            raise DataError(
                f"{masks[0]} has {grey.shape[0]} x {grey.shape[1]} pixels, but the slices of {image.path} have {columns} x "
                f"{rows}: unpack the case again."
            )
        if self.part == "ct":
            return binary(grey, masks[0].parent).astype(np.uint8), []
        return decoded(grey, masks[0].parent)


class Match(NamedTuple):
    """Which mask goes with which slice."""

    masks: tuple[Path, ...]
    """One per slice, in the order of the slices."""
    other: tuple[int, ...]
    """The same masks the other way round, as places in `masks`."""
    how: str
    by_name: bool


def named_alike(slices: Sequence[Path], masks: Sequence[Path]) -> bool:
    """Whether masks are named as their slices; False if no name agrees but their number does. DataError otherwise."""
    ground = masks[0].parent
    of_slices, of_masks = ({path.stem for path in paths} for paths in (slices, masks))
    if len(of_masks) < len(masks) or len(of_slices) < len(slices):
        raise DataError(
            f"{ground} or its DICOM_anon holds two files whose names differ only in the ending: remove one."
        )
    if of_slices == of_masks:
        return True
    if of_slices & of_masks:
        lacking, spare = sorted(of_slices - of_masks), sorted(of_masks - of_slices)
        what = [f"no mask of the slice {listing(lacking)}"] if lacking else []
        what += [f"a mask without a slice, {listing(spare)}"] if spare else []
        raise DataError(f"{ground} holds {' and '.join(what)}: unpack the case again.")
    if len(masks) != len(slices):
        raise DataError(
            f"{ground} holds {len(masks)} masks, but there are {len(slices)} slices: unpack the case again."
        )
    return False


def matched(series: Series, masks: Sequence[Path]) -> Match:
    """The mask of each slice of a series: by name, else by InstanceNumber. DataError if neither tells."""
    count = len(masks)
    if named_alike(series.files, masks):
        by_name = {mask.stem: mask for mask in masks}
        return Match(
            tuple(by_name[file.stem] for file in series.files), tuple(range(count))[::-1], "by file name", True
        )
    numbers = [number for number in series.numbers if number is not None]
    if len(set(numbers)) < count:
        raise DataError(
            f"{masks[0].parent}: the masks are not named like the slices of {series.files[0].parent}, and not all "
            "of these have an InstanceNumber: name each mask like its slice."
        )
    own = [int(digits[0]) if (digits := re.search(r"[0-9]+$", mask.stem)) else -1 for mask in masks]
    if len(set(own)) == count and min(own) >= 0:
        masks = [masks[n] for n in np.argsort(own)]
    exact = sorted(own) == [number - 1 for number in sorted(numbers)]
    how = "by number, InstanceNumber - 1" if exact else "in the order of their names and of InstanceNumber"
    slice_of_rank = np.argsort(numbers)
    rank = np.argsort(slice_of_rank)
    return Match(tuple(masks[n] for n in rank), tuple(int(n) for n in slice_of_rank[count - 1 - rank]), how, False)


def _turned(labels: np.ndarray, match: Match, image: Volume) -> tuple[np.ndarray, str, list[str]]:
    """The labels the right way round, what was decided, and what is doubtful about it."""
    if not labels.any():
        return labels, f"masks matched to slices {match.how}; all are empty.", []
    other = labels[..., list(match.other)]
    ratio = slice_order_evidence(image.array, labels, other)
    matched_so, look = f"masks matched to slices {match.how}", "look at the case before it is used."
    if ratio >= CLEAR_EVIDENCE:
        return labels, f"{matched_so}; they lie on the organs {ratio:.1f} times better than the other way round.", []
    better = f"they lie on the organs {1 / ratio:.1f} times better the other way round"
    if ratio <= 1 / CLEAR_EVIDENCE and not match.by_name:
        return other, f"{matched_so}, but turned round, since {better}.", []
    doubt = f"but {better}"
    if ratio > 1 / CLEAR_EVIDENCE:
        doubt = f"and the grey values do not tell whether that is the right way round ({ratio:.2f}; {CLEAR_EVIDENCE:g} is clear)"
    return labels, f"{matched_so}.", [f"{matched_so}, {doubt}: {look}"]


def _only_series(folder: Path) -> Series:
    found = find_series(folder)
    if not found:
        read_series(folder)  # which says why every file was passed over
    if len(found) != 1:
        raise DataError(f"{folder} holds {len(found)} DICOM series, where a case has one: unpack the case again.")
    return found[0]


def _require_one_grid(image: Volume, other: Volume) -> None:
    if not same_grid(image.array.shape, image.affine, other.array.shape, other.affine):
        raise DataError(
            f"{image.path} is not on the grid of {other.path}, on which the masks are drawn: unpack them again."
        )


def _parts(path: Path) -> dict[str, Path]:
    """Folder of the cases of each part that is there. DataError if there is none."""
    homes = _homes(path)
    trained = [home for home in homes if home.name == "Train_Sets"]
    sets = _sets(only(trained if len(trained) == 1 else homes, path, "CHAOS data (Train_Sets/MR or Train_Sets/CT)"))
    found = {}
    for part, (modality, sequence, phase) in _PARTS.items():
        inside = folders(sets[modality]) if modality in sets else []
        if any(os.path.isdir(case / sequence / "DICOM_anon" / phase) for case in inside):
            found[part] = sets[modality]
    if not found:
        raise DataError(f"{path} holds no DICOM_anon of a known sequence: unpack the data again, names and all.")
    return found


def _homes(path: Path) -> list[Path]:
    return nearest(path, lambda folder: bool(_sets(folder)), 2)


def _sets(folder: Path) -> dict[str, Path]:
    """The folders of MR and of CT cases, where `folder` is one of them or holds them."""
    if kind := _kind(folder):
        return {kind: folder}
    return {name: folder / name for name in ("MR", "CT") if _kind(folder / name) == name}


def _kind(folder: Path) -> str:
    """MR or CT, by what the cases in a folder hold."""
    for case in folders(folder):
        if any(os.path.isdir(case / sequence / "DICOM_anon") for sequence in _SEQUENCES):
            return "MR"
        if case.name not in _SEQUENCES and os.path.isdir(case / "DICOM_anon"):
            return "CT"
    return ""
