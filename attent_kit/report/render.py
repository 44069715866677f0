"""Files of a comparison: table.md, table.csv and a figure for each direction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.files import write_text
from attent_kit.report.figures import Panel, segmentation_figure
from attent_kit.report.published import PublishedTable
from attent_kit.report.scores import Score
from attent_kit.report.table import MethodRow, Table, csv_text, markdown, tables


class Rendered(NamedTuple):
    """What was made of the scores."""

    tables: list[Table]
    files: list[Path]


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
) -> Rendered:
    """Write everything into `out`. `titles` names the domains of each direction, `panels` holds the slices of its figure."""
    made = tables(scores, methods, titles)
    shown = [table for table in published if table.direction in titles]
    files = [out / "table.md", out / "table.csv", out / "scores.csv"]
    write_text(files[0], markdown(title, note, made, shown, titles))
    write_text(files[1], csv_text(made, shown))
    for direction, slices in panels.items():
        if slices:
            files.append(out / f"figure-{direction}.png")
            segmentation_figure(slices, organs, f"{title}: {titles[direction]}", files[-1])
    return Rendered(made, files)
