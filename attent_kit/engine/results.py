"""Everything that lies finished in the folder of a comparison, whichever command left it there."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.config import read_toml
from attent_kit.engine.suite import Cell, Suite, domains_of, slug
from attent_kit.registry import Registry
from attent_kit.report.outcomes import Outcome, failed_checks
from attent_kit.report.scores import Score, read_scores, write_scores
from attent_kit.report.table import MethodRow


class Results(NamedTuple):
    """What a table of the folder shows."""

    scores: list[Score]
    methods: list[MethodRow]
    """Rows of the suite in its order, then rows that were added to the folder."""
    titles: dict[str, str]
    """"MR to CT" by direction."""
    outcomes: list[Outcome]
    """How each run ended that has scores or has collapsed."""


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
    titles = {direction: _title(direction, suite) for direction in directions}
    return Results(scores, methods, titles, _outcomes(out, cells, scores))


def labels_in(out: Path) -> list[str]:
    """Rows that have scores below `out` already."""
    return sorted({score.alignment for file in out.glob("*/*/seed*/scores.csv") for score in read_scores(file)})


def _outcomes(out: Path, cells: Sequence[Cell], scores: Sequence[Score]) -> list[Outcome]:
    """Of the runs of `cells` and of those that left scores in other rows; a run that is not over has no outcome."""
    folders = {
        (slug(row), direction, seed): row
        for row, direction, seed in {(s.alignment, s.direction, s.seed) for s in scores}
    }
    scored = set(folders)
    folders |= {(slug(cell.row), cell.direction, cell.seed): cell.row for cell in cells}
    outcomes = []
    for (name, direction, seed), row in sorted(folders.items()):
        failed = failed_checks(out / direction / name / f"seed{seed}")
        has_scores = (name, direction, seed) in scored
        if has_scores or failed:
            outcomes.append(Outcome(row, direction, seed, failed or (), has_scores))
    return outcomes


def _sees_target_labels(alignment: str, registry: Registry) -> bool:
    return bool(registry.resolve("alignments", alignment).uses_target_labels)  # type: ignore[attr-defined]


def _title(direction: str, suite: Suite) -> str:
    try:
        source, target = domains_of(direction, suite.domain_names)
    except ValueError:
        return direction
    return f"{source.upper()} to {target.upper()}"
