"""`attentkit backbones`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from attent_kit.cli.output import bars, console, print_json, print_table
from attent_kit.errors import ConfigError
from attent_kit.plugins import load

if TYPE_CHECKING:
    from attent_kit.engine.backbones.backbones import Found, Use


@click.command("backbones")
@click.argument("pattern", default="")
@click.option("--max-params", metavar="NUMBER", help="Only backbones of at most NUMBER parameters, as in 30M.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(pattern: str, max_params: str | None, as_json: bool) -> None:
    """List what segmentors can be built on: encoders, architectures, whole networks.

    PATTERN is part of a name or a glob, as in convnext or 'tu-*_tiny'; without it, all are listed. Nothing is downloaded.
    Results are remembered, so that the next call answers at once.
    """
    from attent_kit.engine.backbones.backbones import find

    most = None if max_params is None else _number(max_params)
    with bars(("backbones", 0)) as (bar,):
        found = find(load().registry, pattern, most, bar.count("backbones"))
    if as_json:
        print_json([_plain(each) for each in found])
        return
    for part in dict.fromkeys(each.backbone.part for each in found):
        own = [each for each in found if each.backbone.part == part]
        rows = [_row(each) for each in own if not each.backbone.refused]
        columns = ("name", "segmentor", "parameters", "strides", "pretrained weights", "goes with", "alignments", "")
        if rows:
            print_table(f"{part}s: {len(rows)}", columns, rows)
        for each in own:
            if each.backbone.refused:
                console().print(f"{each.name} cannot be used: {each.backbone.refused}", markup=False)
        for reason in dict.fromkeys(
            f"{use.alignment}: {use.refused}" for each in own for use in each.uses if use.refused
        ):
            console().print(f"Refused by {reason}", markup=False)
    if not found:
        click.echo(f"None of these has {max_params} parameters or fewer.")
        return
    usable = next((each for each in found if not each.backbone.refused), None)
    if usable is not None:
        options = "".join(f" --set segmentor.{name}={value}" for name, value in usable.backbone.options.items())
        click.echo(f"Choose one with --set segmentor={usable.segmentor}{options}, for example.")


def _row(each: "Found") -> tuple[str, ...]:
    b = each.backbone
    weights = {"here": f"here: {', '.join(each.here)}", "download": "to download", "none": "none"}[each.weights]
    return (
        each.name, each.segmentor, _in_millions(b.parameters), " ".join(map(str, b.strides)),
        weights if b.part == "encoder" or b.weights else "-", b.fits or "-", _in_words(each.uses), b.note,
    )  # fmt: skip


def _in_words(uses: Sequence["Use"]) -> str:
    """Which alignments take it: "all", with what else must be set, and which do not."""
    refused = [use.alignment for use in uses if use.refused]
    words = ["all" if not refused else f"all but {', '.join(refused)}" if len(refused) < len(uses) else "none"]
    for use in uses:
        if use.options:
            words.append(f"{use.alignment} with {' '.join(f'{name}={value}' for name, value in use.options.items())}")
    return "; ".join(words)


def _in_millions(parameters: int | None) -> str:
    return (
        "-" if parameters is None else f"{parameters / 1e6:.2f} M" if parameters < 1e7 else f"{parameters / 1e6:.1f} M"
    )


def _plain(each: "Found") -> dict[str, Any]:
    known = each.backbone.model_dump()
    return {
        "name": each.name, "segmentor": each.segmentor, **known, "weights": sorted(known["weights"]),
        "weights_are": each.weights, "weights_here": list(each.here), "alignments": [use._asdict() for use in each.uses],
    }  # fmt: skip


def _number(text: str) -> int:
    """30M, 1.5e6, 800k, 1B."""
    found = re.fullmatch(r"([\d.]+(?:e\d+)?)\s*([kmgb]?)", text.strip().lower())
    try:
        assert found is not None
        return int(float(found[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}[found[2]])
    except (AssertionError, ValueError, OverflowError):
        raise ConfigError(f"--max-params {text}: give a number of parameters, as in 30M or 800k.") from None
