"""`attentkit report`."""

from pathlib import Path

import click

from attent_kit.plugins import load


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--reference", metavar="LABEL", help="Row that the others are tested against.  [that of the comparison]")
def command(folder: Path, reference: str | None) -> None:
    """Write the report of a comparison: one HTML file that needs nothing else, and the tables for LaTeX.

    FOLDER is the --out of `attentkit compare`, finished or not. The report is FOLDER/report.html; its figures lie in
    FOLDER/figures as PNG and SVG. `attentkit compare` writes it at its end.
    """
    from attent_kit.engine.publish.report import write_report

    for file in write_report(folder, load().registry, reference):
        click.echo(f"  {file}")
