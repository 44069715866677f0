"""Average ranks of the rows over cases, and their critical-difference diagram (Demsar, JMLR 7, 2006)."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.report.figures import save
from attent_kit.report.intervals import case_values, values
from attent_kit.report.metrics import METRICS, metric_of
from attent_kit.report.rows import csv_table
from attent_kit.report.scores import Score
from attent_kit.report.significance import Ranking, cliques, friedman

INK, MUTED, BAR = "#000000", "#666666", "#0072B2"
"""Told apart by their lightness alone, so by everybody and on paper."""
LONGEST_NAME = 40
"""Characters of a name in the figure."""


class Ranks(NamedTuple):
    """What a critical-difference diagram shows of one direction and metric."""

    direction: str
    metric: str
    labels: tuple[str, ...]
    """Best rank first."""
    ranking: Ranking
    """Its `ranks` are in the order of `labels`."""
    groups: tuple[tuple[str, ...], ...]
    """Rows that the critical difference cannot tell apart: a bar each."""
    left_out: tuple[str, ...]
    """Rows without a score of every organ, which have no rank."""

    @property
    def name(self) -> str:
        """Of its figures, without extension."""
        return f"ranks-{self.direction}-{metric_of(self.metric).stem}"


def rank_rows(scores: Iterable[Score], labels: Sequence[str], directions: Iterable[str]) -> list[Ranks]:
    """The ranks of each direction and metric in which at least three of the rows share at least two cases."""
    scores, made = list(scores), []
    for direction in directions:
        for metric in METRICS:
            own = (score for score in scores if score.direction == direction)
            found = {label: row for (_, label), row in values(own, metric.name, metric.unit).items() if label in labels}
            whole = [label for label in labels if label in found and found[label].has_every_organ]
            if len(whole) < 3:
                continue
            cases, table = case_values([found[label] for label in whole])
            if len(cases) < 2:
                continue
            ranking = friedman(table, metric.higher_is_better)
            order = sorted(range(len(whole)), key=lambda i: ranking.ranks[i])
            sorted_ranks = tuple(ranking.ranks[i] for i in order)
            names = tuple(whole[i] for i in order)
            groups = tuple(
                tuple(names[i] for i in group) for group in cliques(sorted_ranks, ranking.critical_difference)
            )
            left_out = tuple(label for label in labels if label in found and label not in whole)
            made.append(Ranks(direction, metric.name, names, ranking._replace(ranks=sorted_ranks), groups, left_out))
    return made


def rank_sentence(r: Ranks) -> str:
    """Ranks, Friedman's test, and what Nemenyi's critical difference can tell apart."""
    ranking, widest = r.ranking, len(r.labels) - 1
    ranked = ", ".join(f"{label} {rank:.2f}" for label, rank in zip(r.labels, ranking.ranks, strict=True))
    p = "p < 0.001" if ranking.permuted_p < 0.001 else f"p = {ranking.permuted_p:.3g}"
    friedman_says = (
        "All tie in every case."
        if math.isnan(ranking.chi_square)
        else f"Friedman's chi-square is {ranking.chi_square:.1f}, {p} by permutation within cases."
    )
    apart = ranking.critical_difference
    nemenyi = (
        f"Two rows differ at 0.05 if they are more than {apart:.2f} ranks apart (Nemenyi)"
        if apart < widest
        else f"No two can differ at 0.05: they would have to be {apart:.2f} ranks apart (Nemenyi), and there are {widest}"
    )
    without = f" Without a rank, as an organ has no score: {', '.join(r.left_out)}." if r.left_out else ""
    return (
        f"Average ranks over {ranking.cases} cases, 1 is best, rows that see target labels aside: {ranked}. {friedman_says} "
        f"{nemenyi}; see {r.name}.png.{without}"
    )


def ranks_csv(ranks: Iterable[Ranks]) -> str:
    """One line per row of the diagrams, unrounded."""
    fields = [field for field in Ranking._fields if field != "ranks"]
    lines = [
        (r.direction, r.metric, label, rank, *r.ranking[1:])
        for r in ranks
        for label, rank in zip(r.labels, r.ranking.ranks, strict=True)
    ]
    return csv_table(["direction", "metric", "method", "rank", *fields], lines)


def ranks_figure(r: Ranks, title: str, folder: Path) -> list[Path]:
    """The critical-difference diagram as PNG and SVG.

    An axis of ranks, best to the left. The better half of the rows is named on the left, the other on the right; a bar
    joins rows that the critical difference, drawn above the axis, cannot tell apart.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k, ranks = len(r.labels), r.ranking.ranks
    half = -(-k // 2)
    bars = [(ranks[r.labels.index(group[0])], ranks[r.labels.index(group[-1])]) for group in r.groups]
    # In units of text lines, downwards: title, CD, axis at 0, bars, names.
    top, first_name = 2.6, 0.9 + 0.45 * len(bars)
    bottom = first_name + half - 0.4
    names = [label if len(label) <= LONGEST_NAME else label[: LONGEST_NAME - 1] + "…" for label in r.labels]
    widest = max(map(len, names[:half])) + max(map(len, names[half:]))
    size = (5.2 + 0.075 * max(widest, 27), 0.24 * (top + bottom) + 0.5)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set_ylim(bottom, -top)
    margin = 0.02 * (k - 1)
    axis.set_xlim(1 - margin, k + margin)
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.text(1 - margin, -0.35, "average rank, 1 is best ", ha="right", va="bottom", fontsize=8, color=MUTED)
    axis.plot([1, k], [0, 0], color=INK, linewidth=1, solid_capstyle="butt")
    for tick in range(1, k + 1):
        axis.plot([tick, tick], [0, -0.25], color=INK, linewidth=1)
        axis.text(tick, -0.35, str(tick), ha="center", va="bottom", fontsize=8)
    apart = r.ranking.critical_difference
    shown = min(apart, k - 1)
    axis.plot([1, 1, 1, 1 + shown, 1 + shown, 1 + shown], [-1.85, -1.55, -1.7, -1.7, -1.55, -1.85], color=BAR)
    more = "" if shown == apart else ", longer than the axis"
    axis.text(1 + shown / 2, -1.85, f"critical difference {apart:.2f}{more}", ha="center", va="bottom", fontsize=8)
    for n, (low, high) in enumerate(bars):
        depth, over = 0.55 + 0.45 * n, 0.006 * (k - 1)
        axis.plot(
            [low - over, high + over], [depth] * 2, color=BAR, linewidth=3.5, solid_capstyle="butt", clip_on=False
        )
    for n, (label, rank) in enumerate(zip(names, ranks, strict=True)):
        left = n < half
        line = first_name + (n if left else k - 1 - n)
        end, where = (1 - margin, "right") if left else (k + margin, "left")
        axis.plot([rank, rank, end], [0, line, line], color=MUTED, linewidth=0.8, clip_on=False)
        name = f"{label}  {rank:.2f} " if left else f" {rank:.2f}  {label}"
        axis.text(end, line, name, ha=where, va="center", fontsize=8, parse_math=False)
    return save(figure, folder / r.name)
