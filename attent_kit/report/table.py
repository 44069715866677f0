"""The paper's table out of score rows: organ x method, Dice and ASSD, as terminal table, Markdown and CSV."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from attent_kit.report.gap import COLUMN, Gap
from attent_kit.report.metrics import METRICS, Metric
from attent_kit.report.outcomes import Outcome, counts, footnotes
from attent_kit.report.published import PublishedTable
from attent_kit.report.rows import csv_table
from attent_kit.report.scores import (
    AVERAGE,
    EXTERNAL,
    LAST,
    ORACLE,
    Score,
    Summary,
    data_frame,
    not_annotated,
    only_selection,
    summarise,
)
from attent_kit.report.shown import Shown, columns_in_parts

Over = Literal["seeds", "cases"]

Spans = Literal["", "floor", "ceiling"]
DAGGER = " †"
"""Behind the label of a row whose snapshots target labels chose."""


class MethodRow(NamedTuple):
    """What a table must know about a row besides its scores."""

    label: str
    bound: bool
    """Whether it sees target labels: shown, and never the best."""
    spans: Spans = ""
    """Which end of the gap it can be, by what its method declares: `floor` learns from the source alone, `ceiling` is trained
    with target labels; empty for others, and where the method is not installed."""
    seen: str | None = None
    """Of label maps of another tool, what that was trained on; None of a row that is trained here."""

    @property
    def is_external(self) -> bool:
        """Whether it is of another tool's label maps."""
        return self.seen is not None

    @property
    def note(self) -> str:
        """What must be said of an external row; empty of others."""
        if self.seen is None:
            return ""
        said = self.seen.strip().rstrip(".")
        seen = "what the tool was trained on is unknown" if said == "unknown" else f"the tool was trained on: {said}"
        return f"{self.label}: external, label maps of another tool, not trained here and never marked best; {seen}."


class Table(NamedTuple):
    """One metric in one direction."""

    direction: str
    title: str
    organs: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Summary | None, ...]], ...]
    """Label, then a summary for each organ and the average; None where nothing was scored."""
    stamps: tuple[str, ...]
    """Of each row, what chose its snapshots and whether target labels had a part in it."""
    best: tuple[tuple[str, ...], ...]
    """Label of the best method of each column, bounds aside; of all that are equally good."""
    metric: Metric
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody asks of a table
    """Seeds or cases that the title names."""
    over: str
    """What numbers are over, as the title says it."""
    footnotes: tuple[str, ...]
    runs: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """Runs of each row, and how many of them collapsed."""
    gap: Gap | None = None
    """What each row closes of it, a column behind the average; None where the table has no such column."""
    alike: bool = True
    """Whether its means are of the same cases in every row; where folds are not finished, they may not be, and none is best."""
    seen: Mapping[str, str] = MappingProxyType({})
    """Of external rows, what their tools were trained on."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of the columns with numbers."""
        return (*self.organs, *([COLUMN] if self.gap else []))

    def texts(self, label: str, cells: Sequence[Summary | None]) -> list[tuple[str, bool]]:
        """A row as printed, a cell for each of `columns`, and whether it is the best of its column."""
        made = [
            (cell_text(c, self.metric, self.count), label in best) for c, best in zip(cells, self.best, strict=True)
        ]
        return [*made, *([(self.gap.text(label), False)] if self.gap else [])]

    @property
    def notes(self) -> tuple[str, ...]:
        """All that stands below the table."""
        return (*self.footnotes, *(self.gap.notes if self.gap else ()))

    def shows(self, label: str) -> bool:
        """Whether there is something to show for a row: a number, or a run that collapsed."""
        _, collapsed = self.runs.get(label, (0, 0))
        return bool(collapsed) or any(cell for row, cells in self.rows if row == label for cell in cells)

    @property
    def shown(self) -> Shown:
        """As a terminal and a notebook show it, the best of each column standing out."""
        rows, bold = [], []
        for (label, cells), stamp in zip(self.rows, self.stamps, strict=True):
            texts = self.texts(label, cells)
            rows.append([label, *(text for text, _ in texts), stamp])
            bold.append([False, *(best for _, best in texts), False])
        columns = ["method", *self.columns, "selection"]
        return Shown(self.title, columns, rows, bold, words=(0, len(columns) - 1))

    def to_frame(self) -> Any:
        """The means as a pandas DataFrame, a row for each method and a column for each organ; ConfigError without pandas."""
        values = [[None if cell is None else self.metric.scale * cell.mean for cell in cells] for _, cells in self.rows]
        return data_frame(values, self.organs, [label for label, _ in self.rows])

    def __rich__(self) -> Any:
        return replace(self.shown, footnotes=self.notes).rich()

    def _repr_html_(self) -> str:
        return replace(self.shown, footnotes=self.notes).html()


