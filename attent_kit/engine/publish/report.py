"""The report of a comparison: gathers what lies in its folder and writes report.html, table.tex, pairs.csv and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attent_kit.engine.compare.external import ShownExternal, shown_externals
from attent_kit.engine.compare.results import external_row, method_row
from attent_kit.engine.compare.results_folder import Remembered, ShownRun, published_in, recall, runs_in
from attent_kit.engine.compare.suite import slug
from attent_kit.engine.publish.made import citations_section, made_section, tested_of
from attent_kit.engine.publish.slices import Gallery, cases_section, translations_section
from attent_kit.engine.run.folder import RunFolder, in_words, of_seed
from attent_kit.errors import AttentKitError
from attent_kit.files import read_signed, write_text
from attent_kit.metrics.protocols import PROTOCOLS
from attent_kit.registry import Registry
from attent_kit.report.compared import Compared, ScoredRows, compared
from attent_kit.report.curves import read_curves
from attent_kit.report.latex import latex
from attent_kit.report.numbers import boxes_section, comparisons_section, other_tables, tables_section
from attent_kit.report.outcomes import Outcome, counts, outcome_of, reasons
from attent_kit.report.page import Page, Section, write_page
from attent_kit.report.pairwise import RowPair, all_pairs, pairs_csv
from attent_kit.report.scores import LAST, Score, by_protocol
from attent_kit.report.searched import SEARCH_CSV, read_searched, search_section
from attent_kit.report.summary import Stamp, doubts, headlines, stamps
from attent_kit.report.table import MethodRow, in_folds, mark
from attent_kit.report.traces import Trained, curves_section, shift_section, translation_audit_section

REPORT = "report.html"
FIGURES = "figures"


def write_report(
    out: Path, registry: Registry, reference: str | None = None, found: Compared | None = None
) -> list[Path]:
    """The files of the report, report.html first. ConfigError or DataError if `out` holds no run, or a damaged one.

    `reference` is the row that the others are compared with, by default that of the comparison, else the first. `found` is
    what a comparison that has just run has come to; else it is computed from the scores in the folder.
    """
    remembered = recall(out)
    runs = runs_in(out, remembered)
    externals = shown_externals(out, remembered.external if remembered else ())
    c, unknown = (found, []) if found else _compared((runs, externals), remembered, out, registry, reference)
    pairs = all_pairs(c.scores, [method.label for method in c.methods], c.titles)
    targets = {direction: tested_of(runs, direction, out) for direction in c.titles}
    gallery = Gallery(runs, targets, c, out / FIGURES, externals)
    sections = _sections(c, runs, pairs, gallery, out, registry)
    said = [*_doubts(c, runs, remembered, out), *unknown, *gallery.doubts]
    if remembered is None:
        said.append(
            "The folder has no comparison.toml, so its rows are in the order of their names. "
            "`attentkit compare` on it writes one."
        )
    files = [out / name for name in (REPORT, "table.tex", "pairs.csv")]
    write_text(files[1], latex(c.tables, c.published))
    write_text(files[2], pairs_csv(pairs))
    write_page(Page(c.title, c.note, headlines(c), said, sections), files[0])
    return files


def _compared(
    there: tuple[Sequence[ShownRun], Sequence[ShownExternal]],
    remembered: Remembered | None,
    out: Path,
    registry: Registry,
    reference: str | None,
) -> tuple[Compared, list[str]]:
    """What the contents of the folder have come to, and what keeps it from being read as it stands."""
    runs, externals = there
    methods, unknown = _methods(runs, remembered, out, registry)
    methods = _with_externals(methods, externals, remembered)
    labels = [method.label for method in methods]
    select = remembered.select if remembered else LAST
    asked = reference or (remembered.reference if remembered else None)
    if asked is not None and asked not in {each.row for each in externals}:
        asked = mark(asked, select)
    ended = (outcome_of(r.row, r.direction, r.seed, r.folder.monitor, r.done, str(r.fold)) for r in runs)
    scores = [score for run in runs for score in run.scores]
    scores += [score for external in externals for score in external.scores]
    scored = ScoredRows(
        remembered.title if remembered else out.resolve().name,
        remembered.note if remembered else "",
        scores,
        methods,
        _titles(runs, remembered),
        _organs(scores, runs),
        select,
        [outcome for outcome in ended if outcome],
        published_in(out),
        tested=remembered.tested if remembered else {},
        attribution=remembered.attribution if remembered else "",
    )
    return compared(scored, asked if reference or asked in labels else None), unknown


def _sections(
    c: Compared, runs: Sequence[ShownRun], pairs: Sequence[RowPair], gallery: Gallery, out: Path, registry: Registry
) -> list[Section]:
    others = {
        name: in_folds(other_tables(rows, c.methods, c.titles, _weights(name)), rows, c.tested)
        for name, rows in c.others.items()
    }
    trained = _trained(runs)
    searched = search_section(read_searched(out / SEARCH_CSV), c.titles, out / SEARCH_CSV)
    audited = translation_audit_section(trained, c.titles, gallery.translation)
    return [
        tables_section(c, others, _stamps(c, runs)),
        boxes_section(c, out / FIGURES),
        comparisons_section(c, pairs, out),
        cases_section(gallery),
        translations_section(gallery),
        curves_section(trained, c.titles, out / FIGURES),
        shift_section(out, trained, c.titles),
        *([audited] if audited else []),
        *([searched] if searched else []),
        made_section(runs, c.titles, out, gallery.externals),
        citations_section(runs, registry),
    ]


def _doubts(c: Compared, runs: Sequence[ShownRun], remembered: Remembered | None, out: Path) -> list[str]:
    """What keeps the numbers from being read as they stand."""
    protocols = list(by_protocol(c.scores)) + list(c.others)
    return [*doubts(c.scores, _missing(runs, c.outcomes, remembered, out), c.titles, protocols), *_collapsed(runs)]


def _methods(
    runs: Sequence[ShownRun], remembered: Remembered | None, out: Path, registry: Registry
) -> tuple[list[MethodRow], list[str]]:
    """Rows in their order, and a sentence for each whose method is not installed: it counts as a bound, to be safe."""
    alignments = {run.row: run.alignment for run in runs}
    if remembered:
        # A row that is asked for and not begun has its place, too.
        asked = {run.key.row for run in remembered.folders(out) if run.key}
        rows = {mark(row, remembered.select): name for row, name in remembered.rows.items() if slug(row) in asked}
        alignments = rows | alignments
    methods: dict[str, MethodRow] = {}
    unknown = []
    for row, alignment in alignments.items():
        try:
            methods[row] = method_row(row, registry.alignment(alignment))
        except AttentKitError:
            methods[row] = MethodRow(row, True)
            unknown.append(
                f"The method of {row}, '{alignment}', is not installed, so whether it sees target labels is not known: "
                "it is treated as if it did."
            )
    return list(methods.values()), unknown


def _with_externals(
    methods: Sequence[MethodRow], externals: Sequence[ShownExternal], remembered: Remembered | None
) -> list[MethodRow]:
    """The rows with those of other tools' label maps, which are where the suite has them."""
    made = {method.label: method for method in methods}
    made |= {each.row: external_row(each.row, each.seen) for each in externals}
    select = remembered.select if remembered else LAST
    order = [label for row in (remembered.rows if remembered else ()) for label in (row, mark(row, select))]
    return sorted(made.values(), key=lambda m: order.index(m.label) if m.label in order else len(order))


