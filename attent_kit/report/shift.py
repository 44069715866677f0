"""The shift between two domains before and after alignment: its numbers as CSV, and pictures of it."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from attent_kit.report.figures import save
from attent_kit.report.rows import read_rows, write_rows

SPACES = ("pixels", "features", "outputs", "entropy")
WHEN = ("before", "after")
SHORT = {"proxy-a-distance": "A-distance", "mmd": "MMD²", "coral": "CORAL"}
SOURCE, BEFORE, AFTER = ("#0072B2", "o"), ("#D55E00", "^"), ("#009E73", "s")
"""Colour (Okabe and Ito 2008) and marker of source, target before and target after."""


class ShiftRow(NamedTuple):
    """One number: how far a source and a target are apart."""

    direction: str
    """"mr2ct" or "ct2mr"."""
    row: str
    """The method; empty where there is no run, and only images are compared."""
    seed: int
    space: str
    """One of SPACES."""
    when: str
    """"before" or "after" alignment."""
    measure: str
    """proxy-a-distance, mmd or coral."""
    value: float
    """NaN where it is not defined."""
    spread: float
    """Standard error over patients; NaN where it is not defined."""
    zero: float
    """What 95 % of the random halvings of the source patients stay below; NaN where there are too few patients."""
    fold: str = ""
    """1/5 where the target was dealt into folds."""


class Moved(NamedTuple):
    """What became of one measure of a row: means over its runs that have both, or one of them; NaN where there is none."""

    row: str
    space: str
    measure: str
    before: float
    after: float


class ShiftPanel(NamedTuple):
    """Slices of both domains in two dimensions."""

    space: str
    when: str
    points: np.ndarray
    """[N, 2]."""
    is_source: np.ndarray
    """[N] bool."""
    patients: np.ndarray
    """[N] integers that tell patients apart."""


def write_shift(path: Path, rows: Iterable[ShiftRow]) -> None:
    """One line per row, unrounded; what is not defined is nan."""
    write_rows(path, ShiftRow, rows)


def read_shift(path: Path) -> list[ShiftRow]:
    """The rows of `write_shift`. DataError with file and line for anything else."""
    return read_rows(path, ShiftRow, "Delete the file and run `attentkit shift` again.")


def over_seeds(rows: Sequence[ShiftRow], direction: str) -> list[Moved]:
    """Each row, space and measure of a direction before and after, in order of appearance."""
    groups: dict[tuple[str, str, str], dict[str, dict[tuple[int, str], float]]] = {}
    for r in rows:
        if r.direction == direction and r.when in WHEN and not math.isnan(r.value):
            by_run = groups.setdefault((r.row, r.space, r.measure), {when: {} for when in WHEN})[r.when]
            by_run[r.seed, r.fold] = r.value
    made = []
    for key, (before, after) in ((key, found.values()) for key, found in groups.items()):
        # Means of different runs would differ for that alone.
        both = before.keys() & after.keys()
        means = [[v for run, v in own.items() if run in both or not both] for own in (before, after)]
        made.append(Moved(*key, *(fmean(values) if values else math.nan for values in means)))
    return made


def number(value: float) -> str:
    """Three digits; MMD and CORAL can be small."""
    return "-" if math.isnan(value) else f"{value:.2f}" if abs(value) >= 0.095 else f"{value:.3f}"


def change(before: ShiftRow, after: ShiftRow) -> str:
    """What became of a measure: "down", "up", or "same" if the change is within twice the spreads of both together."""
    moved = after.value - before.value
    noise = 2 * math.hypot(before.spread, after.spread)
    if math.isnan(moved) or math.isnan(noise):
        return "-"
    return "same" if abs(moved) <= noise else "down" if moved < 0 else "up"


def shift_figure(panels: Sequence[ShiftPanel], rows: Sequence[ShiftRow], title: str, stem: Path) -> list[Path]:
    """STEM.png and STEM.svg: each space before and after alignment, on its first two principal components.

    A small mark is a slice, a large one the mean of its patient; a line joins them, since the slices of a patient are not
    independent. Axes have no unit, and panels of different networks have different axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    spaces = [space for space in SPACES if any(p.space == space for p in panels)]
    whens = [when for when in WHEN if any(p.when == when for p in panels)]
    shown = {(p.space, p.when): p for p in panels}
    size = (max(2.9 * len(spaces), 4.6), 2.95 * len(whens) + 0.9)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(whens), len(spaces), squeeze=False)
    for line, when in zip(axes, whens, strict=True):
        for axis, space in zip(line, spaces, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_color("#999999")
            if (space, when) not in shown:
                axis.set_axis_off()
                axis.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=8, color="#666666")
                continue
            numbers = [f"{SHORT[r.measure]} {number(r.value)}" for r in rows if (r.space, r.when) == (space, when)]
            axis.set_title(f"{space}, {when}", fontsize=9)
            axis.set_xlabel("   ".join(numbers), fontsize=7.5)
            _scatter(axis, shown[space, when])
    # The two pixel panels share their axes; panels of different networks cannot.
    _share(axes[:, spaces.index("pixels")] if "pixels" in spaces else [])
    names = (("source", SOURCE), ("target before", BEFORE), ("target after", AFTER))
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6, label=name)
        for name, (colour, marker) in names[: 1 + len(whens)]
    ]
    handles.append(Line2D([], [], color="#666666", marker=".", linewidth=0.6, label="slice, joined to its patient"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, parse_math=False)
    stem.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, stem)


def _scatter(axis: Any, panel: ShiftPanel) -> None:
    from matplotlib.collections import LineCollection

    for of_source, (colour, marker) in ((True, SOURCE), (False, BEFORE if panel.when == "before" else AFTER)):
        own = panel.is_source == of_source
        points, patients = panel.points[own], panel.patients[own]
        means = {p: points[patients == p].mean(axis=0) for p in np.unique(patients)}
        lines = [(point, means[p]) for point, p in zip(points, patients, strict=True)]
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=0.35, alpha=0.35, zorder=1))
        axis.scatter(*points.T, s=5, color=colour, marker=marker, alpha=0.55, linewidths=0, zorder=2)
        axis.scatter(
            *np.array([*means.values()]).T,
            s=42,
            color=colour,
            marker=marker,
            edgecolors="black",
            linewidths=0.7,
            zorder=3,
        )


def _share(axes: Any) -> None:
    limits = [(axis.get_xlim(), axis.get_ylim()) for axis in axes]
    for axis in axes:
        axis.set_xlim(min(x[0] for x, _ in limits), max(x[1] for x, _ in limits))
        axis.set_ylim(min(y[0] for _, y in limits), max(y[1] for _, y in limits))
