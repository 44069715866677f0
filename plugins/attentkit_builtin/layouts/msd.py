"""The Medical Segmentation Decathlon (medicaldecathlon.com).

    Task03_Liver/
      dataset.json           modality, labels (value to name), training and test (lists of files)
      imagesTr/liver_0.nii.gz, labelsTr/liver_0.nii.gz, imagesTs/liver_1.nii.gz

Several modalities lie in one image of four dimensions. The archives hold a `._liver_0.nii.gz` beside each file, which
belongs to macOS and is not an image.
"""

import os
from pathlib import Path
from typing import Any

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, Layout, Scan, read_labels, read_volume
from attentkit_builtin.layouts.amos import is_amos
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
from attentkit_builtin.layouts.nnunet import channel_names, described, is_nnunet, part_names
from attentkit_builtin.layouts.organ_names import organs_of


class MSD(Layout):
    """Medical Segmentation Decathlon: imagesTr, labelsTr, dataset.json; part chooses the modality of 4-D images."""

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        self.folder = _folder(self.path)
        self.file = self.folder / "dataset.json"
        facts = json_file(self.file, dict)
        self.modalities = channel_names(facts, self.file)
        parts = part_names(self.modalities, self.folder)
        name = chosen(part, list(parts), self.path, default=None if len(self.modalities) > 1 else "training")
        self.part, (self.number, self.testing) = name, parts[name]
        self.organs, _ = organs_of(facts.get("labels"), self.file)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(nearest(Path(path), _is_task, 1))

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        file = _folder(Path(path)) / "dataset.json"
        parts = part_names(channel_names(json_file(file, dict), file), file.parent)
        return tuple(parts) if len(parts) > 1 else ()

    def entries(self) -> list[Entry]:
        facts = json_file(self.file, dict)
        modality = modality_of(self.modalities[self.number])
        pairs = self._unlabelled(facts.get("test")) if self.testing else self._labelled(facts.get("training"))
        kind = "Ts" if self.testing else "Tr"
        listed = {os.path.realpath(path) for pair in pairs for path in pair if path}
        there = [path for folder in (f"images{kind}", f"labels{kind}") for path in files(self.folder / folder, NIFTI)]
        if spare := [f"{path.parent.name}/{path.name}" for path in there if os.path.realpath(path) not in listed]:
            self.refuse(
                DataError(f"{self.file} does not list {listing(spare)}: add it to the list, or remove the file.")
            )
        return checked(
            (
                Entry(NIFTI.sub("", image.name), (image,), (labels,) if labels else (), modality)
                for image, labels in pairs
            ),
            self.folder,
        )

    def read(self, entry: Entry) -> Scan:
        several = len(self.modalities) > 1
        image = read_volume(entry.images[0], channel=(self.number, len(self.modalities)) if several else None)
        return Scan(image, read_labels(entry.labels[0], like=image) if entry.labels else None)

    def _labelled(self, listed: Any) -> list[tuple[Path, Path | None]]:
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise DataError(
                f"{self.file}: 'training' must list objects with an 'image' and a 'label' each: correct it."
            )
        pairs = [(self._named(item.get("image")), self._named(item.get("label"))) for item in listed]
        for image, labels in pairs:
            if image.name != labels.name:
                raise DataError(
                    f"{self.file} pairs {image.name} with {labels.name}, and in this layout both have one name: correct it."
                )
        return [*pairs]

    def _unlabelled(self, listed: Any) -> list[tuple[Path, Path | None]]:
        if not isinstance(listed, list):
            raise DataError(f"{self.file}: 'test' must list the names of images: it has {shown(listed)}.")
        return [(self._named(item.get("image") if isinstance(item, dict) else item), None) for item in listed]

    def _named(self, name: object) -> Path:
        return inside(self.folder, name, self.file)


def _is_task(folder: Path) -> bool:
    return (
        described(folder) and bool(names(folder / "imagesTr", NIFTI)) and not is_nnunet(folder) and not is_amos(folder)
    )


def _folder(path: Path) -> Path:
    return only(
        nearest(path, described, 1), path, "task of the Decathlon, which has a dataset.json beside its imagesTr"
    )
