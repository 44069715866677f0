"""The report of a comparison: gathers what lies in its folder and writes report.html, table.tex, pairs.csv and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attent_kit.engine.compare.results_folder import Remembered, ShownRun, published_in, read_json, recall, runs_in
from attent_kit.engine.compare.suite import slug
from attent_kit.engine.publish.made import citations_section, made_section, prepared_of
from attent_kit.engine.publish.slices import Gallery, cases_section, translations_section
from attent_kit.errors import AttentKitError
from attent_kit.files import write_text
from attent_kit.metrics.protocols import PROTOCOLS
from attent_kit.registry import Registry
from attent_kit.report.comparisons import choose_reference, compare
from attent_kit.report.latex import latex
from attent_kit.report.numbers import Compared, boxes_section, comparisons_section, other_tables, tables_section
from attent_kit.report.outcomes import Outcome, counts, outcome_of, reasons
from attent_kit.report.page import Page, write_page
from attent_kit.report.pairwise import all_pairs, pairs_csv
from attent_kit.report.ranks import rank_rows
from attent_kit.report.scores import LAST, Score
from attent_kit.report.summary import Stamp, by_protocol, doubts, headlines, stamps
from attent_kit.report.table import MethodRow, mark, selection_note, tables
from attent_kit.report.traces import Trained, audit_section, curves_section, shift_section

REPORT = "report.html"
FIGURES = "figures"


def write_report(out: Path, registry: Registry, reference: str | None = None) -> list[Path]:
    """The files of the report, report.html first. ConfigError or DataError if `out` holds no run, or a damaged one.

    `reference` is the row that the others are compared with, by default that of the comparison, else the first.
    """
    remembered = recall(out)
    runs = runs_in(out, remembered)
    published = published_in(out)
    methods, unknown = _methods(runs, registry)
    labels = [method.label for method in methods]
    titles = _titles(runs, remembered)
    select = remembered.select if remembered else LAST
    asked = reference or (remembered.reference if remembered else None)
    if asked is not None:
        asked = mark(asked, select)
    reference = choose_reference(asked if reference or asked in labels else None, labels)
    ended = (outcome_of(run.row, run.direction, run.seed, run.folder, run.done) for run in runs)
    outcomes = [outcome for outcome in ended if outcome]

    protocols = by_protocol(score for run in runs for score in run.scores)
    scores = next(iter(protocols.values()), [])
    title = remembered.title if remembered else out.resolve().name
    targets = {direction: prepared_of(runs, direction, "target", out) for direction in titles}
    compared = Compared(scores, methods, titles, _organs(scores, runs), title)
    made = tables(scores, methods, titles, outcomes)
    others = {name: other_tables(rows, methods, titles, _weight(name)) for name, rows in list(protocols.items())[1:]}
    comparisons = compare(scores, labels, reference, titles)
    pairs = all_pairs(scores, labels, titles)
    ranks = rank_rows(scores, [method.label for method in methods if not method.bound], titles)
    shown = [entry for entry in published if entry.direction in titles]
    trained = _trained(runs)
    gallery = Gallery(runs, targets, {m.label for m in methods if not m.bound}, compared, out / FIGURES)
    audited = audit_section(trained, titles, gallery.translation)
    sections = [
        tables_section(made, others, shown, titles, _stamps(runs, methods, outcomes)),
        boxes_section(compared, out / FIGURES),
        comparisons_section(compared, comparisons, pairs, ranks, out),
        cases_section(gallery),
        translations_section(gallery),
        curves_section(trained, titles, out / FIGURES),
        shift_section(out, trained, titles),
        *([audited] if audited else []),
        made_section(runs, titles, out),
        citations_section(runs, registry),
    ]
    said = [
        *doubts(scores, _missing(runs, outcomes, remembered, out), titles, list(protocols)),
        *_collapsed(runs),
        *unknown,
        *gallery.doubts,
    ]
    if remembered is None:
        said.append(
            "The folder has no comparison.toml, as those of earlier versions: rows stand in the order of their names. "
            "`attentkit compare` on it writes one."
        )
    note = " ".join(filter(None, (remembered.note if remembered else "", selection_note(select))))
    page = Page(title, note, headlines(made, methods, comparisons, titles), said, sections)
    files = [out / name for name in (REPORT, "table.tex", "pairs.csv")]
    write_text(files[1], latex(made, shown))
    write_text(files[2], pairs_csv(pairs))
    write_page(page, files[0])
    return files


def _methods(runs: Sequence[ShownRun], registry: Registry) -> tuple[list[MethodRow], list[str]]:
    """Rows in their order, and a sentence for each whose method is not installed: it counts as a bound, to be safe."""
    bounds: dict[str, bool] = {}
    unknown = []
    for run in runs:
        if run.row in bounds:
            continue
        try:
            loaded = registry.alignment(run.alignment)
            bounds[run.row] = bool(loaded.uses_target_labels)
        except AttentKitError:
            bounds[run.row] = True
            unknown.append(
                f"The method of {run.row}, '{run.alignment}', is not installed, so whether it sees target labels is not known: "
                "it is treated as if it did."
            )
    return [MethodRow(label, bound) for label, bound in bounds.items()], unknown


def _titles(runs: Sequence[ShownRun], remembered: Remembered | None) -> dict[str, str]:
    titles = {}
    for run in runs:
        if run.direction in titles:
            continue
        domain = read_json(run.folder / "domain.json")
        source = domain.get("source")
        names = [source.get("domain") if isinstance(source, dict) else None, domain.get("domain")]
        known = " to ".join(str(name).upper() for name in names) if all(names) else run.direction
        titles[run.direction] = remembered.directions.get(run.direction, known) if remembered else known
    return titles


def _organs(scores: Sequence[Score], runs: Sequence[ShownRun]) -> tuple[str, ...]:
    """As the data number them, then others that have scores."""
    for run in runs:
        organs = read_json(run.folder / "domain.json").get("organs")
        if isinstance(organs, list):
            return tuple(dict.fromkeys([*map(str, organs), *(score.organ for score in scores)]))
    return tuple(dict.fromkeys(score.organ for score in scores))


def _trained(runs: Sequence[ShownRun]) -> list[Trained]:
    folders: dict[tuple[str, str], dict[int, Path]] = {}
    for run in runs:
        folders.setdefault((run.row, run.direction), {})[run.seed] = run.folder
    return [Trained(row, slug(row), direction, found) for (row, direction), found in folders.items()]


def _weight(protocol: str) -> str | None:
    """What the means of a protocol's Dice are over, if not volumes."""
    columns = PROTOCOLS[protocol].columns if protocol in PROTOCOLS else ()
    return next((column.weight for column in columns if column.metric == "dice"), None)


