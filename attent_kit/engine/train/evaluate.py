"""Predict the test cases of a run and score them on the grid of the original volumes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans.volumes import write_labels
from attent_kit.engine.run.predict import segment_case
from attent_kit.interfaces import Alignment
from attent_kit.metrics import protocol
from attent_kit.report.scores import PROTOCOL, Score, write_scores


class Names(NamedTuple):
    """What the scores of a run are filed under."""

    row: str
    direction: str
    seed: int
    selection: str
    """What chose its snapshot."""


def score_run(alignment: Alignment, place: Path, target: Prepared, device: torch.device, names: Names) -> list[Score]:
    """Write predictions/<case>.nii.gz for every test case and scores.csv for those with labels, below `place`; its rows."""
    scores = []
    for case in target.cases_in("test"):
        prediction = segment_case(alignment, target, case.id, device)
        path = place / "predictions" / f"{case.id}.nii.gz"
        write_labels(path, prediction, np.array(target.grid(case.id).affine))
        if case.has_labels:
            truth, spacing = target.truth(case.id)
            scores += [
                Score(names.row, names.direction, names.seed, case.id, *metric, PROTOCOL, names.selection)
                for metric in protocol(PROTOCOL).rows(prediction, truth, target.organs, spacing)
            ]
    write_scores(place / "scores.csv", scores)
    return scores


def is_answered(place: Path, target: Prepared) -> bool:
    """Whether what `score_run` writes is all there."""
    files = [place / "predictions" / f"{case}.nii.gz" for case in target.ids("test")]
    return all(file.exists() for file in (*files, place / "scores.csv"))
