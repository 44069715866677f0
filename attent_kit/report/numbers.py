"""The sections of the report that follow from score rows alone: tables, box plots, comparisons."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from attent_kit.report.boxplots import box_figure, boxes
from attent_kit.report.colours import FIRST
from attent_kit.report.compared import Compared
from attent_kit.report.metrics import METRICS, Metric, metric_of
from attent_kit.report.page import Figures, Heading, PageCell, PageRow, PageTable, Picture, Section, Text, drawing
from attent_kit.report.pairwise import RowPair
from attent_kit.report.published import PublishedTable
from attent_kit.report.ranks import rank_sentence, ranks_figure
from attent_kit.report.scores import AVERAGE, Score
from attent_kit.report.sentences import claim, power_of, sentence
from attent_kit.report.shown import columns_in_parts
from attent_kit.report.significance import ALPHA, p_text
from attent_kit.report.summary import Stamp
from attent_kit.report.table import MethodRow, Table, tables

Stamps = Mapping[tuple[str, str], Sequence[Stamp]]
"""Of a row, by (direction, label)."""


def tables_section(c: Compared, others: Mapping[str, Sequence[Table]], marks: Stamps) -> Section:
    """Ours by direction, then by `others` protocols, then what others have published."""
    blocks: list = [Text(["Best of each column in bold, rows that see target labels aside. A dash means no value."])]
    for direction, domains in c.titles.items():
        own = [table for table in c.tables if table.direction == direction]
        theirs = [entry for entry in c.published if entry.direction == direction]
        blocks.append(Heading(domains))
        blocks += [part for table in own for part in _grid(table, marks)] or [Text(["Nothing is scored yet."])]
        for protocol, all_of_it in others.items():
            of_it = [table for table in all_of_it if table.direction == direction]
            blocks += [part for table in of_it for part in _grid(table, marks, protocol)]
        if theirs:
            blocks.append(
                Text(
                    [
                        "Published numbers are those of other people, who prepared and scored their data in their own way. They "
                        "are not results of this comparison."
                    ]
                )
            )
            blocks += _published(theirs, domains)
    return Section("tables", "Results", blocks)


def other_tables(
    scores: Sequence[Score], methods: Sequence[MethodRow], titles: Mapping[str, str], weights: Mapping[str, str | None]
) -> list[Table]:
    """Tables of one protocol, which may have units of its own; means are over what the `weights` of its metrics count."""
    units = {metric.name: [s.unit for s in scores if s.metric == metric.name] for metric in METRICS}
    chosen = [
        metric.in_unit(metric.unit if metric.unit in units[metric.name] else units[metric.name][0])
        for metric in METRICS
        if units[metric.name]
    ]
    return tables(scores, methods, titles, metrics=chosen, weights=weights)


def boxes_section(c: Compared, folder: Path) -> Section:
    """A figure for each direction and metric, also as files in `folder`."""
    blocks: list = []
    pictures: list[Picture] = []
    many = len(c.organs) > len(FIRST)
    for direction, domains in c.titles.items():
        for metric in METRICS:
            drawn = boxes(c.scores, [m.label for m in c.methods], direction, metric)
            drawn = {label: by_organ for label, by_organ in drawn.items() if by_organ}
            if drawn:
                drawn = {c.figure_names.get(label, label): by_organ for label, by_organ in drawn.items()}
                title = f"{domains}: {metric.title} over cases"
                files = box_figure(drawn, c.organs, metric, title, folder / f"boxes-{direction}-{metric.stem}")
                pictures.append(drawing(files, f"Box plot of {metric.title} over cases by row and organ, {domains}."))
    if pictures:
        blocks = [
            Text(
                [
                    "A dot is a case, its value the mean over seeds. Boxes span the quartiles with a line at the median; "
                    "whiskers reach to the last case within 1.5 times the height of the box. Colours: Okabe and Ito"
                    + (f", from the {len(FIRST) + 1}th on the ones furthest from all before." if many else ".")
                ]
            ),
            Figures(pictures),
        ]
    else:
        blocks = [Text(["Nothing is scored yet: `attentkit compare` scores the labelled test cases of the target."])]
    return Section("boxes", "Case by case", blocks)


def comparisons_section(c: Compared, pairs: Sequence[RowPair], out: Path) -> Section:
    """Sentences against the reference row, everyone against everyone, and ranks."""
    blocks: list = []
    for direction, domains in c.titles.items():
        scored = {score.alignment for score in c.scores if score.direction == direction}
        averages = [x for x in c.comparisons if x.direction == direction and x.organ == AVERAGE]
        own = [x for x in averages if x.method in scored]
        if not own:
            continue
        blocks.append(Heading(domains))
        for metric in METRICS:
            found = [pair for pair in pairs if (pair.direction, pair.metric) == (direction, metric.name)]
            family = [x for x in own if x.metric == metric.name]
            power = power_of(family)
            # What is said once for all is not said again for each.
            alone = power is not None and bool(power.limit)
            claims = [f"{claim(x, domains)}." if alone else sentence(x, domains) for x in family]
            blocks.append(Text(claims, listed=True))
            blocks += [Text([power.sentence])] if power else []
            if found:
                blocks.append(_matrix(found, domains, metric))
        figures = [r for r in c.ranks if r.direction == direction]
        pictures = [
            drawing(
                ranks_figure(r, f"{c.title}, {domains}: {metric_of(r.metric).title}", out),
                f"Critical-difference diagram of average ranks by {metric_of(r.metric).title}, {domains}.",
                rank_sentence(r),
            )
            for r in figures
        ]
        blocks += [Figures(pictures)] if pictures else []
    if not blocks:
        blocks = [
            Text(["A comparison needs two scored rows: run `attentkit compare` with more rows, or let it finish."])
        ]
    else:
        blocks.insert(0, Text(_how_to_read()))
    return Section("significance", "Comparisons", blocks)


def _how_to_read() -> list[str]:
    return [
        "Paired by case: the value of a case is its mean over seeds and organs. In a matrix, a cell says how far the row is "
        "above (+) or below (-) the column, and the p of Wilcoxon's signed-rank test after Holm's correction for all pairs of "
        "the matrix. ▲ and blue: the row is better; ▼ and orange: worse. Bold: p < 0.05."
    ]


def _matrix(pairs: Sequence[RowPair], domains: str, metric: Metric) -> PageTable:
    labels = list(dict.fromkeys(label for pair in pairs for label in (pair.row, pair.column)))
    by_labels = {(pair.row, pair.column): pair for pair in pairs}
    rows = []
    for row in labels:
        cells = []
        for column in labels:
            forward, backward = by_labels.get((row, column)), by_labels.get((column, row))
            found = forward or backward
            if found is None:
                cells.append(PageCell(""))
            elif math.isnan(found.difference):
                cells.append(PageCell("-"))
            else:
                cells.append(_pair_cell(found.difference if forward else -found.difference, found.holm, metric))
        rows.append(PageRow(row, cells))
    counts = sorted({pair.cases for pair in pairs})
    cases = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caption = f"{domains}: {metric.title}, row minus column, {metric.step}; {cases} cases, {max(p.family for p in pairs)} pairs"
    power = power_of(pairs)
    return PageTable(caption, ["row minus column", *labels], rows, [power.limit] if power and power.limit else [])


def _pair_cell(difference: float, p: float, metric: Metric) -> PageCell:
    sign, mark = ("▲ ", "better") if metric.is_gain(difference) else ("▼ ", "worse") if difference else ("", "")
    return PageCell(f"{sign}{metric.number(difference, '+')}\np {p_text(p)}", f"{mark} best" if p < ALPHA else mark)


def _grid(table: Table, marks: Stamps, protocol: str = "") -> list[PageTable]:
    rows = []
    for label, cells in table.rows:
        if not table.shows(label):
            continue
        shown = [PageCell(text, "best" if best else "") for text, best in table.texts(label, cells)]
        rows.append(PageRow(label, shown, marks.get((table.direction, label), ())))
    title = table.title + (f", protocol {protocol}" if protocol else "")
    return _in_parts(PageTable(title, ["method", *table.columns], rows, table.notes))


def _in_parts(table: PageTable) -> list[PageTable]:
    """The table, or where it has many columns several, so that each fits on the page; notes stand below the last."""
    parts = columns_in_parts(range(len(table.head)))
    made = [
        table._replace(
            caption=table.caption + (f" ({number} of {len(parts)})" if len(parts) > 1 else ""),
            head=[table.head[n] for n in columns],
            rows=[row._replace(cells=[row.cells[n - 1] for n in columns[1:]]) for row in table.rows],
            notes=(),
        )
        for number, columns in enumerate(parts, start=1)
    ]
    return [*made[:-1], made[-1]._replace(notes=table.notes)]


def _published(entries: Sequence[PublishedTable], domains: str) -> list[PageTable]:
    made, said = [], set()
    for entry in entries:
        spread = f", ± {entry.of}" if entry.of else ""
        head = "Published" if entry.kind == "published" else "Re-run by others"
        stamp = [Stamp(entry.kind, "quiet", entry.citation)]
        rows = [PageRow(label, [PageCell(text) for text in entry.cells(label)], stamp) for label in entry.rows]
        note = "Its note above holds here too." if entry.note in said else entry.note
        said.add(entry.note)
        caption = f"{head}, {domains}: {metric_of(entry.metric).title}, {entry.unit}{spread}"
        made += _in_parts(PageTable(caption, ["method", *entry.organs, "average"], rows, [f"{entry.citation}.", note]))
    return made
