"""The slices that figures and report show, by rule, so that nobody picks the pretty ones; and what a run keeps of them."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.folder import Answers
from attent_kit.engine.run.predict import entropy
from attent_kit.engine.run.probe import Probe, probe
from attent_kit.files import write_whole
from attent_kit.interfaces import Alignment
from attent_kit.report.scores import PROTOCOL, Score

CASES_SHOWN = 3
SLICES_KEPT = 40
"""Most test cases of which a run keeps a slice: with 256 x 256 pixels, 5 MB."""
RULE = (
    "Cases are ordered by their Dice, the mean over organs, seeds and the rows that see no target labels: shown are the "
    "median (of an even number the better of the two in the middle) and the worst. Of a case it is the slice with most "
    "organs, and of those the one whose smallest organ is largest. All pictures are of the first seed that is finished."
)


def slice_to_show(target: Prepared, case: str) -> int:
    """The slice with most organs, and of those the one whose smallest organ is largest; the middle one without labels."""
    found = target.case(case)
    if not found.has_labels:
        kept = found.kept or tuple(range(found.slices))
        return kept[len(kept) // 2]
    labels = target.label_slices(case)
    areas = np.stack([(labels == organ).sum((1, 2)) for organ in range(1, len(target.organs) + 1)], axis=1)
    return max(range(len(labels)), key=lambda z: ((areas[z] > 0).sum(), min(areas[z][areas[z] > 0], default=0)))


def first_cases(target: Prepared) -> list[str]:
    """The first three labelled test cases, or test cases if none has labels."""
    cases = target.cases_in("test")
    return [case.id for case in [c for c in cases if c.has_labels] or cases][:CASES_SHOWN]


def median_and_worst(scores: Sequence[Score]) -> list[str]:
    """Two cases, or the one that there is, by the mean of all Dice of `scores`; of equal ones the first by name is better."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        if score.metric == "dice" and score.protocol == PROTOCOL and score.value == score.value:
            by_case.setdefault(score.case, []).append(score.value)
    ranked = sorted(by_case, key=lambda case: (-statistics.fmean(by_case[case]), case))
    return list(dict.fromkeys([ranked[(len(ranked) - 1) // 2], ranked[-1]])) if ranked else []


def keep_slices(
    alignment: Alignment, answers: Answers, target: Prepared, device: torch.device, scores: Sequence[Score],
    entropies: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:  # fmt: skip
    """slices.npz: entropy map, translation and the way back of a slice of each test case, bytes [H, W].

    Of more than SLICES_KEPT cases it keeps the median and the worst of the run, then the first. `entropies`: maps of those slices
    whose volume the method has adapted to, in place of what it says without.
    """
    tested = [case.id for case in target.cases_in("test")]
    cases = list(dict.fromkeys([*median_and_worst(scores), *tested]))[:SLICES_KEPT]
    chosen = [(case, slice_to_show(target, case)) for case in cases]
    if not chosen:
        return
    images = np.stack([target.image_row(case, z) for case, z in chosen])
    middle = target.channels // 2

    def shown(p: Probe) -> dict[str, np.ndarray]:
        styles = (("translation", p.translation), ("return", p.way_back))
        certain = entropy(p.probabilities.movedim(1, 0).numpy())
        return {
            "entropy": _entropy_bytes(certain),
            **{what: _bytes(y[:, middle].float().cpu().numpy()) for what, y in styles if y is not None},
        }

    parts = probe(alignment, images, device, shown)
    assert parts is not None
    kept = {what: np.concatenate([part[what] for part in parts]) for what in parts[0]}
    for n, (case, _) in enumerate(chosen):
        if case in entropies:
            kept["entropy"][n] = _entropy_bytes(entropies[case])
    arrays = {
        f"{case}-{z}-{what}": stack[n].astype(np.uint8)
        for what, stack in kept.items()
        for n, (case, z) in enumerate(chosen)
    }
    write_whole(answers.slices, lambda path: _savez(path, arrays))


def _entropy_bytes(entropies: np.ndarray) -> np.ndarray:
    return np.round(255 * np.nan_to_num(entropies, nan=1.0))


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.round(127.5 * (np.clip(images, -1, 1) + 1))


def _savez(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # one keyword, allow_pickle, is not an array
