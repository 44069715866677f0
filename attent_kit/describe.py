"""What a component says about itself: facts, options with their meaning, presets and terms, for people who choose one."""

import inspect
from typing import Any

from attent_kit.config import Choice
from attent_kit.registry import KINDS, Component

_OPTION = {"layouts": "--layout", "selectors": "--select", "trackers": "--track", "launchers": "--launcher"}
"""The command-line options that choose components which no configuration names."""


def facts_of(component: Component) -> list[tuple[str, str]]:
    """Pairs of a word and what it is for this component, such as its paper; those that it says nothing about are left out."""
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


def options_of(component: Component) -> list[dict[str, Any]]:
    """Name, default and meaning of each option, as text; nothing for layouts, selectors and trackers, which have none."""
    if component.kind not in (*KINDS, "launchers"):
        return []
    loaded = component.load()
    fields = (loaded.Options if component.kind == "launchers" else loaded.Config).model_fields
    return [
        {"name": name, "default": _word(field.default), "meaning": field.description or ""}
        for name, field in fields.items()
    ]


def presets_of(component: Component) -> dict[str, dict[str, Any]]:
    """What `preset = "NAME"` sets, by name."""
    if component.kind not in KINDS:
        return {}
    presets = component.load().Config.presets
    return {name: dict(options) for name, options in presets.items()}


def terms_of(component: Component) -> dict[str, dict[str, Any]]:
    """Options that turn a term off, by term."""
    return {name: dict(options) for name, options in getattr(component.load(), "terms", {}).items()}


def _word(default: Any) -> str:
    if isinstance(default, Choice):
        return f"{default.name} (attentkit show {default.name})"
    return "none" if default is None else str(default)
