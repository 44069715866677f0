"""The folders of AttENT's code (github.com/lichen14/AttENT): PNG slices of all patients in one folder.

    mri_dataset/train/image/IMG-0001-00013.png     CHAOS; of BTCV: ct_dataset/train/image/img0034_2.png
    mri_dataset/train/label/IMG-0001-00013.png     grey levels of CHAOS
    mri_dataset/train/label/{liver,rightKidney,leftKidney,spleen}_label/IMG-0001-00013.png    one mask per organ
    mri_list/{train,val,test}.txt                  names of slices

Its script makes the mask of the right kidney from grey level 120, which CHAOS does not use, so that it may be empty beside a
grey mask that has the kidney. It leaves out slices without an organ, and its lists deal slices to training and validation,
not patients. Nothing in a PNG says where the patient's right is, or how wide a pixel is.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attent_kit.errors import DataError
from attent_kit.layouts import SPLITS, TASK_ORGANS, Entry, Layout, Scan, Volume, text_of
from attentkit_builtin.layouts.folders import checked, chosen, files, listing, modality_of, names, nearest, only
from attentkit_builtin.layouts.masks import FOUR_ORGANS, STRAY_SHARE, binary, decode, decoded, join
from attentkit_builtin.layouts.pictures import grey_values, read_stack, unplaced

_PNG = re.compile(r"\.png$", re.IGNORECASE)
_SLICE = re.compile(r"^(?P<case>.+)[-_](?P<number>[0-9]{1,9})$")
_ORGAN_FOLDERS = ("liver_label", "rightKidney_label", "leftKidney_label", "spleen_label")
"""In the order of TASK_ORGANS."""
_EXPORT = re.compile(r"^IMG-[0-9]+$")
_UNMEASURED = (
    "PNG slices carry no millimetres and no sides: pixels and slices are taken as 1 mm, as a radiologist sees them."
)


class AttentPng(Layout):
    """AttENT's own folders: *_dataset/train/{image,label} of PNG slices, grouped into patients by the names of their files."""

    organs = FOUR_ORGANS
    plane = "axial"

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        there = _datasets(self.path)
        only(list(there.values())[:1], self.path, "folder such as mri_dataset/train/image of PNG slices")
        self.part = chosen(part, tuple(there), self.path)
        self.folder = there[self.part]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(nearest(Path(path), _is_dataset, 2))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        there = tuple(_datasets(Path(path)))
        return there if len(there) > 1 else ()

    def entries(self) -> list[Entry]:
        own = [name for name in SPLITS if names(self.folder / name / "image", _PNG)]
        found: list[Entry] = []
        for name in own:
            patients = _patients(self.folder / name / "image")
            sets = _masks(self.folder / name / "label", [path for images in patients.values() for path in images])
            for case, images in patients.items():
                labels = tuple(masks[path.name] for masks in sets for path in images)
                split = name if len(own) > 1 else None
                found.append(Entry(case, tuple(images), labels, modality_of(_called(self.folder)), split))
        if len(own) == 1:
            listed = self._lists()
            whole = {case: splits[0] for case, splits in listed.items() if len(splits) == 1}
            if len(whole) == len(listed):
                found = [entry._replace(split=whole.get(entry.id)) for entry in found]
        return checked(found, self.folder)

    def read(self, entry: Entry) -> Scan:
        image = unplaced(grey_values(read_stack(entry.images), entry.images[0].parent), entry.images[0])
        doubts = [_UNMEASURED, *self._doubts(entry)]
        if not entry.labels:
            return Scan(image, None, (), tuple(doubts))
        labels, decision, more = _joined(entry.labels, len(entry.images))
        if labels.shape != image.array.shape:
            raise DataError(
                f"{entry.labels[0]} has {labels.shape[0]} x {labels.shape[1]} pixels, but {entry.images[0]} has "
                f"{image.array.shape[0]} x {image.array.shape[1]}: both must have the same size, so replace the wrong one."
            )
        ground = Volume(labels, image.affine, image.header, entry.labels[0].parent)
        return Scan(image, ground, (decision,), (*doubts, *more))

    def _doubts(self, entry: Entry) -> list[str]:
        doubts = []
        numbers = [_number(path) for path in entry.images]
        if gaps := [f"{a + 1} to {b - 1}" for a, b in zip(numbers, numbers[1:], strict=False) if b - a > 1]:
            doubts.append(f"slices {listing(gaps)} are missing, and the others were stacked without a gap.")
        if _EXPORT.match(entry.id):
            doubts.append(
                f"the number in {entry.id} is that of a DICOM export, not of the patient: no named split fits."
            )
        if len(splits := self._lists().get(entry.id, ())) > 1:
            doubts.append(
                f"the lists have slices of this patient in {' and in '.join(splits)}: they are not followed, since a patient "
                "is in one split."
            )
        return doubts

    def _lists(self) -> dict[str, tuple[str, ...]]:
        """Splits of each patient by the lists of slices beside the data set, where there are any."""
        folder = Path(os.path.abspath(self.folder)).with_name(_called(self.folder) + "_list")
        found: dict[str, tuple[str, ...]] = {}
        for split in SPLITS:
            file = folder / f"{split}.txt"
            if not os.path.isfile(file):
                continue
            try:
                lines = text_of(file).split()
            except (OSError, ValueError):
                raise DataError(f"{file} cannot be read as a list of names: correct it or remove it.") from None
            for line in lines:
                match = _SLICE.match(_PNG.sub("", line))
                if match is None:
                    raise DataError(
                        f"{file} names '{line[:60]}', which is not a slice such as img0034_2.png: correct it."
                    )
                case = match["case"]
                found[case] = tuple(dict.fromkeys((*found.get(case, ()), split)))
        return found


