"""The sections of the report that follow from what runs and other commands have logged: curves, shift, audit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.errors import DataError
from attent_kit.report.curves import Curves, curve_figure
from attent_kit.report.page import (
    Figures,
    Heading,
    PageCell,
    PageRow,
    PageTable,
    Picture,
    Section,
    Strip,
    Strips,
    Text,
    drawing,
)
from attent_kit.report.scores import three_digits
from attent_kit.report.shift import over_seeds, read_shift
from attent_kit.report.translation_audit import lines, read_translation_audit

WORST_SHOWN = 3
"""Cases of a row that are worst in some measure and are shown."""


class Trained(NamedTuple):
    """The runs of one row in one direction."""

    row: str
    name: str
    """The row as the name of a file."""
    direction: str
    audits: Mapping[str, Path]
    """Where the translation audit of each lies, if it was made, by seed and fold in words."""
    curves: Mapping[str, Curves]
    """What each has logged, by the same."""


def curves_section(runs: Sequence[Trained], titles: Mapping[str, str], folder: Path) -> Section:
    """A figure for each row and direction, also as files in `folder`."""
    blocks: list = []
    skipped = 0
    for direction, domains in titles.items():
        pictures = []
        for run in runs:
            if run.direction != direction:
                continue
            skipped += sum(c.skipped for c in run.curves.values())
            curves = {name: c for name, c in run.curves.items() if c.losses or c.selectors}
            if curves:
                title = f"{run.row}, {domains}"
                files = curve_figure(curves, title, folder / f"curves-{direction}-{run.name}")
                names = ", ".join(next(iter(curves.values())).losses)
                pictures.append(drawing(files, f"Learning curves of {title}: {names}."))
        if pictures:
            blocks += [Heading(domains), Figures(pictures)]
    if not blocks:
        return Section(
            "curves", "Learning curves", [Text(["No run has logged a loss: log.jsonl of the runs is missing."])]
        )
    words = "Strong: the first run of the row; faint: its other seeds and folds. A dashed line begins a stage. "
    words += "Colours: Tol's bright scheme."
    if skipped:
        words += f" {skipped} lines of the logs could not be read and are left out."
    return Section("curves", "Learning curves", [Text([words]), *blocks])


def shift_section(out: Path, runs: Sequence[Trained], titles: Mapping[str, str]) -> Section:
    """Distances between the domains before and after adaptation, with the figures beside shift.csv."""
    path = out / "shift.csv"
    if not path.exists():
        said = "Not measured: `attentkit shift` on this folder writes shift.csv and figures, and the report then shows them."
        return Section("shift", "Domain shift", [Text([said])])
    try:
        measured = read_shift(path)
    except DataError as error:
        return Section("shift", "Domain shift", [Text([str(error)])])
    words = "How far the domains are apart as a method sees them at the end of its training; means over runs. Lower is nearer."
    blocks: list = [Text([words])]
    for direction, domains in titles.items():
        rows = over_seeds(measured, direction)
        if not rows:
            continue
        measures = list(dict.fromkeys(r.measure for r in rows))
        order = [run.row for run in runs if run.direction == direction]
        rows.sort(key=lambda r: order.index(r.row) if r.row in order else -1)
        found = {(r.row, r.space, r.measure): f"{three_digits(r.before)} → {three_digits(r.after)}" for r in rows}
        grid = [
            PageRow(
                row or "images",
                [PageCell(space), *(PageCell(found.get((row, space, measure), "-")) for measure in measures)],
            )
            for row, space in dict.fromkeys((r.row, r.space) for r in rows)
        ]
        caption = f"{domains}: domain shift, before → after"
        blocks += [Heading(domains), PageTable(caption, ["row", "space", *measures], grid)]
        pictures = []
        for run in runs:
            stem = out / f"shift-{direction}-{run.name}"
            files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
            if run.direction == direction and all(file.exists() for file in files):
                alt = f"Slices of both domains before and after adaptation by {run.row}, {domains}."
                pictures.append(drawing(files, alt, run.row))
        blocks += [Figures(pictures)] if pictures else []
    return Section("shift", "Domain shift", blocks)


def translation_audit_section(
    runs: Sequence[Trained], titles: Mapping[str, str], pictures: Callable[[str, str, str], Sequence[Picture]]
) -> Section | None:
    """What translations keep of the anatomy, with the worst cases; None if no run was audited.

    `pictures(direction, row, case)`: image, translation and the way back, or what there is of them.
    """
    blocks: list = []
    for direction, domains in titles.items():
        own: list = []
        for run in runs:
            audit = next((path for path in run.audits.values() if path.exists()), None)
            if run.direction != direction or audit is None:
                continue
            try:
                found = lines(read_translation_audit(audit))
            except DataError as error:
                own.append(Text([str(error)]))
                continue
            own.append(
                PageTable(
                    f"{run.row}, {domains}: translation audit, {audit.parent.name}",
                    ["measure", "mean of cases", "worst", "case"],
                    [
                        PageRow(
                            r.measure,
                            [PageCell(three_digits(r.mean)), PageCell(three_digits(r.worst)), PageCell(r.case)],
                        )
                        for r in found
                    ],
                )
            )
            worst = list(dict.fromkeys(r.case for r in found))
            shown = {case: pictures(direction, run.row, case) for case in worst[:WORST_SHOWN]}
            strips = [Strip(f"{run.row}: {case}", three, by_three=True) for case, three in shown.items() if three]
            if strips:
                own += [
                    Text(["The worst case of each measure, by a slice that the run has kept:"]),
                    Strips(strips),
                ]
        blocks += [Heading(domains), *own] if own else []
    words = "What translations keep of validation and test cases of the target, by the weights at the end of training."
    return Section("audit", "Translation audit", [Text([words]), *blocks]) if blocks else None
