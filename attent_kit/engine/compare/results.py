"""What lies finished in the folder of a comparison and belongs to its suite as that stands now."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.build import configure
from attent_kit.engine.compare.ablation import reason_against, rows_without
from attent_kit.engine.compare.cells import domain_files
from attent_kit.engine.compare.content import located, superseded
from attent_kit.engine.compare.external import UNKNOWN, done_externals, scores_of_external
from attent_kit.engine.compare.results_folder import title_of
from attent_kit.engine.compare.search import chosen, studies_of
from attent_kit.engine.compare.suite import Cell, Suite, SuiteRow, domains_of, expand, options_of, slug
from attent_kit.engine.run.folder import RunFolder
from attent_kit.errors import AttentKitError, DataError, few
from attent_kit.interfaces import Alignment
from attent_kit.registry import Registry
from attent_kit.report.outcomes import Outcome, outcome_of
from attent_kit.report.rows import records
from attent_kit.report.scores import LAST, SCORE_AGAIN, Score, read_scores, refuse_gaps, write_scores
from attent_kit.report.table import MethodRow, Spans


class Results(NamedTuple):
    """What a table of the folder shows."""

    scores: list[Score]
    methods: list[MethodRow]
    """Rows of the suite in its order, then rows that were added to the folder."""
    titles: dict[str, str]
    """"MR to CT" by direction."""
    left_out: list[str]
    """Rows with a finished run, but not with this selection."""
    outcomes: list[Outcome]
    """How each run ended that has scores or has collapsed."""
    unseen: list[str]
    """What is there and is not shown, and why: one sentence per row."""
    damaged: list[str]
    """Score files that cannot be used, a sentence each."""


def collect(
    out: Path, suite: Suite, cells: Sequence[Cell], registry: Registry, words: Sequence[str] = (), select: str = LAST
) -> Results:
    """The scores of the suite's finished cells below `out`, written into its scores.csv, with their rows and directions.

    Cells of other seeds and directions than the suite's are its cells too, and rows that `--alignments` or `--ablate` have
    added, as long as options, data and versions are as the suite has them now. Rows and directions of `cells` are listed
    even if nothing of them is finished; rows of label maps of other tools once those are scored. `words`: `--set` options.
    """
    runs, rows, there = _standing(out, suite, registry, words, select)
    shown = sorted((cell for cell in there if cell.answers.scores.exists()), key=lambda cell: cell.folder)
    scores, damaged = [], []
    for cell in shown:
        try:
            scores += scores_of(cell)
        except DataError as error:
            damaged.append(str(error))
    directions = dict.fromkeys([*(cell.direction for cell in cells), *(cell.direction for cell in shown)])
    externals = done_externals(suite, domain_files(suite, out), out, directions)
    for external in externals:
        try:
            scores += scores_of_external(external)
        except DataError as error:
            damaged.append(str(error))
    write_scores(out / "scores.csv", scores)
    listed = {cell.row for cell in (*cells, *shown)} | {external.row for external in externals}
    methods = [_method(row, registry) for row in rows if row.label in listed]
    titles = {direction: title_of(direction, suite.domain_names) for direction in directions}
    left_out = sorted({cell.row for cell in there if not cell.done and cell.run.has_scores} - {c.row for c in shown})
    outcomes = _outcomes({cell.folder: cell for cell in (*cells, *there)}.values())
    return Results(scores, methods, titles, left_out, outcomes, _unseen(out, there, runs, registry), damaged)


def standing(
    out: Path, suite: Suite, registry: Registry, words: Sequence[str] = (), select: str = LAST
) -> tuple[Suite, list[Cell]]:
    """The suite with the rows that earlier calls have added below `out`, in the order of the table, and its cells that were
    begun there, also those that it does not ask for."""
    _, rows, cells = _standing(out, suite, registry, words, select)
    return suite.model_copy(update={"rows": tuple(rows)}), [cell for cell in cells if cell.run.has_results]


def _standing(
    out: Path, suite: Suite, registry: Registry, words: Sequence[str], select: str
) -> tuple[list[RunFolder], list[SuiteRow], list[Cell]]:
    """Folders of runs that were begun, rows that the suite has with them, and its cells there."""
    runs = [run for run in RunFolder.find(out) if run.has_results]
    rows = _rows(suite, runs, registry, words)
    return runs, rows, _cells(out, suite, rows, runs, registry, words, select)


def labels_in(out: Path, suite: Suite, registry: Registry, words: Sequence[str] = ()) -> list[str]:
    """Rows with something below `out` already."""
    runs = RunFolder.find(out)
    slugs = {run.key.row for run in runs if run.key}
    return [row.label for row in _rows(suite, runs, registry, words) if slug(row.label) in slugs]


def _outcomes(cells: Iterable[Cell]) -> list[Outcome]:
    """Of the cells that have scores or have collapsed; a run that is not over has no outcome."""
    ordered = sorted(cells, key=lambda cell: cell.key)
    found = (outcome_of(c.row, c.direction, c.seed, c.run.monitor, c.done, str(c.fold)) for c in ordered)
    return [outcome for outcome in found if outcome]


def scores_of(cell: Cell) -> list[Score]:
    """The score rows of a finished cell, under its label. DataError, with what to do, if they are not all of them."""
    file = cell.answers.scores
    try:
        scores = read_scores(file)
    except DataError as error:
        raise DataError(f"{str(error).partition(' Delete the file')[0]} {SCORE_AGAIN}") from None
    strange = {(s.direction, s.seed) for s in scores} - {(cell.direction, cell.seed)}
    if strange or len({s.alignment for s in scores}) > 1:
        raise DataError(f"{file} has rows of another run than {cell.name}. {SCORE_AGAIN}")
    refuse_gaps(scores, file, *cell.to_be_scored)
    return [score._replace(alignment=cell.row) for score in scores]


def _rows(suite: Suite, runs: Collection[RunFolder], registry: Registry, words: Sequence[str]) -> list[SuiteRow]:
    """The suite's rows, those of `runs` that an alignment's name has added, and after each those without a term of it."""
    there = {run.key.row for run in runs if run.key}
    taken = {slug(row.label) for row in suite.rows}
    # A row of the suite that was called almost like its alignment, and no longer is, was not added by that name.
    labels = {_label(run) for run in runs if run.key and run.key.row not in taken}
    names = [component.name for component in registry.of("alignments") if component.name in labels]
    rows: list[SuiteRow] = []
    for row in (*suite.rows, *(SuiteRow(label=name, alignment=name) for name in sorted(names))):
        if row.label in names and not _can_be(suite, row, registry, words):
            continue
        rows.append(row)
        if row.is_external:
            continue
        for reduced in rows_without(row, registry):
            added = slug(reduced.label) in there - taken
            if added and reason_against(suite, row, reduced, registry, words) is None:
                rows.append(reduced)
    return rows


def _label(run: RunFolder) -> str | None:
    """What the first line of a run's scores calls its row."""
    try:
        with run.answers().scores.open(newline="", encoding="utf-8") as file:
            return next(records(file), {}).get("alignment")
    except (OSError, UnicodeDecodeError):
        return None