def tables(
    scores: Iterable[Score],
    methods: Sequence[MethodRow],
    titles: Mapping[str, str],
    outcomes: Sequence[Outcome] = (),
    metrics: Sequence[Metric] | None = None,
    weights: Mapping[str, str | None] = MappingProxyType({}),
    gaps: Sequence[Gap] = (),
) -> list[Table]:
    """A table for each direction of `titles` and each of `metrics`, by default METRICS, that is there. Spread is over seeds if a
    direction has several, else over cases.

    `outcomes` says how the runs ended: those that collapsed are counted below the table, and stay in its means. `weights` is
    the `weight` of `summarise` by the name of a metric. The gaps
    are columns of the tables of their direction and metric.
    ConfigError if the scores are of several selections.
    """
    scores = list(scores)
    only_selection(scores)
    made = []
    for direction, name in titles.items():
        own = [s for s in scores if s.direction == direction]
        there = {(s.metric, s.unit) for s in own}
        made += [
            _table(own, methods, direction, name, metric, weights.get(metric.name))
            for metric in (METRICS if metrics is None else metrics)
            if (metric.name, metric.unit) in there
        ]
    by_table = {(gap.direction, gap.metric): gap for gap in gaps}
    made = [table._replace(gap=by_table.get((table.direction, table.metric.name))) for table in made]
    return [_with_outcomes(table, outcomes) for table in made]


def in_folds(made: Sequence[Table], scores: Sequence[Score], tested: Mapping[str, int]) -> list[Table]:
    """Tables with what is not there yet; `tested` is how many cases all folds of a direction test together."""
    return [
        _in_folds(t, [s for s in scores if s.direction == t.direction], tested[t.direction])
        if t.direction in tested
        else t
        for t in made
    ]


def _in_folds(table: Table, scores: Sequence[Score], tested: int) -> Table:
    """With a line for each row whose folds are not all finished, and nothing best if rows are not of the same cases."""
    cases: dict[str, dict[int | None, set[str]]] = {}
    for score in scores:
        cases.setdefault(score.alignment, {}).setdefault(score.seed, set()).add(score.case)
    said: dict[str, str] = {}
    for row, by_seed in cases.items():
        counts = {seed: len(found) for seed, found in by_seed.items() if len(found) < tested}
        if counts:
            several = len(by_seed) > 1
            so_far = "; ".join(f"{n} of {tested} cases" + f" with seed {seed}" * several for seed, n in counts.items())
            said[row] = f"{so_far} so far, as not all folds have scores."
    alike = len({frozenset(map(frozenset, by_seed.values())) for by_seed in cases.values()}) < 2
    if alike and len(cases) > 1 and len(cases) == len(said) and len({*said.values()}) == 1:
        lines = [f"All rows: {next(iter(said.values()))}"]
    else:
        lines = [f"{row}: {words}" for row, words in said.items()]
    if not alike:
        lines.append(
            "The means are of different cases, so none is marked best; comparisons are over the cases that both rows have."
        )
    best = table.best if alike else tuple(() for _ in table.best)
    return table._replace(footnotes=(*lines, *table.footnotes), best=best, alike=alike)


def _with_outcomes(table: Table, outcomes: Sequence[Outcome]) -> Table:
    rows = [label for label, _ in table.rows]
    return table._replace(
        footnotes=(*footnotes(outcomes, rows, table.direction), *table.footnotes),
        runs={row: counts(outcomes, row, table.direction) for row in rows},
    )


def mark(label: str, selection: str) -> str:
    """The label of a row, with a dagger if target labels chose its snapshots."""
    return label + DAGGER if selection == ORACLE else label


def stamp(selection: str, bound: bool, external: bool = False) -> str:
    """How much a row of this selection knows of target labels."""
    if external:
        return EXTERNAL
    if selection == ORACLE:
        return mark(ORACLE, selection)
    return "sees target labels" if bound else "label-free"


def selection_note(selection: str) -> str:
    """What must be said about a table whose snapshots are not the last; empty for the last."""
    if selection == ORACLE:
        return (
            "† Of each run the snapshot with the highest Dice on the target's test cases, chosen with their labels: an upper "
            "bound, and not a result of a method without target labels."
        )
    return (
        ""
        if selection == LAST
        else f"Of each run the snapshot that the selector '{selection}' chose without target labels."
    )


