"""`attentkit train`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.asked import look_up
from attent_kit.cli.output import bars, in_words, listed, print_scores, print_table
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.plugins import load

if TYPE_CHECKING:
    from attent_kit.engine.conduct.train import TrainResult


@click.command("train")
@click.argument("alignment", required=False, metavar="[ALIGNMENT|RUN]")
@click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="TOML of a whole run, such as a run's config.toml."
)
@click.option("--data", type=click.Path(path_type=Path), help="TOML with source and target.")
@click.option("--source", "-s", type=click.Path(path_type=Path), help="Prepared file of the labelled domain.")
@click.option("--target", "-t", type=click.Path(path_type=Path), help="Prepared file of the domain to adapt to.")
@click.option(
    "--channels", type=click.IntRange(min=1), metavar="N",
    help="Neighbouring slices as channels (2.5-D), an odd number.  [as prepared]",
)  # fmt: skip
@click.option("--set", "words", multiple=True, metavar="OPTION=VALUE", help="For example segmentor.encoder=resnet34.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything that is random.  [0]")
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--devices-per-run", type=click.IntRange(min=1), metavar="N",
    help="Train on N devices of this machine together; without GPUs in N processes.  [1]",
)  # fmt: skip
@click.option(
    "--nodes", type=click.IntRange(min=1), metavar="M",
    help="On M machines, N devices each, where srun or torchrun starts a process for each device.  [1]",
)  # fmt: skip
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), help="Folder of the run.  [runs/SOURCE2TARGET/ALIGNMENT/seedN]"
)
@click.option(
    "--select", default="last", show_default=True, metavar="NAME",
    help="Snapshot that is exported and scored: last, a selector (`attentkit list selectors`), or target-oracle.",
)  # fmt: skip
@click.option(
    "--from", "from_run", type=click.Path(path_type=Path), metavar="RUN",
    help="Start from the weights of this run: each network that both have alike.",
)  # fmt: skip
@click.option(
    "--more-steps", type=click.IntRange(min=1), metavar="N",
    help="Go on with the finished run RUN for N more steps of its last stage, in --out.  [RUN-and-N]",
)  # fmt: skip
@click.option("--track", metavar="NAMES", help="Comma-separated trackers, for example tensorboard,wandb.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def command(
    alignment: str | None, config: Path | None, data: Path | None, source: Path | None, target: Path | None,
    channels: int | None, words: tuple[str, ...], seed: int | None, device: str, devices_per_run: int | None,
    nodes: int | None, out: Path | None, select: str, from_run: Path | None, more_steps: int | None, track: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Train ALIGNMENT from a labelled source to a target, and score it on the target's test cases.

    On a folder that holds an unfinished run of the same configuration, it continues where that stopped; on a finished one,
    another --select trains nothing again, and answers in its own folder below selections.

    `attentkit train RUN --more-steps N` trains a finished run for longer: what the longer run is made of is copied from the
    folder RUN, which stays as it is. Learning rates go on as if the stage had been so long from the beginning.
    """
    registry = look_up(load().registry, alignments=[alignment] if alignment else [], select=select, track=listed(track))
    from attent_kit.engine.conduct.train import TrainRequest, train
    from attent_kit.engine.train.train import TrainWatcher

    request = TrainRequest(
        alignment, config=config, data=data, source=source, target=target, channels=channels, set=words, seed=seed, device=device,
        out=out, select=select, track=listed(track), from_run=from_run, more_steps=more_steps,
        devices_per_run=devices_per_run, nodes=nodes,
    )  # fmt: skip
    with bars(("train", 0)) as (bar,):
        watcher = TrainWatcher(
            opened=bar.reset,
            stepped=lambda p: bar.to(p.step, f"{p.stage}  {in_words(p.losses)}" if p.losses else None),
            warned=lambda sentence: bar.say(f"Warning: {sentence}"),
            started=bar.say,
        )
        result = train(request, registry, watcher)
    if result.rank:
        return  # The first process says it.
    if as_json:
        print_scores(result.scores)
    else:
        _print(result)


def _print(result: "TrainResult") -> None:
    from attent_kit.report.metrics import DICE
    from attent_kit.report.scores import LAST, ORACLE
    from attent_kit.report.table import selection_note, stamp

    select = result.select
    if result.scores:
        rows = [(s.organ, DICE.number(s.mean), f"{s.missed} of {s.total}") for s in result.dice]
        cases = len({score.case for score in result.scores})
        title = f"{result.settings.alignment.name}, Dice in % over {cases} case{'s' if cases > 1 else ''}"
        if select != LAST:
            title += f", selected by {stamp(select, False) if select == ORACLE else select}"
        print_table(title, ("organ", "Dice", "missed"), rows)
    else:
        click.echo("The target has no labelled test case, so there is nothing to score.")
    files, answers = result.run, result.answers
    if note := selection_note(select):
        click.echo(note)
        kept = [f"{p.name}/" if p.is_dir() else p.name for p in (files.checkpoint, files.snapshots) if p.exists()]
        click.echo(f"{files.path}: {', '.join([*kept, files.selection.name])}")
    weights = "" if note or not files.checkpoint.exists() else f"{files.checkpoint.name}, "
    click.echo(f"{answers.path}: {weights}{answers.segmentor.name}, {answers.predictions.name}/, {answers.scores.name}")
