"""nnU-Net, version 2.

    Dataset017_Abdomen/
      dataset.json           channel_names, labels (name to value), file_ending
      imagesTr/CASE_0000.nii.gz, CASE_0001.nii.gz, ...   one file per channel
      labelsTr/CASE.nii.gz
      imagesTs/, labelsTs/   where there are any
      splits_final.json      a list of folds, {"train": [...], "val": [...]}: fold 0 counts

The format: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md. What version 1 wrote differs in the direction of
`labels` and in `modality` for `channel_names`, and is read too.
"""

import os
import re
from pathlib import Path
from typing import Any

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, Layout, Scan, read_labels, read_volume
from attentkit_builtin.layouts.folders import (
    NIFTI,
    checked,
    chosen,
    files,
    inside,
    json_file,
    listing,
    modality_of,
    names,
    nearest,
    only,
    shown,
)  # fmt: skip
from attentkit_builtin.layouts.organ_names import organs_of

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>[0-9]{4})$")


class NnUNet(Layout):
    """nnU-Net v2: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, dataset.json; part chooses the channel."""

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        self.folder = _folder(self.path)
        self.file = self.folder / "dataset.json"
        facts = json_file(self.file, dict)
        self.ending = _ending(facts, self.file)
        self.channels = channel_names(facts, self.file)
        parts = part_names(self.channels, self.folder)
        name = chosen(part, list(parts), self.path, default=None if len(self.channels) > 1 else "training")
        self.part, (self.channel, self.testing) = name, parts[name]
        self.organs, self.ignore = organs_of(facts.get("labels"), self.file)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(nearest(Path(path), is_nnunet, 1))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        file = _folder(Path(path)) / "dataset.json"
        parts = part_names(channel_names(json_file(file, dict), file), file.parent)
        return tuple(parts) if len(parts) > 1 else ()

    def entries(self) -> list[Entry]:
        facts = json_file(self.file, dict)
        listed = facts.get("dataset")
        cases = self._found() if listed is None or self.testing else self._listed(listed)
        if not self.testing and (count := facts.get("numTraining", len(cases))) != len(cases):
            self.refuse(
                DataError(
                    f"{self.file} counts {shown(count)} cases for training, and there are {len(cases)}: add what is missing, "
                    "or correct numTraining."
                )
            )
        splits = {}
        try:
            splits = {} if self.testing else self._splits(set(cases))
        except DataError as error:
            self.refuse(error)
        modality = modality_of(self.channels[self.channel])
        return checked(
            (
                Entry(case, (images[self.channel],), (labels,) if labels else (), modality, splits.get(case))
                for case, (images, labels) in cases.items()
            ),
            self.folder,
        )

    def read(self, entry: Entry) -> Scan:
        image = read_volume(entry.images[0])
        if not entry.labels:
            return Scan(image)
        labels = read_labels(entry.labels[0], like=image)
        if self.ignore is not None and (count := int((labels.array == self.ignore).sum())):
            raise DataError(
                f"{entry.labels[0]} has {count} voxels of the value {self.ignore}, which {self.file} calls 'ignore': "
                "attent-kit needs every voxel labelled, so finish the label map or leave the case out."
            )
        return Scan(image, labels)

    def _found(self) -> dict[str, tuple[list[Path], Path | None]]:
        """Files by case, as they lie in the folders: one image per channel, and the label map."""
        kind = "Ts" if self.testing else "Tr"
        images: dict[str, dict[int, Path]] = {}
        for path in files(self.folder / f"images{kind}", NIFTI):
            match = _CHANNEL.match(self._stem(path))
            if match is None or int(match["channel"]) >= len(self.channels):
                raise DataError(
                    f"{path} does not end in a channel, _0000{self.ending} to _{len(self.channels) - 1:04}{self.ending} "
                    f"by {self.file.name}: rename or remove it."
                )
            images.setdefault(match["case"], {})[int(match["channel"])] = path
        labels = {self._stem(path): path for path in files(self.folder / f"labels{kind}", NIFTI)}
        wanted = set(images) if labels or not self.testing else set()
        if lonely := sorted(wanted - set(labels)):
            self.refuse(DataError(f"labels{kind} of {self.folder} has no label map of {listing(lonely)}: add it."))
        if lonely := sorted(set(labels) - set(images)):
            self.refuse(DataError(f"images{kind} of {self.folder} has no image of {listing(lonely)}: add it."))
        found: dict[str, tuple[list[Path], Path | None]] = {}
        for case, by_channel in images.items():
            if missing := [n for n in range(len(self.channels)) if n not in by_channel]:
                self.refuse(
                    DataError(
                        f"images{kind} of {self.folder} has no {case}_{missing[0]:04}{self.ending}, the channel "
                        f"'{self.channels[missing[0]]}' of the case: add it."
                    )
                )
                continue
            found[case] = [by_channel[n] for n in sorted(by_channel)], labels.get(case)
        return found

    def _listed(self, listed: Any) -> dict[str, tuple[list[Path], Path | None]]:
        """Files by case, as the entry 'dataset' of dataset.json names them."""
        cases: dict[str, tuple[list[Path], Path | None]] = {}
        for case, named in (listed if isinstance(listed, dict) else {"": listed}).items():
            images = named.get("images") if isinstance(named, dict) else None
            if not isinstance(images, list) or len(images) != len(self.channels):
                raise DataError(
                    f"{self.file}: 'dataset' must give each case its 'images', one for each of "
                    f"{', '.join(self.channels)}, and its 'label'; {case[:60]!r} has {shown(images)}."
                )
            paths = [inside(self.folder, image, self.file) for image in images]
            cases[case] = paths, inside(self.folder, named.get("label"), self.file)
        return cases

    def _splits(self, cases: set[str]) -> dict[str, str]:
        """train or val of each case in fold 0, where there is a splits_final.json."""
        file = self.folder / "splits_final.json"
        if not os.path.exists(file):
            return {}
        folds = json_file(file, list)
        fold = folds[0] if folds and isinstance(folds[0], dict) else {}
        splits: dict[str, str] = {}
        for name in ("train", "val"):
            members = fold.get(name)
            if not isinstance(members, list) or not all(isinstance(case, str) for case in members):
                raise DataError(f"{file}: fold 0 must name its cases as 'train' and 'val', two lists: correct it.")
            for case in members:
                if case not in cases:
                    raise DataError(f"{file} names the case {case[:60]!r}, which is not in {self.folder}: correct it.")
                if splits.setdefault(case, name) != name:
                    raise DataError(f"{file} has the case {case[:60]!r} in train and in val of fold 0: correct it.")
        return splits

    def _stem(self, path: Path) -> str:
        stem = NIFTI.sub("", path.name)
        if path.name[len(stem) :].lower() != self.ending:
            raise DataError(
                f"{path} does not end in {self.ending}, the file_ending of {self.file.name}: rename or remove it."
            )
        return stem


