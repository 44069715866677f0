"""Label maps on disk, scored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attent_kit.data.scans.volumes import Volume, read_labels
from attent_kit.data.sets.labelmap import TASK_ORGANS, LabelMap
from attent_kit.data.sets.mask_stack import GREY_VALUES, read_mask_stack, read_slices
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.errors import ConfigError, DataError
from attent_kit.metrics import Protocol
from attent_kit.report.scores import Score

ORGANS = LabelMap.of({organ: value for value, organ in enumerate(TASK_ORGANS, start=1)})
"""Liver 1, right kidney 2, left kidney 3, spleen 4: what `attentkit predict` writes."""


class _Case(NamedTuple):
    """A prediction and its truth, not yet read."""

    name: str
    read: Callable[[], tuple[Volume, Volume]]
    """Both on the grid and in the axis order of the truth."""


def evaluate(
    prediction: Path,
    truth: Path,
    protocols: Sequence[Protocol],
    organs: LabelMap | None = None,
    truth_organs: LabelMap | None = None,
    dicom: Path | None = None,
    report: Callable[[str, int, int], None] = lambda case, done, total: None,
    left_out: Callable[[int], None] = lambda count: None,
) -> list[Score]:
    """The rows of each protocol for every pair of label maps; both must be on one grid and name the same organs.

    Both paths are NIfTI files or folders of them, matched by name; label maps of `truth` without a prediction are left
    out, and `left_out` is told how many. With the folder of a DICOM series in `dicom` both are folders of PNG masks of its
    slices. `organs` are those of the prediction, and of the truth if `truth_organs` says nothing else.
    """
    usual = ORGANS if dicom is None else GREY_VALUES
    organs = organs or usual
    maps = organs, truth_organs or organs
    if maps[0].organs != maps[1].organs:
        raise ConfigError(
            f"the two label maps name different organs: {', '.join(maps[0].organs)} and {', '.join(maps[1].organs)}: "
            "give --organs and --truth-organs the same names."
        )
    if prediction.is_dir() and prediction.resolve() == truth.resolve():
        raise ConfigError(f"{prediction} is named twice: write the folder of the predictions, then that of the truth.")
    cases = _volumes(prediction, truth, left_out) if dicom is None else _mask_stacks(prediction, truth, dicom)
    rows = []
    for done, (name, read) in enumerate(cases):
        report(name, done, len(cases))
        predicted, true = read()
        if GREY_VALUES in maps:
            _require_levels(predicted, true)
        answer = maps[0].apply(predicted.array, str(predicted.path))
        reference = maps[1].apply(true.array, str(true.path))
        for protocol in protocols:
            metrics = protocol.rows(answer, reference, organs.organs, true.spacing, true.orientation)
            rows += [Score("prediction", "", 0, name, *metric, protocol.name) for metric in metrics]
    return rows


def _volumes(prediction: Path, truth: Path, left_out: Callable[[int], None]) -> list[_Case]:
    if prediction.is_file() and truth.is_file():
        pairs = [(prediction.name.partition(".")[0], prediction, truth)]
    else:
        pairs = [(p.case, p.image, p.labels) for p in find_pairs(prediction, truth, spare_labels=True) if p.labels]
        if truth.is_dir() and len(spare := find_pairs(truth)) > len(pairs):
            left_out(len(spare) - len(pairs))

    def reader(predicted: Path, true: Path) -> Callable[[], tuple[Volume, Volume]]:
        def read() -> tuple[Volume, Volume]:
            reference = read_labels(true)
            return read_labels(predicted, like=reference), reference

        return read

    return [_Case(name, reader(predicted, true)) for name, predicted, true in pairs]


def _mask_stacks(prediction: Path, truth: Path, dicom: Path) -> list[_Case]:
    def read() -> tuple[Volume, Volume]:
        series, image = read_slices(dicom)
        return read_mask_stack(prediction, series, image), read_mask_stack(truth, series, image)

    return [_Case(prediction.resolve().name, read)]


def _require_levels(*stacks: Volume) -> None:
    """DataError for masks of one organ, whose only value lies in the band of the spleen."""
    for volume in stacks:
        if set(np.unique(volume.array)) == {0, 255}:
            raise DataError(
                f"{volume.path} holds masks of one organ, with the value 255 alone: say which, as in --organs liver=255."
            )
