"""The data sets of TotalSegmentator (zenodo.org/records/10047292 CT, 11367004 MR).

s0001/ct.nii.gz (or mri.nii.gz)
s0001/segmentations/liver.nii.gz, kidney_right.nii.gz, ...   one mask per organ, some hundred of them
meta.csv                                                      one line per subject, with its split
"""

import os
from pathlib import Path

from attent_kit.errors import DataError
from attent_kit.layouts import (
    SPLITS,
    TASK_ORGANS,
    Entry,
    Layout,
    Scan,
    Volume,
    csv_in,
    read_labels,
    read_volume,
    text_of,
)
from attentkit_builtin.layouts.folders import NIFTI, cases, checked, chosen, folders, listing, names, nearest, only
from attentkit_builtin.layouts.masks import FOUR_ORGANS, binary, join

_IMAGES = {"ct": "ct", "mri": "mr"}
_MASKS = ("liver.nii.gz", "kidney_right.nii.gz", "kidney_left.nii.gz", "spleen.nii.gz")
"""In the order of TASK_ORGANS."""


class TotalSegmentator(Layout):
    """TotalSegmentator: s0001/{ct,mri}.nii.gz and segmentations/, one mask per organ; four of the organs are read."""

    organs = FOUR_ORGANS

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        chosen(part, (), self.path)
        expected = "TotalSegmentator data set (s0001/ct.nii.gz and s0001/segmentations)"
        self.folder = only(nearest(self.path, _is_dataset, 1), self.path, expected)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(nearest(Path(path), _is_dataset, 1))

    def entries(self) -> list[Entry]:
        splits = _splits(self.folder / "meta.csv")
        found = []
        for folder in cases(self.folder):
            images = _images(folder)
            if not images and not os.path.isdir(folder / "segmentations"):
                continue
            if len(images) != 1:
                self.refuse(
                    DataError(f"{folder} holds {len(images)} images of the names ct.nii.gz and mri.nii.gz: keep one.")
                )
                continue
            home = folder / "segmentations"
            there = {name.lower(): home / name for name in names(home, NIFTI)}
            masks = [there.get(name, home / name) for name in _MASKS]
            if missing := [mask.name for mask in masks if not os.path.isfile(mask)]:
                self.refuse(
                    DataError(
                        f"{home} has no {listing(missing)}: a subject without an organ has an empty mask of it, "
                        "so download the subject again."
                    )
                )
                masks = []
            (image, modality), *_ = images.items()
            found.append(Entry(folder.name, (image,), tuple(masks), modality, splits.get(folder.name)))
        return checked(found, self.folder)

    def read(self, entry: Entry) -> Scan:
        image = read_volume(entry.images[0])
        if not entry.labels:
            return Scan(image)
        masks = [binary(read_labels(path, like=image).array, path) for path in entry.labels]
        labels, doubts = join(TASK_ORGANS, masks)
        joined = Volume(labels, image.affine, image.header, entry.labels[0].parent)
        return Scan(image, joined, ("one label map was made from the masks of four organs.",), tuple(doubts))


def _is_dataset(folder: Path) -> bool:
    return any(os.path.isdir(inner / "segmentations") and _images(inner) for inner in folders(folder))


def _images(folder: Path) -> dict[Path, str]:
    """Images of a subject with their modality."""
    there = {name.lower(): folder / name for name in names(folder, NIFTI)}
    return {there[file]: modality for name, modality in _IMAGES.items() if (file := f"{name}.nii.gz") in there}


def _splits(file: Path) -> dict[str, str]:
    """train, val or test by subject, where there is a meta.csv with the columns image_id and split."""
    if not os.path.exists(file):
        return {}
    try:
        text = text_of(file)
        head, *rows = csv_in(text, ";" if ";" in text.partition("\n")[0] else ",") or [[]]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as a table ({str(error).splitlines()[0][:100]}): download it again."
        ) from None
    splits: dict[str, str] = {}
    for row in rows:
        line = dict(zip(head, row, strict=False))
        subject, split = (str(line.get(name) or "").strip() for name in ("image_id", "split"))
        if subject and split and (split not in SPLITS or splits.setdefault(subject, split) != split):
            raise DataError(f"{file} puts '{subject[:40]}' into '{split[:40]}': use one of {', '.join(SPLITS)}.")
    return splits
