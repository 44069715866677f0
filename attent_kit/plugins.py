"""Entry points -> registry. A plugin that cannot be loaded is quarantined and shown, and is never fatal."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from pluggy import PluginManager, PluginValidationError

from attent_kit import hookspecs
from attent_kit.errors import AttentKitError, did_you_mean
from attent_kit.registry import ALL_KINDS, Component, Registry

GROUP = "attentkit"


@dataclass(frozen=True)
class Plugin:
    """An installed plugin that loaded."""

    name: str
    distribution: str
    version: str


@dataclass(frozen=True)
class Quarantined:
    """An installed plugin that did not load, and why."""

    name: str
    distribution: str
    version: str
    error: str


@dataclass(frozen=True)
class Loaded:
    """What the installed plugins came to."""

    registry: Registry
    plugins: tuple[Plugin, ...]
    quarantined: tuple[Quarantined, ...]


@cache
def load() -> Loaded:
    """Load every installed plugin once. `ATTENTKIT_PLUGINS=builtin,mine` loads only those."""
    return load_from(entry_points(group=GROUP), os.environ.get("ATTENTKIT_PLUGINS"))


def load_from(points: Iterable[EntryPoint], only: str | None = None) -> Loaded:
    """Load the plugins behind `points`; `only` is a comma-separated list of plugin names."""
    wanted = None if only is None else {name.strip() for name in only.split(",")}
    registry = Registry()
    plugins: list[Plugin] = []
    quarantined: list[Quarantined] = []
    # Built-ins first, then by name: which plugin a duplicate is blamed on does not depend on the file system.
    installed = sorted(points, key=lambda p: (p.name != "builtin", p.name))
    for point in installed:
        if wanted is not None and point.name not in wanted:
            continue
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "unknown"
        try:
            components = list(_offers(point.name, point.load(), distribution, version))
        except (Exception, SystemExit) as error:
            sentence = str(error) if isinstance(error, AttentKitError) else f"{type(error).__name__}: {error}"
            quarantined.append(Quarantined(point.name, distribution, version, sentence))
            continue
        for component in components:
            registry.add(component)
        plugins.append(Plugin(point.name, distribution, version))
    names = [point.name for point in installed]
    for name in sorted((wanted or set()) - {"", *names}):
        sentence = f"ATTENTKIT_PLUGINS names it, and it is not installed.{did_you_mean(name, names)}"
        quarantined.append(Quarantined(name, "unknown", "unknown", sentence))
    return Loaded(registry, tuple(plugins), tuple(quarantined))


def _offers(name: str, module: ModuleType, distribution: str, version: str) -> Iterable[Component]:
    """Everything one plugin offers, checked for form; a misspelt hook is an error and not silence."""
    manager = PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name)
    try:
        manager.check_pending()
    except PluginValidationError as error:
        hooks = ", ".join(f"attentkit_{kind}" for kind in ALL_KINDS)
        raise AttentKitError(f"it implements a hook that does not exist ({error}). The hooks are {hooks}.") from None
    for kind in ALL_KINDS:
        # Not through the hook itself, which would drop the None of a hook that forgot to return.
        for implementation in getattr(manager.hook, f"attentkit_{kind}").get_hookimpls():
            offer = implementation.function()
            if not isinstance(offer, Mapping):
                raise AttentKitError(
                    f"attentkit_{kind} must return a mapping of name to class, not {type(offer).__name__}."
                )
            for component, target in offer.items():
                if not isinstance(component, str) or not _well_formed(kind, target):
                    wanted = "the path of a TOML file as text" if kind == "suites" else "a class or 'module:Class'"
                    raise AttentKitError(
                        f"attentkit_{kind} offers {component!r} as {target!r}: give a name as text and {wanted}."
                    )
                yield Component(kind, component, target, name, distribution, version)


def _well_formed(kind: str, target: object) -> bool:
    if kind == "suites":
        return isinstance(target, str) and target.endswith(".toml")
    return isinstance(target, type) or (isinstance(target, str) and target.count(":") == 1)
