"""Everything that lies finished in the folder of a comparison, whichever command left it there."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.config import read_toml
from attent_kit.engine.folder import title_of
from attent_kit.engine.suite import Cell, Suite
from attent_kit.registry import Registry
from attent_kit.report.scores import Score, read_scores, write_scores
from attent_kit.report.table import MethodRow


class Results(NamedTuple):
    """What a table of the folder shows."""

    scores: list[Score]
    methods: list[MethodRow]
    """Rows of the suite in its order, then rows that were added to the folder."""
    titles: dict[str, str]
    """"MR to CT" by direction."""


def collect(out: Path, suite: Suite, cells: Sequence[Cell], registry: Registry) -> Results:
    """All scores below `out`, written into its scores.csv, with the rows and directions that they belong to.

    Rows and directions of `cells` are listed even if nothing of them is finished.
    """
    alignments = {cell.row: cell.alignment for cell in cells}
    scores = []
    for file in sorted(out.glob("*/*/seed*/scores.csv")):
        own = read_scores(file)
        scores += own
        for row in {score.alignment for score in own} - alignments.keys():
            alignments[row] = read_toml(file.parent / "config.toml")["alignment"]["name"]
    write_scores(out / "scores.csv", scores)
    order = {row.label: n for n, row in enumerate(suite.rows)}
    labels = sorted(alignments, key=lambda label: order.get(label, len(order)))
    methods = [MethodRow(label, _sees_target_labels(alignments[label], registry)) for label in labels]
    directions = dict.fromkeys([*(cell.direction for cell in cells), *(score.direction for score in scores)])
    return Results(scores, methods, {direction: title_of(direction, suite.domain_names) for direction in directions})


def labels_in(out: Path) -> list[str]:
    """Rows that have scores below `out` already."""
    return sorted({score.alignment for file in out.glob("*/*/seed*/scores.csv") for score in read_scores(file)})


def _sees_target_labels(alignment: str, registry: Registry) -> bool:
    return bool(registry.resolve("alignments", alignment).uses_target_labels)  # type: ignore[attr-defined]
