"""Files of a comparison: tables, comparisons with a reference row, ranks, and figures of each direction."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attent_kit.files import write_text
from attent_kit.report.compared import Compared
from attent_kit.report.comparisons import comparisons_csv
from attent_kit.report.costs import block, costs_csv
from attent_kit.report.figures import Panel, named, segmentation_figure
from attent_kit.report.gap import gaps_csv
from attent_kit.report.metrics import metric_of
from attent_kit.report.ranks import ranks_csv, ranks_figure
from attent_kit.report.sentences import comparison_block, sentence
from attent_kit.report.table import csv_text, mark, markdown


def render(c: Compared, panels: Mapping[str, Sequence[Panel]], out: Path) -> list[Path]:
    """Write everything into `out`, where scores.csv is; the files. `panels` holds the slices of each direction's figure."""
    blocks = {
        direction: comparison_block(
            [x for x in c.comparisons if x.direction == direction],
            domains,
            [r for r in c.ranks if r.direction == direction],
            [s for s in c.slides if s.direction == direction],
        )
        for direction, domains in c.titles.items()
    }
    sentences = [sentence(x, c.titles[x.direction]) for x in c.comparisons]
    files = [out / name for name in ("table.md", "table.csv", "scores.csv", "comparisons.csv")]
    write_text(files[0], markdown(c.title, c.note, c.tables, c.published, c.titles, blocks, block(c.costs)))
    write_text(files[1], csv_text(c.tables, c.published))
    write_text(files[3], comparisons_csv(c.comparisons, sentences, c.slides))
    of_some = {
        "costs.csv": costs_csv(c.costs) if c.costs else "",
        "gaps.csv": gaps_csv(c.gaps) if c.gaps else "",
        "ranks.csv": ranks_csv(c.ranks) if c.ranks else "",
    }
    for name, text in of_some.items():
        if text:
            files.append(out / name)
            write_text(out / name, text)
        else:
            # That of other rows, whose results lay here before.
            (out / name).unlink(missing_ok=True)
    for r in c.ranks:
        files += ranks_figure(r, f"{c.title}, {c.titles[r.direction]}: {metric_of(r.metric).title}", out)
    external = c.figure_names
    for direction, slices in panels.items():
        if slices:
            # An external row is called what it is, all others as in the tables.
            shown = [named(panel, lambda label: external.get(label) or mark(label, c.select)) for panel in slices]
            title = f"{c.title}: {c.titles[direction]}"
            files += segmentation_figure(shown, c.organs, title, out / f"figure-{direction}", c.figure_notes)
    return files