def spread(scores: Sequence[Score]) -> Over:
    """What the standard deviation of the table is over."""
    return "seeds" if len(_seeds(scores)) > 1 else "cases"


def _seeds(scores: Iterable[Score]) -> set[int]:
    return {s.seed for s in scores if s.seed is not None}


def _table(
    scores: Sequence[Score],
    methods: Sequence[MethodRow],
    direction: str,
    domains: str,
    metric: Metric,
    weight: str | None,
) -> Table:
    over = spread(scores)
    found = {(s.alignment, s.organ): s for s in summarise(scores, metric.name, over, metric.unit, weight=weight)}
    organs = tuple(dict.fromkeys(organ for _, organ in found))
    rows = tuple((m.label, tuple(found.get((m.label, organ)) for organ in organs)) for m in methods)
    bounds = {m.label for m in methods if m.bound}
    selection = only_selection(scores)
    stamps = tuple(stamp(selection, m.bound, m.is_external) for m in methods)
    free = [(label, cells) for label, cells in rows if label not in bounds]
    best = tuple(_best([(label, cells[i]) for label, cells in free], metric) for i in range(len(organs)))
    count = len(_seeds(scores) if over == "seeds" else {s.case for s in scores})
    words = f"mean ± SD over {count} {over}" if count > 1 else "one case"
    title = f"{domains}: {metric.heading}, {words}" + ("" if selection == LAST else f", selected by {selection}")
    external = [m for m in methods if m.is_external and any(found.get((m.label, organ)) for organ in organs)]
    alone = "" if over == "cases" else f" It is one set of label maps, beside means over {count} seeds: it has no SD."
    notes = (*(f"{m.note}{alone}" for m in external), *_annotated(scores), *_footnotes(rows, organs, metric))
    seen = {m.label: m.seen for m in methods if m.seen is not None}
    return Table(direction, title, organs, rows, stamps, best, metric, count, words, notes, seen=seen)


def _best(cells: Sequence[tuple[str, Summary | None]], metric: Metric) -> tuple[str, ...]:
    """Of two rows with a mean, or more."""
    known = {label: s.mean for label, s in cells if s is not None and not math.isnan(s.mean)}
    return metric.best(known) if len(known) > 1 else ()


def _annotated(scores: Iterable[Score]) -> Iterator[str]:
    """How many cases annotate each organ that not all of them do."""
    cases: dict[str, set[str]] = {}
    unknown: dict[str, set[str]] = {}
    for score in scores:
        cases.setdefault(score.organ, set()).add(score.case)
        if not_annotated(score):
            unknown.setdefault(score.organ, set()).add(score.case)
    for organ, lacking in unknown.items():
        there, total = len(cases[organ] - lacking), len(cases[organ])
        where = "has no score and no part in the average" if not there else "is scored there alone"
        yield f"{organ}: annotated in {there} of {total} cases; it {where}."


def _footnotes(
    rows: Iterable[tuple[str, tuple[Summary | None, ...]]], organs: Sequence[str], metric: Metric
) -> Iterable[str]:
    absences: dict[str, dict[str, str]] = {organ: {} for organ in organs[:-1]}
    for label, cells in rows:
        alike: dict[str, list[str]] = {}
        for organ, cell in zip(organs[:-1], cells[:-1], strict=True):
            if cell is None:
                continue
            if cell.missed:
                alike.setdefault(f"missed in {cell.missed} of {cell.total};", []).append(organ)
            if cell.invented:
                words = f"found in {cell.invented} of {cell.total} where there is none;"
                alike.setdefault(words, []).append(organ)
            absences[organ][label] = f"in neither truth nor prediction in {cell.absent} of {cell.total}, left out."
            if not cell.absent:
                absences[organ].pop(label)
        for words, named in alike.items():
            yield f"{label}: {', '.join(named)} {words} {'it' if len(named) == 1 else 'each'} {metric.one_sided}."
    for organ, by_label in absences.items():
        if len(set(by_label.values())) == 1 and len(by_label) > 1:
            yield f"{organ}: {next(iter(by_label.values()))}"
        else:
            yield from (f"{label}: {organ} {words}" for label, words in by_label.items())


