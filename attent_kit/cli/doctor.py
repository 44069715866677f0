"""`attentkit doctor`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.cli.output import bars, in_bytes, print_json, print_table
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.errors import ConfigError

if TYPE_CHECKING:
    from attent_kit.engine.conduct.doctor import Doctor
    from attent_kit.engine.run.dropped import Keep
    from attent_kit.engine.study.machine import Machine
    from attent_kit.engine.study.upkeep import Cleaned, Upkeep


@click.command("doctor")
@click.argument("place", required=False, type=click.Path(path_type=Path, exists=True), metavar="[DIR]")
@click.option("--clean", is_flag=True, help="Delete what may go, after asking.")
@click.option(
    "--keep", type=click.Choice(["all", "training", "prediction"]), default="all", show_default=True,
    help="What finished runs keep: all, what training needs (no snapshots), or what prediction needs (no checkpoint, too).",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(place: Path | None, clean: bool, keep: "Keep", yes: bool, as_json: bool) -> None:
    """Show what this machine offers: devices, precision, memory, disk, decoders, extras, and plugins that do not load.

    Of DIR, the folder of a comparison or a run, or a prepared file, it reads every file, and shows what is damaged, unfinished,
    held by a living process, or superseded, and what may be deleted to free how much. --clean deletes just that: leftovers of
    killed processes, and runs in whose place the comparison shows others. With --keep, so may what finished runs have beyond
    that; they stay finished, and predict as they did.

    Exit code 3 if something is damaged.
    """
    from attent_kit.door import doctor

    if clean and place is None:
        raise ConfigError("--clean: name the folder of results, as in `attentkit doctor runs/mine --clean`.")
    if keep != "all" and place is None:
        raise ConfigError(
            f"--keep {keep}: name the folder of results, as in `attentkit doctor runs/mine --keep {keep}`."
        )
    if clean and not yes and (as_json or not sys.stdin.isatty()):
        raise ConfigError("--clean asks before it deletes, and there is nobody to ask here: type --yes as well.")
    with bars(("doctor", 0)) as (bar,):
        found = doctor(place, keep=keep, tell=bar.count("doctor"))
    if not as_json:
        _print(found, keep)
    results, cleaned = found.results, None
    if clean and results is not None and results.removable:
        if not yes:
            click.confirm(f"Delete {_things(len(results.removable))} for {in_bytes(results.freed)}?", abort=True)
        cleaned = found.clean()
    if as_json:
        print_json(_plain(found, cleaned))
    elif cleaned is not None:
        click.echo(f"Deleted {_things(len(cleaned.removed))}.")
        for path, why in cleaned.kept:
            click.echo(f"Kept: {path}: {why}.", err=True)
    raise click.exceptions.Exit(3 if results is not None and results.damaged else 0)


def _print(found: "Doctor", keep: "Keep") -> None:
    print_table("", ("this machine", ""), _rows(found.machine))
    if found.machine.set_aside:
        print_table("Plugins that do not load", ("plugin", "why"), [*found.machine.set_aside.items()])
    if found.results is not None:
        click.echo()
        _print_results(found.results, keep)


def _rows(m: "Machine") -> list[tuple[str, str]]:
    unread = [name for name, readable in m.codecs.items() if not readable]
    missing = {extra: names for extra, names in m.extras.items() if names}
    codecs = f"{len(m.codecs) - len(unread)} of {len(m.codecs)}" + (f"; not {', '.join(unread)}" if unread else "")
    extras = ", ".join(extra for extra in m.extras if extra not in missing) or "none"
    if missing:
        extras += "; not " + ", ".join(f"{extra} (lacks {', '.join(names)})" for extra, names in missing.items())
    return [
        ("python", f"{m.python} on {m.platform}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in m.packages.items())),
        *((name, words) for name, words in m.devices.items()),
        ("--device auto", f"{m.auto}, {m.precision}" + ("" if m.computes else ", but it does not compute")),
        ("threads", str(m.threads)),
        ("free memory", in_bytes(m.memory_free)),
        ("free disk", f"{in_bytes(m.disk_free)} at {m.disk.absolute()}"),
        ("DICOM decoders", codecs if m.codecs else "none: pip install 'attent-kit[dicom]'"),
        ("extras", extras),
    ]


def _print_results(results: "Upkeep", keep: "Keep") -> None:
    from attent_kit.cli.live import lines, summary

    click.echo(f"{results.place}: {in_bytes(results.bytes)}.")
    if results.states:
        click.echo(summary(results.states))
        for line in lines(results.states):
            click.echo(line)
    for damaged in results.damaged:
        said = damaged.sentence if str(damaged.path) in damaged.sentence else f"{damaged.path}: {damaged.sentence}"
        click.echo(f"Damaged: {said}")
    for removable in results.removable:
        click.echo(f"May go: {removable.path} ({in_bytes(removable.bytes)}): {removable.why}")
    if not results.damaged:
        click.echo("Nothing is damaged.")
    if results.removable:
        what = f"{_things(len(results.removable))} may be deleted for {in_bytes(results.freed)}"
        more = "" if keep == "all" else f" --keep {keep}"
        click.echo(f"{what}: attentkit doctor {results.place}{more} --clean")


def _plain(found: "Doctor", cleaned: "Cleaned | None") -> dict[str, object]:
    results = found.results
    return {
        "machine": found.machine._asdict(),
        "results": None
        if results is None
        else {
            "place": results.place,
            "bytes": results.bytes,
            "states": [state._asdict() for state in results.states],
            "damaged": [damaged._asdict() for damaged in results.damaged],
            "removable": [removable._asdict() for removable in results.removable],
            "freed": results.freed,
        },
        "deleted": None if cleaned is None else [str(removed.path) for removed in cleaned.removed],
        "kept": None if cleaned is None else [{"path": path, "why": why} for path, why in cleaned.kept],
    }


def _things(number: int) -> str:
    return f"{number} thing{'' if number == 1 else 's'}"
