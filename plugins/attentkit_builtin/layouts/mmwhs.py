"""MM-WHS, multi-modality whole heart segmentation, MICCAI 2017 (zmiclab.github.io/zxh/0/mmwhs).

    ct_train/ct_train_1001_image.nii.gz, ct_train_1001_label.nii.gz    20 CT
    mr_train/mr_train_1001_image.nii.gz, mr_train_1001_label.nii.gz    20 MR of other patients
    ct_test/ct_test_2001_image.nii.gz, mr_test/...                     40 each, without labels

Copies put all in one folder, or images and labels into one each. A CT and an MR of one number are of two patients.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, LabelMap, Layout, Scan
from attentkit_builtin.layouts.folders import below, checked, chosen, files, labelled, names, only, scan_of

_FILE = re.compile(
    r"^(?P<modality>ct|mr)_(?P<set>train|test)_(?P<number>[0-9]{4})_(?P<role>image|label)\.nii(\.gz)?$", re.I
)
_EXPECTED = "MM-WHS (ct_train/ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz)"
_DEPTH = 3


class MMWHS(Layout):
    """MM-WHS hearts: {ct,mr}_train_1001_{image,label}.nii.gz, 7 structures; part chooses ct, mr or those for testing."""

    organs = LabelMap.of(
        {
            "left ventricle": 500,
            "right ventricle": 600,
            "left atrium": (420, 421),  # one MR has strays of 421, which everybody takes for 420
            "right atrium": 550,
            "myocardium": 205,
            "ascending aorta": 820,
            "pulmonary artery": 850,
        }
    )

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        only(list(_homes(self.path))[:1], self.path, _EXPECTED)
        self.part = chosen(part, tuple(_found(self.path)), self.path)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return next(iter(_homes(Path(path))), None) is not None

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        there = tuple(_found(Path(path)))
        return there if len(there) > 1 else ()

    def entries(self) -> list[Entry]:
        by_role = _found(self.path)[str(self.part)]
        images, labels = by_role.get("image", {}), by_role.get("label", {})
        if labels or not str(self.part).endswith("-testing"):
            labels = labelled(self, images, labels, self.path)
        modality = str(self.part)[:2]
        return checked(
            (
                Entry(case, (image,), (labels[case],) if case in labels else (), modality)
                for case, image in images.items()
            ),
            self.path,
        )

    def read(self, entry: Entry) -> Scan:
        return scan_of(entry)


def _homes(path: Path) -> Iterator[Path]:
    return below(path, lambda folder: bool(names(folder, _FILE)), _DEPTH)


def _found(path: Path) -> dict[str, dict[str, dict[str, Path]]]:
    """Files by part, role and case."""
    found: dict[str, dict[str, dict[str, Path]]] = {}
    for folder in _homes(path):
        for file in files(folder, _FILE):
            match = _FILE.match(file.name)
            assert match is not None
            modality, role = match["modality"].lower(), match["role"].lower()
            part = modality if match["set"].lower() == "train" else f"{modality}-testing"
            cases = found.setdefault(part, {}).setdefault(role, {})
            other = cases.setdefault(f"{modality}_{match['number']}", file)
            if other != file:
                raise DataError(f"{other} and {file} are one case: remove one of them.")
    return dict(sorted(found.items()))
