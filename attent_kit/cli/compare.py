"""`attentkit compare`."""

from pathlib import Path

import click
from rich.table import Table as RichTable
from rich.text import Text

from attent_kit.cli.live import live_grid
from attent_kit.cli.output import Bar, bars, console, duration, listed, print_json, print_scores, print_table
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.config import read_toml
from attent_kit.errors import AttentKitError, ConfigError, DataError, RunError, did_you_mean
from attent_kit.plugins import load


@click.command("compare")
@click.argument("suite", default="phantom")
@click.option("--variant", help="Variant of the suite, from its [variants].")
@click.option("--alignments", "-m", help="Comma-separated; an alignment that is no row of the suite becomes one.")
@click.option("--seeds", help="Comma-separated, in place of the suite's.")
@click.option("--directions", help="Comma-separated, for example mr2ct,ct2mr.")
@click.option("--set", "words", multiple=True, metavar="OPTION=VALUE", help="For every row that has the option.")
@click.option(
    "--vary",
    "varied",
    multiple=True,
    metavar="OPTION=A,B",
    help="A row for each value, of every row that has the option.",
)
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--devices", help="Comma-separated, a process each: 0,1 or cuda:0,cuda:1 or cpu,cpu.")
@click.option(
    "--ablate", metavar="NAMES", help="Alignments to take apart: with all their terms, and without each of them."
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder of all results.  [runs/NAME]")
@click.option("--dry-run", is_flag=True, help="Print the grid and stop.")
@click.option(
    "--plan", "price", is_flag=True, help="Measure a few steps of each row, print what all would cost, and stop."
)
@click.option(
    "--select", default="last", show_default=True, metavar="NAME",
    help="Snapshot that counts: last, a selector (`attentkit list selectors`), or target-oracle.",
)  # fmt: skip
@click.option("--reference", metavar="LABEL", help="Row that the others are tested against.  [the suite's first]")
@click.option("--slide-test", is_flag=True, help="Add the test that the slides of AttENT seem to have used.")
@plugin_option
@click.option("--track", metavar="NAMES", help="Comma-separated trackers, for example tensorboard,wandb.")
@click.option(
    "--shift",
    is_flag=True,
    help="Then measure the shift of each run and audit its translation, at the end of training.",
)
@click.option("--no-report", is_flag=True, help="Leave out report.html, table.tex, pairs.csv and figures/.")
@click.option("--json", "as_json", is_flag=True, help="Print grid or scores as JSON.")
def command(
    suite: str, variant: str | None, alignments: str | None, seeds: str | None, directions: str | None,
    words: tuple[str, ...], varied: tuple[str, ...], device: str, devices: str | None, ablate: str | None, out: Path | None,
    dry_run: bool, price: bool, select: str, reference: str | None, slide_test: bool, track: str | None, shift: bool,
    no_report: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run what is missing of a comparison and print its table.

    SUITE is a TOML file or the name of an installed suite (`attentkit list suites`); without it the small phantom runs,
    MR to CT. Stop and restart it as you like, also in several processes at once. The results lie in --out: report.html,
    table.md, table.csv, table.tex, scores.csv, comparisons.csv, pairs.csv, figure-mr2ct.png, and for three rows or more
    ranks.csv and ranks-mr2ct-dice.png.

    A cell is known by its options, its data and the versions of its code: another row, seed or direction runs what is missing,
    and where options of a row change, that row alone is trained again and its earlier runs are kept beside. Another --select
    trains nothing again.
    """
    from attent_kit.data.prepared.file import Prepared
    from attent_kit.engine.compare.ablation import ablate as take_apart
    from attent_kit.engine.compare.cells import domain_files, make_data, refuse_what_cannot_run
    from attent_kit.engine.compare.content import located
    from attent_kit.engine.compare.costs import measure_costs, read_costs
    from attent_kit.engine.compare.results import collect, labels_in, standing
    from attent_kit.engine.compare.results_folder import remember
    from attent_kit.engine.compare.suite import expand, joined, narrow, read_suite, refuse_another_split
    from attent_kit.engine.compare.vary import vary
    from attent_kit.engine.publish.panels import panels
    from attent_kit.engine.publish.report import write_report
    from attent_kit.engine.run.device import launch
    from attent_kit.engine.run.heartbeat import in_a_sentence
    from attent_kit.engine.run.provenance import explained
    from attent_kit.engine.run.status import write_grid
    from attent_kit.engine.snapshots.selection import refuse_unknown
    from attent_kit.engine.train.tracking import find_trackers
    from attent_kit.report.compared import ScoredRows, compared, daggered
    from attent_kit.report.comparisons import choose_reference
    from attent_kit.report.published import read_published
    from attent_kit.report.render import render
    from attent_kit.report.table import mark

    registry = load().registry
    path = _file_of(suite, registry)
    try:
        whole = read_suite(path, registry, variant)
        chosen = narrow(whole, registry, listed(alignments), _numbers(seeds), listed(directions))
    except ConfigError as error:
        raise explained(error, out or Path("runs", str(read_toml(path).get("name", ""))), registry) from None
    out = out or Path("runs", chosen.name)
    files = domain_files(chosen, out)
    refuse_unknown(select, registry)
    if ablate is not None:
        apart = take_apart(chosen, listed(ablate), registry, words, alone=not alignments)
        chosen, reference = apart.suite, reference or apart.full
        for sentence in apart.left_out:
            click.echo(sentence, err=True)
    chosen = vary(chosen, registry, files, out, varied, words)
    whole = joined(whole, chosen)
    cells = located(expand(chosen, registry, files, out, words, select), registry)
    if reference is not None:
        # A wrong label is met before anything is trained.
        there = labels_in(out, whole, registry, words)
        choose_reference(reference, [*dict.fromkeys([*(cell.row for cell in cells), *there])])
    trackers = find_trackers(listed(track), registry)
    several = _devices(device, devices)
    for one in several:
        launch(one)
    for file in files.values() if chosen.phantom is None else ():
        refuse_another_split(chosen, Prepared.open(file))
    if price:
        _plan(chosen, cells, registry, several, as_json)
        return
    if dry_run or not as_json:
        _print_grid(f"{chosen.title or chosen.name}: {len(cells)} runs in {out}", cells, registry, out, as_json)
    if dry_run:
        return
    if chosen.phantom is not None:
        with bars(("data", 0)) as (bar,):
            make_data(chosen, out, lambda what, done, total: _data(bar, what, done, total))
    refuse_what_cannot_run(cells, registry)
    cells = located(cells, registry)
    write_grid(out, cells)
    remember(out, whole, [*cells, *standing(out, whole, registry, words, select)], reference, select)
    failed = _run(cells, registry, out, several, listed(track), trackers)
    cells = located(cells, registry)
    if varied:
        with bars(("cost", 0)) as (bar,):
            measure_costs(cells, registry, several[0], lambda what, done, total: _data(bar, what, done, total))
    results = collect(out, whole, cells, registry, words, select)
    if results.left_out:
        click.echo(f"Left out, since not run with --select {select}: {', '.join(results.left_out)}.", err=True)
    costs = read_costs(out, [method.label for method in results.methods])
    targets = {cell.direction: Prepared.open(cell.settings.data.target) for cell in cells}
    seen = sorted({c.id for t in targets.values() for c in t.cases if {"train", "test"} <= set(c.splits)})
    note = chosen.note + (f" Target cases both trained on and tested: {', '.join(seen)}." if seen else "")
    scored = ScoredRows(
        chosen.title or chosen.name,
        note,
        results.scores,
        results.methods,
        results.titles,
        next(iter(targets.values())).organs,
        select,
        results.outcomes,
        read_published(chosen.published) if chosen.published else [],
        costs,
    )
    found = compared(daggered(scored), None if reference is None else mark(reference, select), slide_test)
    files = render(found, {direction: panels(cells, direction) for direction in targets}, out)
    for sentence in results.unseen:
        click.echo(sentence, err=as_json)
    if as_json:
        print_scores(results.scores)
    else:
        _print_tables(found, files)
    unmeasured = _shift(out, registry, several[0], as_json) if shift and results.scores else None
    try:
        for file in () if no_report else write_report(out, registry, reference, found):
            click.echo(f"  {file}", err=as_json)
    except AttentKitError as error:
        if not (failed or results.damaged or unmeasured):
            raise
        click.echo(f"No report: {error}", err=True)
    if unmeasured and (failed or results.damaged):
        click.echo(f"Shift: {in_a_sentence(unmeasured)}", err=True)
    if failed:
        runs = "\n".join(f"  {_name(cell)}: {error}" for cell, error in failed)
        damaged = "".join(f"\n{sentence}" for sentence in results.damaged)
        raise RunError(f"{len(failed)} of {len(cells)} runs failed; the table shows the others.\n{runs}{damaged}")
    if results.damaged:
        raise DataError("\n".join(["some scores cannot be read; the table shows the others.", *results.damaged]))
    if unmeasured:
        raise unmeasured


def _file_of(suite: str, registry) -> Path:  # type: ignore[no-untyped-def]
    names = [component.name for component in registry.of("suites")]
    if suite.endswith(".toml"):
        return Path(suite)
    if suite in names:
        return Path(str(registry.find("suites", suite).target))
    raise ConfigError(
        f"'{suite}' is neither a .toml file nor an installed suite.{did_you_mean(suite, names)} "
        f"`attentkit list suites` shows those."
    )


def _run(cells, registry, out: Path, devices: list[str], tracked: list[str], trackers):  # type: ignore[no-untyped-def]
    """Train and score what is missing, and say how far it is; the cells that failed, each with its error."""
    from attent_kit.engine.compare.cells import Watch, run_cells
    from attent_kit.engine.compare.launch import run_on

    missing = [cell for cell in cells if not cell.done]
    with live_grid(cells) as say:
        watch = Watch(
            finished=lambda cell: say(_finished(cell, missing)),
            failed=lambda cell, error: say(f"FAILED: {_name(cell)}: {error}"),
            waiting=lambda cell: say(f"Waiting for another process at {_name(cell)}."),
            warned=lambda cell, sentence: say(f"Warning: {_name(cell)}, {sentence}"),
        )
        if len(devices) > 1:
            return run_on(devices, cells, registry, out, watch, say, tracked)
        return run_cells(cells, registry, out, devices[0], watch, trackers)


def _print_tables(found, files) -> None:  # type: ignore[no-untyped-def]
    from attent_kit.report.costs import COLUMNS, footnotes, texts

    for table in found.tables:
        console().print(_rich(table))
        for footnote in table.footnotes:
            click.echo(f"  {footnote}")
    if found.costs:
        print_table("Cost", COLUMNS, [texts(cost) for cost in found.costs])
        for footnote in footnotes(found.costs):
            click.echo(f"  {footnote}")
    click.echo(found.note)
    for warning in found.warnings:
        click.echo(f"Comparisons, in table.md: {warning}")
    for file in files:
        click.echo(f"  {file}")


def _shift(out: Path, registry, device: str, as_json: bool) -> Exception | None:  # type: ignore[no-untyped-def]
    """Write and name what `attentkit shift` and `attentkit audit` would of the same folder; what went wrong, if anything did.

    Table and report are there whatever becomes of this.
    """
    from attent_kit.engine.study.runs import refuse_failed
    from attent_kit.engine.study.shift import Meter, shift_of_comparison
    from attent_kit.engine.study.translation_audit import (
        TranslatesNothing,
        TranslationAuditOptions,
        TranslationAudits,
        audit_translations,
    )

    try:
        with bars(("shift", 0)) as (bar,):
            measured = shift_of_comparison(out, Meter(registry, device), bar.count("shift"))
            try:
                audited = audit_translations(TranslationAuditOptions(out, device=device), registry, bar.count("audit"))
            except TranslatesNothing:
                audited = TranslationAudits({}, [])
        for note in measured.notes:
            click.echo(f"Note: {note}", err=as_json)
        for file in (*measured.files, *(audit.files[2] for audit in audited.audits.values())):
            click.echo(f"  {file}", err=as_json)
        # A run that neither can be made of is one run.
        refuse_failed([*dict([*audited.failed, *measured.failed]).items()])
    except Exception as error:
        return error
    return None


def _plan(suite, cells, registry, devices: list[str], as_json: bool) -> None:  # type: ignore[no-untyped-def]
    from attent_kit.engine.compare.price import plan

    with bars(("rows", 0)) as (bar,):
        planned = plan(suite, cells, registry, devices[0], lambda row, done, total: _data(bar, row, done, total))
    if as_json:
        print_json(
            {
                "seconds": planned.seconds,
                "devices": devices,
                "wall_seconds": planned.wall(len(devices)),
                "stages": [{n: v for n, v in stage._asdict().items() if n != "recipe"} for stage in planned.stages],
                "cells": [
                    {"row": c.cell.row, "direction": c.cell.direction, "seed": c.cell.seed, "done": c.cell.done}
                    | {n: getattr(c, n) for n in ("seconds", "memory", "shares", "error")}
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
    over = f", over {len(devices)} devices about {duration(planned.wall(len(devices)))}" if len(devices) > 1 else ""
    click.echo(
        f"{missing} runs to train, one after the other about {duration(planned.seconds)}{over}, predictions and snapshots not "
        f"counted."
    )
    failed = sum(c.error is not None for c in planned.cells)
    if failed:
        raise ConfigError(f"{failed} of {len(cells)} runs cannot be run as they are set; the table says why.")


def _mebibytes(memory: int | None) -> str:
    return "-" if memory is None else str(memory)


def _print_grid(title: str, cells, registry, out: Path, as_json: bool) -> None:  # type: ignore[no-untyped-def]
    """What is done, what is to run, and the runs of other options, data or versions that these take the place of."""
    from attent_kit.engine.compare.content import superseded

    older = {cell.folder: superseded(cell, registry) for cell in cells}
    if as_json:
        fields = ("row", "alignment", "direction", "seed", "folder", "done")
        print_json([{f: getattr(c, f) for f in fields} | {"superseded": [*older[c.folder]]} for c in cells])
        return
    rows = []
    for c in cells:
        names = [folder.relative_to(out).as_posix() for folder in older[c.folder]]
        kept = f"; superseded: {', '.join(names)}" if names else ""
        rows.append((c.row, c.alignment, c.direction, str(c.seed), ("done" if c.done else "to run") + kept))
    print_table(title, ("row", "alignment", "direction", "seed", ""), rows)


def _data(bar: Bar, what: str, done: int, total: int) -> None:
    if done <= 1:
        bar.reset(what, total)
    bar.to(done)


def _name(cell) -> str:  # type: ignore[no-untyped-def]
    return f"{cell.row}, {cell.direction}, seed {cell.seed}"


def _finished(cell, missing) -> str:  # type: ignore[no-untyped-def]
    return f"{sum(c.done for c in missing)} of {len(missing)} runs done: {_name(cell)}"


def _devices(device: str, devices: str | None) -> list[str]:
    """What --devices names, "1" as cuda:1; --device where it is not given."""
    if devices is None:
        return [device]
    if device != "auto":
        raise ConfigError("--device and --devices: give one of them.")
    names = [f"cuda:{word}" if word.isdigit() else word for word in listed(devices)]
    if not names:
        raise ConfigError("--devices: name at least one, for example --devices cuda:0,cuda:1.")
    return names


def _rich(table) -> RichTable:  # type: ignore[no-untyped-def]
    from attent_kit.report.table import cell_text

    rich = RichTable(title=Text(table.title), title_justify="left", title_style="bold", header_style="bold")
    rich.add_column("method")
    for organ in table.organs:
        rich.add_column(Text(organ), justify="right")
    rich.add_column("selection")
    for (label, cells), stamp in zip(table.rows, table.stamps, strict=True):
        texts = [cell_text(cell, table.scale, table.count) for cell in cells]
        marked = (Text(t, style="bold green" if label in b else "") for t, b in zip(texts, table.best, strict=True))
        rich.add_row(Text(label), *marked, stamp)
    return rich


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(word) for word in listed(text)]
    except ValueError:
        raise ConfigError(f"--seeds {text}: write whole numbers, for example 0,1,2.") from None
