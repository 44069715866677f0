"""`attentkit evaluate`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.cli.output import bars, print_scores, print_table

if TYPE_CHECKING:
    from attent_kit.metrics import Protocol
    from attent_kit.report.scores import Score


@click.command("evaluate")
@click.argument("prediction", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option(
    "--protocol", "-p", "names", multiple=True, default=("3d-mm",), show_default=True,
    help="Whose definition of the metrics: 3d-mm, sifa, attent-code or chaos; may be given several times.",
)  # fmt: skip
@click.option(
    "--organs",
    help="Organs with their values in the label maps; *=0 at the end ignores all others.  "
    "[liver=1,right kidney=2,left kidney=3,spleen=4; with --dicom also the values of CHAOS]",
)
@click.option("--truth-organs", help="The same for TRUTH, where its values are others.")
@click.option(
    "--dicom", type=click.Path(path_type=Path),
    help="Folder of a DICOM series, where PREDICTION or TRUTH is a folder of PNG masks of its slices.",
)  # fmt: skip
@click.option("--out", "-o", type=click.Path(path_type=Path), help="CSV to write the rows to.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    prediction: Path, truth: Path, names: tuple[str, ...], organs: str | None, truth_organs: str | None,
    dicom: Path | None, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Score the label maps PREDICTION against TRUTH, each a NIfTI file or a folder.

    \b
    3d-mm        whole volumes, symmetric: Dice; pooled ASSD and HD95 in mm and voxels;
                 surface Dice within 2 mm
    sifa         whole volumes: Dice, 0 where the organ is in neither; mean of both
                 mean distances, in voxels
    attent-code  axial slices of the grid of TRUTH: Dice, 1 where the organ is in
                 neither; distances from the prediction alone, in pixels
    chaos        whole volumes: DICE, RAVD, ASSD and MSSD in mm; an organ has no
                 surface where the border of the image cuts it

    With --dicom, PNG masks are read as CHAOS has them: grey values by bands, masks of one bit as the liver in CT. Where TRUTH
    is the liver alone in CT, no other organ is scored.

    An organ of the truth that was not predicted is "missed", one that was predicted where there is none is "invented", one
    in neither is "absent". All are counted, and "undefined" says how many volumes or slices have no distance.
    """
    from attent_kit.engine.apply.scoring import EvaluateOptions, evaluate

    options = EvaluateOptions(names, organs, truth_organs, dicom, out)
    with bars(("evaluate", 0)) as (bar,):
        scores = evaluate(prediction, truth, options, bar.count("evaluate"), _warn)
    if as_json:
        print_scores(scores)
        return
    for chosen in options.chosen:
        _print(chosen, scores)


def _print(protocol: "Protocol", scores: "Sequence[Score]") -> None:
    """The columns of a protocol, one line per organ, then what could not be measured."""
    from attent_kit.report.scores import summarise

    columns = [summarise(scores, c.metric, "cases", c.unit, protocol.name, c.weight) for c in protocol.columns]
    rows = [
        (cells[0].organ, *(_cell(100 * c.mean if c.unit == "fraction" else c.mean) for c in cells),
         *(f"{count} of {cells[0].total}" for count in
           (cells[0].undefined, cells[0].missed, cells[0].invented, cells[0].absent)))
        for cells in zip(*columns, strict=True)
    ]  # fmt: skip
    cases = len({score.case for score in scores})
    heads = ("organ", *(c.title for c in protocol.columns), "undefined", "missed", "invented", "absent")
    print_table(f"Mean over {cases} case{'s' if cases > 1 else ''}, {protocol.name}: {protocol.summary}", heads, rows)


def _warn(sentence: str) -> None:
    click.echo(f"Warning: {sentence}", err=True)


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
