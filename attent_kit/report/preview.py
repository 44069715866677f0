"""A montage of prepared cases, by which a person sees whether sides, order of slices and labels are right."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit.files import write_whole
from attent_kit.report.figures import organ_legend, overlay

PANEL = 2.0
"""Width and height of a panel in inches."""
TEXT = 2.7
"""Width of the column of words in inches."""
_LETTERS = 44
"""Characters of a line of that column."""
_LINES = 13
"""Lines of it beside one row of panels."""
_TITLE = "Preview of a domain prepared with attent-kit"
"""Kept in the PNG, which is recognised by it."""
_PLAIN: dict[str, Any] = {"parse_math": False}
"""A name may hold a dollar."""
_MARK = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.0}


class View(NamedTuple):
    """One picture: a section of a case with its labels."""

    caption: str
    image: np.ndarray
    """[H, W] in [-1, 1]."""
    labels: np.ndarray | None
    """[H, W] class indices, of the same pixels; None where the case has no labels."""
    height: float
    """mm of all rows."""
    width: float
    """mm of all columns."""
    sides: tuple[str, str] = ("R", "L")
    """What lies to the left and to the right of it."""


class CaseRow(NamedTuple):
    """One case: its sections beside each other, and what is to be known about it."""

    name: str
    facts: tuple[str, ...]
    doubts: tuple[str, ...]
    """What may be wrong with it: printed in red."""
    views: tuple[View, ...]


def montage(rows: Sequence[CaseRow], organs: Sequence[str], title: str, notes: Sequence[str], path: Path) -> None:
    """A PNG: a row for each case, words on the left, then its sections; below them the colours of the organs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(len(row.views) for row in rows)
    heading = [title, *(line for note in notes for line in textwrap.wrap(note, int(22 * (TEXT + PANEL * columns) / 2)))]
    figure = Figure(
        figsize=(TEXT + PANEL * columns, (PANEL + 0.25) * len(rows) + 0.16 * len(heading) + 0.5),
        dpi=130,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    widths = [TEXT / PANEL, *([1] * columns)]
    grid = figure.subplots(len(rows), 1 + columns, squeeze=False, width_ratios=widths, gridspec_kw={"wspace": 0.02})
    for axes, row in zip(grid, rows, strict=True):
        for axis in axes:
            axis.set_axis_off()
        _write(axes[0], row)
        for axis, view in zip(axes[1:], row.views, strict=False):
            _draw(axis, view)
    organ_legend(figure, organs, 6)
    figure.suptitle("\n".join(heading), fontsize=8, x=0.01, ha="left", **_PLAIN)
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which says enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        facts = {"Software": None, "Title": _TITLE}
        write_whole(path, lambda temporary: figure.savefig(temporary, format="png", metadata=facts))


def is_montage(path: Path) -> bool:
    """Whether a file is a picture that `montage` has drawn."""
    try:
        with open(path, "rb") as file:
            return _TITLE.encode() in file.read(1000)
    except OSError:
        return False


def _draw(axis: Any, view: View) -> None:
    extent = (0, view.width, view.height, 0)
    axis.imshow(view.image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest", extent=extent)
    if view.labels is not None:
        axis.imshow(overlay(view.labels), interpolation="nearest", extent=extent)
    axis.set_aspect("equal")
    axis.set_title(view.caption, fontsize=6.5, pad=2, **_PLAIN)
    for x, side, align in ((0.02, view.sides[0], "left"), (0.98, view.sides[1], "right")):
        at = {"transform": axis.transAxes, "ha": align, "va": "center", "bbox": _MARK}
        axis.text(x, 0.5, side, fontsize=8, weight="bold", color="white", **at)


def _write(axis: Any, row: CaseRow) -> None:
    doubts = [line for doubt in row.doubts for line in _wrapped("! " + doubt)]
    facts = [line for fact in row.facts for line in _wrapped(fact)]
    lines = [(line, "#B00000") for line in doubts[:_LINES]]
    lines += [(line, "black") for line in facts[: max(_LINES - len(lines), 2)]]
    cut = len(doubts) + len(facts) - len(lines)
    if cut > 0:
        lines.append((f"({cut} more lines in the manifest)", "#606060"))
    at = {"transform": axis.transAxes, "ha": "left", "va": "top", **_PLAIN}
    axis.text(0, 1, row.name if len(row.name) < 34 else row.name[:30] + "...", fontsize=9, weight="bold", **at)
    for n, (line, colour) in enumerate(lines):
        axis.text(0, 0.89 - 0.068 * n, line, fontsize=6.5, color=colour, **at)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, _LETTERS, subsequent_indent="   ")
