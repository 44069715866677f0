"""Predict the test cases of a run and score them on the grid of the original volumes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans.volumes import write_labels
from attent_kit.data.sets.splits import WHOLE, Fold
from attent_kit.engine.run.folder import Answers
from attent_kit.engine.run.predict import segment_slices
from attent_kit.interfaces import Alignment
from attent_kit.metrics import protocol
from attent_kit.report.scores import PROTOCOL, Score


class Names(NamedTuple):
    """What the scores of a run are filed under."""

    row: str
    direction: str
    seed: int
    selection: str
    """What chose its snapshot."""
    fold: Fold = WHOLE
    """Which part of the target is scored."""


def score_run(
    alignment: Alignment, answers: Answers, target: Prepared, device: torch.device, names: Names,
    see: Callable[[str, np.ndarray], None] = lambda case, probabilities: None,
) -> list[Score]:  # fmt: skip
    """Write predictions/<case>.nii.gz for every test case; the scores of those with labels.

    `see` is shown the class probabilities [K, Z, H, W] of each case. The scores are for the caller to write, once all else that
    a run answers with is there: a run that has them is done.
    """
    scores = []
    for case in target.cases_in("test"):
        probabilities = segment_slices(alignment, target.slices(case.id), device)
        see(case.id, probabilities)
        prediction = target.grid(case.id).to_native(probabilities)
        write_labels(answers.prediction(case.id), prediction, np.array(target.grid(case.id).affine))
        if case.has_labels:
            truth, spacing = target.truth(case.id)
            scores += [
                Score(names.row, names.direction, names.seed, case.id, *metric, PROTOCOL, names.selection)
                for metric in protocol(PROTOCOL).rows(
                    prediction, truth, target.organs, spacing, annotated=case.annotated
                )
            ]
    return scores


def scores_there(answers: Answers, target: Prepared) -> list[Score] | None:
    """The scores of a run that has all its answers; None if one is missing or damaged, and all are made again."""
    if not all(path.exists() for path in (answers.segmentor, *map(answers.prediction, target.ids("test")))):
        return None
    cases = [case.id for case in target.cases_in("test") if case.has_labels]
    return answers.read(cases, target.organs) if answers.covers(cases, target.organs) else None