def cell_text(cell: Summary | None, metric: Metric, count: int | None = None) -> str:
    """85.3 ± 2.1, or a dash; with n where it is not the `count` that the title names."""
    if cell is None or math.isnan(cell.mean):
        return "-"
    spread = "" if math.isnan(cell.std) else f" ± {metric.number(cell.std)}"
    return metric.number(cell.mean) + spread + ("" if count in (None, cell.n) else f" (n={cell.n})")


def markdown(
    title: str,
    note: str,
    made: Sequence[Table],
    published: Sequence[PublishedTable],
    titles: Mapping[str, str],
    below: Mapping[str, Sequence[str]] = MappingProxyType({}),
    costs: Sequence[str] = (),
) -> str:
    """All tables as Markdown; `below` the tables of a direction, more lines; then `costs`; published numbers in a block of
    their own."""
    lines = [f"# {title}", "", note, "", "Best of each column in bold, rows that see target labels aside.", ""]
    for n, table in enumerate(made):
        lines += [
            f"## {table.title}",
            "",
            *grids(
                ["method", *table.columns, "selection"],
                [[*_marked(table, row), stamp] for row, stamp in zip(table.rows, table.stamps, strict=True)],
            ),
        ]
        lines += [f"- {note}" for note in table.notes] + [""] * bool(table.notes)
        if table.direction not in {later.direction for later in made[n + 1 :]}:
            lines += below.get(table.direction, ())
    lines += costs
    if published:
        lines += [
            "# Published",
            "",
            "*Published* numbers of other people, who prepared and scored their data in their own way. They are not results of "
            "this run.",
            "",
        ]
    said: set[str] = set()
    for entry in published:
        spread = f", ± {entry.of}" if entry.of else ""
        lines += [
            f"## Published, {titles[entry.direction]}: {entry.metric}, {entry.unit}{spread}",
            "",
            f"{entry.citation}. {'Its note above holds here too.' if entry.note in said else entry.note}",
            "",
            *grids(["method", *entry.organs, "average"], [[label, *entry.cells(label)] for label in entry.rows]),
        ]
        said.add(entry.note)
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def csv_text(made: Sequence[Table], published: Sequence[PublishedTable]) -> str:
    """The numbers of `markdown`, unrounded: one line per cell, `origin` measured, external or published, `source` a citation,
    or what an external tool was trained on.

    `runs` and `collapsed` count the runs of a row, also those without scores.
    """
    head = (
        "origin", "direction", "method", "organ", "metric", "unit", "mean", "std", "n", "missed", "invented", "absent",
        "total", "runs", "collapsed", "source", "selection",
    )  # fmt: skip
    return csv_table(head, [*_measured(made), *_published(published)])


def _measured(made: Sequence[Table]) -> Iterator[tuple]:
    for table in made:
        metric, unit = table.metric.name, table.metric.unit
        for (label, cells), stamp in zip(table.rows, table.stamps, strict=True):
            runs, collapsed = table.runs.get(label, (0, 0))
            ended = (runs, collapsed) if runs else (None, None)
            source = table.seen.get(label)
            origin = "measured" if source is None else EXTERNAL
            for cell in (c for c in cells if c is not None):
                numbers = (cell.mean, cell.std, cell.n, cell.missed, cell.invented, cell.absent, cell.total)
                yield origin, cell.direction, label, cell.organ, metric, cell.unit, *numbers, *ended, source, stamp
            if collapsed and not any(cells):
                # A row whose runs all lack scores is not left out for that.
                yield "measured", table.direction, label, AVERAGE, metric, unit, *[None] * 7, *ended, None, stamp


def _published(published: Sequence[PublishedTable]) -> Iterator[tuple]:
    for entry in published:
        for label, values in entry.rows.items():
            spread = (*entry.spread.get(label, ()), *[None] * len(values))
            for organ, value, sd in zip((*entry.organs, "average"), values, spread, strict=False):
                what = "published", entry.direction, label, organ, entry.metric, entry.unit
                yield *what, value, sd, *[None] * 7, entry.citation, None


def _marked(table: Table, row: tuple[str, tuple[Summary | None, ...]]) -> list[str]:
    label, cells = row
    return [label, *(f"**{text}**" if best else text for text, best in table.texts(label, cells))]


def grids(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of one Markdown table, or of several where there are many columns, with an empty one below each."""
    lines: list[str] = []
    for columns in columns_in_parts(range(len(head))):
        lines += [*grid([head[n] for n in columns], [[row[n] for n in columns] for row in rows]), ""]
    return lines


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table: words to the left, numbers to the right."""
    bar = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, bar, *rows)]
