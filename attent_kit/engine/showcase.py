"""The slices that figures and report show: rules, so that nobody picks the pretty ones."""

import statistics
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from attent_kit.data.prepared import Prepared
from attent_kit.data.volumes import read_labels
from attent_kit.engine.predict import entropy, segment_slices, slices_as_source, slices_as_target
from attent_kit.engine.suite import Cell
from attent_kit.errors import DataError
from attent_kit.files import write_whole
from attent_kit.interfaces import Alignment
from attent_kit.report.figures import Panel
from attent_kit.report.scores import PROTOCOL, Score

CASES_SHOWN = 3
SLICES_KEPT = 40
"""Test cases of which a run keeps a slice, at most: with 256 x 256 pixels 5 MB."""
KEPT = "slices.npz"
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
    alignment: Alignment, place: Path, target: Prepared, device: torch.device, scores: Sequence[Score]
) -> None:
    """`place`/slices.npz: entropy map, translation and the way back of a slice of each test case, bytes [H, W].

    Of more than SLICES_KEPT cases it keeps the median and the worst of the run, then the first.
    """
    tested = [case.id for case in target.cases_in("test")]
    cases = list(dict.fromkeys([*median_and_worst(scores), *tested]))[:SLICES_KEPT]
    chosen = [(case, slice_to_show(target, case)) for case in cases]
    if not chosen:
        return
    images = np.stack([target.image_row(case, z) for case, z in chosen])
    p = segment_slices(alignment, images, device)
    kept = {"entropy": np.round(255 * np.nan_to_num(entropy(p), nan=1.0))}
    middle = target.channels // 2
    translated = slices_as_source(alignment, images, device)
    if translated is not None:
        kept["translation"] = _bytes(translated[:, middle])
        back = slices_as_target(alignment, translated, device)
        if back is not None:
            kept["return"] = _bytes(back[:, middle])
    arrays = {
        f"{case}-{z}-{what}": stack[n].astype(np.uint8)
        for what, stack in kept.items()
        for n, (case, z) in enumerate(chosen)
    }
    write_whole(place / KEPT, lambda path: _savez(path, arrays))


def panels(cells: Sequence[Cell], direction: str) -> list[Panel]:
    """What the figure of one direction shows, of the first seed of the suite."""
    own = [c for c in cells if c.direction == direction and c.seed == cells[0].seed and c.done]
    if not own:
        return []
    target = Prepared.open(own[0].settings.data.target)
    places = {c.row: c.place for c in own}
    return [panel(target, case, places) for case in first_cases(target)]


def panel(target: Prepared, case: str, places: Mapping[str, Path]) -> Panel:
    """The slice of a case and what each row makes of it; `places` are the folders of their predictions, by label.

    What a run has not left is not in the panel.
    """
    z, middle = slice_to_show(target, case), target.channels // 2
    predictions, kept = {}, {}
    for row, place in places.items():
        prediction = _prediction(place, target, case)
        if prediction is not None:
            predictions[row] = prediction[z]
        kept[row] = _kept(place, case, z, middle)
    return Panel(
        f"{case}, slice {z}",
        target.image_row(case, z)[middle].astype(np.float32),
        {row: found["translation"] for row, found in kept.items() if "translation" in found},
        target.label_row(case, z) if target.case(case).has_labels else None,
        predictions,
        {row: found["entropy"] for row, found in kept.items() if "entropy" in found},
        {row: found["return"] for row, found in kept.items() if "return" in found},
        case,
    )


def _prediction(place: Path, target: Prepared, case: str) -> np.ndarray | None:
    path = place / "predictions" / f"{case}.nii.gz"
    if not path.exists():
        return None
    labels, grid = read_labels(path).array, target.grid(case)
    if labels.shape != grid.shape:
        raise DataError(
            f"{path} is not on the grid of {case}: delete the run's scores.csv and run `attentkit compare`."
        )
    return grid.labels_to_slices(labels)


def _kept(place: Path, case: str, z: int, middle: int) -> dict[str, np.ndarray]:
    """Float slices [H, W] by what they are; of a run of an earlier version the translation alone."""
    names = {what: f"{case}-{z}-{what}" for what in ("entropy", "translation", "return")}
    stored = _arrays(place / KEPT, names.values())
    found: dict[str, np.ndarray] = {}
    for what, name in names.items():
        if name in stored:
            array = stored[name].astype(np.float32)
            found[what] = array / 255 if what == "entropy" else array / 127.5 - 1
    if "translation" not in found:
        for array in _arrays(place / "translations.npz", [f"{case}-{z}"]).values():
            found["translation"] = array[middle].astype(np.float32)
    return found


def _arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the names that are there; a file that is damaged is as one that was never kept."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.round(127.5 * (np.clip(images, -1, 1) + 1))


def _savez(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
