"""Entry points and files -> registry. A plugin that cannot be loaded is quarantined and listed, never fatal."""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from pluggy import PluginManager, PluginValidationError

from attent_kit import INTERFACE_VERSION, hookspecs
from attent_kit.errors import AttentKitError, ConfigError, did_you_mean
from attent_kit.guard import guarded, import_limit
from attent_kit.naming import names_a_file
from attent_kit.registry import ALL_KINDS, Component, Registry

GROUP = "attentkit"
ONLY, FILES = "ATTENTKIT_PLUGINS", "ATTENTKIT_PLUGIN_FILES"
"""Environment variables: comma-separated names of the plugins to load; further files to load, separated as in PATH."""
INTERFACE = "ATTENTKIT_INTERFACE"
"""Attribute of a plugin's module: the interface version that it was written for. Without it, any version is assumed to fit."""
REGISTRATION_SECONDS = 30.0


@dataclass(frozen=True)
class Plugin:
    """An installed plugin, or a file, that loaded."""

    name: str
    distribution: str
    version: str
    interface: str = ""
    """Interface version that it says it was written for."""
    file: str = ""
    """The file that it is, if it is not installed."""


@dataclass(frozen=True)
class Quarantined:
    """An installed plugin that did not load, and why."""

    name: str
    distribution: str
    version: str
    error: str


@dataclass(frozen=True)
class LoadedPlugins:
    """The result of loading the installed plugins."""

    registry: Registry
    plugins: tuple[Plugin, ...]
    quarantined: tuple[Quarantined, ...]


@cache
def load() -> LoadedPlugins:
    """Load every installed plugin once, and the files of `--plugin`. `ATTENTKIT_PLUGINS=builtin,mine` loads only those."""
    files = [Path(file) for file in os.environ.get(FILES, "").split(os.pathsep) if file]
    return load_from(entry_points(group=GROUP), os.environ.get(ONLY), files)


def load_from(points: Iterable[EntryPoint], only: str | None = None, files: Sequence[Path] = ()) -> LoadedPlugins:
    """Load the plugins behind `points`; `only` is a comma-separated list of plugin names.

    `files` are loaded as well. The user has just named each of them, so one that cannot be loaded is a ConfigError.
    """
    wanted = None if only is None else {name.strip() for name in only.split(",")}
    registry = Registry()
    plugins: list[Plugin] = []
    quarantined: list[Quarantined] = []
    limit = import_limit(REGISTRATION_SECONDS)
    # Built-ins first, then by name: which plugin a duplicate is blamed on does not depend on the file system.
    installed = sorted(points, key=lambda p: (p.name != "builtin", p.name))
    for point in installed:
        if wanted is not None and point.name not in wanted:
            continue
        distribution, version = _origin(point)
        try:
            with guarded(limit):
                module = point.load()
                interface = _interface(module)
                components = list(_offers(point.name, module, distribution, version))
        except (Exception, SystemExit) as error:
            quarantined.append(Quarantined(point.name, distribution, version, _sentence(error)))
            continue
        for component in components:
            registry.add(component)
        plugins.append(Plugin(point.name, distribution, version, interface))
    for file in files:
        plugin, components = _load_file(file, 4 * limit)
        for component in components:
            registry.add(component)
        plugins.append(plugin)
    names = [point.name for point in installed]
    for name in sorted((wanted or set()) - {"", *names}):
        sentence = f"{ONLY} names it, but it is not installed.{did_you_mean(name, names)}"
        quarantined.append(Quarantined(name, "unknown", "unknown", sentence))
    return LoadedPlugins(registry, tuple(plugins), tuple(quarantined))


def _origin(point: EntryPoint) -> tuple[str, str]:
    """Distribution and version, "unknown" if the distribution's metadata is damaged."""
    try:
        assert point.dist is not None
        return point.dist.name or "unknown", point.dist.version or "unknown"
    except Exception:
        return "unknown", "unknown"


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, AttentKitError) else f"{type(error).__name__}: {error}"


def _load_file(file: Path, limit: float) -> tuple[Plugin, list[Component]]:
    """A single file as a plugin, imported as `python FILE.py` would find it: it can import its neighbours."""
    file, name = file.expanduser().resolve(), file.stem
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(f"--plugin {file}: there is no such .py file: check the spelling of the path.")
    if not name.isidentifier():
        raise ConfigError(f"--plugin {file}: '{name}' cannot be imported. Rename it, as in {_identifier(name)}.py.")
    version = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if getattr(sys.modules.get(name), "__file__", None) == str(file):
        del sys.modules[name]
    if str(file.parent) not in sys.path:
        # At the end, so that no file next to it hides a library.
        sys.path.append(str(file.parent))
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
            raise ConfigError(f"another module is already called '{name}'. Rename the file, as in my_{name}.py")
        with guarded(limit):
            module = importlib.import_module(name)
            interface = _interface(module)
            components = list(_offers(name, module, str(file), version, str(file)))
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--plugin {file}: {_sentence(error)}") from error
    return Plugin(name, str(file), version, interface, str(file)), components


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name if not name[:1].isdigit() else f"my_{name}")


def _interface(module: ModuleType) -> str:
    """The interface version that a plugin was written for; AttentKitError if its major number is not ours."""
    declared = getattr(module, INTERFACE, "")
    if declared == "":
        return ""
    if not isinstance(declared, str) or not re.fullmatch(r"\d+\.\d+", declared):
        raise AttentKitError(f"{INTERFACE} is {declared!r}: write major and minor, as in '{INTERFACE_VERSION}'.")
    theirs, ours = int(declared.partition(".")[0]), int(INTERFACE_VERSION.partition(".")[0])
    if theirs != ours:
        upgrade = "a newer release of the plugin" if theirs < ours else "a newer attent-kit"
        raise AttentKitError(
            f"it was written for version {declared} of attent-kit's interface, and this is {INTERFACE_VERSION}: install "
            f"{upgrade}."
        )
    return declared


def _offers(name: str, module: ModuleType, distribution: str, version: str, file: str = "") -> Iterable[Component]:
    """Everything that one plugin offers, checked for form; a misspelt hook is an error, not silence."""
    manager = PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name)
    try:
        manager.check_pending()
    except PluginValidationError as error:
        hooks = ", ".join(f"attentkit_{kind}" for kind in ALL_KINDS)
        raise AttentKitError(f"it implements a hook that does not exist ({error}). The hooks are {hooks}.") from None
    for kind in ALL_KINDS:
        # Not through the hook itself, which would drop the None of a hook without a return statement.
        for implementation in getattr(manager.hook, f"attentkit_{kind}").get_hookimpls():
            offer = implementation.function()
            if not isinstance(offer, Mapping):
                raise AttentKitError(
                    f"attentkit_{kind} must return a mapping of name to class, not {type(offer).__name__}."
                )
            for component, target in offer.items():
                if not names_a_file(component) or not _well_formed(kind, target):
                    wanted = "the path of a TOML file as text" if kind == "suites" else "a class or 'module:Class'"
                    raise AttentKitError(
                        f"attentkit_{kind} offers {component!r:.60} as {target!r:.200}: give a name that could be that of a "
                        f"file, and {wanted}."
                    )
                yield Component(kind, component, target, name, distribution, version, file)


def _well_formed(kind: str, target: object) -> bool:
    if kind == "suites":
        return isinstance(target, str) and target.endswith(".toml")
    return isinstance(target, type) or (isinstance(target, str) and target.count(":") == 1)
