"""The audit of a translation: its numbers as CSV, and the worst slices as a picture."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attent_kit.report.figures import organ_legend, overlay, save
from attent_kit.report.rows import read_rows, write_rows

DRIFT = "volume-drift:"
"""Before the name of an organ."""


class TranslationAuditRow(NamedTuple):
    """One number of one translated slice or case."""

    case: str
    slice: int | None
    """None for a volume, which has no slice."""
    measure: str
    """edge, self-similarity, agreement, or volume-drift:ORGAN."""
    value: float


class WorstSlice(NamedTuple):
    """A line of the picture."""

    why: str
    """Which measure is least here, and its value."""
    name: str
    image: np.ndarray
    """[H, W] in [-1, 1]."""
    translation: np.ndarray
    """[H, W] in [-1, 1]."""
    edges: tuple[np.ndarray, np.ndarray]
    """[H, W] gradient magnitudes of both."""
    expected: np.ndarray
    """[H, W] class indices."""
    found: np.ndarray
    """[H, W] class indices."""


class Line(NamedTuple):
    """A measure over all cases."""

    measure: str
    mean: float
    """Mean over cases, of each the mean over its slices; NaN where it is defined nowhere."""
    worst: float
    """The least such mean of a case; of volumes the one farthest from 0."""
    case: str
    """Where that is."""


def write_translation_audit(path: Path, rows: Iterable[TranslationAuditRow]) -> None:
    """Rows as CSV, whole or not at all. A volume has an empty slice; what is not defined has no row."""
    write_rows(path, TranslationAuditRow, rows)


def read_translation_audit(path: Path) -> list[TranslationAuditRow]:
    """The rows of `write_translation_audit`. DataError with file and line for anything else."""
    return read_rows(path, TranslationAuditRow, "Delete the file and run `attentkit audit` again.")


def lines(rows: Sequence[TranslationAuditRow]) -> list[Line]:
    """Each measure over all cases, in the order of the rows."""
    made = []
    for measure in dict.fromkeys(row.measure for row in rows):
        own = [row for row in rows if row.measure == measure]
        cases: dict[str, list[float]] = {}
        for row in own:
            cases.setdefault(row.case, []).append(row.value)
        means = {case: float(np.mean(values)) for case, values in cases.items()}
        worst = min(means, key=lambda c: -abs(means[c]) if measure.startswith(DRIFT) else means[c])
        made.append(Line(measure, float(np.mean([*means.values()])), means[worst], worst))
    return made


def worst_slices(
    rows: Sequence[TranslationAuditRow], measures: Sequence[str], cases: int
) -> list[tuple[str, TranslationAuditRow]]:
    """Why, and which: of each measure the least slice of a case, for the `cases` cases in which that is least.

    Ties go to the first. A slice that is the least of several measures is named once, with all of them. A row without a slice
    or with a value that is not a number is none of them.
    """
    chosen: dict[tuple[str, int | None], list[str]] = {}
    found: dict[tuple[str, int | None], TranslationAuditRow] = {}
    for measure in measures:
        least: dict[str, TranslationAuditRow] = {}
        for row in (r for r in rows if r.measure == measure and r.slice is not None and not math.isnan(r.value)):
            if row.case not in least or row.value < least[row.case].value:
                least[row.case] = row
        for row in sorted(least.values(), key=lambda r: r.value)[:cases]:
            chosen.setdefault((row.case, row.slice), []).append(f"{measure} {row.value:.2f}")
            found.setdefault((row.case, row.slice), row)
    return [("\n".join(whys), found[where]) for where, whys in chosen.items()]


def translation_audit_figure(
    worst: Sequence[WorstSlice], organs: Sequence[str], names: tuple[str, str], title: str, stem: Path
) -> list[Path]:
    """STEM.png and STEM.svg: image, translation, the edges of both, and what `names` says was expected and found.

    Edges that are stronger in the image are magenta, those that are stronger in the translation green, others white.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    heads = ("target image", "in source style", "edges of both", *names)
    figure = Figure(figsize=(1.85 * len(heads) + 1.2, 1.85 * len(worst) + 1.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(worst), len(heads), squeeze=False)
    for line, slice_ in zip(axes, worst, strict=True):
        grey, both = (slice_.image, slice_.translation), [_scaled(edge) for edge in slice_.edges]
        pictures = (*grey, np.stack([both[0], both[1], both[0]], axis=-1), *grey)
        for n, (axis, picture) in enumerate(zip(line, pictures, strict=True)):
            axis.set_axis_off()
            axis.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            if n > 2:
                axis.imshow(overlay((slice_.expected, slice_.found)[n - 3]), interpolation="nearest")
        line[0].text(
            -0.06, 0.5, f"{slice_.name}\n{slice_.why}", ha="right", va="center", fontsize=7.5, transform=line[0].transAxes,
            parse_math=False,
        )  # fmt: skip
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=8)
    edges = [
        Patch(facecolor=colour, edgecolor="#999999", label=label)
        for colour, label in (
            ("#FF00FF", "edge fainter in translation"),
            ("#00FF00", "edge stronger in translation"),
            ("#FFFFFF", "edge alike"),
        )
    ]
    organ_legend(figure, organs, 4, edges)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return save(figure, stem)


def _scaled(edges: np.ndarray) -> np.ndarray:
    """Into [0, 1], bright from the 99th percentile on; roots, so that faint edges are seen beside strong ones."""
    top = float(np.percentile(edges, 99))
    return np.sqrt((edges / top).clip(0, 1)) if top > 0 else np.zeros_like(edges)
