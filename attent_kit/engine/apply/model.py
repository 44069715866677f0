"""A trained run as an object: images in, images out, nothing on disk in between."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attent_kit.data.scans.volumes import map_image
from attent_kit.engine.apply.answers import Answer, examine, require_translator, segment, translate
from attent_kit.engine.apply.card import card, organ_volumes
from attent_kit.engine.apply.inputs import ImageLike, as_input
from attent_kit.engine.apply.trained import Domain, LoadedRun, TrainedRun, load_run, open_run
from attent_kit.engine.run.provenance import components_of
from attent_kit.errors import DataError
from attent_kit.registry import Component, Registry
from attent_kit.report.scores import LAST


@dataclass(frozen=True)
class Prediction:
    """What a run says about one image, on the grid of that image."""

    organs: tuple[str, ...]
    """The n-th is the value n + 1 of the labels; 0 is background."""
    notes: tuple[str, ...]
    """How the image was read, where that is not obvious."""
    doubts: tuple[str, ...]
    """What speaks against applying the run to this image: what `attentkit predict` prints as warnings."""
    card: Mapping[str, Any] = field(repr=False)
    """Which run, which image, what it is not good for: what `attentkit predict` writes beside a label map."""
    answer: Answer = field(repr=False)

    @cached_property
    def labels(self) -> nib.Nifti1Image:
        """[X, Y, Z] uint8."""
        return self.answer.label_image()

    @cached_property
    def probabilities(self) -> nib.Nifti1Image:
        """[X, Y, Z, K] float32, background first; made when it is asked for."""
        return self.answer.probability_image()

    @cached_property
    def entropy(self) -> nib.Nifti1Image:
        """[X, Y, Z] float32, 0 certain to 1 undecided; made when it is asked for."""
        return self.answer.entropy_image()


class Model:
    """A trained run, ready to be asked. Its weights are read when it is asked for the first time."""

    def __init__(self, run: TrainedRun, registry: Registry, device: str = "auto", select: str = LAST) -> None:
        self.run, self.registry, self.device, self.select = run, registry, device, select

    def __repr__(self) -> str:
        return f"<{self.method} of {self.run.folder}, for {self.domain.name}: {', '.join(self.organs)}>"

    @property
    def method(self) -> str:
        """Name of the alignment."""
        return self.run.component.name

    @property
    def organs(self) -> tuple[str, ...]:
        """What it segments; the n-th is the value n + 1 of a label map."""
        return self.domain.task.organs

    @property
    def domain(self) -> Domain:
        """The domain that it is for: modality, slices, intensities, and what its training images looked like."""
        return self.run.domain

    @property
    def components(self) -> list[Component]:
        """The method and its networks, with the plugins that they come from."""
        return components_of(self.run.settings, self.registry)

    @cached_property
    def loaded(self) -> LoadedRun:
        """The networks with their weights on the device."""
        return load_run(self.run, self.registry, self.device, self.select)

    def predict(
        self, image: ImageLike, affine: np.ndarray | None = None, *, series: str | None = None, strict: bool = False
    ) -> Prediction:
        """Segment one image: the path of a NIfTI file or of a DICOM series, a nibabel image, or an array with its affine.

        `series` is the UID of a DICOM series; `strict` makes a DataError of a doubt. DataError for an image that cannot be read
        for certain, ConfigError or RunError for a run that cannot be used.
        """
        volume, found = examine(as_input(image, affine, series), self.domain)
        if strict and found.doubts:
            raise DataError("\n  ".join(["strict lets no doubt pass, and there are some:", *found.doubts]))
        answer = segment(volume, self.domain, self.loaded)
        output = {"organs_ml": organ_volumes(answer.labels, self.organs, volume)}
        facts = card(self.run, self.loaded, [found], [output])
        return Prediction(self.organs, found.notes, found.doubts, facts, answer)

    def translate(
        self, image: ImageLike, affine: np.ndarray | None = None, *, series: str | None = None
    ) -> nib.Nifti1Image:
        """The image in source style, [X, Y, Z] float32 in [-1, 1] on its own grid; ConfigError if the method has none."""
        require_translator(self.run, self.loaded)
        volume, _ = examine(as_input(image, affine, series), self.domain)
        return map_image(translate(volume, self.domain, self.loaded), volume.header)


def open_model(path: str | Path, registry: Registry, device: str = "auto", select: str = LAST) -> Model:
    """The run in a folder that `attentkit train` or `compare` made, or in a zip of `attentkit pack`.

    ConfigError if there is none or if one of its plugins is missing, RunError if it is damaged.
    """
    return Model(open_run(Path(path), registry), registry, device, select)
