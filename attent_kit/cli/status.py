"""`attentkit status`."""

import sys
import time
from pathlib import Path

import click
from rich.live import Live

from attent_kit.cli.live import grid, lines, summary, view
from attent_kit.cli.output import PlainConsole, console, print_json
from attent_kit.engine.run.folder import in_words
from attent_kit.engine.run.status import CellState, cells_in, state_of
from attent_kit.errors import RunError

SECONDS_BETWEEN_LOOKS = 2.0
LINES_OF_LOG = 40


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
        _print_log(folder, logs)
        return
    states = _look(folder)
    jobs, silent = _jobs(folder)
    if as_json:
        print_json([state._asdict() | _job_of(folder, state, jobs) for state in states])
        return
    if watch:
        _watch(folder)
        return
    console().print(summary(states), style="bold", markup=False)
    console().print(grid(states))
    for line in [*lines(states), *_lines_of_jobs(folder, states, jobs)]:
        click.echo(line)
    if silent:
        click.echo(silent, err=True)


def _look(folder: Path) -> list[CellState]:
    return [state_of(place) for place in cells_in(folder)]


Jobs = dict[str, list[dict[str, object]]]
"""By the name of a run, what is known of its jobs."""


def _jobs(folder: Path) -> tuple[Jobs, str | None]:
    """Those of a comparison that a launcher runs, and why nothing is known of them, if so."""
    from attent_kit.engine.jobs.book import read_book, states_of_jobs
    from attent_kit.plugins import load

    if read_book(folder) is None:
        return {}, None
    found, silent = states_of_jobs(folder, load().registry)
    made: Jobs = {}
    for run, known in found.items():
        for job, state in known:
            fields = {"name": job.name, "log": str(job.errand.log)}
            made.setdefault(run, []).append({**fields, **{n: v for n, v in state._asdict().items() if n != "name"}})
    return made, silent


def _job_of(folder: Path, cell: CellState, jobs: Jobs) -> dict[str, object]:
    """The jobs of a run as JSON; nothing where no launcher runs it."""
    known = jobs.get(_name(folder, cell))
    return {} if known is None else {"jobs": known}


def _lines_of_jobs(folder: Path, states: list[CellState], jobs: Jobs) -> list[str]:
    """A sentence for each job of a run that is not done and that waits or runs."""
    said = []
    for cell in states:
        for job in jobs.get(_name(folder, cell), ()) if cell.state != "done" else ():
            if job["state"] == "ended":
                continue
            where = f" on {job['where']}" if job["where"] else ""
            why = f" ({job['why']})" if job["why"] and job["state"] == "queued" else ""
            name = in_words(cell.row, cell.direction, cell.seed, cell.fold)
            said.append(f"{name}: {job['state']}{where}{why}, job {job['name']}, log {job['log']}")
    return said


def _name(folder: Path, cell: CellState) -> str:
    return cell.folder.relative_to(folder).as_posix() if cell.folder.is_relative_to(folder) else ""


def _print_log(folder: Path, run: str) -> None:
    from attent_kit.engine.jobs.book import log_of
    from attent_kit.engine.jobs.errand import Errand

    log = log_of(folder, run)
    words = Errand(log).last_words(LINES_OF_LOG)
    if not words:
        raise RunError(f"{log} is empty or not there yet: the job has printed nothing.")
    click.echo(f"{log}:{words}")


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