def _titles(runs: Sequence[ShownRun], remembered: Remembered | None) -> dict[str, str]:
    titles = {}
    for run in runs:
        if run.direction in titles:
            continue
        domain = read_signed(run.folder.domain) or {}
        source = domain.get("source")
        names = [source.get("domain") if isinstance(source, dict) else None, domain.get("domain")]
        known = " to ".join(str(name).upper() for name in names) if all(names) else run.direction
        titles[run.direction] = remembered.directions.get(run.direction, known) if remembered else known
    return titles


def _organs(scores: Sequence[Score], runs: Sequence[ShownRun]) -> tuple[str, ...]:
    """As the data number them, then others that have scores."""
    for run in runs:
        organs = (read_signed(run.folder.domain) or {}).get("organs")
        if isinstance(organs, list):
            return tuple(dict.fromkeys([*map(str, organs), *(score.organ for score in scores)]))
    return tuple(dict.fromkeys(score.organ for score in scores))


def _trained(runs: Sequence[ShownRun]) -> list[Trained]:
    folders: dict[tuple[str, str], dict[str, RunFolder]] = {}
    for run in runs:
        folders.setdefault((run.row, run.direction), {})[of_seed(run.seed, run.fold)] = run.folder
    return [
        Trained(
            row,
            slug(row),
            direction,
            {name: folder.audit for name, folder in found.items()},
            {name: read_curves(folder.log, folder.selection) for name, folder in found.items()},
        )
        for (row, direction), found in folders.items()
    ]


def _weights(protocol: str) -> dict[str, str | None]:
    """What the means of a protocol's metrics are over, if not volumes."""
    return {column.metric: column.weight for column in PROTOCOLS[protocol].columns} if protocol in PROTOCOLS else {}


def _stamps(c: Compared, runs: Sequence[ShownRun]) -> Mapping[tuple[str, str], list[Stamp]]:
    made = {}
    for direction in dict.fromkeys(run.direction for run in runs):
        for method in c.methods:
            own = [s for run in runs if (run.direction, run.row) == (direction, method.label) for s in run.scores]
            over, collapsed = counts(c.outcomes, method.label, direction)
            made[direction, method.label] = stamps(method, own, collapsed, over)
    return made


def _collapsed(runs: Sequence[ShownRun]) -> list[str]:
    return [
        f"{run.name} has collapsed and {'is counted all the same' if run.done else 'has no scores'}. {why}"
        for run in runs
        if (why := reasons(run.folder.monitor))
    ]


def _missing(
    runs: Sequence[ShownRun], outcomes: Sequence[Outcome], remembered: Remembered | None, out: Path
) -> list[str]:
    """Runs that were asked for or begun, and are not over."""
    over = {(outcome.row, outcome.direction, outcome.seed, outcome.fold) for outcome in outcomes}
    by_folder = {run.folder: run for run in runs}
    rows = {slug(label): label for label in remembered.rows} if remembered else {}
    made = []
    for folder in dict.fromkeys([*(remembered.folders(out) if remembered else ()), *by_folder]):
        run = by_folder.get(folder)
        if run is None:
            if key := folder.key:
                made.append(in_words(rows.get(key.row, key.row), key.direction, key.seed, key.fold))
        elif (run.row, run.direction, run.seed, str(run.fold)) not in over:
            made.append(run.name)
    return made
