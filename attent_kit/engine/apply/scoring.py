"""Label maps scored, from disk or from memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attent_kit.data.scans.grids import SHEAR, shear
from attent_kit.data.scans.volumes import Volume, as_labels, read_labels
from attent_kit.data.sets.labelmap import TASK_ORGANS, LabelMap, OrganNames, parse_organs
from attent_kit.data.sets.mask_stack import GREY_VALUES, read_mask_stack, read_slices
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.engine.apply.inputs import MAPS, NIFTI, ImageLike, as_nifti, without_ending
from attent_kit.errors import ConfigError, DataError
from attent_kit.metrics import Protocol, protocol
from attent_kit.report.scores import PROTOCOL, Score, Scores, write_scores

ORGANS = LabelMap.of({organ: value for value, organ in enumerate(TASK_ORGANS, start=1)})
"""Liver 1, right kidney 2, left kidney 3, spleen 4: what `attentkit predict` writes."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How label maps are scored."""

    protocols: Sequence[str] = (PROTOCOL,)
    """Whose definitions of the metrics."""
    organs: str | None = None
    """Organs with their values in the label maps, as `LabelMap.parse` reads them; None for the usual ones."""
    truth_organs: str | None = None
    """The same for the truth, where its values are others."""
    dicom: Path | None = None
    """Folder of a DICOM series, where both are folders of PNG masks of its slices."""
    out: Path | None = None
    """CSV to write the rows to."""

    @property
    def chosen(self) -> list[Protocol]:
        """The protocols, once each. ConfigError for an unknown name."""
        return [protocol(name) for name in dict.fromkeys(self.protocols)]

    @property
    def maps(self) -> tuple[LabelMap, LabelMap]:
        """The label maps of the prediction and of the truth. ConfigError if they name different organs."""
        usual = ORGANS if self.dicom is None else GREY_VALUES
        predicted = usual if self.organs is None else _named(self.organs, usual)
        true = predicted if self.truth_organs is None else _named(self.truth_organs, usual).in_order(predicted)
        if predicted.organs != true.organs:
            raise ConfigError(
                f"the two label maps name different organs: {', '.join(predicted.organs)} and {', '.join(true.organs)}: "
                "give --organs and --truth-organs the same names."
            )
        return predicted, true


def _named(text: str, usual: LabelMap) -> LabelMap:
    organs = parse_organs(text)
    return organs.of(usual) if isinstance(organs, OrganNames) else organs


class _Case(NamedTuple):
    """A prediction and its truth, not yet read."""

    name: str
    read: Callable[[], tuple[Volume, Volume]]
    """Both on the grid and in the axis order of the truth."""


def evaluate(
    prediction: Path,
    truth: Path,
    options: EvaluateOptions = EvaluateOptions(),
    report: Callable[[str, int, int], None] = lambda case, done, total: None,
    left_out: Callable[[int], None] = lambda count: None,
) -> Scores:
    """The rows of each protocol for every pair of label maps; both must be on one grid and name the same organs.

    Both paths are NIfTI files or folders of them, matched by name; label maps of `truth` without a prediction are left
    out, and `left_out` is told how many.
    """
    protocols, maps = options.chosen, options.maps
    if prediction.is_dir() and prediction.resolve() == truth.resolve():
        raise ConfigError(f"{prediction} is named twice: write the folder of the predictions, then that of the truth.")
    dicom = options.dicom
    cases = _volumes(prediction, truth, left_out) if dicom is None else _mask_stacks(prediction, truth, dicom)
    rows: list[Score] = []
    for done, (name, read) in enumerate(cases):
        report(name, done, len(cases))
        rows += _rows(name, *read(), protocols, maps)
    if options.out:
        write_scores(options.out, rows)
    return Scores(rows)


def score(
    prediction: ImageLike,
    truth: ImageLike,
    affine: np.ndarray | None = None,
    *,
    protocol: str | Sequence[str] = PROTOCOL,
    organs: str | Sequence[str] | None = None,
    truth_organs: str | Sequence[str] | None = None,
    case: str = "",
) -> Scores:
    """The rows of one or several protocols for one prediction and its truth, each a path, a nibabel image, or an array.

    `affine` is that of the arrays among them. `organs` names the values, as "liver=1,spleen=2", or lists the organs of the
    values 1, 2, ...; they are those of `attentkit predict` by default. ConfigError or DataError as on the command line.
    """
    names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
    options = EvaluateOptions(names, _in_order(organs), _in_order(truth_organs))
    protocols, maps = options.chosen, options.maps
    true = as_labels(*as_nifti(truth, affine, "the truth", labels=True))
    predicted = as_labels(*as_nifti(prediction, affine, "the prediction", labels=True), like=true)
    return Scores(_rows(case or _name_of(prediction), predicted, true, protocols, maps))


def _in_order(organs: str | Sequence[str] | None) -> str | None:
    """Names in the order of their values, as `Prediction.organs` has them, in the words of `--organs`."""
    if organs is None or isinstance(organs, str):
        return organs
    return ",".join(f"{organ}={value}" for value, organ in enumerate(organs, start=1))


def _name_of(label_map: ImageLike) -> str:
    return without_ending(Path(label_map).name) if isinstance(label_map, (str, Path)) else "case"


def _rows(
    name: str, predicted: Volume, true: Volume, protocols: Iterable[Protocol], maps: tuple[LabelMap, LabelMap]
) -> list[Score]:
    """The rows of one case."""
    if (degrees := shear(true.affine)) > SHEAR:
        raise DataError(
            f"{true.path} has axes that are {degrees:.1f} degrees off a right angle (a sheared affine), along which no "
            "distance can be measured: resample it and its prediction to a grid with right angles."
        )
    if GREY_VALUES in maps:
        _require_levels(predicted, true)
    answer, reference = (by.apply(v.array, str(v.path)) for by, v in zip(maps, (predicted, true), strict=True))
    return [
        Score("prediction", "", 0, name, *metric, protocol.name)
        for protocol in protocols
        for metric in protocol.rows(answer, reference, maps[0].organs, true.spacing, true.orientation)
    ]


def _volumes(prediction: Path, truth: Path, left_out: Callable[[int], None]) -> list[_Case]:
    if prediction.is_file() and truth.is_file():
        pairs = [(without_ending(prediction.name), prediction, truth)]
    else:
        found = find_pairs(prediction, truth, spare_labels=True, passed_over=_written_beside)
        pairs = [(pair.case, pair.image, pair.labels) for pair in found if pair.labels]
        if truth.is_dir() and len(spare := find_pairs(truth)) > len(pairs):
            left_out(len(spare) - len(pairs))

    def reader(predicted: Path, true: Path) -> Callable[[], tuple[Volume, Volume]]:
        def read() -> tuple[Volume, Volume]:
            reference = read_labels(true)
            return read_labels(predicted, like=reference), reference

        return read

    return [_Case(name, reader(predicted, true)) for name, predicted, true in pairs]


def _written_beside(path: Path) -> bool:
    """Whether a file is a map that `predict` writes beside the label map of an image."""
    name = without_ending(path.name)
    return any(
        name.endswith(f"_{what}") and any(path.with_name(name.removesuffix(f"_{what}") + end).exists() for end in NIFTI)
        for what in MAPS
    )


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
