"""`attentkit compare`."""

from pathlib import Path

import click
from rich.table import Table as RichTable

from attent_kit.cli.output import Bar, bars, console, duration, in_words, print_json, print_scores, print_table
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.config import read_toml
from attent_kit.errors import ConfigError, RunError, did_you_mean
from attent_kit.plugins import load


@click.command("compare")
@click.argument("suite", default="phantom")
@click.option("--variant", help="Variant of the suite, from its [variants].")
@click.option("--alignments", "-m", help="Comma-separated; an alignment that is no row of the suite becomes one.")
@click.option("--seeds", help="Comma-separated, in place of the suite's.")
@click.option("--directions", help="Comma-separated, for example mr2ct,ct2mr.")
@click.option("--set", "words", multiple=True, metavar="OPTION=VALUE", help="For every row that has the option.")
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder of all results.  [runs/NAME]")
@click.option("--dry-run", is_flag=True, help="Print the grid and stop.")
@click.option(
    "--plan", "price", is_flag=True, help="Measure a few steps of each row, print what all would cost, and stop."
)
@click.option("--reference", metavar="LABEL", help="Row that the others are tested against.  [the suite's first]")
@click.option("--slide-test", is_flag=True, help="Add the test that the slides of AttENT seem to have used.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print grid or scores as JSON.")
def command(
    suite: str, variant: str | None, alignments: str | None, seeds: str | None, directions: str | None,
    words: tuple[str, ...], device: str, out: Path | None, dry_run: bool, price: bool,
    reference: str | None, slide_test: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run what is missing of a comparison and print its table.

    SUITE is a TOML file or the name of an installed suite (`attentkit list suites`); without it the small phantom runs,
    MR to CT. Stop and restart it as you like. The results lie in --out: table.md, table.csv, scores.csv, comparisons.csv,
    figure-mr2ct.png, and for three rows or more ranks.csv and ranks-mr2ct-dice.png.
    """
    from attent_kit.data.prepared import Prepared
    from attent_kit.engine.compare import Watch, domain_files, make_data, run_cells
    from attent_kit.engine.device import launch
    from attent_kit.engine.provenance import explained
    from attent_kit.engine.results import collect, labels_in
    from attent_kit.engine.showcase import panels
    from attent_kit.engine.suite import expand, narrow, read_suite, refuse_another_split
    from attent_kit.report.comparisons import choose_reference
    from attent_kit.report.published import read_published
    from attent_kit.report.render import render

    registry = load().registry
    if suite.endswith(".toml") or suite in [component.name for component in registry.of("suites")]:
        path = Path(suite if suite.endswith(".toml") else str(registry.find("suites", suite).target))
    else:
        names = [component.name for component in registry.of("suites")]
        raise ConfigError(
            f"'{suite}' is neither a .toml file nor an installed suite.{did_you_mean(suite, names)} "
            f"`attentkit list suites` shows those."
        )
    try:
        whole = read_suite(path, registry, variant)
        chosen = narrow(whole, registry, _words(alignments), _numbers(seeds), _words(directions))
    except ConfigError as error:
        raise explained(error, out or Path("runs", str(read_toml(path).get("name", ""))), registry) from None
    out = out or Path("runs", chosen.name)
    files = domain_files(chosen, out)
    cells = expand(chosen, registry, files, out, words)
    if reference is not None:
        # A wrong label is met before anything is trained.
        choose_reference(reference, [*dict.fromkeys([*(cell.row for cell in cells), *labels_in(out)])])
    launch(device)
    for file in files.values() if chosen.phantom is None else ():
        refuse_another_split(chosen, Prepared.open(file))
    if price:
        _plan(chosen, cells, registry, device, as_json)
        return
    if dry_run and as_json:
        fields = ("row", "alignment", "direction", "seed", "folder", "done")
        print_json([{f: getattr(cell, f) for f in fields} for cell in cells])
        return
    if not as_json:
        _print_grid(f"{chosen.title or chosen.name}: {len(cells)} runs in {out}", cells)
    if dry_run:
        return
    missing = [cell for cell in cells if not cell.done]
    with bars(("grid", len(missing)), ("data", 0)) as (grid, bar):
        watch = Watch(
            data=lambda what, done, total: _data(bar, what, done, total),
            started=lambda cell, steps: bar.reset(f"{cell.row}, {cell.direction}, seed {cell.seed}", steps),
            progress=lambda cell, p: _progress(bar, p),
            finished=lambda cell: _finished(grid, cell, missing),
            failed=lambda cell, error: grid.say(f"FAILED: {cell.row}, {cell.direction}, seed {cell.seed}: {error}"),
            waiting=lambda cell: bar.reset(f"waiting for another process at {cell.row}, {cell.direction}", 0),
        )
        make_data(chosen, out, watch)
        failed = run_cells(cells, registry, out, device, watch)
    results = collect(out, whole, cells, registry)
    targets = {cell.direction: Prepared.open(cell.settings.data.target) for cell in cells}
    seen = sorted({c.id for t in targets.values() for c in t.cases if {"train", "test"} <= set(c.splits)})
    note = chosen.note + (f" Target cases both trained on and tested: {', '.join(seen)}." if seen else "")
    made = render(
        chosen.title or chosen.name,
        note,
        results.methods,
        results.scores,
        read_published(chosen.published) if chosen.published else [],
        {direction: panels(cells, direction) for direction in targets},
        results.titles,
        next(iter(targets.values())).organs,
        out,
        reference,
        slide_test,
    )
    if as_json:
        print_scores(results.scores)
    else:
        for table in made.tables:
            console().print(_rich(table))
            for footnote in table.footnotes:
                click.echo(f"  {footnote}")
        click.echo(note)
        for warning in made.warnings:
            click.echo(f"Comparisons, in table.md: {warning}")
        for file in made.files:
            click.echo(f"  {file}")
    if failed:
        runs = "\n".join(f"  {cell.row}, {cell.direction}, seed {cell.seed}: {error}" for cell, error in failed)
        raise RunError(f"{len(failed)} of {len(cells)} runs failed; the table shows the others.\n{runs}")


def _plan(suite, cells, registry, device: str, as_json: bool) -> None:  # type: ignore[no-untyped-def]
    from attent_kit.engine.plan import plan

    with bars(("rows", 0)) as (bar,):
        planned = plan(suite, cells, registry, device, lambda row, done, total: _data(bar, row, done, total))
    if as_json:
        print_json(
            {
                "seconds": planned.seconds,
                "stages": [{n: v for n, v in stage._asdict().items() if n != "recipe"} for stage in planned.stages],
                "cells": [
                    {"row": c.cell.row, "direction": c.cell.direction, "seed": c.cell.seed, "done": c.cell.done}
                    | {n: v for n, v in c._asdict().items() if n != "cell"}
                    for c in planned.cells
                ],
            }
        )
        return
    stages = [
        (
            s.row,
            s.stage,
            str(s.batch_size),
            str(s.steps),
            f"{s.seconds_a_step:.3g}",
            duration(s.seconds),
            _mebibytes(s.memory),
        )
        for s in planned.stages
    ]
    print_table("Stages", ("row", "stage", "batch size", "steps", "s a step", "time", "peak MiB"), stages)
    runs = [
        (
            c.cell.row, c.cell.direction, str(c.cell.seed), "-" if c.seconds is None else duration(c.seconds),
            _mebibytes(c.memory), "done" if c.cell.done else c.error or (f"shares {c.shares}" if c.shares else ""),
        )
        for c in planned.cells
    ]  # fmt: skip
    print_table("Runs", ("row", "direction", "seed", "time", "peak MiB", ""), runs)
    missing = sum(not cell.done for cell in cells)
    click.echo(
        f"{missing} runs to train, one after the other about {duration(planned.seconds)}, predictions not counted."
    )
    failed = sum(c.error is not None for c in planned.cells)
    if failed:
        raise ConfigError(f"{failed} of {len(cells)} runs cannot be run as they are set; the table says why.")


def _mebibytes(memory: int | None) -> str:
    return "-" if memory is None else str(memory)


def _print_grid(title: str, cells) -> None:  # type: ignore[no-untyped-def]
    rows = [(c.row, c.alignment, c.direction, str(c.seed), "done" if c.done else "to run") for c in cells]
    print_table(title, ("row", "alignment", "direction", "seed", ""), rows)


def _data(bar: Bar, what: str, done: int, total: int) -> None:
    if done <= 1:
        bar.reset(what, total)
    bar.to(done)


def _progress(bar: Bar, progress) -> None:  # type: ignore[no-untyped-def]
    bar.to(progress.step, f"{progress.stage}  {in_words(progress.losses)}" if progress.losses else None)


def _finished(grid: Bar, cell, missing) -> None:  # type: ignore[no-untyped-def]
    done = sum(c.done for c in missing)
    grid.to(done)
    grid.say(f"{done} of {len(missing)} runs done: {cell.row}, {cell.direction}, seed {cell.seed}")


def _rich(table) -> RichTable:  # type: ignore[no-untyped-def]
    from attent_kit.report.table import cell_text

    rich = RichTable(title=table.title, title_justify="left", title_style="bold", header_style="bold")
    rich.add_column("method")
    for organ in table.organs:
        rich.add_column(organ, justify="right")
    for label, cells in table.rows:
        texts = [cell_text(cell, table.scale, table.count) for cell in cells]
        rich.add_row(
            label, *(f"[bold green]{t}[/]" if b == label else t for t, b in zip(texts, table.best, strict=True))
        )
    return rich


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise ConfigError(f"--seeds {text}: write whole numbers, for example 0,1,2.") from None
