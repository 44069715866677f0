"""What commands print with: tables, JSON, and one progress line."""

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from attent_kit.data.workers import ReportDone
from attent_kit.errors import printable
from attent_kit.report.scores import Score


class PlainConsole(Console):
    """A console of rich, which writes its own control characters and shows those of others as escapes."""

    def __init__(self, stream: Any, **more: Any) -> None:
        super().__init__(file=getattr(stream, "raw", stream), **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything that it writes passes through here: tables, progress and what renews itself."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console() -> Console:
    """Standard output; as wide as needed where it is not a terminal, so that a pipe gets whole lines."""
    width = None if sys.stdout.isatty() else 200
    return PlainConsole(sys.stdout, highlight=False, width=width)


def print_json(value: Any) -> None:
    """A value for scripts; JSON has no NaN and nothing infinite, so these are null."""
    click.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_scores(scores: Iterable[Score]) -> None:
    """Score rows for scripts; a metric without a value is null."""
    print_json([s._asdict() for s in scores])


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of words under a line that is never broken to the width of the table."""
    if title:
        console().print(Text(title, style="bold"))
    table = Table(header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        # Words of other people: brackets in them are not markup.
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


class _Rate(ProgressColumn):
    """Steps, cases or runs a second."""

    def render(self, task: Task) -> Text:
        return Text(
            "" if not task.speed else f"{task.speed:.1f}/s" if task.speed >= 0.1 else f"{1 / task.speed:.0f} s each"
        )


class Bar:
    """One line of progress on a terminal; elsewhere a plain line now and then."""

    SECONDS_BETWEEN_LINES = 15.0

    def __init__(self, progress: Progress | None, task: TaskID | None, what: str, total: int) -> None:
        self._progress, self._task = progress, task
        self._what, self._total, self._done, self._fresh = what, total, 0, True
        self._started = self._printed = time.monotonic()

    def reset(self, what: str, total: int) -> None:
        """Begin again with something else."""
        self._what, self._total, self._done, self._fresh = what, total, 0, True
        self._started = self._printed = time.monotonic()
        if self._progress is not None:
            assert self._task is not None
            self._progress.reset(self._task, total=total, description=what, note="")

    def to(self, done: int, note: str | None = None) -> None:
        """`done` of the total, with a few words. What was done before the first call does not count in the rate."""
        if self._fresh and done > 1:
            self._done, self._started = done - 1, time.monotonic()
            if self._progress is not None and self._task is not None:
                self._progress.reset(self._task, total=self._total, completed=done - 1)
        self._fresh = False
        if self._progress is not None:
            assert self._task is not None
            fields: dict[str, Any] = {} if note is None else {"note": note}
            self._progress.update(self._task, completed=done, **fields)
        elif note is not None and time.monotonic() - self._printed >= self.SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            rate = (done - self._done) / max(self._printed - self._started, 1e-9)
            left = (self._total - done) / rate if rate > 0 else 0.0
            click.echo(
                f"{self._what}: {done}/{self._total}, {pace(rate)}, about {duration(left)} left. {note}",
                err=True,
            )

    def count(self, what: str) -> ReportDone:
        """A function that is told what was done last, how much is done and how much there is; told 0, it begins."""

        def tell(last: str, done: int, total: int) -> None:
            if done == 0:
                self.reset(what, total)
            if done or last:
                self.to(done, last)

        return tell

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._progress is not None:
            self._progress.console.print(line, highlight=False, markup=False)
        else:
            click.echo(line, err=True)


def pace(rate: float) -> str:
    """Steps per second, or seconds per step where that is the larger number."""
    return f"{rate:.1f} a second" if rate >= 1 or rate <= 0 else f"{1 / rate:.1f} s each"


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def in_bytes(number: int) -> str:
    """A number of bytes in a unit that suits it."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} bytes"


@contextmanager
def bars(*whats: tuple[str, int]) -> Iterator[list[Bar]]:
    """A progress line for each (what, total), on stderr."""
    if not sys.stderr.isatty():
        yield [Bar(None, None, what, total) for what, total in whats]
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(), _Rate(),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", style="dim", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=PlainConsole(sys.stderr), transient=True) as progress:
        yield [Bar(progress, progress.add_task(what, total=total, note=""), what, total) for what, total in whats]


def listed(text: str | None) -> list[str]:
    """The words of an option that takes several, with commas between them."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def in_words(losses: dict[str, float]) -> str:
    """Losses as they stand in a progress line."""
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