def _can_be(suite: Suite, row: SuiteRow, registry: Registry, words: Sequence[str]) -> bool:
    try:
        configure(registry.alignment(row.alignment), options_of(suite, row, registry, words), registry)
    except AttentKitError:
        return False
    return True


def _cells(
    out: Path, suite: Suite, rows: Sequence[SuiteRow], runs: Sequence[RunFolder], registry: Registry, words: Sequence[str],
    select: str,
) -> list[Cell]:  # fmt: skip
    """A cell of the suite as it stands for every row, direction, seed and fold that the runs have."""
    there = {run.key for run in runs if run.key}
    directions = [direction for direction in sorted({key.direction for key in there}) if _ends(direction, suite)]
    seeds = sorted({key.seed for key in there})
    if not directions or not seeds:
        return []
    whole = suite.model_copy(update={"rows": tuple(rows), "directions": tuple(directions), "seeds": tuple(seeds)})
    cells = expand(whole, registry, domain_files(suite, out), out, words, select)
    cells = [cell for cell in cells if cell.key in there]
    cells = chosen(studies_of(whole, cells, registry, out), cells)
    return located([cell for cell in cells if cell.trials_left is None], registry)


def _unseen(out: Path, cells: Sequence[Cell], runs: Sequence[RunFolder], registry: Registry) -> list[str]:
    """A sentence for each row with runs that are in no table."""
    older: dict[str, dict[Path, list[str]]] = {}
    differing_of = superseded(cells, registry)
    for cell in cells:
        older.setdefault(cell.row, {}).update(differing_of[cell.folder])
    sentences = []
    for row, differing in older.items():
        if differing:
            names = [*dict.fromkeys(name for differs in differing.values() for name in differs)]
            why = f"since the suite now differs in {few(names, 3)}"
            sentences.append(f"{row}: {_some(differing, out)} kept and not shown, {why}.")
    known = {cell.folder for cell in cells}.union(*older.values())
    strangers = [run.path for run in runs if run.path not in known and run.answers().scores.exists()]
    if strangers:
        sentences.append(
            f"{_some(strangers, out)} kept and not shown, since the suite has no such row, direction or fold."
        )
    return sentences


def _some(folders: Collection[Path], out: Path) -> str:
    runs = f"{len(folders)} earlier run{'s' if len(folders) > 1 else ''}"
    return f"{runs} ({few([folder.relative_to(out).as_posix() for folder in folders], 3)})"


def _ends(direction: str, suite: Suite) -> tuple[str, str] | None:
    """Source and target, or None if they are not domains of the suite."""
    try:
        return domains_of(direction, suite.domain_names)
    except ValueError:
        return None


def _method(row: SuiteRow, registry: Registry) -> MethodRow:
    if row.is_external:
        return external_row(row.label, row.seen or UNKNOWN)
    return method_row(row.label, registry.alignment(row.alignment))


def external_row(label: str, seen: str) -> MethodRow:
    """What a table must know of label maps of another tool: it may have seen target labels, so it is never the best."""
    return MethodRow(label, True, seen=seen)


def method_row(label: str, method: type[Alignment]) -> MethodRow:
    """What a table must know of a row, by what its method declares."""
    spans: Spans = "ceiling" if method.uses_target_labels else "floor" if method.aligns_nothing() else ""
    return MethodRow(label, bool(method.uses_target_labels), spans)
