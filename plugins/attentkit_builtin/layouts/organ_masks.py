"""One mask file an organ, as many tools write them.

    case1/image.nii.gz (ct.nii.gz, mr.nii.gz, ...), case1/liver.nii.gz, case1/kidney_left.nii.gz, ...
    case1/image.nii.gz, case1/segmentations/liver.nii.gz, ...    or masks/, labels/

A file is the mask of the organ that it is named after; what else there is, is the image.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, Layout, Scan, Volume, is_label, organ_called, plainly, read_labels, read_volume
from attentkit_builtin.layouts.brats import Brats
from attentkit_builtin.layouts.folders import (
    NIFTI,
    cases,
    checked,
    chosen,
    folders,
    listing,
    modality_of,
    names,
    nearest,
    only,
)
from attentkit_builtin.layouts.masks import binary, join, named_in, of_all_cases, require_apart
from attentkit_builtin.layouts.totalsegmentator import TotalSegmentator

_FOLDER = re.compile(r"^(segmentations?|segs?|masks?|labels?|organs?|rois?)$", re.I)
_IMAGE = re.compile(r"(^|[-_. ])(image|img|scan|volume|vol)([-_. ]|$)", re.I)
_LEAST, _LOOKED_AT = 2, 5
"""Masks of known organs that a case has, and cases that are looked at, before the layout is recognised."""
_EXPECTED = (
    "case with an image and one mask file per organ (case1/image.nii.gz, case1/liver.nii.gz, case1/spleen.nii.gz)"
)


class MaskedCase(NamedTuple):
    """A folder of one case."""

    images: tuple[Path, ...]
    masks: dict[str, Path]
    """By organ."""


class OrganMasks(Layout):
    """One mask file an organ: case1/image.nii.gz with liver.nii.gz, kidney_left.nii.gz, ... beside it or in segmentations/."""

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        chosen(part, (), self.path)
        self.folder = only(nearest(self.path, _holds_subjects, 1), self.path, _EXPECTED)
        masks = {name: subject.masks for name, subject in _subjects(self.folder).items() if subject.masks}
        if not masks:
            raise DataError(f"{self.path} holds no {_EXPECTED}: name the folder of the cases.")
        self.organs = of_all_cases(masks, self.folder)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        path = Path(path)
        if any(layout.recognises(path) for layout in (TotalSegmentator, Brats)):
            return False
        return bool(nearest(path, _unmistakable, 1))

    def entries(self) -> list[Entry]:
        found = []
        for case, subject in _subjects(self.folder).items():
            if len(subject.images) != 1:
                what = f"holds {len(subject.images)} images ({listing([p.name for p in subject.images])})"
                why = what if subject.images else "holds masks and no image"
                self.refuse(
                    DataError(
                        f"{self.folder / case} {why}: keep one, named as image.nii.gz, ct.nii.gz or mr.nii.gz is."
                    )
                )
                continue
            if not subject.masks:
                self.refuse(
                    DataError(f"{self.folder / case} holds an image and no mask: add its masks, or remove the case.")
                )
            (image,) = subject.images
            masks = tuple(subject.masks[organ] for organ in self._organs() if organ in subject.masks)
            modality = modality_of(NIFTI.sub("", image.name))
            found.append(Entry(case, (image,), masks, modality, organs=frozenset(subject.masks)))
        return checked(found, self.folder)

    def read(self, entry: Entry) -> Scan:
        image = read_volume(entry.images[0])
        if not entry.labels:
            return Scan(image)
        organs = named_in(entry, self._organs())
        masks = [binary(read_labels(path, like=image).array, path) for path in entry.labels]
        place = entry.labels[0].parent
        require_apart(organs, masks, place)
        labels, doubts = join(organs, masks, [self._organs().index(organ) + 1 for organ in organs])
        joined = Volume(labels, image.affine, image.header, place)
        return Scan(image, joined, (f"one label map was made from {len(masks)} masks.",), tuple(doubts))

    def _organs(self) -> tuple[str, ...]:
        assert self.organs is not None
        return self.organs.organs


def _subjects(folder: Path) -> Mapping[str, MaskedCase]:
    found = {case.name: _subject(case) for case in cases(folder)}
    return {name: subject for name, subject in found.items() if subject.images or subject.masks}


def _subject(folder: Path) -> MaskedCase:
    own = names(folder, NIFTI)
    inner = next((one for one in folders(folder) if _FOLDER.match(one.name) and names(one, NIFTI)), None)
    if inner is not None:
        masks = {inner / name for name in names(inner, NIFTI)}
        images = [folder / name for name in own if organ_called(NIFTI.sub("", name)) is None]
    else:
        images = [folder / name for name in own if _is_image(NIFTI.sub("", name), folder.name)]
        masks = {folder / name for name in own} - {*images}
    by_organ: dict[str, Path] = {}
    for path in sorted(masks):
        organ = plainly(NIFTI.sub("", path.name))
        if (other := by_organ.setdefault(organ, path)) != path:
            raise DataError(f"{other} and {path} are both masks of the organ '{organ}': keep one.")
    return MaskedCase(tuple(images), by_organ)


def _is_image(stem: str, case: str) -> bool:
    if organ_called(stem) is not None or is_label(stem):
        return False
    return stem == case or bool(_IMAGE.search(stem)) or modality_of(stem) is not None


def _holds_subjects(folder: Path) -> bool:
    return any(len(names(inner, NIFTI)) > 0 for inner in folders(folder)[:_LOOKED_AT])


def _unmistakable(folder: Path) -> bool:
    return any(map(_is_subject, folders(folder)[:_LOOKED_AT]))


def _is_subject(folder: Path) -> bool:
    try:
        subject = _subject(folder)
    except DataError:
        return False
    known = [path for path in subject.masks.values() if organ_called(NIFTI.sub("", path.name))]
    return len(subject.images) == 1 and len(known) >= _LEAST
