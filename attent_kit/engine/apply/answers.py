"""One image in, one answer out, all of it in memory: what every way of applying a trained run goes through."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
import torch

from attent_kit.data.doubts.case import grid_doubts, like_labels
from attent_kit.data.prepared.file import encode
from attent_kit.data.scans.volumes import Volume, label_image, map_image
from attent_kit.data.space.geometry import Grid
from attent_kit.data.space.slicing import across
from attent_kit.engine.apply.card import Image, image_facts
from attent_kit.engine.apply.inputs import Input
from attent_kit.engine.apply.trained import Domain, LoadedRun, TrainedRun
from attent_kit.engine.run.predict import entropy, segment_slices, slices_as_source
from attent_kit.engine.run.probe import answering, overhear
from attent_kit.errors import ConfigError


@dataclass(frozen=True)
class Answer:
    """What a run says about one image."""

    labels: np.ndarray = field(repr=False)
    """[X, Y, Z] uint8, classes on the grid of the image."""
    slices: np.ndarray = field(repr=False)
    """[K, Z, H, W] float32, class probabilities of the slices that the network saw."""
    grid: Grid = field(repr=False)
    """The way back from slices to the image."""
    volume: Volume = field(repr=False)

    def probabilities(self) -> Iterator[np.ndarray]:
        """Class after class, background first: K times [X, Y, Z] float32."""
        return native_probabilities(self.grid, self.slices)

    def entropy(self) -> np.ndarray:
        """[X, Y, Z] float32: 0 where the run is certain, 1 where it is undecided between all classes."""
        return entropy(self.probabilities())

    def label_image(self) -> nib.Nifti1Image:
        """The labels with the affine and the header of the image."""
        return label_image(self.labels, self.volume.affine, self.volume.header)

    def probability_image(self) -> nib.Nifti1Image:
        """The probabilities as one image [X, Y, Z, K]."""
        return map_image(np.stack([*self.probabilities()], axis=-1), self.volume.header)

    def entropy_image(self) -> nib.Nifti1Image:
        """The entropy as an image [X, Y, Z]."""
        return map_image(self.entropy(), self.volume.header)


def examine(given: Input, domain: Domain) -> tuple[Volume, Image]:
    """An image, read, and what is known and doubtful about it. DataError if it cannot be read for certain."""
    volume, notes = given.read()
    return volume, Image(given, image_facts(given, volume), notes, doubts_of(given, volume, domain))


def segment(volume: Volume, domain: Domain, loaded: LoadedRun) -> Answer:
    """What the run says about an image."""
    slices, grid = encode(volume, domain.slicing, domain.intensity, domain.modality, domain.task.channels)
    probabilities = segment_slices(loaded.alignment, slices, loaded.device)
    return Answer(grid.to_native(probabilities), probabilities, grid, volume)


def translate(volume: Volume, domain: Domain, loaded: LoadedRun) -> np.ndarray:
    """The image in source style, [X, Y, Z] float32 in [-1, 1]; for a method that `require_translator` lets pass."""
    slices, grid = encode(volume, domain.slicing, domain.intensity, domain.modality, domain.task.channels)
    translated = slices_as_source(loaded.alignment, slices, loaded.device)
    assert translated is not None
    return grid.score_to_native(translated[:, domain.task.channels // 2], outside=-1.0)


def require_translator(run: TrainedRun, loaded: LoadedRun) -> None:
    """ConfigError if the run cannot make source images of target images."""
    blank = torch.zeros(1, run.domain.task.channels, run.domain.size, run.domain.size, device=loaded.device)
    with answering(loaded.alignment), overhear(loaded.alignment) as heard:
        answer = loaded.alignment.as_source(blank)
    if answer is None:
        raise ConfigError(
            f"'{run.component.name}' does not translate images to source style: leave the translation out."
        )
    if lacking := {call.network for call in heard} - loaded.networks:
        raise ConfigError(
            f"{run.weights(loaded.selection)} holds only what predicts, and a translation also needs "
            f"{', '.join(sorted(lacking))}: leave the translation out, or use the folder of the run with its "
            f"{run.files.checkpoint.name}."
        )


def native_probabilities(grid: Grid, probabilities: np.ndarray) -> Iterator[np.ndarray]:
    """Class after class on the native grid: [K, Z, H, W] -> K times [X, Y, Z] float32. What no slice covers is background."""
    for index, score in enumerate(probabilities):
        yield grid.score_to_native(score, outside=float(index == 0))


def doubts_of(given: Input, volume: Volume, domain: Domain) -> tuple[str, ...]:
    """What speaks against applying a run to an image, a sentence each."""
    doubts = []
    if not volume.placed:
        doubts.append(
            "its header does not say where the patient's right is (no qform, no sform), so left and right may be "
            f"exchanged; taken as {volume.orientation}."
        )
    doubts += grid_doubts(volume)
    if evidence := like_labels(volume.array):
        doubts.append(f"it {evidence}.")
    if given.series and domain.modality in ("ct", "mr") and given.series.modality.lower() not in ("", domain.modality):
        doubts.append(f"its modality is {given.series.modality}, and the run is for {domain.modality}.")
    placed = domain.slicing.place(volume.array, volume.affine, domain.modality)
    doubts += placed.doubts
    if unlike := across(placed.grid):
        doubts.append(f"{unlike}.")
    if domain.familiar:
        doubts += domain.familiar.doubts(placed.array, placed.grid, domain.intensity, domain.modality)
    return tuple(doubts)
