"""`attentkit shift`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.cli.output import bars, print_json, print_table
from attent_kit.errors import ConfigError
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
    before and after alignment. FOLDER is a run, or a comparison, of which every finished run is measured: then shift.csv and
    the figures lie in it, and a second call measures only what is missing.

    \b
    before   images as they are; features, outputs and entropy of a network that learned
             from the source alone (--baseline)
    after    as the method sees them: images as they reach its segmentor, and what that
             makes of them
    zero     what 95 % of random halvings of the source patients stay below: no shift
    ±        standard error over patients (jackknife)

    A-distance is 0 to 2, MMD² 0 to 2, CORAL has no upper end. Patients, not slices, are the unit. No label is read.
    """
    from attent_kit.data.prepared import Prepared
    from attent_kit.engine.shift import Meter, ShiftOfRuns, baseline_of, refuse_failed, shift_of_comparison, title_of
    from attent_kit.report.shift import shift_figure, write_shift

    if len(places) > 2 or (len(places) == 1) != places[0].is_dir():
        raise ConfigError(
            "name two prepared files, as in `attentkit shift mr.h5 ct.h5`, or the folder of a run or of a comparison."
        )
    registry = load().registry
    meter = Meter(registry, device, slices, seed)
    if len(places) == 1:
        if run or baseline or out:
            raise ConfigError("with a FOLDER leave out --run, --baseline and --out: it holds all that is needed.")
        with bars(("shift", 0)) as (bar,):

            def tell(what: str, done: int, total: int) -> None:
                if done == 0:
                    bar.reset("shift", total)
                bar.to(done, what)

            measured = shift_of_comparison(places[0], meter, tell)
    else:
        source, target = map(Prepared.open, places)
        if run is not None:
            made = meter.of_run(run, source, target, baseline or baseline_of(run, registry))
        elif baseline is not None:
            raise ConfigError("--baseline is the state before the alignment of a run: name that with --run.")
        else:
            made = meter.of_images(source, target)
        files: list[Path] = []
        folder = out or run
        if folder is not None:
            first = made.rows[0]
            files = [folder / "shift.csv"]
            write_shift(files[0], made.rows)
            files += shift_figure(made.panels, made.rows, title_of(first.direction, first.row), folder / "shift")
        measured = ShiftOfRuns(made.rows, made.notes, files, [])
    if as_json:
        print_json([{k: None if v != v else v for k, v in row._asdict().items()} for row in measured.rows])
    else:
        _print(measured.rows)
        for note in measured.notes:
            click.echo(f"Note: {note}")
        for file in measured.files:
            click.echo(f"  {file}")
    refuse_failed(measured.failed)


def _print(rows: "Sequence[ShiftRow]") -> None:
    """A table for each direction: a line for each row, seed, space and measure."""
    from attent_kit.report.shift import SHORT, fell

    for direction in dict.fromkeys(row.direction for row in rows):
        own = [row for row in rows if row.direction == direction]
        lines = []
        for key in dict.fromkeys((r.row, r.seed, r.space, r.measure) for r in own):
            found = {r.when: r for r in own if (r.row, r.seed, r.space, r.measure) == key}
            cells = [_cell(found[when]) if when in found else ("-", "-") for when in ("before", "after")]
            change = fell(found["before"], found["after"]) if len(found) == 2 else "-"
            row, seed, space, measure = key
            lines.append((row, str(seed), space, SHORT[measure], *cells[0], *cells[1], change))
        heads = ("row", "seed", "space", "measure", "before", "zero", "after", "zero", "change")
        print_table(f"Domain shift, {direction}", heads, lines)


def _cell(row: "ShiftRow") -> tuple[str, str]:
    from attent_kit.report.shift import number

    spread = "" if math.isnan(row.spread) else f" ± {number(row.spread)}"
    return f"{number(row.value)}{spread}", number(row.zero)
