"""`attentkit status`."""

import sys
import time
from pathlib import Path

import click
from rich.live import Live

from attent_kit.cli.live import grid, lines, summary, view
from attent_kit.cli.output import PlainConsole, console, print_json
from attent_kit.engine.run.status import CellState, cells_in, state_of

SECONDS_BETWEEN_LOOKS = 2.0


@click.command("status")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Look again every two seconds, until nothing is left to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(folder: Path, watch: bool, as_json: bool) -> None:
    """Show how far the comparison or run in FOLDER is, whichever process works on it.

    A cell is done, running, waiting, failed, stopped in good order, or dead: its process ended without a word, as when it is
    killed. Starting the same command again goes on with all but the first two.
    """
    states = _look(folder)
    if as_json:
        print_json([state._asdict() for state in states])
        return
    if watch:
        _watch(folder)
        return
    console().print(summary(states), style="bold", markup=False)
    console().print(grid(states))
    for line in lines(states):
        click.echo(line)


def _look(folder: Path) -> list[CellState]:
    return [state_of(place) for place in cells_in(folder)]


def _watch(folder: Path) -> None:
    states, said = _look(folder), ""
    try:
        if sys.stdout.isatty():
            with Live(view(states), console=PlainConsole(sys.stdout, highlight=False), auto_refresh=False) as live:
                while not (_over(states) or getattr(sys.stdout, "lost", False)):
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    states = _look(folder)
                    live.update(view(states), refresh=True)
            return
        while True:
            text = "\n".join([summary(states), *lines(states, ("dead", "failed"))])
            if text != said:
                click.echo(said := text)
            if _over(states) or getattr(sys.stdout, "lost", False):
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
            states = _look(folder)
    except KeyboardInterrupt:
        # Only the watching ends.
        return


def _over(states: list[CellState]) -> bool:
    return all(cell.state in ("done", "failed") for cell in states)