def _stamps(
    runs: Sequence[ShownRun], methods: Sequence[MethodRow], outcomes: Sequence[Outcome]
) -> Mapping[tuple[str, str], list[Stamp]]:
    made = {}
    for direction in dict.fromkeys(run.direction for run in runs):
        for method in methods:
            own = [s for run in runs if (run.direction, run.row) == (direction, method.label) for s in run.scores]
            over, collapsed = counts(outcomes, method.label, direction)
            made[direction, method.label] = stamps(method, own, collapsed, over)
    return made


def _collapsed(runs: Sequence[ShownRun]) -> list[str]:
    return [
        f"{run.row}, {run.direction}, seed {run.seed} has collapsed and "
        f"{'is counted all the same' if run.done else 'has no scores'}. {why}"
        for run in runs
        if (why := reasons(run.folder))
    ]


def _missing(
    runs: Sequence[ShownRun], outcomes: Sequence[Outcome], remembered: Remembered | None, out: Path
) -> list[str]:
    """Runs that were asked for or begun, and are not over."""
    over = {(outcome.row, outcome.direction, outcome.seed) for outcome in outcomes}
    by_place = {run.folder.relative_to(out).as_posix(): run for run in runs}
    rows = {slug(label): label for label in remembered.rows} if remembered else {}
    made = []
    for place in dict.fromkeys([*(remembered.runs if remembered else ()), *by_place]):
        run = by_place.get(place)
        if run is None:
            direction, _, rest = place.partition("/")
            name, _, seed = rest.partition("/seed")
            made.append(f"{rows.get(name, name)}, {direction}, seed {seed}")
        elif (run.row, run.direction, run.seed) not in over:
            made.append(f"{run.row}, {run.direction}, seed {run.seed}")
    return made
