"""A comparison computed once: what the terminal, table.md, the figures and the report show of the same scores."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from attent_kit.report.comparisons import Comparison, SlideTest, choose_reference, compare, slide_tests
from attent_kit.report.costs import Cost
from attent_kit.report.gap import Ends, Gap, gaps
from attent_kit.report.metrics import metric_of
from attent_kit.report.outcomes import Outcome
from attent_kit.report.published import PublishedTable
from attent_kit.report.ranks import Ranks, rank_rows
from attent_kit.report.scores import AVERAGE, EXTERNAL, LAST, Score, by_protocol
from attent_kit.report.sentences import power_of
from attent_kit.report.table import MethodRow, Table, in_folds, mark, selection_note, tables


class ScoredRows(NamedTuple):
    """The runs of a comparison, before anything is computed from them."""

    title: str
    note: str
    """What the data are, and what the numbers may be used for."""
    scores: Sequence[Score]
    methods: Sequence[MethodRow]
    """The rows in the order of the table."""
    titles: Mapping[str, str]
    """"MR to CT" by direction."""
    organs: Sequence[str]
    """In the order that gives them their colours."""
    select: str = LAST
    """What chose the snapshot of each run."""
    outcomes: Sequence[Outcome] = ()
    """How the runs ended, so that those that collapsed are counted."""
    published: Sequence[PublishedTable] = ()
    costs: Sequence[Cost] = ()
    tested: Mapping[str, int] = MappingProxyType({})
    """Cases that all folds of a direction test together; empty without folds."""
    attribution: str = ""
    """Whose data these are, for figures and report."""


class Compared(NamedTuple):
    """What the scores of a comparison come to."""

    title: str
    note: str
    """With what the selection makes it necessary to say."""
    scores: Sequence[Score]
    """Of one protocol."""
    others: Mapping[str, Sequence[Score]]
    """Scores of other protocols, by their names."""
    methods: Sequence[MethodRow]
    titles: Mapping[str, str]
    organs: Sequence[str]
    select: str
    outcomes: Sequence[Outcome]
    published: Sequence[PublishedTable]
    """Of the directions that are here."""
    costs: Sequence[Cost]
    reference: str
    """Label of the row that the others are compared with."""
    tables: Sequence[Table]
    comparisons: Sequence[Comparison]
    slides: Sequence[SlideTest]
    """The test that the slides of AttENT seem to have used; empty unless it was asked for."""
    ranks: Sequence[Ranks]
    """Of the rows that see no target labels."""
    gaps: Sequence[Gap]
    """What each row closes of the gap, where rows are there that could span it."""
    tested: Mapping[str, int]
    """Cases that all folds of a direction test together; empty without folds."""
    attribution: str = ""
    """Whose data these are, for figures and report."""

    @property
    def figure_names(self) -> dict[str, str]:
        """Labels that figures show in place of those of the tables: an external row says that it is one."""
        return {method.label: f"{method.label} ({EXTERNAL})" for method in self.methods if method.is_external}

    @property
    def figure_notes(self) -> list[str]:
        """What stands below a figure of slices: of external rows what their tools have seen, and whose data they are."""
        return [*(method.note for method in self.methods if method.is_external), *filter(None, [self.attribution])]

    @property
    def power_notes(self) -> list[str]:
        """What the comparisons could show with so many cases: a sentence for all of them, or one for each that differs."""
        families: dict[tuple[str, str], list[Comparison]] = {}
        for c in self.comparisons:
            if c.organ == AVERAGE:
                families.setdefault((c.direction, c.metric), []).append(c)
        said: dict[str, list[str]] = {}
        for (direction, metric), family in families.items():
            if power := power_of(family):
                said.setdefault(power.sentence, []).append(f"{self.titles[direction]}, {metric_of(metric).title}")
        return [*said] if len(said) == 1 else [f"{'; '.join(where)}: {sentence}" for sentence, where in said.items()]


def daggered(scored: ScoredRows) -> ScoredRows:
    """The same, with a dagger behind every label if target labels chose the snapshots; external rows have none."""
    select = scored.select
    return scored._replace(
        scores=[
            score if score.selection == EXTERNAL else score._replace(alignment=mark(score.alignment, select))
            for score in scored.scores
        ],
        methods=[m if m.is_external else m._replace(label=mark(m.label, select)) for m in scored.methods],
        outcomes=[outcome._replace(row=mark(outcome.row, select)) for outcome in scored.outcomes],
    )


def compared(scored: ScoredRows, reference: str | None = None, slide_test: bool = False) -> Compared:
    """Tables, comparisons with the reference row, by default the first, and ranks; all labels are taken as they are.

    ConfigError if no row has the name of the reference, or if the scores are of several selections.
    """
    protocols = by_protocol(scored.scores)
    scores = next(iter(protocols.values()), [])
    methods, titles = scored.methods, scored.titles
    labels = [method.label for method in methods]
    reference = choose_reference(reference, labels)
    closed = gaps(scores, labels, _ends(methods, reference), titles)
    return Compared(
        scored.title,
        " ".join(filter(None, (scored.note, selection_note(scored.select)))),
        scores,
        {name: own for name, own in protocols.items() if own is not scores},
        methods,
        titles,
        scored.organs,
        scored.select,
        scored.outcomes,
        [table for table in scored.published if table.direction in titles],
        scored.costs,
        reference,
        in_folds(tables(scores, methods, titles, scored.outcomes, gaps=closed), scores, scored.tested),
        compare(scores, labels, reference, titles),
        slide_tests(scores, labels, reference, titles) if slide_test else [],
        rank_rows(scores, [method.label for method in methods if not method.bound], titles),
        closed,
        scored.tested,
        scored.attribution,
    )


def _ends(methods: Sequence[MethodRow], reference: str) -> Ends:
    """In the order of the table, but for the reference row, which comes first where it can be the floor."""
    floors = [method.label for method in methods if method.spans == "floor"]
    ceilings = [method.label for method in methods if method.spans == "ceiling"]
    return Ends(sorted(floors, key=lambda label: label != reference), ceilings)
