"""`attentkit shift`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.cli.output import bars, print_json, print_table
from attent_kit.plugins import load

if TYPE_CHECKING:
    from attent_kit.report.shift import ShiftRow


@click.command("shift")
@click.argument(
    "places", nargs=-1, required=True, metavar="SOURCE.h5 TARGET.h5 | FOLDER", type=click.Path(path_type=Path)
)
@click.option("--run", type=click.Path(path_type=Path), help="Trained run that the two files are seen through.")
@click.option(
    "--baseline", type=click.Path(path_type=Path),
    help="Run that learned from the source alone: the state before alignment.  [the one beside the run]",
)  # fmt: skip
@click.option(
    "--slices", default=16, show_default=True, type=click.IntRange(min=1), help="Slices of each patient, at most."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of the choice of slices.")
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path),
    help="Folder of shift.csv, shift.png and shift.svg.  [the run; two files alone are only printed]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(
    places: tuple[Path, ...], run: Path | None, baseline: Path | None, slices: int, seed: int, device: str,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure how far a source and a target are apart: proxy A-distance, MMD and CORAL.

    Two prepared files are compared as images; with --run also in the features, outputs and entropy maps of its segmentor,
    before and after alignment. FOLDER is a run, or a comparison, whose finished runs are all measured: then shift.csv and
    the figures lie in it, and a second call measures only what is missing.

    \b
    before   images as they are; features, outputs and entropy of a network that learned
             from the source alone (--baseline)
    after    as the method sees them: images as they reach its segmentor, and what that
             makes of them
    ±        standard error over patients (jackknife); within twice that, of both, it is "same"
    (zero)   what 95 % of random halvings of the source patients stay below: no shift

    A-distance is 0 to 2, MMD² 0 to 2, CORAL has no upper end. Patients, not slices, are the unit. No label is read. A run is
    measured with its weights at the end of training, even where --select scored another snapshot.
    """
    from attent_kit.engine.study.runs import refuse_failed
    from attent_kit.engine.study.shift import ShiftOptions, measure_shift

    options = ShiftOptions(places, run, baseline, slices, seed, device, out)
    with bars(("shift", 0)) as (bar,):
        measured = measure_shift(options, load().registry, bar.count("shift"))
    if as_json:
        print_json([row._asdict() for row in measured.rows])
    else:
        _print(measured.rows)
        for note in measured.notes:
            click.echo(f"Note: {note}")
        for file in measured.files:
            click.echo(f"  {file}")
    refuse_failed(measured.failed)


def _print(rows: "Sequence[ShiftRow]") -> None:
    """A table for each direction, a line for each row, seed, fold and space."""
    from attent_kit.report.shift import SHORT

    for direction in dict.fromkeys(row.direction for row in rows):
        own = [row for row in rows if row.direction == direction]
        measures = list(dict.fromkeys(row.measure for row in own))
        lines = []
        for key in dict.fromkeys((r.row, r.seed, r.fold, r.space) for r in own):
            found = {(r.measure, r.when): r for r in own if (r.row, r.seed, r.fold, r.space) == key}
            cells = [_cell(found.get((m, "before")), found.get((m, "after"))) for m in measures]
            lines.append(
                (key[0], ", ".join(filter(None, (str(key[1]), f"fold {key[2]}" * bool(key[2])))), key[3], *cells)
            )
        title = f"Domain shift, {direction}: before → after ± (zero)"
        print_table(title, ("row", "seed", "space", *(SHORT[measure] for measure in measures)), lines)


def _cell(before: "ShiftRow | None", after: "ShiftRow | None") -> str:
    from attent_kit.report.shift import change, number

    last = after or before
    if last is None:
        return "-"
    start = f"{number(before.value)} → " if before and after else ""
    spread = "" if math.isnan(last.spread) else f" ± {number(last.spread)}"
    moved = f" {change(before, after)}" if before and after else ""
    return f"{start}{number(last.value)}{spread} ({number(last.zero)}){moved}"