def _datasets(path: Path) -> dict[str, Path]:
    """Folder of each data set by what stands before `_dataset`."""
    found: dict[str, Path] = {}
    for folder in nearest(path, _is_dataset, 2):
        name = _called(folder)
        if (other := found.setdefault(name, folder)) != folder:
            raise DataError(f"{path} holds {other} and {folder}, two data sets with one name: choose one of them.")
    return found


def _called(folder: Path) -> str:
    """'mri' of mri_dataset."""
    return Path(os.path.abspath(folder)).name.removesuffix("_dataset")


def _is_dataset(folder: Path) -> bool:
    return any(names(folder / split / "image", _PNG) for split in SPLITS)


def _patients(folder: Path) -> dict[str, list[Path]]:
    """Slices of each patient, by number."""
    found: dict[str, dict[int, Path]] = {}
    for path in files(folder, _PNG):
        match = _SLICE.match(path.stem)
        if match is None:
            raise DataError(f"{path} is not named by patient and slice, as img0034_2.png is: rename or remove it.")
        other = found.setdefault(match["case"], {}).setdefault(int(match["number"]), path)
        if other != path:
            raise DataError(f"{other} and {path} are the same slice of one patient: remove one.")
    return {case: [slices[number] for number in sorted(slices)] for case, slices in found.items()}


def _masks(folder: Path, images: Sequence[Path]) -> list[dict[str, Path]]:
    """Masks by the name of their slice: of each organ, then grey ones, as far as there are any. DataError if some are missing."""
    organs = [folder / organ for organ in _ORGAN_FOLDERS if any(os.path.isdir(folder / one) for one in _ORGAN_FOLDERS)]
    wanted, sets = {path.name for path in images}, []
    for inner in [*organs, *([folder] if names(folder, _PNG) else [])]:
        masks = {path.name: path for path in files(inner, _PNG)}
        if lacking := [path.name for path in images if path.name not in masks]:
            raise DataError(f"{inner} has no mask of the slice {listing(lacking)}: add it under the name of the slice.")
        if spare := [name for name in masks if name not in wanted]:
            raise DataError(f"{inner} has a mask without a slice, {listing(spare)}: add the slice, or remove the mask.")
        sets.append(masks)
    return sets


def _joined(paths: Sequence[Path], count: int) -> tuple[np.ndarray, str, list[str]]:
    """The label map [X, Y, Z] of masks, set after set as `_masks` orders them, what was decided, and what is doubtful."""
    if len(paths) == count:
        labels, doubts = decoded(read_stack(paths), paths[0].parent)
        return labels, "organs by the grey levels of the masks.", doubts
    of_organs = [paths[n * count : (n + 1) * count] for n in range(len(TASK_ORGANS))]
    masks = [binary(read_stack(organ), organ[0].parent) for organ in of_organs]
    if len({mask.shape for mask in masks}) > 1:
        raise DataError(f"{paths[0].parent.parent} holds masks of several sizes: make them alike.")
    labels, doubts = join(TASK_ORGANS, masks)
    if len(paths) == len(TASK_ORGANS) * count:
        return labels, "organs by one mask each.", doubts
    grey = read_stack(paths[len(TASK_ORGANS) * count :])
    whole, stray = decode(grey)
    readable = grey.shape == labels.shape and stray.sum() <= STRAY_SHARE * np.count_nonzero(grey)
    if not readable:
        return labels, "organs by one mask each; the grey masks beside them use another coding.", doubts
    if np.array_equal(whole, labels):
        return labels, "organs by one mask each, which agree with the grey masks.", doubts
    more = (whole != 0) & (labels == 0)
    if (whole == labels)[~more].all():
        organs = [TASK_ORGANS[value - 1] for value in np.unique(whole[more])]
        return whole, "organs by the grey levels of the masks.", [
            f"the masks of one organ each lack {int(more.sum())} pixels that the grey masks have ({listing(organs)}): the "
            "grey masks were taken."
        ]  # fmt: skip
    differing = int((whole != labels).sum())
    return labels, "organs by one mask each.", [
        *doubts, f"{differing} pixels differ from the grey masks beside them: check which of the two is right.",
    ]  # fmt: skip


def _number(path: Path) -> int:
    match = _SLICE.match(path.stem)
    return int(match["number"]) if match else -1
