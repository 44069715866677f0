"""Label maps scored, from disk or from memory."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

import numpy as np

from attent_kit.data.scans.grids import refuse_sheared
from attent_kit.data.scans.volumes import Volume, as_labels, read_labels
from attent_kit.data.sets.labelmap import TASK_ORGANS, LabelMap, OrganNames, parse_organs, values_in
from attent_kit.data.sets.mask_stack import (
    GREY_VALUES,
    chaos_classes,
    chaos_organs,
    read_mask_stack,
    read_slices,
)
from attent_kit.data.sets.pairs import find_pairs
from attent_kit.data.workers import ReportDone
from attent_kit.engine.apply.inputs import MAPS, NIFTI, ImageLike, as_nifti, without_ending
from attent_kit.errors import ConfigError, DataError, did_you_mean
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
    """Folder of a DICOM series, where either is a folder of PNG masks of its slices. Without organs the values are read as
    CHAOS has them: grey values by bands, one-bit masks of CT as the liver; of CT the liver alone is scored."""
    out: Path | None = None
    """CSV to write the rows to."""

    @property
    def names_values(self) -> bool:
        """Whether somebody says which value is which organ."""
        return self.organs is not None or self.truth_organs is not None

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
        if lacking := [organ for organ in true.annotated if organ not in predicted.annotated]:
            raise ConfigError(
                f"--organs gives no value for the {lacking[0]}, which the truth annotates: write {lacking[0]}=N."
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


Maps = tuple[LabelMap, LabelMap]
"""Of the prediction and of the truth."""


class LabelOptions(TypedDict, total=False):
    """What `score` can be told about label maps."""

    organs: str | Sequence[str] | None
    """The values, as "liver=1,spleen=2", or the organs of the values 1, 2, ...; those of `attentkit predict` by default."""
    truth_organs: str | Sequence[str] | None
    """The same for the truth, where its values are others."""
    dicom: Path | str | None
    """Folder of the DICOM series, where one of both is a folder of PNG masks of its slices; then CHAOS's values are known."""
    case: str
    """What the rows call it; the name of the prediction by default."""


def evaluate(
    prediction: Path,
    truth: Path,
    options: EvaluateOptions = EvaluateOptions(),
    report: ReportDone = lambda case, done, total: None,
    warned: Callable[[str], None] = lambda sentence: None,
) -> Scores:
    """The rows of each protocol for every pair of label maps; both must be on one grid and name the same organs.

    Both paths are NIfTI files or folders of them, matched by name; label maps of `truth` without a prediction are left
    out. `warned` is told of these, and of organs whose values the truth never has. DataError where no label map of one side
    has any.
    """
    protocols, maps = options.chosen, options.maps
    if prediction.is_dir() and prediction.resolve() == truth.resolve():
        raise ConfigError(f"{prediction} is named twice: write the folder of the predictions, then that of the truth.")
    rows: list[Score] = []
    if options.dicom is not None:
        name = _name_of(prediction.resolve())
        report(name, 0, 1)
        predicted, true, maps = _on_slices(prediction, truth, None, options)
        rows = _rows(name, predicted, true, maps, protocols, seen := _Seen(maps))
    else:
        cases, seen = _volumes(prediction, truth, warned), _Seen(maps)
        for done, (name, read) in enumerate(cases):
            report(name, done, len(cases))
            rows += _rows(name, *read(), maps, protocols, seen)
    for doubt in seen.doubts() if options.names_values else ():
        warned(doubt)
    if options.out:
        write_scores(options.out, rows)
    return Scores(rows)


def score(
    prediction: ImageLike,
    truth: ImageLike,
    affine: np.ndarray | None = None,
    *,
    protocol: str | Sequence[str] = PROTOCOL,
    **labels: Unpack[LabelOptions],
) -> Scores:
    """The rows of one or several protocols for one prediction and its truth, each a path, a nibabel image, or an array [X, Y, Z]
    of whole numbers.

    A row has its unit: Dice and NSD are fractions, distances in mm and voxels, volumes in ml. `affine` [4, 4], voxel index to mm
    in RAS, is that of the arrays among them. `organs` names the values, as "liver=1,spleen=2", or lists the organs of the
    values 1, 2, ...; they are those of `attentkit predict` by default, and `truth_organs` those of the truth where these are
    others. With `dicom`, the folder of a series, either may be a folder of PNG masks of its slices, and CHAOS's grey values
    are known. `case` names the rows. ConfigError or DataError as on the command line.
    """
    if unknown := [name for name in labels if name not in LabelOptions.__annotations__]:
        there = [*LabelOptions.__annotations__]
        raise ConfigError(
            f"there is no option '{unknown[0]}'.{did_you_mean(unknown[0], there)} There are: {', '.join(there)}."
        )
    names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
    dicom = labels.get("dicom")
    options = EvaluateOptions(
        names,
        _in_order(labels.get("organs")),
        _in_order(labels.get("truth_organs")),
        None if dicom is None else Path(dicom),
    )
    protocols, maps = options.chosen, options.maps
    case = labels.get("case") or _name_of(prediction)
    if options.dicom is not None:
        predicted, true, maps = _on_slices(prediction, truth, affine, options)
    else:
        true = as_labels(*as_nifti(truth, affine, "the truth", labels=True))
        predicted = as_labels(*as_nifti(prediction, affine, "the prediction", labels=True), like=true)
    rows = _rows(case, predicted, true, maps, protocols, seen := _Seen(maps))
    for doubt in seen.doubts() if options.names_values else ():
        warnings.warn(doubt, stacklevel=2)
    return Scores(rows)


