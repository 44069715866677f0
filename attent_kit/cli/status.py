"""`attentkit status`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.live import Live

from attent_kit.cli.live import grid, lines, summary, view
from attent_kit.cli.output import PlainConsole, console, print_json
from attent_kit.engine.run.folder import in_words
from attent_kit.engine.run.status import CellState, cells_in, state_of

if TYPE_CHECKING:
    from attent_kit.engine.jobs.book import KnownJob

SECONDS_BETWEEN_LOOKS = 2.0


@click.command("status")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Look again every two seconds, until nothing is left to do.")
@click.option("--logs", metavar="RUN", help="Show the end of the log of a run's job, named as mr2ct/attent/seed0.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(folder: Path, watch: bool, logs: str | None, as_json: bool) -> None:
    """Show how far the comparison or run in FOLDER is, whichever process works on it.

    A cell is done, running, waiting, failed, stopped in good order, or dead: its process ended without a word, as when it is
    killed. Starting the same command again goes on with all but the first two. Of a comparison that a launcher runs, each job is
    shown too: whether it is queued or runs, on which node, and where its log is.
    """
    if logs is not None:
        from attent_kit.engine.jobs.book import end_of_log

        click.echo(end_of_log(folder, logs))
        return
    states = _look(folder)
    jobs, silent = _jobs(folder)
    if as_json:
        known = {run: {"jobs": [job.as_json() for job in found]} for run, found in jobs.items()}
        print_json([state._asdict() | known.get(_name(folder, state), {}) for state in states])
        return
    if watch:
        _watch(folder)
        return
    console().print(summary(states), style="bold", markup=False)
    console().print(grid(states))
    for line in lines(states):
        click.echo(line)
    for state in states:
        said = [job.in_words() for job in jobs.get(_name(folder, state), ())] if state.state != "done" else []
        for words in filter(None, said):
            click.echo(f"{in_words(state.row, state.direction, state.seed, state.fold)}: {words}")
    if silent:
        click.echo(silent, err=True)


def _look(folder: Path) -> list[CellState]:
    return [state_of(place) for place in cells_in(folder)]


def _jobs(folder: Path) -> "tuple[dict[str, list[KnownJob]], str | None]":
    """The plugins are loaded only where there is a launcher to ask."""
    from attent_kit.engine.jobs.book import known_jobs, read_book
    from attent_kit.plugins import load

    return ({}, None) if read_book(folder) is None else known_jobs(folder, load().registry)


def _name(folder: Path, cell: CellState) -> str:
    return cell.folder.relative_to(folder).as_posix() if cell.folder.is_relative_to(folder) else ""


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
