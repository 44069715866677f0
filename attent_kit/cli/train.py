"""`attentkit train`."""

from pathlib import Path
from typing import Any

import click

from attent_kit.cli.output import bars, in_words, listed, print_scores, print_table
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.config import merge, read_toml
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.plugins import load


@click.command("train")
@click.argument("alignment", required=False)
@click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="TOML of a whole run, such as a run's config.toml."
)
@click.option("--data", type=click.Path(path_type=Path), help="TOML with source and target.")
@click.option("--source", "-s", type=click.Path(path_type=Path), help="Prepared file of the labelled domain.")
@click.option("--target", "-t", type=click.Path(path_type=Path), help="Prepared file of the domain to adapt to.")
@click.option("--set", "words", multiple=True, metavar="OPTION=VALUE", help="For example segmentor.encoder=resnet34.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything that is random.  [0]")
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), help="Folder of the run.  [runs/SOURCE2TARGET/ALIGNMENT/seedN]"
)
@click.option(
    "--select", default="last", show_default=True, metavar="NAME",
    help="Snapshot that is exported and scored: last, a selector (`attentkit list selectors`), or target-oracle.",
)  # fmt: skip
@click.option("--track", metavar="NAMES", help="Comma-separated trackers, for example tensorboard,wandb.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def command(
    alignment: str | None, config: Path | None, data: Path | None, source: Path | None, target: Path | None,
    words: tuple[str, ...], seed: int | None, device: str, out: Path | None, select: str, track: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Train ALIGNMENT from a labelled source to a target, and score it on the target's test cases.

    On a folder that holds an unfinished run of the same configuration it goes on where that stopped; on a finished one
    another --select trains nothing again, and answers in its own folder below selections.
    """
    from attent_kit.data.prepared.file import Prepared
    from attent_kit.engine.run.folder import RunFolder
    from attent_kit.engine.run.provenance import explained
    from attent_kit.engine.run.settings import override, run_settings
    from attent_kit.engine.train.tracking import find_trackers
    from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
    from attent_kit.report.scores import LAST, ORACLE, summarise
    from attent_kit.report.table import selection_note, stamp

    registry = load().registry
    given: dict[str, Any] = read_toml(config) if config else {}
    if alignment:
        given = merge(given, {"alignment": {"name": alignment}})
    if data:
        files = read_toml(data)
        given["data"] = {k: str(data.parent / v) if isinstance(v, str) else v for k, v in files.items()}
    for name, path in (("source", source), ("target", target)):
        if path:
            given["data"] = {**given.get("data", {}), name: str(path)}
            given["data"].pop(f"{name}_hash", None)
    if seed is not None:
        given["seed"] = seed
    if "alignment" not in given:
        raise ConfigError("name the method to train, for example `attentkit train attent -s mr.h5 -t ct.h5`.")
    if "data" not in given:
        raise ConfigError(
            "name the two domains: `--source mr.h5 --target ct.h5`, or a TOML file with both in `--data`."
        )
    for name in ("source", "target"):
        if name not in given["data"] and not any(word.startswith(f"data.{name}=") for word in words):
            raise ConfigError(f"the {name} is missing: type --{name} FILE.h5, a file that `attentkit prepare` made.")
    given = override(given, words)
    try:
        settings = run_settings(given, registry)
    except ConfigError as error:
        raise explained(error, out or _begun_in(config, given), registry) from None
    trackers = find_trackers(listed(track), registry)
    Prepared.open(settings.data.source)
    target_file = Prepared.open(settings.data.target)
    if settings.data.source.resolve() == settings.data.target.resolve():
        click.echo("Warning: source and target are the same file.", err=True)
    if not any(case.has_labels for case in target_file.cases_in("test")):
        click.echo("Warning: the target has no labelled test case, so the run will not be scored.", err=True)
    folder = out or _folder(given)

    with bars((settings.alignment.name, 0)) as (bar,):
        scores = train(
            settings,
            folder,
            registry,
            device,
            TrainOptions(select=select, trackers=trackers),
            TrainWatcher(
                opened=lambda alignment: bar.reset(settings.alignment.name, sum(s.steps for s in alignment.stages())),
                stepped=lambda p: bar.to(p.step, f"{p.stage}  {in_words(p.losses)}" if p.losses else None),
                warned=lambda sentence: bar.say(f"Warning: {sentence}"),
            ),
        )
    if as_json:
        print_scores(scores)
        return
    if scores:
        dice = [s for s in summarise(scores, "dice", "cases")]
        rows = [(s.organ, f"{100 * s.mean:.1f}", f"{s.missed} of {s.total}") for s in dice]
        cases = len({score.case for score in scores})
        title = f"{settings.alignment.name}, Dice in % over {cases} case{'s' if cases > 1 else ''}"
        if select != LAST:
            title += f", selected by {stamp(select, False) if select == ORACLE else select}"
        print_table(title, ("organ", "Dice", "missed"), rows)
    else:
        click.echo("The target has no labelled test case, so there is nothing to score.")
    files = RunFolder(folder)
    answers = files.answers(select)
    if note := selection_note(select):
        click.echo(note)
        click.echo(f"{folder}: {files.checkpoint.name}, {files.snapshots.name}/, {files.selection.name}")
    weights = "" if note else f"{files.checkpoint.name}, "
    click.echo(f"{answers.path}: {weights}{answers.segmentor.name}, {answers.predictions.name}/, {answers.scores.name}")


def _folder(given: dict[str, Any]) -> Path:
    """Where a run goes that is given no folder."""
    from attent_kit.data.prepared.file import Prepared
    from attent_kit.engine.run.folder import RunKey

    method = given["alignment"]
    name = method.get("name") if isinstance(method, dict) else method
    domains = [Prepared.open(Path(str(given["data"][domain]))).domain for domain in ("source", "target")]
    return RunKey("2".join(domains), str(name), given.get("seed", 0)).folder(Path("runs")).path


def _begun_in(config: Path | None, given: dict[str, Any]) -> Path:
    """The folder of the run that these words may go on with."""
    try:
        return config.parent if config else _folder(given)
    except (AttentKitError, OSError, KeyError, TypeError):
        return Path("runs")
