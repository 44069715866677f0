"""`attentkit show`."""

import inspect
from collections.abc import Iterator
from typing import Any

import click
from rich.text import Text

from attent_kit.cli.output import console, print_json, print_table
from attent_kit.config import Choice
from attent_kit.errors import UnknownComponent, did_you_mean
from attent_kit.plugins import load
from attent_kit.registry import CLASS_KINDS, KINDS, Component


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
                {"kind": c.kind, "name": c.name, "options": _options(c), "presets": _presets(c), "terms": _terms(c)}
                for c in found
            ]
        )
        return
    for component in found:
        console().print(
            Text.assemble((component.name, "bold"), f", one of the {component.kind}, of {component.origin}")
        )
        console().print(component.summary(), markup=False)
        for what, fact in _facts(component):
            console().print(f"{what}: {fact}", markup=False)
        presets, options = _presets(component), _options(component)
        rows = [
            (o["name"], o["default"], *(_of_preset(preset, o) for preset in presets.values()), o["meaning"])
            for o in options
        ]
        if rows or component.kind in KINDS:
            print_table("", ("option", "default", *(f"preset {name}" for name in presets), "meaning"), rows)
        if terms := _terms(component):
            off = [(term, ", ".join(_flat(options))) for term, options in terms.items()]
            print_table(f"Terms, of `compare --ablate {component.name}`", ("term", "turned off by"), off)


_OPTION = {"layouts": "--layout", "selectors": "--select", "trackers": "--track"}
"""The command-line options that choose components which no configuration names."""


def _facts(component: Component) -> list[tuple[str, str]]:
    loaded = component.load()
    facts = [(name, getattr(loaded, name, "")) for name in ("paper", "aligns")]
    backbones = getattr(loaded, "backbones", "")
    if callable(backbones):  # a segmentor names them, an alignment says which segmentors it takes
        backbones = f"{len(names)}, which `attentkit backbones` shows" if (names := backbones()) else ""
    facts.append(("backbones", backbones))
    if component.kind not in KINDS:
        facts += [("about", (inspect.getdoc(loaded) or "").partition("\n")[2].strip())]
        facts += [("organs", str(getattr(loaded, "organs", None) or "")), ("better", getattr(loaded, "better", ""))]
        facts += [("chosen with", f"{_OPTION[component.kind]} {component.name}")]
    return [(name, fact) for name, fact in facts if fact]


def _options(component: Component) -> list[dict[str, Any]]:
    if component.kind not in KINDS:
        return []
    fields = component.load().Config.model_fields
    return [
        {"name": name, "default": _word(field.default), "meaning": field.description or ""}
        for name, field in fields.items()
    ]


def _presets(component: Component) -> dict[str, dict[str, Any]]:
    """What `preset = "NAME"` sets, by name."""
    if component.kind not in KINDS:
        return {}
    presets = component.load().Config.presets
    return {name: dict(options) for name, options in presets.items()}


def _terms(component: Component) -> dict[str, dict[str, Any]]:
    """Options that turn a term off, by term."""
    return {name: dict(options) for name, options in getattr(component.load(), "terms", {}).items()}


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


def _word(default: Any) -> str:
    if isinstance(default, Choice):
        return f"{default.name} (attentkit show {default.name})"
    return "none" if default is None else str(default)
