"""BTCV, "Multi-Atlas Labeling Beyond the Cranial Vault", abdomen (Synapse syn3193805), also called MALBCV.

    RawData/Training/img/img0001.nii.gz    30 contrast CTs: 0001 to 0010 and 0021 to 0040
    RawData/Training/label/label0001.nii.gz
    RawData/Testing/img/img0061.nii.gz     20 more, without labels

Copies are nested once or twice more (Abdomen/RawData, RawData/RawData), call the folder Training_small, or its folders
image and label; all are found, as is the folder Training itself.
"""

import re
from pathlib import Path

from attent_kit.layouts import Entry, LabelMap, Layout, Scan
from attentkit_builtin.layouts.folders import checked, chosen, folders, names, nearest, only, paired, scan_of

_IMAGE = re.compile(r"^(img|image)-?_?[0-9]{4}\.nii(\.gz)?$", re.IGNORECASE)
_LABEL = re.compile(r"^(label|lbl)-?_?[0-9]{4}\.nii(\.gz)?$", re.IGNORECASE)
_EXPECTED = "BTCV (RawData/Training/img/img0001.nii.gz and so on)"


class BTCV(Layout):
    """BTCV abdominal CT: RawData/Training/{img,label}, 13 organs; part testing is RawData/Testing, without labels."""

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
            "portal and splenic veins": 10,
            "pancreas": 11,
            "right adrenal gland": 12,
            "left adrenal gland": 13,
        }
    )

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        there = _parts(self.path)
        only(list(there.values())[:1], self.path, _EXPECTED)
        self.part = chosen(part, tuple(there), self.path, default=next(iter(there)))
        self.folder = there[self.part]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(_training(Path(path)) or _testing(Path(path)))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        there = _parts(Path(path))
        return tuple(there) if len(there) > 1 else ()

    def entries(self) -> list[Entry]:
        images, labels = _images_of(self.folder), _labels_of(self.folder)
        assert images is not None
        return checked(
            (
                Entry(pair.case, (pair.image,), (pair.labels,) if pair.labels else (), "ct")
                for pair in paired(self, images, labels)
            ),
            self.folder,
        )

    def read(self, entry: Entry) -> Scan:
        return scan_of(entry)


def _parts(path: Path) -> dict[str, Path]:
    training, testing = _training(path), _testing(path)
    found = {"training": only(training, path, _EXPECTED)} if training else {}
    return found | ({"testing": only(testing, path, _EXPECTED)} if testing else {})


def _training(path: Path) -> list[Path]:
    return nearest(path, lambda folder: bool(_images_of(folder) and _labels_of(folder)), 4)


def _testing(path: Path) -> list[Path]:
    return nearest(path, lambda folder: bool(_images_of(folder)) and not _labels_of(folder), 4)


def _images_of(folder: Path) -> Path | None:
    return _inner(folder, ("img", "image", "images"), _IMAGE)


def _labels_of(folder: Path) -> Path | None:
    return _inner(folder, ("label", "labels"), _LABEL)


def _inner(folder: Path, called: tuple[str, ...], pattern: re.Pattern[str]) -> Path | None:
    """The folder inside that is called so and holds files of that name."""
    return next((path for path in folders(folder) if path.name.lower() in called and names(path, pattern)), None)
