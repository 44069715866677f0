"""`attentkit select`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.cli.output import bars, print_json, print_table
from attent_kit.engine.run.folder import in_words
from attent_kit.plugins import load

if TYPE_CHECKING:
    from attent_kit.engine.conduct.select import SelectResult


@click.command("select")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="CSV to write: a line for each run and selector.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(runs: tuple[Path, ...], device: str, out: Path | None, as_json: bool) -> None:
    """Show which snapshot each selector would choose, and what that gives away.

    RUN is the folder of a trained run, or of a comparison: then all runs that it shows are graded. For each selector it shows
    the step it chooses, the Dice of that snapshot, the regret, which is the Dice lost to the best snapshot there is, and
    Spearman's rank correlation of its scores with Dice over all snapshots. For several runs it shows the means of these, and the
    share of runs in which the choice was better and worse than the last snapshot. The labels of the target's test cases are
    used for this and choose nothing.
    """
    from attent_kit.engine.conduct.select import NOTE, select

    with bars(("grade", 0)) as (bar,):

        def tell(run: str, done: int, total: int) -> None:
            if done == 0:
                bar.reset(run, total)
            bar.to(done, "snapshots")

        result = select(
            runs, load().registry, device, out, tell, lambda folder, error: bar.say(f"Left out: {folder}: {error}")
        )
    if result.bare:
        click.echo(f"Left out: {len(result.bare)} runs without snapshots, such as {result.bare[0]}.", err=True)
    if as_json:
        print_json(
            {
                "runs": [
                    {**run._asdict(), "selectors": [{**s._asdict(), "regret": s.regret} for s in run.selectors]}
                    for run in result.runs
                ],
                "selectors": [mean._asdict() for mean in result.means],
                "note": NOTE,
            }
        )
        return
    _print(result)
    click.echo(NOTE)
    if out:
        click.echo(f"  {out}")


def _print(result: "SelectResult") -> None:
    from attent_kit.report.metrics import DICE

    if len(result.counted) == 1:
        (run,) = result.counted
        rows = [
            (s.selector, s.better or "-", str(s.step), *map(DICE.number, (s.dice, s.oracle, s.regret)), _number(s.rho))
            for s in run.selectors
        ]
        name = in_words(run.row, run.direction, run.seed, run.fold)
        title = f"{name}: Dice in % by the snapshot that is chosen"
        print_table(title, ("selector", "better", "step", "Dice", "oracle's", "regret", "rho"), rows)
        return
    rows = [
        (m.selector, str(m.runs), *map(DICE.number, (m.dice, m.regret, m.worst_regret)), _number(m.rho),
         *(f"{100 * share:.0f} %" for share in (m.better_than_last, m.worse_than_last)))
        for m in result.means
    ]  # fmt: skip
    heads = ("selector", "runs", "Dice", "regret", "worst regret", "rho", "better than last", "worse")
    print_table(f"Means over {len(result.counted)} runs, Dice in %", heads, rows)
    if bound := len(result.runs) - len(result.counted):
        click.echo(f"{bound} runs whose training saw target labels are not included.")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"
