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
    facts += [("takes", _in_words(takes_of(component))), ("learns from", "; ".join(learns_from(component)))]
    if component.kind not in KINDS:
        facts += [("about", (inspect.getdoc(loaded) or "").partition("\n")[2].strip())]
        facts += [("organs", str(getattr(loaded, "organs", None) or "")), ("better", getattr(loaded, "better", ""))]
        facts += [("chosen with", f"{_OPTION[component.kind]} {component.name}")]
    return [(name, fact) for name, fact in facts if fact]


TAKES = {"2-D": "slices", "2.5-D": "slices with their neighbours (--channels 3)", "3-D": "patches of volumes"}
"""What a method or a segmentor may be given, in the order of dimensions."""


def takes_of(component: Component) -> list[str]:
    """Which of `TAKES` a method or a segmentor takes; nothing for other kinds."""
    dims = getattr(component.load(), "dims", ())
    dims = dims if isinstance(dims, tuple) else (dims,)
    return (["2-D", "2.5-D"] if 2 in dims else []) + (["3-D"] if 3 in dims else [])


def learns_from(component: Component) -> list[str]:
    """What a method needs to be trained, in words, and whether it adapts at test time; nothing for other kinds."""
    if component.kind != "alignments":
        return []
    method = component.load()
    if method.source_free:
        found = ["a run or other weights (--from), never the source"]
    else:
        found = ["source" if method.uses_source_images else "source labels"]
    if method.uses_target_labels:
        found.append("target with labels")
    elif method.uses_target_images:
        found.append("target")
    if method.adapts():
        found.append("each volume at test time")
    return found


def _in_words(takes: list[str]) -> str:
    return ", ".join(f"{name}: {TAKES[name]}" for name in takes)


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
