"""AMOS22, abdominal multi-organ segmentation in CT and MR (zenodo.org/records/7262581).

    imagesTr/amos_0001.nii.gz, labelsTr/amos_0001.nii.gz    numbers to 500 are CT, from 501 MR
    imagesVa, labelsVa                                      the validation set of the challenge
    imagesTs                                                its test set, whose labels are not public

Copies name the images as nnU-Net does, amos_0001_0000.nii.gz. One that nnU-Net has a dataset.json for is read by that, since
such copies number the organs anew.
"""

import os
import re
from pathlib import Path

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, LabelMap, Layout, Scan, organ_called
from attentkit_builtin.layouts.folders import (
    by_case,
    checked,
    chosen,
    json_file,
    labelled,
    names,
    nearest,
    only,
    scan_of,
)
from attentkit_builtin.layouts.organ_names import organs_of

_NAME = re.compile(r"^amos_[0-9]{4}(_0000)?\.nii(\.gz)?$", re.IGNORECASE)
_CASE = re.compile(r"^amos_([0-9]{4})$", re.IGNORECASE)
LAST_CT, LAST_LABELLED, FIRST_MR_WITHOUT = 500, 600, 7000
"""The last number of a CT, that of a labelled image, and the first of an unlabelled MR."""
_SETS = {"Tr": "train", "Va": "val", "Ts": "test"}
_EXPECTED = "AMOS22 (imagesTr/amos_0001.nii.gz and labelsTr/amos_0001.nii.gz)"


class Amos(Layout):
    """AMOS22: imagesTr, labelsTr, imagesVa, labelsVa; part chooses ct or mr by the number of a case, 15 organs."""

    organs = LabelMap.of(
        {
            "liver": 6,
            "right kidney": 2,
            "left kidney": 3,
            "spleen": 1,
            "gallbladder": 4,
            "esophagus": 5,
            "stomach": 7,
            "aorta": 8,
            "inferior vena cava": 9,
            "pancreas": 10,
            "right adrenal gland": 11,
            "left adrenal gland": 12,
            "duodenum": 13,
            "bladder": 14,
            "prostate or uterus": 15,
        }
    )

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        self.folder = _folder(self.path)
        self.part = chosen(part, _parts(self.folder), self.path)
        self._require_own_values(self.folder / "dataset.json")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(nearest(Path(path), is_amos, 2))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        there = _parts(_folder(Path(path)))
        return there if len(there) > 1 else ()

    def entries(self) -> list[Entry]:
        modality, _, testing = str(self.part).partition("-")
        sets = [kind for kind in _SETS if _has(self.folder, kind) and (kind in _labelled(self.folder)) != bool(testing)]
        splits = {kind: _SETS[kind] for kind in sets}
        if "Va" in sets and "Ts" not in sets:
            splits["Va"] = "test"  # with the labels of the test set withheld, the validation set is what can be scored
        found = []
        for kind in sets:
            images = _of_modality(by_case(self.folder / f"images{kind}"), modality)
            labels = {}
            if not testing:
                own = _of_modality(by_case(self.folder / f"labels{kind}"), modality)
                labels = labelled(self, images, own, self.folder / f"labels{kind}")
            split = splits[kind] if len(sets) > 1 else None
            found += [
                Entry(case.lower(), (image,), (labels[case],) if case in labels else (), modality, split)
                for case, image in images.items()
            ]
        return checked(found, self.folder)

    def read(self, entry: Entry) -> Scan:
        return scan_of(entry)

    def _require_own_values(self, file: Path) -> None:
        """DataError if a dataset.json gives an organ another value than AMOS does: a copy that was numbered anew."""
        if not os.path.isfile(file):
            return
        theirs, _ = organs_of(json_file(file, dict).get("labels"), file)
        own = dict(self.organs.values)
        for name, values in theirs.values:
            organ = organ_called(name)
            if organ in own and own[organ] != values:
                raise DataError(
                    f"{file} gives '{name}' the value {values[0]}, and AMOS22 the value {own[organ][0]}: the organs of this copy "
                    "are numbered anew, so read it by its dataset.json, with --layout nnunet or --layout msd."
                )


def is_amos(folder: Path) -> bool:
    """Whether there are images with the names of AMOS22, and nnU-Net has not described them anew."""
    found = names(folder / "imagesTr", _NAME) or names(folder / "imagesVa", _NAME)
    own = [name for name in found if "_0000." not in name]
    return bool(own) or (bool(found) and not os.path.isfile(folder / "dataset.json"))


def _folder(path: Path) -> Path:
    return only(nearest(path, is_amos, 2), path, _EXPECTED)


def _has(folder: Path, kind: str) -> bool:
    return bool(names(folder / f"images{kind}", _NAME))


def _labelled(folder: Path) -> list[str]:
    """The sets that have label maps; one that should have them and does not is refused later, by name."""
    return [kind for kind in _SETS if _has(folder, kind) and (kind != "Ts" or names(folder / "labelsTs", _NAME))]


def _parts(folder: Path) -> tuple[str, ...]:
    own = _labelled(folder)
    found = []
    for modality in ("ct", "mr"):
        for ending, kinds in (("", own), ("-testing", [kind for kind in _SETS if kind not in own])):
            if any(_of_modality(by_case(folder / f"images{kind}"), modality) for kind in kinds if _has(folder, kind)):
                found.append(modality + ending)
    return tuple(found)


def _of_modality(images: dict[str, Path], modality: str) -> dict[str, Path]:
    return {case: path for case, path in images.items() if _modality(case, path) == modality}


def _modality(case: str, path: Path) -> str:
    match = _CASE.match(case)
    if match is None:
        raise DataError(f"{path} is not named as AMOS22 names its files, amos_0001.nii.gz: rename or remove it.")
    number = int(match[1])
    if LAST_LABELLED < number < FIRST_MR_WITHOUT:
        raise DataError(
            f"{path}: the number {number} does not tell whether it is CT or MR (to {LAST_CT} CT, {LAST_CT + 1} to "
            f"{LAST_LABELLED} MR): move it to a folder of its own and read that with --layout pairs --modality."
        )
    return "ct" if number <= LAST_CT else "mr"
