"""A comparison on the screen: its grid, what it would cost, how far it is, and what it has come to."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attent_kit.cli.live import Say, live_grid
from attent_kit.cli.output import Bar, bars, console, duration, in_bytes, print_json, print_scores, print_table
from attent_kit.data.workers import ReportDone
from attent_kit.engine.conduct.watcher import Watcher
from attent_kit.report.scores import EXTERNAL

if TYPE_CHECKING:
    from attent_kit.engine.compare.external import External
    from attent_kit.engine.compare.price import CellCost, Price
    from attent_kit.engine.compare.suite import Cell
    from attent_kit.engine.conduct.compare import CompareResult
    from attent_kit.engine.conduct.grid import CellGrid
    from attent_kit.engine.jobs.plan import Planned
    from attent_kit.errors import AttentKitError
    from attent_kit.report.compared import Compared
    from attent_kit.report.power import Power

ITEMS = ("rows", "shift", "audit")
"""Parts whose items are each named even without a terminal: one may take minutes."""

MANY_ROWS = 500
"""Of a grid that is printed run by run."""


class Screen(Watcher):
    """Prints what happens; with `as_json` the scores alone go to stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._say: Callable[[str], None] = Say()
        self._missing: list[Cell] = []
        self._printed = 0
        """Files that are named already."""

    def expanded(self, grid: "CellGrid") -> None:
        if self._as_json:
            _print_what_to_know(grid)
        else:
            print_grid(grid, as_json=False)

    @contextmanager
    def during(self, part: str) -> Iterator[ReportDone]:
        with bars((part, 0)) as (bar,):
            yield bar.count(part) if part in ITEMS else _counting(bar)

    @contextmanager
    def training(self, cells: "Sequence[Cell]") -> Iterator[None]:
        self._missing = [cell for cell in cells if not cell.done]
        with live_grid(cells) as self._say:
            yield

    def finished(self, cell: "Cell") -> None:
        done = sum(cell.done for cell in self._missing)
        self._say(f"{done} of {len(self._missing)} runs done: {cell.name}")

    def failed(self, cell: "Cell", error: "AttentKitError") -> None:
        self._say(f"FAILED: {cell.name}: {error}")

    def waiting(self, cell: "Cell") -> None:
        self._say(f"Waiting for another process that works on {cell.name}.")

    def warned(self, cell: "Cell", sentence: str) -> None:
        self._say(f"Warning: {cell.name}, {sentence}")

    def said(self, sentence: str) -> None:
        self._say(sentence)

    def scored(self, result: "CompareResult") -> None:
        if result.left_out:
            select = result.compared.select
            click.echo(f"Left out, since not run with --select {select}: {', '.join(result.left_out)}.", err=True)
        for sentence in result.unseen:
            click.echo(sentence, err=self._as_json)
        if self._as_json:
            print_scores(result.scores)
        else:
            _print_tables(result.compared)
            self._print_files(result)
        self._printed = len(result.files)

    def end(self, result: "CompareResult") -> "CompareResult":
        """Name what was made after the tables, and what went wrong beside the error that the command ends with."""
        for note in result.shift.notes if result.shift else ():
            click.echo(f"Note: {note}", err=self._as_json)
        self._print_files(result)
        for sentence in result.besides:
            click.echo(sentence, err=True)
        return result

    def _print_files(self, result: "CompareResult") -> None:
        for file in result.files[self._printed :]:
            click.echo(f"  {file}", err=self._as_json)
        self._printed = len(result.files)


def _seeds_together(rows: list[tuple[str, ...]], column: int) -> list[tuple[str, ...]]:
    """The rows of a grid that people can still read; of a larger one those that differ in the seed alone as one, its seeds,
    which stand in this column, as ranges: "0 to 99, 105"."""
    if len(rows) <= MANY_ROWS:
        return rows
    seeds_of: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        seeds_of.setdefault((*row[:column], *row[column + 1 :]), []).append(row[column])
    return [(*key[:column], ranges(seeds), *key[column:]) for key, seeds in seeds_of.items()]


def _seed_or_seeds(rows: list[tuple[str, ...]]) -> str:
    return "seed" if len(rows) <= MANY_ROWS else "seeds"


def ranges(seeds: "Sequence[str]") -> str:
    """Numbers with runs of them drawn together; what is no number as it is."""
    numbers = sorted(int(seed) for seed in seeds if seed.isdigit())
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    others = dict.fromkeys(seed for seed in seeds if not seed.isdigit())
    return ", ".join([*(" to ".join(map(str, run)) for run in runs), *others])


