"""Learning curves: the losses of a run's log.jsonl, and the label-free scores of its snapshots in selection.csv."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from attent_kit.files import parse_object
from attent_kit.report.figures import plain_ticks, save
from attent_kit.report.rows import records

COLOURS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#66CCEE", "#BBAA00", "#000000")
"""Of losses and selectors: Tol's "bright" (personal.sron.nl/~pault), with black for its grey and a darker yellow."""
MOST_POINTS = 200
"""Of a curve; of a longer log, neighbours are averaged."""
STYLES = ("-", "--", ":")
LONGEST_LEGEND = 24
"""Characters of a name in the legend."""
LETTERS = 62
"""Of a line of the legend, with about seven for each line that it explains."""


class Curves(NamedTuple):
    """What a run has logged."""

    losses: dict[str, list[tuple[int, float]]]
    """(step, mean since the last line) by name."""
    stages: tuple[tuple[str, int], ...]
    """Name and first logged step of each stage."""
    selectors: dict[str, list[tuple[int, float]]]
    """(step, value) by selector."""
    better: dict[str, str]
    """"higher" or "lower" by selector."""
    skipped: int
    """Lines that could not be read."""


def read_curves(log: Path, selection: Path) -> Curves:
    """What a run's log.jsonl and selection.csv hold; a line that was cut off or edited is skipped and counted."""
    losses: dict[str, list[tuple[int, float]]] = {}
    stages: dict[str, int] = {}
    skipped = 0
    for line in _lines(log):
        try:
            entry = parse_object(line) or {}
            step, stage = int(entry.pop("step")), str(entry.pop("stage"))
            numbers = {str(name): float(value) for name, value in entry.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            skipped += 1
            continue
        stages.setdefault(stage, step)
        for name, value in numbers.items():
            if math.isfinite(value):
                losses.setdefault(name, []).append((step, value))
    selectors: dict[str, list[tuple[int, float]]] = {}
    better: dict[str, str] = {}
    for row in records(_lines(selection)):
        try:
            step, value = int(row["step"]), float(row["value"])
            name, side = row["selector"], row["better"]
            if side not in ("higher", "lower") or not math.isfinite(value):
                raise ValueError(side)
        except (ValueError, KeyError, TypeError):
            skipped += 1
            continue
        selectors.setdefault(name, []).append((step, value))
        better[name] = side
    return Curves(losses, tuple(stages.items()), selectors, better, skipped)


def curve_figure(by_run: Mapping[str, Curves], title: str, stem: Path) -> list[Path]:
    """PNG and SVG of one row: its losses, the first run strong and the others faint; below them its selectors, if any.

    Selectors have units of their own: each is drawn from its worst snapshot, 0, to its best, 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = next(iter(by_run.values()))
    has_selectors = any(curves.selectors for curves in by_run.values())
    figure = Figure(figsize=(4.6, 3.2 + 2.6 * has_selectors), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + has_selectors, 1, squeeze=False, sharex=True)[:, 0]
    _lines_of(axes[0], [curves.losses for curves in by_run.values()])
    values = [value for curves in by_run.values() for points in curves.losses.values() for _, value in points]
    if values and min(values) > 0:
        axes[0].set_yscale("log")
        plain_ticks(axes[0].yaxis)
    axes[0].set_ylabel("loss", fontsize=8)
    if has_selectors:
        _lines_of(axes[1], [_scaled(curves) for curves in by_run.values()])
        axes[1].set_ylabel("selector, 1 is best", fontsize=8)
        axes[1].set_ylim(-0.05, 1.05)
    for axis in axes:
        for _, start in first.stages[1:]:
            axis.axvline(start, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axis.tick_params(labelsize=8)
        axis.grid(color="#EEEEEE", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    for name, start in first.stages:
        axes[0].annotate(
            name, (start, 1), xycoords=("data", "axes fraction"), xytext=(3, 2), textcoords="offset points",
            fontsize=7, color="#555555", parse_math=False,
        )  # fmt: skip
    axes[-1].set_xlabel("step", fontsize=8)
    figure.suptitle(title, fontsize=9, parse_math=False)
    return save(figure, stem)


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points, each the mean of as many neighbours."""
    many = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + many] for start in range(0, len(points), many)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]


def _lines_of(axis: Any, by_run: Sequence[Mapping[str, list[tuple[int, float]]]]) -> None:
    names = list(dict.fromkeys(name for curves in by_run for name in curves))
    for strong, curves in zip([True] + [False] * len(by_run), by_run, strict=False):
        for n, name in enumerate(names):
            if name not in curves:
                continue
            steps, values = zip(*thinned(curves[name]), strict=True)
            look = {"linewidth": 1.5} if strong else {"linewidth": 0.6, "alpha": 0.45}
            label = name if len(name) <= LONGEST_LEGEND else name[: LONGEST_LEGEND - 1] + "…"
            colour, style = COLOURS[n % len(COLOURS)], STYLES[n // len(COLOURS) % len(STYLES)]
            axis.plot(steps, values, color=colour, linestyle=style, label=label if strong else None, **look)
            if len(steps) == 1:
                axis.plot(steps, values, color=colour, marker="o", markersize=3)
    if names:
        longest = min(max(map(len, names)), LONGEST_LEGEND)
        legend = axis.legend(
            fontsize=7,
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
            ncols=max(1, min(4, LETTERS // (longest + 7))),
            columnspacing=1.2,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _scaled(curves: Curves) -> dict[str, list[tuple[int, float]]]:
    scaled = {}
    for name, points in curves.selectors.items():
        low, high = min(value for _, value in points), max(value for _, value in points)
        share = [(step, (value - low) / (high - low) if high > low else 1.0) for step, value in points]
        scaled[name] = [(step, 1 - s if curves.better[name] == "lower" and high > low else s) for step, s in share]
    return scaled


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
