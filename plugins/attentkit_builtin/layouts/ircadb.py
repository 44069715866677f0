"""3D-IRCADb, CT of livers with one DICOM series of masks an organ (ircad.fr/research/data-sets).

    3Dircadb1.1/PATIENT_DICOM/image_0, image_1, ...
    3Dircadb1.1/MASKS_DICOM/liver/image_0, ...    leftkidney, rightkidney, spleen, portalvein, ..., each what somebody drew

Both come as zip files, which unpack to a folder, or to a folder in a folder of that name. A mask belongs to the slice at its
position. Not every organ was drawn in every patient; nothing says whether the others are healthy, removed or out of view.
"""

import os
from pathlib import Path

import numpy as np

from attent_kit.errors import DataError
from attent_kit.layouts import (
    Entry,
    Layout,
    Scan,
    Volume,
    choose_series,
    integers,
    organ_called,
    read_series,
    same_grid,
)
from attentkit_builtin.layouts.folders import below, checked, chosen, folders, only
from attentkit_builtin.layouts.masks import binary, join, named_in, of_all_cases, require_apart

_IMAGE, _MASKS = "PATIENT_DICOM", "MASKS_DICOM"
_DEPTH = 2
_EXPECTED = "3D-IRCADb data (3Dircadb1.1/PATIENT_DICOM and 3Dircadb1.1/MASKS_DICOM/liver)"


class Ircadb(Layout):
    """3D-IRCADb: PATIENT_DICOM and, in MASKS_DICOM, a DICOM series of masks an organ; what a case lacks is unknown there."""

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        chosen(part, (), self.path)
        found = list(below(self.path, _is_case, _DEPTH))
        only(found[:1], self.path, _EXPECTED)
        for case in found:
            _require_unpacked(case)
        self.organs = of_all_cases({case.name: _masks(case) for case in found}, self.path)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return next(below(Path(path), _is_case, _DEPTH), None) is not None

    def entries(self) -> list[Entry]:
        found = []
        for case in below(self.path, _is_case, _DEPTH):
            masks = _masks(case)
            image = choose_series(_inner(case, _IMAGE), by="keep one")
            labels = tuple(masks[organ] for organ in self._organs() if organ in masks)
            found.append(Entry(case.name, image.files, labels, "ct", organs=frozenset(masks)))
        return checked(found, self.path)

    def read(self, entry: Entry) -> Scan:
        image, notes = read_series(choose_series(entry.images[0].parent))
        if not entry.labels:
            return Scan(image, doubts=notes)
        organs = named_in(entry, self._organs())
        masks = [_mask(folder, image) for folder in entry.labels]
        place = entry.labels[0].parent
        require_apart(organs, masks, place)
        labels, doubts = join(organs, masks, [self._organs().index(organ) + 1 for organ in organs])
        joined = Volume(labels, image.affine, image.header, place)
        return Scan(image, joined, (*notes, f"one label map was made from {len(masks)} masks."), tuple(doubts))

    def _organs(self) -> tuple[str, ...]:
        assert self.organs is not None
        return self.organs.organs


def _mask(folder: Path, image: Volume) -> np.ndarray:
    """A mask [X, Y, Z] on the grid of the image. DataError if it lies elsewhere."""
    mask, _ = read_series(choose_series(folder, by="keep one"))
    if not same_grid(mask.array.shape, mask.affine, image.array.shape, image.affine):
        raise DataError(
            f"{folder} has {mask.array.shape[2]} slices that do not lie where the {image.array.shape[2]} of {image.path} do: "
            "unpack the case again."
        )
    return binary(integers(mask.array, folder), folder)


def _masks(case: Path) -> dict[str, Path]:
    """Folders of masks by organ, as far as the organ is known here; the others are vessels, tumours, skin and bone."""
    found: dict[str, Path] = {}
    for folder in folders(_inner(case, _MASKS)):
        if organ := organ_called(folder.name):
            if organ in found:
                raise DataError(f"{found[organ]} and {folder} are both masks of the organ '{organ}': keep one.")
            found[organ] = folder
    return found


def _is_case(folder: Path) -> bool:
    return all(os.path.isdir(folder / kind) or os.path.isfile(folder / f"{kind}.zip") for kind in (_IMAGE, _MASKS))


def _require_unpacked(case: Path) -> None:
    for kind in (_IMAGE, _MASKS):
        if not os.path.isdir(case / kind):
            raise DataError(f"{case / kind}.zip is not unpacked: unpack it to {case / kind}.")


def _inner(case: Path, kind: str) -> Path:
    """The folder of that name, or the one of the same name inside it."""
    return case / kind / kind if os.path.isdir(case / kind / kind) else case / kind
