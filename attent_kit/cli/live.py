"""The grid of a comparison while it runs: a table that renews itself on a terminal, a plain line now and then elsewhere."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from attent_kit.cli.output import PlainConsole, duration, in_words, pace
from attent_kit.engine.run.folder import in_words as named
from attent_kit.engine.run.folder import of_seed
from attent_kit.engine.run.status import SILENT, CellState, counted, state_of

SECONDS_BETWEEN_LINES = 15.0
MANY_COLUMNS = 50
"""Of more directions, seeds and folds than these, the grid has numbers alone."""
STYLES = {"done": "green", "running": "bold", "dead": "red", "failed": "red", "stopped": "yellow", "waiting": "dim"}


class Say:
    """Lines that stay, above a table that renews itself or in a plain stream, from any thread."""

    def __init__(self, live: Live | None = None) -> None:
        self._live = live

    def __call__(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(Text(line))
        else:
            click.echo(line, err=True)


@contextmanager
def live_grid(places: Sequence[Any]) -> Iterator[Say]:
    """Show how far the cells are, on stderr, while the block runs; what it yields prints lines."""
    if sys.stderr.isatty():
        with Live(
            get_renderable=lambda: view([state_of(place) for place in places]),
            console=PlainConsole(sys.stderr, highlight=False), refresh_per_second=1, transient=True,
        ) as live:  # fmt: skip
            yield Say(live)
        return
    ended = threading.Event()
    printer = threading.Thread(target=_print_lines, args=(places, ended), daemon=True)
    printer.start()
    try:
        yield Say()
    finally:
        ended.set()
        printer.join()


def view(states: Sequence[CellState]) -> Group:
    """Counts, the grid, and a line for each cell that runs, died or failed."""
    return Group(Text(summary(states), style="bold"), grid(states), *(Text(line) for line in lines(states)))


def summary(states: Sequence[CellState]) -> str:
    """ "3 of 10 runs done, 1 running, 6 waiting"."""
    numbers = counted(states)
    rest = [f"{number} {state}" for state, number in numbers.items() if state != "done"]
    return ", ".join([f"{numbers.get('done', 0)} of {len(states)} runs done", *rest])


def grid(states: Sequence[CellState]) -> Table:
    """One line per row, one column for each direction, seed and fold; of many, one for each state, with how many are in it."""
    table = Table(header_style="bold", padding=(0, 1))
    table.add_column("row")
    columns = [*dict.fromkeys((cell.direction, cell.seed, cell.fold) for cell in states)]
    rows: dict[str, list[CellState]] = {}
    for cell in states:
        rows.setdefault(cell.row, []).append(cell)
    if len(columns) > MANY_COLUMNS:
        for state in counted(states):
            table.add_column(Text(state, style=STYLES[state]), justify="right")
        for row, own in rows.items():
            numbers = counted(own)
            table.add_row(Text(row), *(str(numbers.get(state, 0)) for state in counted(states)))
        return table
    for direction, seed, fold in columns:
        table.add_column(Text(", ".join(filter(None, (direction, of_seed(seed, fold))))))
    for row, own in rows.items():
        there = {(cell.direction, cell.seed, cell.fold): cell for cell in own}
        table.add_row(Text(row), *(_word(there.get(column)) for column in columns))
    return table


def lines(states: Sequence[CellState], only: Sequence[str] = ("running", "dead", "failed")) -> list[str]:
    """A sentence for each cell about which there is more to say than its state."""
    return [line(cell) for cell in states if cell.state in only]


def line(cell: CellState) -> str:
    """How far a cell is, or what became of it."""
    name = named(cell.row, cell.direction, cell.seed, cell.fold)
    if cell.state == "failed":
        return f"{name}: failed: {cell.error}"
    try:
        return f"{name}: {_how_far(cell)}"
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        # Somebody else's file, or one of another version.
        return f"{name}: {cell.state}"


def _how_far(cell: CellState) -> str:
    p = cell.progress
    if p is None:
        return "starting"
    at = f"{p['stage']}, step {int(p['step'])} of {int(p['steps'])}"
    silent = "" if cell.silent is None else duration(cell.silent)
    if cell.state == "dead":
        return f"dead: process {p['pid']} on {p['host']} ended without a word {silent} ago, at {at}"
    rate = float(p["steps_per_second"])
    left = f", {pace(rate)}, about {duration(float(p['seconds_left']))} left" if rate > 0 and p["seconds_left"] else ""
    since = f", and silent for {silent}" if cell.silent is not None and cell.silent > SILENT else ""
    losses = in_words({str(name): float(loss) for name, loss in p["losses"].items()})
    return f"{at}{left}, on {p['device']} (process {p['pid']}{since}). {losses}".rstrip()


def _word(cell: CellState | None) -> Text:
    if cell is None:
        return Text("")
    word = cell.state
    if cell.state == "running":
        try:
            word = f"{100 * int(cell.progress['step']) // int(cell.progress['steps'])} %"  # type: ignore[index]  # None: TypeError
        except (KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError):
            word = "starting"
    return Text(word, style=STYLES[cell.state])


def _print_lines(places: Sequence[Any], ended: threading.Event) -> None:
    while not ended.wait(SECONDS_BETWEEN_LINES):
        for said in lines([state_of(place) for place in places], ("running",)):
            click.echo(said, err=True)
