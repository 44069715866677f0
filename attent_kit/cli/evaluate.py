"""`attentkit evaluate`."""

import math
from pathlib import Path

import click

from attent_kit.cli.output import bars, print_scores, print_table


@click.command("evaluate")
@click.argument("prediction", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option(
    "--organs", default="liver=1,right kidney=2,left kidney=3,spleen=4", show_default=True,
    help="Organs with their values in the label maps; *=0 at the end ignores all others.",
)  # fmt: skip
@click.option("--truth-organs", help="The same for TRUTH, where its values are others.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="CSV to write the rows to.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    prediction: Path, truth: Path, organs: str, truth_organs: str | None, out: Path | None, as_json: bool
) -> None:
    """Score the label maps PREDICTION against TRUTH, each a NIfTI file or a folder.

    3-D and symmetric: Dice; ASSD and HD95 in mm and in voxels. An organ of the truth that was not predicted is "missed",
    one that was predicted where there is none is "invented": both count 0 in Dice and have no distance. An organ in neither
    is "absent" and left out. All three are counted.
    """
    from attent_kit.data.labelmap import LabelMap
    from attent_kit.metrics.volumes import evaluate_volumes
    from attent_kit.report.scores import summarise, write_scores

    with bars(("evaluate", 0)) as (bar,):

        def tell(case: str, done: int, total: int) -> None:
            if done == 0:
                bar.reset("evaluate", total)
            bar.to(done, case)

        maps = LabelMap.parse(organs), LabelMap.parse(truth_organs or organs)
        scores = evaluate_volumes(prediction, truth, *maps, report=tell, left_out=_warn)
    if out:
        write_scores(out, scores)
    if as_json:
        print_scores(scores)
        return
    columns = [summarise(scores, metric, "cases", unit) for metric, unit in _COLUMNS]
    rows = [
        (cells[0].organ, *(_cell(100 * c.mean if c.unit == "fraction" else c.mean) for c in cells),
         *(f"{count} of {cells[0].total}" for count in (cells[0].missed, cells[0].invented, cells[0].absent)))
        for cells in zip(*columns, strict=True)
    ]  # fmt: skip
    cases = len({s.case for s in scores})
    heads = ("organ", "Dice %", "ASSD mm", "ASSD voxel", "HD95 mm", "HD95 voxel", "missed", "invented", "absent")
    print_table(f"Mean over {cases} case{'s' if cases > 1 else ''}", heads, rows)


def _warn(count: int) -> None:
    click.echo(f"Warning: {count} label map(s) of TRUTH have no prediction and are left out.", err=True)


_COLUMNS = (("dice", "fraction"), ("assd", "mm"), ("assd", "voxel"), ("hd95", "mm"), ("hd95", "voxel"))


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