def print_grid(grid: "CellGrid", as_json: bool, jobs: "Sequence[Planned]" = ()) -> None:
    """What is done, what is to run, and the runs of other options, data or versions that these take the place of; and the jobs
    that do it, if a launcher starts them."""
    _print_what_to_know(grid)
    if as_json:
        of_run: dict[Path, list[Planned]] = {}
        for planned in jobs:
            of_run.setdefault(planned.cell.folder, []).append(planned)
        fields = ("row", "alignment", "direction", "seed", "folder", "done")
        print_json(
            [
                {f: getattr(c, f) for f in fields}
                | _fold(c)
                | _trials(c)
                | {"superseded": [*grid.superseded[c.folder]]}
                | _jobs_as_json(of_run.get(c.folder, ()))
                for c in grid.cells
            ]
            + [_external(e) | {"folder": e.folder, "done": e.done} for e in grid.externals]
        )
        return
    rows = []
    for c in grid.cells:
        names = [folder.relative_to(grid.out).as_posix() for folder in grid.superseded[c.folder]]
        kept = f"; superseded: {', '.join(names)}" if names else ""
        trials = f"{c.trials_left} trial{'s' if c.trials_left > 1 else ''}, then " if c.trials_left else ""
        what = ("done" if c.done else f"{trials}the run" if trials else "to run") + kept
        rows.append((c.row, c.alignment, c.direction, str(c.seed), *_fold(c).values(), what))
    folds = _fold(grid.cells[0]) if grid.cells else {}
    for e in grid.externals:
        what = "scored" if e.done else "to score"
        rows.append((e.row, EXTERNAL, e.direction, "-", *("all" for _ in folds), f"{what}; seen: {e.seen}"))
    count = len(grid.externals)
    others = f" and {count} external row{'s' if count > 1 else ''}" if count else ""
    title = f"{grid.title}: {len(grid.cells)} runs{others} in {grid.out}"
    print_table(
        title, ("row", "alignment", "direction", _seed_or_seeds(rows), *folds, ""), _seeds_together(rows, column=3)
    )
    if jobs:
        _print_jobs(grid, jobs)
    _print_power(grid.power)


def _print_jobs(grid: "CellGrid", jobs: "Sequence[Planned]") -> None:
    """Those that people can still read one by one; of more of them those of one row and direction together."""
    assert grid.launching is not None
    title = f"{len(jobs)} jobs of {grid.launching.name}, at most {grid.launching.jobs.queued} in the queue"
    if len(jobs) <= MANY_ROWS:
        names = {planned.job.name: planned.errand.file.stem for planned in jobs}
        rows = [(names[each.job.name], *_limits(each), _after(each, names)) for each in jobs]
        print_table(title, ("job", *LIMITS, "after"), rows)
        return
    names = {each.job.name: each.cell.row + ("" if each.until is None else " (first stage)") for each in jobs}
    alike = Counter((names[each.job.name], each.cell.direction, *_limits(each), _after(each, names)) for each in jobs)
    rows = [(*row[:2], str(count), *row[2:]) for row, count in alike.items()]
    print_table(title, ("row", "direction", "jobs", *LIMITS, "after"), rows)


LIMITS = ("GPUs", "cores", "minutes", "GiB")


def _limits(planned: "Planned") -> list[str]:
    job = planned.job
    return [_amount(value) for value in (job.gpus, job.cpus, job.minutes, job.memory)]


def _after(planned: "Planned", names: "Mapping[str, str]") -> str:
    return ", ".join(names.get(name, name) for name in planned.job.after)