def _in_order(organs: str | Sequence[str] | None) -> str | None:
    """Names in the order of their values, as `Prediction.organs` has them, in the words of `--organs`."""
    if organs is None or isinstance(organs, str):
        return organs
    return ",".join(f"{organ}={value}" for value, organ in enumerate(organs, start=1))


def _name_of(label_map: ImageLike) -> str:
    return without_ending(Path(label_map).name) if isinstance(label_map, (str, Path)) else "case"


class _Seen:
    """Which values the label maps hold that were scored, to be held against those that organs were said to have."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._values: tuple[set[int], set[int]] = set(), set()
        """Of the predictions and of the truth."""

    def add(self, predicted: Volume, true: Volume) -> None:
        for seen, volume in zip(self._values, (predicted, true), strict=True):
            seen.update(values_in(volume.array))

    def doubts(self) -> list[str]:
        """A sentence for each organ that no map of the truth has, and for predictions that have none, where there are values that
        mean nothing. DataError for a truth that has none: all scores would be those of empty maps."""
        said = []
        for by, seen, side in zip(self._maps, self._values, ("predictions", "truth"), strict=True):
            named = {value for _, values in by.values for value in values}
            strange = sorted(seen - named - {0})
            holds = f"{', '.join(map(str, strange[:8]))}{', ...' if len(strange) > 8 else ''}"
            if strange and not seen & named:
                sentence = f"no label map of the {side} holds a value of {by}; what is there is {holds}."
                if side == "truth":
                    raise DataError(
                        f"{sentence} Write the values that organs have there with --organs or --truth-organs."
                    )
                said.append(sentence)
            elif strange and side == "truth":
                said += [
                    f"no label map of the truth holds {organ} ({'+'.join(map(str, values))}); what means nothing here is {holds}."
                    for organ, values in by.values
                    if not seen & {*values}
                ]
        return said


def _rows(
    name: str, predicted: Volume, true: Volume, maps: Maps, protocols: Iterable[Protocol], seen: _Seen
) -> list[Score]:
    """The rows of one case."""
    refuse_sheared(true.affine, str(true.path), "resample it and its prediction to a grid with right angles")
    seen.add(predicted, true)
    answer, reference = (by.apply(v.array, str(v.path)) for by, v in zip(maps, (predicted, true), strict=True))
    return [
        Score("prediction", "", 0, name, *metric, protocol.name)
        for protocol in protocols
        for metric in protocol.rows(
            answer, reference, maps[0].organs, true.spacing, true.orientation, annotated=maps[1].annotated
        )
    ]


def _volumes(prediction: Path, truth: Path, warned: Callable[[str], None]) -> list[_Case]:
    if prediction.is_file() and truth.is_file():
        pairs = [(without_ending(prediction.name), prediction, truth)]
    else:
        found = find_pairs(prediction, truth, spare_labels=True, passed_over=_written_beside)
        pairs = [(pair.case, pair.image, pair.labels) for pair in found if pair.labels]
        if truth.is_dir() and len(spare := find_pairs(truth)) > len(pairs):
            warned(f"{len(spare) - len(pairs)} label map(s) of TRUTH have no prediction and are left out.")

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


def _on_slices(
    prediction: ImageLike, truth: ImageLike, affine: np.ndarray | None, options: EvaluateOptions
) -> tuple[Volume, Volume, Maps]:
    """Both on the grid of a DICOM series, and what their values mean: a folder of PNG masks, or any label map."""
    assert options.dicom is not None
    series, image = read_slices(options.dicom)
    asked = options.maps if options.names_values else None

    def read(given: ImageLike, name: str) -> Volume:
        stack = isinstance(given, (str, Path)) and (Path(given).is_dir() or not Path(given).exists())
        if stack:
            masks = read_mask_stack(Path(str(given)), series, image)
            return masks if asked else chaos_classes(masks, series.modality)
        labels = as_labels(*as_nifti(given, affine, name, labels=True), like=image)
        if asked:
            return labels
        if labels.array.max() > len(TASK_ORGANS):
            return chaos_classes(labels, series.modality)
        return replace(labels, array=ORGANS.apply(labels.array, str(labels.path)))

    predicted, true = read(prediction, "the prediction"), read(truth, "the truth")
    if asked:
        return predicted, true, asked
    organs = chaos_organs(true, series.modality)
    scored = LabelMap.of({organ: value for value, organ in enumerate(organs, start=1)}, "background")
    return predicted, true, (scored, scored)
