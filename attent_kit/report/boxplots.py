"""Box plots over cases: a row of the comparison at each tick, a box for each organ in its colour."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit.report.colours import organ_colour
from attent_kit.report.figures import organ_legend, plain_ticks, save
from attent_kit.report.intervals import seed_means, values
from attent_kit.report.metrics import Metric
from attent_kit.report.scores import Score

INK = "#333333"
WHISKER = 1.5
"""Whiskers reach to the last case within so many times the height of the box (Tukey)."""
WIDEST_RATIO = 20
"""Ratio of the largest to the smallest distance above which the axis is logarithmic."""
LONGEST_LABEL = 26
"""Characters of a row's label in the figure."""


class Box(NamedTuple):
    """Quartiles by linear interpolation, the ends of the whiskers, and every case."""

    low: float
    first: float
    median: float
    third: float
    high: float
    cases: tuple[float, ...]


def box(numbers: Sequence[float]) -> Box | None:
    """The box of the numbers that are not NaN; None if there are none."""
    known = sorted(number for number in numbers if not math.isnan(number))
    if not known:
        return None
    first, median, third = (float(quartile) for quartile in np.percentile(known, [25, 50, 75]))
    reach = WHISKER * (third - first)
    inside = [number for number in known if first - reach <= number <= third + reach]
    return Box(min(inside), first, median, third, max(inside), tuple(known))


def boxes(scores: Sequence[Score], labels: Sequence[str], direction: str, metric: Metric) -> dict[str, dict[str, Box]]:
    """By row label and organ, where there is a value; the value of a case is its mean over seeds, as it is printed."""
    own = [score for score in scores if score.direction == direction]
    found = {label: row for (_, label), row in values(own, metric.name, metric.unit).items()}
    made: dict[str, dict[str, Box]] = {}
    for label in labels:
        if label not in found:
            continue
        means = seed_means(found[label].array) * metric.scale
        by_organ = {organ: box(means[:, n].tolist()) for n, organ in enumerate(found[label].organs)}
        made[label] = {organ: drawn for organ, drawn in by_organ.items() if drawn is not None}
    return made


def box_figure(
    drawn: Mapping[str, Mapping[str, Box]], organs: Sequence[str], metric: Metric, title: str, stem: Path
) -> list[Path]:
    """PNG and SVG. `organs` in the order of the data, which gives them their colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 0.12 * len(organs) * len(drawn) + 0.12 * len(drawn)
    figure = Figure(figsize=(4.6, height + 1.3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    step = 1 / (len(organs) + 1)
    for row, by_organ in enumerate(drawn.values()):
        for n, organ in enumerate(organs):
            if organ in by_organ:
                _draw(axis, by_organ[organ], row + (n - (len(organs) - 1) / 2) * step, step, organ_colour(n))
        if row:
            axis.axhline(row - 0.5, color="#DDDDDD", linewidth=0.6, zorder=0)
    names = [label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…" for label in drawn]
    axis.set_yticks(range(len(drawn)), names, fontsize=8, parse_math=False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_ylim(len(drawn) - 0.5, -0.5)
    axis.grid(axis="x", color="#EEEEEE", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    words = metric.heading
    if metric.ends:
        low, high = metric.ends
        margin = 0.02 * (high - low)
        axis.set_xlim(low - margin, high + margin)
    else:
        numbers = [number for by_organ in drawn.values() for b in by_organ.values() for number in b.cases]
        if min(numbers) > 0 and max(numbers) > WIDEST_RATIO * min(numbers):
            axis.set_xscale("log")
            plain_ticks(axis.xaxis)
            words += ", logarithmic"
    axis.set_xlabel(words, fontsize=8, parse_math=False)
    axis.set_title(title, fontsize=9, parse_math=False)
    organ_legend(figure, organs, 4)
    return save(figure, stem)


def _draw(axis: Any, b: Box, y: float, step: float, colour: str) -> None:
    half = 0.38 * step
    for end, quartile in ((b.low, b.first), (b.third, b.high)):
        axis.plot([end, quartile], [y, y], color=INK, linewidth=0.7, zorder=2)
    axis.fill([b.first, b.third, b.third, b.first], [y - half, y - half, y + half, y + half], facecolor=colour,
              edgecolor=INK, linewidth=0.6, zorder=3)  # fmt: skip
    axis.plot([b.median, b.median], [y - half, y + half], color=INK, linewidth=1.4, solid_capstyle="butt", zorder=4)
    axis.scatter(b.cases, [y] * len(b.cases), s=4, color=INK, linewidths=0, zorder=5)