def _jobs_as_json(jobs: "Sequence[Planned]") -> dict[str, list[dict[str, object]]]:
    """Those of one run; nothing where no launcher is used."""
    return {"jobs": [planned.job._asdict() for planned in jobs]} if jobs else {}


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def print_price(price: "Price", as_json: bool) -> None:
    """Stages, runs, and the time of all that is missing; ConfigError if a run cannot be run, unless a script reads it."""
    if as_json:
        print_json(
            {
                "seconds": price.seconds,
                "devices": price.devices,
                "devices_per_run": price.devices_per_run,
                "wall_seconds": price.wall(len(price.devices)),
                "disk": price.disk,
                "scaled_to": price.side,
                "power": {direction: power.as_json() for direction, power in price.power.items()},
                **({"launched": price.hours._asdict()} if price.hours is not None else {}),
                "stages": [{n: v for n, v in stage._asdict().items() if n != "recipe"} for stage in price.stages],
                "cells": [
                    {"row": c.cell.row, "direction": c.cell.direction, "seed": c.cell.seed, "done": c.cell.done}
                    | _fold(c.cell)
                    | {n: getattr(c, n) for n in ("seconds", "memory", "disk", "shares", "error")}
                    | _trials(c.cell)
                    for c in price.cells
                ],
                "external": [_external(e) | {"seconds": 0, "done": e.done} for e in price.externals],
            }
        )
        return
    stages = [
        (
            s.row, s.stage, str(s.batch_size), str(s.steps), f"{s.seconds_a_step:.3g}", duration(s.seconds),
            _mebibytes(s.memory),
        )
        for s in price.stages
    ]  # fmt: skip
    print_table("Stages", ("row", "stage", "batch size", "steps", "s per step", "time", "peak MiB"), stages)
    runs = [
        (
            c.cell.row, c.cell.direction, str(c.cell.seed), *_fold(c.cell).values(),
            "-" if c.seconds is None else duration(c.seconds), _mebibytes(c.memory), in_bytes(c.disk) if c.disk else "-",
            "done" if c.cell.done else c.error or "; ".join(_how(c)),
        )
        for c in price.cells
    ]  # fmt: skip
    folds = _fold(price.cells[0].cell) if price.cells else {}
    for e in price.externals:
        said = (duration(0), "-", "-", "external: scored, never trained")
        runs.append((e.row, e.direction, "-", *("all" for _ in folds), *said))
    head = ("row", "direction", _seed_or_seeds(runs), *folds, "time", "peak MiB", "disk", "")
    title = "Runs" if len(runs) <= MANY_ROWS else "Runs, with the time and disk of each"
    print_table(title, head, _seeds_together(runs, column=2))
    count = len(price.devices)
    over = f", over {_devices(count, price.devices_per_run)} about {duration(price.wall(count))}" if count > 1 else ""
    trials = f" and {price.trials} trials of the search before them" if price.trials else ""
    click.echo(
        f"{price.missing} runs to train{trials}, one after another about {duration(price.seconds)}{over}, predictions and "
        "snapshots not counted."
    )
    click.echo(f"Their weights and snapshots take {in_bytes(price.disk)} of disk; label maps and figures come on top.")
    if price.side is not None:
        side = min(stage.side for stage in price.stages)
        click.echo(
            f"Measured on slices of {side} x {side} pixels and scaled to {price.side} x {price.side} by their number of pixels, "
            "since a processor takes long for a step of that size. A GPU is measured as it is."
        )
    for sentence in filter(None, (price.hours and price.hours.sentence, price.unmeasured)):
        click.echo(sentence)
    _print_power(price.power)
    price.check()


def _print_power(foreseen: "Mapping[str, Power]") -> None:
    """What tests could see of the directions, those of one sentence together."""
    said: dict[str, list[str]] = {}
    for direction, power in foreseen.items():
        said.setdefault(power.sentence, []).append(direction)
    for sentence, directions in said.items():
        click.echo(f"{', '.join(directions)}: {sentence}")


def _fold(cell: "Cell") -> dict[str, str]:
    """The fold of a cell, as a column that is there only in a suite with folds."""
    return {"fold": str(cell.fold)} if str(cell.fold) else {}


def _external(each: "External") -> dict[str, Any]:
    """A row of label maps of another tool, for a script."""
    return {"row": each.row, "alignment": None, "direction": each.direction, "seed": None, "external": each.seen}


def _trials(cell: "Cell") -> dict[str, int]:
    """How many trials its search lacks, for a script; nothing where it has none to come."""
    return {} if cell.trials_left is None else {"trials_left": cell.trials_left}


def _devices(runs_at_once: int, devices_per_run: int) -> str:
    """ "2 devices", "4 devices, 2 for each run,"."""
    together = f", {devices_per_run} for each run," if devices_per_run > 1 else ""
    return f"{runs_at_once * devices_per_run} devices{together}"


def _how(cost: "CellCost") -> list[str]:
    """What its time is made of."""
    trials = [f"with {cost.trials} trial{'s' if cost.trials > 1 else ''}"] if cost.trials else []
    return [*trials, *([f"shares {cost.shares}"] if cost.shares else [])]


def _print_what_to_know(grid: "CellGrid") -> None:
    for sentence in (*grid.left_out, *grid.notes):
        click.echo(sentence, err=True)


def _print_tables(found: "Compared") -> None:
    from attent_kit.report.costs import COLUMNS, footnotes, texts

    for table in found.tables:
        console().print(table.shown.rich())
        for note in table.notes:
            click.echo(f"  {note}")
    if found.costs:
        print_table("Cost", COLUMNS, [texts(cost) for cost in found.costs])
        for footnote in footnotes(found.costs):
            click.echo(f"  {footnote}")
    click.echo(found.note)
    for note in found.power_notes:
        click.echo(f"Comparisons, in table.md: {note}")


def _counting(bar: Bar) -> ReportDone:
    """Tells a bar what is at hand; the first of something else begins it again."""

    def tell(what: str, done: int, total: int) -> None:
        if done <= 1:
            bar.reset(what, total)
        bar.to(done)

    return tell


def _mebibytes(memory: int | None) -> str:
    return "-" if memory is None else str(memory)
