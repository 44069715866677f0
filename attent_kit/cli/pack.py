"""`attentkit pack`."""

from pathlib import Path

import click

from attent_kit.cli.output import print_json
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.plugins import load


@click.command("pack")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.zip")
@click.option("--licence", metavar="TEXT", help="What others may do with it, such as CC-BY-4.0.")
@click.option("--select", default="last", show_default=True, metavar="NAME", help="Snapshot of RUN, as `train` has it.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists already.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print what was packed as JSON.")
def command(run: Path, out: Path, licence: str | None, select: str, overwrite: bool, as_json: bool) -> None:
    """Pack the trained run in the folder RUN into one file, with which others can predict.

    It holds the networks that `predict` calls, the settings, the facts about the images that it was trained on, a card, the
    environment, and a checksum of each; no path of this machine and no image. `attentkit predict OUT.zip IMAGE LABELS` takes
    it. Whoever predicts needs the plugin of the method, which is not in it.
    """
    from attent_kit.engine.apply.packing import PackOptions, pack_run

    networks = pack_run(run, out, load().registry, PackOptions(licence, select, overwrite))
    if as_json:
        print_json({"file": out, "networks": networks, "licence": licence})
        return
    click.echo(str(out))
    if licence is None:
        click.echo("Note: it says nothing about what others may do with it: --licence TEXT does.", err=True)
