"""`attentkit show`."""

from collections.abc import Iterator
from typing import Any

import click
from rich.text import Text

from attent_kit.cli.output import console, print_json, print_table
from attent_kit.describe import facts_of, options_of, presets_of, terms_of
from attent_kit.errors import UnknownComponent, did_you_mean
from attent_kit.plugins import load
from attent_kit.registry import CLASS_KINDS, KINDS


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, as_json: bool) -> None:
    """Show what NAME is and its options, each with default, meaning and unit."""
    registry = load().registry
    found = [registry.find(kind, name) for kind in CLASS_KINDS if name in [c.name for c in registry.of(kind)]]
    if not found:
        names = [c.name for kind in CLASS_KINDS for c in registry.of(kind)]
        raise UnknownComponent(f"nothing is called '{name}'.{did_you_mean(name, names)} `attentkit list` shows all.")
    if as_json:
        print_json(
            [
                {
                    "kind": c.kind,
                    "name": c.name,
                    "options": options_of(c),
                    "presets": presets_of(c),
                    "terms": terms_of(c),
                }
                for c in found
            ]
        )
        return
    for component in found:
        console().print(
            Text.assemble((component.name, "bold"), f", one of the {component.kind}, of {component.origin}")
        )
        console().print(component.summary(), markup=False)
        for what, fact in facts_of(component):
            console().print(f"{what}: {fact}", markup=False)
        presets, options = presets_of(component), options_of(component)
        rows = [
            (o["name"], o["default"], *(_of_preset(preset, o) for preset in presets.values()), o["meaning"])
            for o in options
        ]
        if rows or component.kind in KINDS:
            print_table("", ("option", "default", *(f"preset {name}" for name in presets), "meaning"), rows)
        if terms := terms_of(component):
            off = [(term, ", ".join(_flat(options))) for term, options in terms.items()]
            print_table(f"Terms, of `compare --ablate {component.name}`", ("term", "turned off by"), off)


def _flat(options: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={value}"


def _of_preset(options: dict[str, Any], option: dict[str, Any]) -> str:
    """A preset's value of an option, empty where it is the default's."""
    value = options.get(option["name"], "")
    if not isinstance(value, dict):
        word = str(tuple(value) if isinstance(value, list) else value)
        return "" if word == option["default"] else word
    own = ", ".join(f"{option}={inner}" for option, inner in value.items() if option != "name")
    return f"{value['name']}: {own}" if own else str(value["name"])