def channel_names(facts: dict[str, Any], file: Path) -> list[str]:
    """Names of the channels of a dataset.json in their order; 'modality' is what MSD and nnU-Net v1 call them."""
    given = facts.get("channel_names", facts.get("modality"))
    if isinstance(given, list):
        given = {str(n): name for n, name in enumerate(given)}
    if not isinstance(given, dict) or not given or not all(isinstance(name, str) for name in given.values()):
        raise DataError(f'{file}: \'channel_names\' must be an object such as {{"0": "T2"}}: name each channel.')
    if set(given) != {str(n) for n in range(len(given))}:
        raise DataError(f"{file}: the channels are numbered {listing([n[:20] for n in given])}: number them from 0.")
    ordered = [given[str(n)].strip() for n in range(len(given))]
    if not all(name.isprintable() and name for name in ordered):
        raise DataError(f'{file}: a channel has no printable name: name each, as in {{"0": "T2"}}.')
    return ordered


def part_names(channels: list[str], folder: Path) -> dict[str, tuple[int, bool]]:
    """Parts of a data set with a folder imagesTr: the number of the channel of each, and whether it is for testing.

    With one channel they are 'training' and 'testing', otherwise 'T2', 'T2-testing', ...; a name that two channels share is
    followed by the number.
    """
    lower = [name.lower() for name in channels]
    unique = [name if lower.count(name.lower()) == 1 else f"{name}-{n}" for n, name in enumerate(channels)]
    testing = bool(files(folder / "imagesTs", NIFTI))
    if len(channels) == 1:
        return {"training": (0, False)} | ({"testing": (0, True)} if testing else {})
    parts = {name: (n, False) for n, name in enumerate(unique)}
    return parts | ({f"{name}-testing": (n, True) for n, name in enumerate(unique)} if testing else {})


def is_nnunet(folder: Path) -> bool:
    """Whether there is a dataset.json, and image names end in a channel that the names of their label maps lack."""
    found = names(folder / "imagesTr", re.compile(r"_[0-9]{4}\.[A-Za-z.]+$")) if described(folder) else []
    return bool(found) and not os.path.exists(folder / "labelsTr" / found[0])


def described(folder: Path) -> bool:
    """Whether there is a dataset.json."""
    return os.path.isfile(folder / "dataset.json")


def _folder(path: Path) -> Path:
    return only(nearest(path, described, 1), path, "nnU-Net data set, which has a dataset.json beside its imagesTr")


def _ending(facts: dict[str, Any], file: Path) -> str:
    ending = facts.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii"):
        raise DataError(
            f"{file} has the file_ending {shown(ending)}: attent-kit reads nnU-Net data sets of .nii.gz or .nii only, so "
            "convert the images and labels."
        )
    return ending
