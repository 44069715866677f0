"""Slices of test cases with what each row makes of them, read from what runs have kept."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans.volumes import read_labels
from attent_kit.engine.compare.external import External
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.run.domains import target_seen
from attent_kit.engine.run.folder import Answers
from attent_kit.engine.train.kept import first_cases, slice_to_show
from attent_kit.errors import DataError
from attent_kit.report.figures import Panel


def panels(cells: Sequence[Cell], direction: str, externals: Sequence[External] = ()) -> list[Panel]:
    """What the figure of one direction shows, of the first seed of the suite; of its folds, that which most rows have. Label
    maps of other tools stand behind the others."""
    there = [c for c in cells if c.direction == direction and c.seed == cells[0].seed and c.done]
    if not there:
        return []
    folds = [c.fold for c in there]
    own = [c for c in there if c.fold == max(sorted({*folds}), key=folds.count)]
    target = target_seen(own[0].settings.data)
    answers = {c.row: c.answers for c in own}
    answers |= {each.row: each.answers for each in externals if each.direction == direction}
    return [panel(target, case, answers) for case in first_cases(target)]


def panel(target: Prepared, case: str, answers: Mapping[str, Answers]) -> Panel:
    """The slice of a case and what each row makes of it; `answers` by label.

    What a run has not left is not in the panel.
    """
    z, middle = slice_to_show(target, case), target.channels // 2
    predictions, kept = {}, {}
    for row, own in answers.items():
        prediction = _prediction(own.prediction(case), target, case)
        if prediction is not None:
            predictions[row] = prediction[z]
        kept[row] = _kept(own, case, z)
    unknown = [organ for organ in target.organs if organ not in target.case(case).annotated]
    left_out = f", truth without {', '.join(unknown)}" if unknown and target.case(case).has_labels else ""
    return Panel(
        f"{case}, slice {z}{left_out}",
        target.image_row(case, z)[middle].astype(np.float32),
        {row: found["translation"] for row, found in kept.items() if "translation" in found},
        target.label_row(case, z) if target.case(case).has_labels else None,
        predictions,
        {row: found["entropy"] for row, found in kept.items() if "entropy" in found},
        {row: found["return"] for row, found in kept.items() if "return" in found},
        case,
    )


def _prediction(path: Path, target: Prepared, case: str) -> np.ndarray | None:
    if not path.exists():
        return None
    labels, grid = read_labels(path).array, target.grid(case)
    if labels.shape != grid.shape:
        raise DataError(
            f"{path} is not on the grid of {case}: delete the run's scores.csv and run `attentkit compare`."
        )
    return grid.labels_to_slices(labels)


def _kept(answers: Answers, case: str, z: int) -> dict[str, np.ndarray]:
    """Float slices [H, W] by what they are."""
    names = {what: f"{case}-{z}-{what}" for what in ("entropy", "translation", "return")}
    stored = _arrays(answers.slices, names.values())
    found: dict[str, np.ndarray] = {}
    for what, name in names.items():
        if name in stored:
            array = stored[name].astype(np.float32)
            found[what] = array / 255 if what == "entropy" else array / 127.5 - 1
    return found


def _arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the names that are there; a damaged file counts as one that was never kept."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}
