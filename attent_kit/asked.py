"""Names on a command line, looked up before torch is imported, so that a slip of the keyboard is answered at once.

What a command does afterwards looks them up where it uses them; the words of both answers are here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attent_kit.config import merge, read_toml
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST, ORACLE


def look_up(
    registry: Registry,
    *,
    alignments: Sequence[str] = (),
    suite: str | None = None,
    variant: str | None = None,
    select: str = LAST,
    track: Sequence[str] = (),
    launcher: str | None = None,
) -> Registry:
    """The same registry; ConfigError or UnknownComponent for a name that is nearly one that it has.

    What is nowhere near is left to the command, which may know the plugin that it came from; so is a path that exists.
    """
    names = [("alignments", name) for name in alignments] + [("trackers", name) for name in track]
    names += [("launchers", launcher)] if launcher else []
    refuse_unknown_selection(select, registry)
    if suite is not None:
        path = suite_file(suite, registry)
        rows = in_variant(path, read_toml(path), variant).get("rows")
        named = [row.get("alignment") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        names += [("alignments", name) for name in named if isinstance(name, str)]
    for kind, name in names:
        known = [component.name for component in registry.of(kind)]
        if name not in known and not Path(name).exists() and did_you_mean(name, known):
            registry.find(kind, name)
    return registry


def suite_file(suite: str, registry: Registry) -> Path:
    """The TOML file of a suite: the file itself, or that of an installed one of that name."""
    names = [component.name for component in registry.of("suites")]
    if suite.endswith(".toml"):
        return Path(suite)
    if suite in names:
        return Path(str(registry.find("suites", suite).target))
    raise ConfigError(
        f"'{suite}' is neither a .toml file nor an installed suite.{did_you_mean(suite, names)} "
        f"`attentkit list suites` shows those."
    )


def in_variant(path: Path, data: dict[str, Any], variant: str | None) -> dict[str, Any]:
    """What the TOML of a suite comes to with one of its variants laid over it, or without any."""
    variants = data.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(over, dict) for over in variants.values()):
        raise ConfigError(f"{path}: variants: write each as a table of its own, as in [variants.quick].")
    if variant is None:
        if variants and not data.keys() & {"domains", "phantom"}:
            raise ConfigError(f"{path} is run in a variant: type --variant {' or --variant '.join(variants)}.")
        return data
    if variant not in variants:
        known = f"It has: {', '.join(variants)}." if variants else "It has none: leave out --variant."
        raise ConfigError(f"{path} has no variant '{variant}'.{did_you_mean(variant, variants)} {known}")
    named = {"name": f"{data['name']}-{variant}"} if "name" in data else {}
    return merge(data, {**named, **variants[variant]})


def refuse_unknown_selection(select: str, registry: Registry) -> None:
    """ConfigError for a word that --select does not take."""
    names = [LAST, *(component.name for component in registry.of("selectors")), ORACLE]
    if select not in names:
        raise ConfigError(
            f"--select {select}: there is no such selector.{did_you_mean(select, names)} There are: {', '.join(names)}."
        )
    if select not in (LAST, ORACLE):
        registry.find("selectors", select)
