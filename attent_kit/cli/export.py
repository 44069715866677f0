"""`attentkit export`."""

from pathlib import Path

import click

from attent_kit.cli.output import print_json
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.plugins import load


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format", "kind", type=click.Choice(["onnx", "torch-export"]), default="onnx", show_default=True,
    help="onnx for OUT.onnx, torch-export for OUT.pt2.",
)  # fmt: skip
@click.option(
    "--output", type=click.Choice(["logits", "probabilities"]), default="logits", show_default=True, help="What it answers."
)  # fmt: skip
@click.option("--select", default="last", show_default=True, metavar="NAME", help="Snapshot of RUN, as `train` has it.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist already.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print the written files as JSON.")
def command(run: Path, out: Path, kind: str, output: str, select: str, overwrite: bool, as_json: bool) -> None:
    """Write the trained run RUN as OUT, for programs that have no attent-kit.

    OUT takes a batch of slices, of any number, and answers as `predict` does, with the translator in it where the method
    needs one. OUT's name with .json, beside it, says how a volume becomes slices and the answer labels.
    """
    from attent_kit.engine.apply.export import ExportOptions, export_run

    written = export_run(run, out, load().registry, ExportOptions(kind, output, select, overwrite))  # type: ignore[arg-type]  # click.Choice
    if as_json:
        print_json(written)
        return
    for path in written:
        click.echo(str(path))
