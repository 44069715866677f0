"""Name -> class, with where it comes from. A component given by reference is imported when it is first asked for."""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attent_kit.errors import AttentKitError, PluginConflict, UnknownComponent, did_you_mean
from attent_kit.guard import guarded, import_limit
from attent_kit.reading import text_of, toml_in

if TYPE_CHECKING:  # what comes out is of these types; this file stands below them
    from attent_kit.interfaces import Alignment, Discriminator, Segmentor, Translator
    from attent_kit.launcher import Launcher
    from attent_kit.layouts import Layout
    from attent_kit.selectors import Selector
    from attent_kit.tracker import Tracker

KINDS = ("translators", "segmentors", "discriminators", "alignments")
"""Kinds of classes that a run is configured with. Each class has a `Config`."""
CLASS_KINDS = (*KINDS, "layouts", "selectors", "trackers", "launchers")
"""Those, and the classes that read a data set, score a snapshot, track a run or start runs; no run is configured with these."""
ALL_KINDS = (*KINDS, "suites", "layouts", "selectors", "trackers", "launchers")
"""Those, and the TOML files of comparisons."""
IMPORT_SECONDS = 120.0
"""Time limit for importing a component, which may load torch from a slow disk."""
_OURS = "attent_kit."
"""Where interfaces stand; each says its `kind`. They are told by that, since this file stands below them."""


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, such as "timm"; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Component:
    """One offer of one plugin."""

    kind: str
    name: str
    target: type | str
    """The class, or "module:Class"; of a suite the path of its TOML file."""
    plugin: str
    distribution: str
    version: str
    file: str = ""
    """The file of `--plugin` that offers it; its hash is then the version."""

    @property
    def origin(self) -> str:
        """Its source, in words."""
        return f"the file {self.file} ({self.version})" if self.file else f"{self.distribution} {self.version}"

    def load(self) -> type[Any]:
        """The class itself, imported now if it was given by reference.

        AttentKitError if it cannot be imported, or does not derive from the interface of its kind.
        """
        found = self._imported()
        if not any(base.__module__.startswith(_OURS) and vars(base).get("kind") == self.kind for base in found.__mro__):
            raise AttentKitError(
                f"{self.kind[:-1]} '{self.name}' of {self.origin}: {found.__module__}.{found.__qualname__} does not derive from "
                f"attent-kit's {self.kind[:-1].capitalize()}. Make it a subclass, or offer it under another hook."
            )
        return found

    def _imported(self) -> type[Any]:
        if isinstance(self.target, type):
            return self.target
        module, _, qualname = self.target.partition(":")
        limit = import_limit(IMPORT_SECONDS)
        try:
            with guarded(limit):
                found = getattr(importlib.import_module(module), qualname)
        except (Exception, SystemExit) as error:
            said = str(error) if isinstance(error, AttentKitError) else f"{type(error).__name__}: {error}."
            mend = "Mend it" if self.file else f"Reinstall {self.distribution}, or leave it out with ATTENTKIT_PLUGINS"
            raise AttentKitError(
                f"{self.kind[:-1]} '{self.name}' of {self.origin} cannot be imported from {self.target}: {said} {mend}."
            ) from error
        if not isinstance(found, type):
            raise AttentKitError(
                f"{self.target} of {self.origin} is not a class: offer the class itself, not an instance."
            )
        return found

    def summary(self) -> str:
        """First line of the class docstring, or the title of a suite, read from the source: nothing is imported."""
        if self.kind == "suites":
            return _title(Path(str(self.target)))
        target = self.target
        documentation = _docstring(target) if isinstance(target, str) else inspect.cleandoc(target.__doc__ or "")
        return documentation.strip().partition("\n")[0]


class Registry:
    """All components that the loaded plugins offer."""

    def __init__(self) -> None:
        self._components: dict[tuple[str, str], Component] = {}
        self._contested: dict[tuple[str, str], PluginConflict] = {}
        self._loaded: dict[Component, type[Any]] = {}
        """Classes that were asked for before: a large comparison asks thousands of times."""

    def add(self, component: Component) -> None:
        """Add an offer. A name that two plugins offer belongs to neither: asking for it raises PluginConflict."""
        key = component.kind, component.name
        taken = self._components.setdefault(key, component)
        if taken is not component:
            choose = f"Uninstall one, or set ATTENTKIT_PLUGINS={taken.plugin} to load only that one."
            self._contested[key] = PluginConflict(
                f"'{component.name}' is offered as one of the {component.kind} by both {taken.origin} and "
                f"{component.origin}. {'Give it another name in the file.' if component.file else choose}"
            )

    def find(self, kind: str, name: str) -> Component:
        """The component of that name, or an UnknownComponent with the nearest one."""
        names = [c.name for c in self.of(kind)]
        if name not in names:
            raise UnknownComponent(
                f"no {kind[:-1]} is called '{name}'.{did_you_mean(name, names)} "
                f"`attentkit list {kind}` shows all {len(names)}."
            )
        if (kind, name) in self._contested:
            raise self._contested[kind, name]
        return self._components[kind, name]

    def contested(self) -> list[PluginConflict]:
        """Every name that two plugins offer."""
        return list(self._contested.values())

    def resolve(self, kind: str, name: str) -> type[Any]:
        """The class of that name, for a kind known only at run time; the methods below are typed, one for each kind."""
        component = self.find(kind, name)
        if component not in self._loaded:
            self._loaded[component] = component.load()
        return self._loaded[component]

    def translator(self, name: str) -> type["Translator"]:
        """The translator of that name."""
        return self.resolve("translators", name)

    def segmentor(self, name: str) -> type["Segmentor"]:
        """The segmentor of that name."""
        return self.resolve("segmentors", name)

    def discriminator(self, name: str) -> type["Discriminator"]:
        """The discriminator of that name."""
        return self.resolve("discriminators", name)

    def alignment(self, name: str) -> type["Alignment"]:
        """The method of that name."""
        return self.resolve("alignments", name)

    def layout(self, name: str) -> type["Layout"]:
        """The layout of that name."""
        return self.resolve("layouts", name)

    def selector(self, name: str) -> type["Selector"]:
        """The selector of that name."""
        return self.resolve("selectors", name)

    def tracker(self, name: str) -> type["Tracker"]:
        """The tracker of that name."""
        return self.resolve("trackers", name)

    def launcher(self, name: str) -> type["Launcher"]:
        """The launcher of that name."""
        return self.resolve("launchers", name)

    def of(self, kind: str) -> list[Component]:
        """Components of one kind, in the order in which they were offered."""
        return [c for c in self._components.values() if c.kind == kind]

    def __iter__(self) -> Iterator[Component]:
        return iter(self._components.values())

    def __len__(self) -> int:
        return len(self._components)


def _title(path: Path) -> str:
    try:
        return str(toml_in(text_of(path)).get("title", ""))
    except (OSError, ValueError):
        return "(its file cannot be read)"


def _docstring(reference: str) -> str:
    module, _, qualname = reference.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except Exception:
        return "(its source cannot be read)"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == qualname:
            return ast.get_docstring(node) or ""
    return f"(no class {qualname} in {module})"
