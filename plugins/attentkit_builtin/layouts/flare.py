"""FLARE: abdominal CT of 2022, and Task 3 of 2024 and 2025, which adapts from labelled CT to unlabelled MR and PET.

    FLARE_LabeledCase50/{images,labels}             2022: images/FLARE22_Tr_0001_0000.nii.gz, labels/FLARE22_Tr_0001.nii.gz
    FLARE_UnlabeledCase1-1000, ...1001-2000
    FLARE24-Task3-MR/Training/LLD-MMRI-3984, ...    2024: MR without labels; PublicValidation/{imagesVal,labelsVal}
    train_CT_gt_label/{imagesTr,labelsTr}           2025: the same CT
    train_CT_pseudolabel/imagesTr, pseudo_label_blackbean_flare22, flare22_aladdin5_pseudo
    train_MRI_unlabeled/{AMOS-833,LLD-MMRI-3984}, train_PET_unlabeled
    validation/{MRI,PET}_{imagesVal,labelsVal}

Thirteen organs have the same values in all of them. Part mr takes the unlabelled MR for training and the labelled validation
images for testing, and part pet likewise: that is what the task is about.
"""

import re
from pathlib import Path
from typing import NamedTuple

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, LabelMap, Layout, Scan
from attentkit_builtin.layouts.folders import (
    NIFTI,
    below,
    by_case,
    checked,
    chosen,
    folders,
    labelled,
    names,
    only,
    scan_of,
)

_DEPTH = 4
_CT = re.compile(r"^(FLARE_LabeledCase50|train_CT_gt_label)$", re.I)
_PSEUDO = re.compile(r"^train_CT_pseudo_?label$", re.I)
_CT_WITHOUT = re.compile(r"^FLARE_UnlabeledCase[0-9-]+$", re.I)
_WITHOUT = re.compile(r"^train_(?P<modality>MRI|PET)_unlabell?ed$", re.I)
_MR_OF_2024 = re.compile(r"^(AMOS.*-833|LLD-MMRI-3984)$", re.I)
_VALIDATION = re.compile(r"^(?P<modality>MRI_|PET_|)imagesVal$", re.I)
_NAME = re.compile(r"^FLARE22_Tr_[0-9]{4}(_0000)?\.nii(\.gz)?$", re.I)
_JSON = re.compile(r"^dataset\.json$")
_IMAGES, _LABELS = ("imagestr", "images"), ("labelstr", "labels")
_EXPECTED = "FLARE data (FLARE_LabeledCase50, or train_CT_gt_label and train_MRI_unlabeled)"


class FlareFolder(NamedTuple):
    """Images in one folder and, where there are any, their label maps in another."""

    part: str
    images: Path
    labels: Path | None
    split: str | None


class Flare(Layout):
    """FLARE22 and Task 3 of FLARE24/25: part ct, ct-pseudo-NAME, mr or pet, labelled for validation alone in mr and pet."""

    organs = LabelMap.of(
        {
            "liver": 1,
            "right kidney": 2,
            "left kidney": 13,
            "spleen": 3,
            "pancreas": 4,
            "aorta": 5,
            "inferior vena cava": 6,
            "right adrenal gland": 7,
            "left adrenal gland": 8,
            "gallbladder": 9,
            "esophagus": 10,
            "stomach": 11,
            "duodenum": 12,
        }
    )

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        places = _places(self.path)
        only([place.images for place in places][:1], self.path, _EXPECTED)
        self.part = chosen(part, _names(places), self.path)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        # A folder called imagesVal says too little by itself.
        return any(not place.part.endswith("-validation") for place in _places(Path(path)))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        there = _names(_places(Path(path)))
        return there if len(there) > 1 else ()

    def entries(self) -> list[Entry]:
        modality = str(self.part).partition("-")[0]
        places = [place for place in _places(self.path) if place.part in (self.part, f"{modality}-validation")]
        found: dict[str, Entry] = {}
        for place in places:
            images = by_case(place.images)
            labels = {} if place.labels is None else labelled(self, images, by_case(place.labels), place.labels)
            split = place.split if len({other.split for other in places}) > 1 else None
            for case, image in images.items():
                entry = Entry(case, (image,), (labels[case],) if case in labels else (), modality, split)
                if (other := found.setdefault(case, entry)) != entry:
                    raise DataError(f"{other.images[0]} and {image} are one case: remove one of them.")
        return checked(found.values(), self.path)

    def read(self, entry: Entry) -> Scan:
        pseudo = str(self.part).startswith("ct-pseudo")
        doubts = ("its labels are a network's, not an expert's.",) if pseudo and entry.labels else ()
        return scan_of(entry, doubts)


def _names(places: list[FlareFolder]) -> tuple[str, ...]:
    """Parts that can be chosen. The whole unlabelled MR is one, and each of its folders; the validation set goes with them."""
    return tuple(dict.fromkeys(place.part for place in places if not place.part.endswith("-validation"))) or tuple(
        dict.fromkeys(place.part for place in places)
    )


def _places(path: Path) -> list[FlareFolder]:
    """Every folder of images that is known by its name or by that of its parent, with its label maps."""
    found: list[FlareFolder] = []
    for folder in below(path, lambda folder: bool(_of(folder)), _DEPTH):
        found += _of(folder)
    several = [place for place in found if place.part.startswith("mr-") and not place.part.endswith("-validation")]
    if len(several) > 1:
        found = [place._replace(part="mr") for place in several] + found
    elif several:
        found = [place._replace(part="mr") if place in several else place for place in found]
    return found


def _of(folder: Path) -> list[FlareFolder]:
    """What lies directly in a folder."""
    name, inner = folder.name, {one.name.lower(): one for one in folders(folder)}
    images = next((inner[kind] for kind in _IMAGES if kind in inner), None)
    labels = next((inner[kind] for kind in _LABELS if kind in inner), None)
    if images and (_CT.match(name) or (labels and names(images, _NAME) and not names(folder, _JSON))):
        return [FlareFolder("ct", images, labels or folder / "labels", None)]
    if images and _PSEUDO.match(name):
        others = [one for one in inner.values() if one != images and names(one, NIFTI)]
        return [FlareFolder(f"ct-pseudo-{_short(one.name)}", images, one, None) for one in others]
    if _CT_WITHOUT.match(name) and names(folder, NIFTI):
        return [FlareFolder("ct-unlabelled", folder, None, None)]
    if match := _WITHOUT.match(name):
        modality = {"mri": "mr"}.get(match["modality"].lower(), "pet")
        groups = [one for one in inner.values() if names(one, NIFTI)]
        if modality == "mr" and groups:
            return [FlareFolder(f"mr-{one.name.lower()}", one, None, "train") for one in groups]
        return [FlareFolder(modality, folder, None, "train")] if names(folder, NIFTI) else []
    if _MR_OF_2024.match(name) and names(folder, NIFTI):
        return [FlareFolder(f"mr-{name.lower()}", folder, None, "train")]
    found = []
    for one in inner.values():
        if (match := _VALIDATION.match(one.name)) and names(one, NIFTI):
            modality = "pet" if match["modality"].lower() == "pet_" else "mr"
            found.append(
                FlareFolder(f"{modality}-validation", one, folder / one.name.replace("images", "labels"), "test")
            )
    return found


def _short(name: str) -> str:
    """'blackbean' of pseudo_label_blackbean_flare22."""
    words = [word for word in re.split(r"[_\W]+", name.lower()) if word not in ("pseudo", "label", "labels", "flare22")]
    return "-".join(words) or name.lower()
