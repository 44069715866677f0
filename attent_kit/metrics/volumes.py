"""Score label maps on disk."""

from collections.abc import Callable
from pathlib import Path

from attent_kit.data.labelmap import LabelMap
from attent_kit.data.layouts import find_pairs
from attent_kit.data.volumes import read_labels
from attent_kit.errors import ConfigError
from attent_kit.metrics import organ_metrics
from attent_kit.report.scores import Score


def evaluate_volumes(
    prediction: Path,
    truth: Path,
    organs: LabelMap,
    truth_organs: LabelMap,
    report: Callable[[str, int, int], None],
    left_out: Callable[[int], None] = lambda count: None,
) -> list[Score]:
    """The rows of every pair of label maps, matched by name; both must be on one grid and name the same organs.

    Label maps of `truth` without a prediction are left out, and `left_out` is told how many.
    """
    if organs.organs != truth_organs.organs:
        raise ConfigError(
            f"the two label maps name different organs: {', '.join(organs.organs)} and {', '.join(truth_organs.organs)}."
        )
    if prediction.is_dir() and prediction.resolve() == truth.resolve():
        raise ConfigError(f"{prediction} is named twice: write the folder of the predictions, then that of the truth.")
    if prediction.is_file() and truth.is_file():
        pairs = [(prediction.name.partition(".")[0], prediction, truth)]
    else:
        pairs = [(p.case, p.image, p.labels) for p in find_pairs(prediction, truth, spare_labels=True) if p.labels]
        if truth.is_dir() and len(spare := find_pairs(truth)) > len(pairs):
            left_out(len(spare) - len(pairs))
    rows = []
    for done, (case, predicted, true) in enumerate(pairs):
        report(case, done, len(pairs))
        reference = read_labels(true)
        answer = read_labels(predicted, like=reference)
        labels = organs.apply(answer.array, str(predicted)), truth_organs.apply(reference.array, str(true))
        rows += [
            Score("prediction", "", 0, case, *metric)
            for metric in organ_metrics(*labels, organs.organs, reference.spacing)
        ]
    return rows
