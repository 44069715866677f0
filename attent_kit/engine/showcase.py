"""The slices that a figure shows: a rule, so that nobody picks the pretty ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from attent_kit.data.prepared import Prepared
from attent_kit.data.volumes import read_labels
from attent_kit.engine.predict import slices_as_source
from attent_kit.engine.suite import Cell
from attent_kit.files import write_whole
from attent_kit.interfaces import Alignment
from attent_kit.report.figures import Panel

CASES_SHOWN = 3


def slices_to_show(target: Prepared) -> list[tuple[str, int]]:
    """(case, z) of the first three labelled test cases: the slice with most organs, and of those the one whose
    smallest organ is largest."""
    chosen = []
    for case in [c for c in target.cases_in("test") if c.has_labels][:CASES_SHOWN]:
        labels = target.label_slices(case.id)
        areas = np.stack([(labels == organ).sum((1, 2)) for organ in range(1, len(target.organs) + 1)], axis=1)
        best = max(range(len(labels)), key=lambda z: ((areas[z] > 0).sum(), min(areas[z][areas[z] > 0], default=0)))
        chosen.append((case.id, best))
    return chosen


def keep_translations(alignment: Alignment, place: Path, target: Prepared, device: torch.device) -> None:
    """`place`/translations.npz: the slices of the figure in source style, if the method translates."""
    chosen = slices_to_show(target)
    if not chosen:
        return
    images = np.stack([target.image_row(case, z) for case, z in chosen])
    translated = slices_as_source(alignment, images, device)
    if translated is not None:
        arrays = {f"{case}-{z}": image.astype(np.float16) for (case, z), image in zip(chosen, translated, strict=True)}
        write_whole(place / "translations.npz", lambda path: _savez(path, arrays))


def panels(cells: Sequence[Cell], direction: str) -> list[Panel]:
    """What the figure of one direction shows, of the first seed of the suite."""
    own = [c for c in cells if c.direction == direction and c.seed == cells[0].seed and c.done]
    if not own:
        return []
    target = Prepared.open(own[0].settings.data.target)
    middle = target.channels // 2
    made = []
    for case, z in slices_to_show(target):
        grid = target.grid(case)
        predictions = {
            c.row: grid.labels_to_slices(read_labels(c.place / "predictions" / f"{case}.nii.gz").array)[z] for c in own
        }
        translations = {}
        for c in own:
            path = c.place / "translations.npz"
            if path.exists():
                with np.load(path, allow_pickle=False) as arrays:
                    if f"{case}-{z}" in arrays:
                        translations[c.row] = arrays[f"{case}-{z}"][middle].astype(np.float32)
        image = target.image_row(case, z)[middle].astype(np.float32)
        made.append(Panel(f"{case}, slice {z}", image, translations, target.label_row(case, z), predictions))
    return made


def _savez(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
