"""Files of a comparison: tables, comparisons with a reference row, ranks, and figures of each direction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.files import write_text
from attent_kit.report.comparisons import Comparison, choose_reference, compare, comparisons_csv, slide_tests
from attent_kit.report.costs import Cost, block, costs_csv
from attent_kit.report.figures import Panel, segmentation_figure
from attent_kit.report.outcomes import Outcome
from attent_kit.report.published import PublishedTable
from attent_kit.report.ranks import rank_rows, ranks_csv, ranks_figure
from attent_kit.report.scores import AVERAGE, Score, only_selection
from attent_kit.report.sentences import NAMES, comparison_block, sentence, warning
from attent_kit.report.table import MethodRow, Table, csv_text, daggered, mark, markdown, selection_note, tables


class Rendered(NamedTuple):
    """What was made of the scores."""

    tables: list[Table]
    files: list[Path]
    warnings: list[str]
    """What the comparisons cannot show, with so few cases."""
    note: str
    """What was given, and what the selection makes it necessary to say."""


def render(
    title: str,
    note: str,
    methods: Sequence[MethodRow],
    scores: Sequence[Score],
    published: Sequence[PublishedTable],
    panels: Mapping[str, Sequence[Panel]],
    titles: Mapping[str, str],
    organs: Sequence[str],
    out: Path,
    reference: str | None = None,
    slide_test: bool = False,
    outcomes: Sequence[Outcome] = (),
    costs: Sequence[Cost] = (),
) -> Rendered:
    """Write everything into `out`. `titles` names the domains of each direction, `panels` holds the slices of its figure.

    `reference` is the label of the row that the others are compared with, by default the first.
    `outcomes` counts the runs that collapsed.
    """
    selection = only_selection(scores)
    note = " ".join(filter(None, (note, selection_note(selection))))
    scores, methods = daggered(scores, methods)
    outcomes = [outcome._replace(row=mark(outcome.row, selection)) for outcome in outcomes]
    reference = None if reference is None else mark(reference, selection)
    made = tables(scores, methods, titles, outcomes)
    shown = [table for table in published if table.direction in titles]
    labels = [method.label for method in methods]
    reference = choose_reference(reference, labels)
    comparisons = compare(scores, labels, reference, titles)
    slides = slide_tests(scores, labels, reference, titles) if slide_test else []
    ranks = rank_rows(scores, [method.label for method in methods if not method.bound], titles)
    blocks = {
        direction: comparison_block(
            [c for c in comparisons if c.direction == direction],
            domains,
            [r for r in ranks if r.direction == direction],
            [s for s in slides if s.direction == direction],
        )
        for direction, domains in titles.items()
    }
    sentences = [sentence(c, titles[c.direction]) for c in comparisons]
    files = [out / name for name in ("table.md", "table.csv", "scores.csv", "comparisons.csv")]
    write_text(files[0], markdown(title, note, made, shown, titles, blocks, block(costs)))
    write_text(files[1], csv_text(made, shown))
    write_text(files[3], comparisons_csv(comparisons, sentences, slides))
    if costs:
        files.append(out / "costs.csv")
        write_text(files[-1], costs_csv(costs))
    if ranks:
        files.append(out / "ranks.csv")
        write_text(files[-1], ranks_csv(ranks))
    for r in ranks:
        files += ranks_figure(r, f"{title}, {titles[r.direction]}: {NAMES[r.metric]}", out)
    for direction, slices in panels.items():
        if slices:
            shown_as = [_marked(panel, selection) for panel in slices]
            files += segmentation_figure(shown_as, organs, f"{title}: {titles[direction]}", out / f"figure-{direction}")
    families: dict[tuple[str, str], list[Comparison]] = {}
    for c in comparisons:
        if c.organ == AVERAGE:
            families.setdefault((c.direction, c.metric), []).append(c)
    return Rendered(made, files, [said for said in dict.fromkeys(map(warning, families.values())) if said], note)


def _marked(panel: Panel, selection: str) -> Panel:
    """A panel whose labels are those of the tables."""
    return panel._replace(
        translations={mark(label, selection): image for label, image in panel.translations.items()},
        predictions={mark(label, selection): labels for label, labels in panel.predictions.items()},
    )
