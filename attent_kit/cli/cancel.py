"""`attentkit cancel`."""

from pathlib import Path

import click

from attent_kit.plugins import load


@click.command("cancel")
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """End the jobs that `attentkit compare --launcher` has started for the comparison in FOLDER.

    Each run is saved after the step at hand, and jobs that still wait never start. The same compare command goes on later.
    """
    from attent_kit.engine.jobs.book import cancel

    ended = cancel(folder, load().registry)
    running = sum(state.state == "running" for state in ended)
    click.echo(f"{len(ended)} jobs ended: {running} were running and save first, {len(ended) - running} were waiting.")
