"""Everything that lies finished in the folder of a comparison, whichever command left it there."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.config import read_toml
from attent_kit.engine.run import place_of
from attent_kit.engine.suite import Cell, Suite, domains_of, slug
from attent_kit.registry import Registry
from attent_kit.report.outcomes import Outcome, failed_checks
from attent_kit.report.scores import LAST, Score, read_scores, write_scores
from attent_kit.report.table import MethodRow


class Results(NamedTuple):
    """What a table of the folder shows."""

    scores: list[Score]
    methods: list[MethodRow]
    """Rows of the suite in its order, then rows that were added to the folder."""
    titles: dict[str, str]
    """"MR to CT" by direction."""
    left_out: list[str]
    """Rows of which a run is finished, but not with this selection."""
    outcomes: list[Outcome]
    """How each run ended that has scores or has collapsed."""


def collect(out: Path, suite: Suite, cells: Sequence[Cell], registry: Registry, select: str = LAST) -> Results:
    """All scores of one selection below `out`, written into its scores.csv, with the rows and directions of them.

    Rows and directions of `cells` are listed even if nothing of them is finished.
    """
    alignments = {cell.row: cell.alignment for cell in cells}
    scores = []
    for folder in sorted(out.glob("*/*/seed*")):
        file = place_of(folder, select) / "scores.csv"
        if not file.exists():
            continue
        own = read_scores(file)
        scores += own
        for row in {score.alignment for score in own} - alignments.keys():
            alignments[row] = read_toml(folder / "config.toml")["alignment"]["name"]
    write_scores(out / "scores.csv", scores)
    order = {row.label: n for n, row in enumerate(suite.rows)}
    labels = sorted(alignments, key=lambda label: order.get(label, len(order)))
    methods = [MethodRow(label, _sees_target_labels(alignments[label], registry)) for label in labels]
    directions = dict.fromkeys([*(cell.direction for cell in cells), *(score.direction for score in scores)])
    titles = {direction: _title(direction, suite) for direction in directions}
    left_out = sorted({*labels_in(out)} - {*labels})
    return Results(scores, methods, titles, left_out, _outcomes(out, cells, scores))


def labels_in(out: Path) -> list[str]:
    """Rows that have scores below `out` already, with whichever selection."""
    files = [file for pattern in ("scores.csv", "selections/*/scores.csv") for file in out.glob(f"*/*/seed*/{pattern}")]
    return sorted({score.alignment for file in files for score in read_scores(file)})


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
