"""`attentkit show`."""

from typing import Any

import click

from attent_kit.cli.output import console, print_json, print_table
from attent_kit.config import Choice
from attent_kit.errors import UnknownComponent, did_you_mean
from attent_kit.plugins import load
from attent_kit.registry import KINDS, Component


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, as_json: bool) -> None:
    """Show what NAME is and the options it takes: default, meaning and unit of each."""
    registry = load().registry
    found = [registry.find(kind, name) for kind in KINDS if name in [c.name for c in registry.of(kind)]]
    if not found:
        names = [c.name for kind in KINDS for c in registry.of(kind)]
        raise UnknownComponent(f"nothing is called '{name}'.{did_you_mean(name, names)} `attentkit list` shows all.")
    if as_json:
        print_json([{"kind": c.kind, "name": c.name, "options": _options(c)} for c in found])
        return
    for component in found:
        console().print(
            f"[bold]{component.name}[/bold], one of the {component.kind}, of {component.distribution} {component.version}"
        )
        console().print(component.summary(), markup=False)
        rows = [(o["name"], o["default"], o["meaning"]) for o in _options(component)]
        print_table("", ("option", "default", "meaning"), rows)


def _options(component: Component) -> list[dict[str, Any]]:
    fields = component.load().Config.model_fields  # type: ignore[attr-defined]
    return [
        {"name": name, "default": _word(field.default), "meaning": field.description or ""}
        for name, field in fields.items()
    ]


def _word(default: Any) -> str:
    if isinstance(default, Choice):
        return f"{default.name} (attentkit show {default.name})"
    return "none" if default is None else str(default)
