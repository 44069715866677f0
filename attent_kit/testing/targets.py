"""What `attentkit plugins check WORD` means: an installed plugin, a component, a file, or the folder of a project."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from attent_kit.config import parse_set, put, read_toml
from attent_kit.data.workers import ReportDone
from attent_kit.errors import AttentKitError, ConfigError, did_you_mean
from attent_kit.plugins import GROUP, LoadedPlugins, Plugin, Quarantined, load, load_from
from attent_kit.registry import CLASS_KINDS, KINDS, Component
from attent_kit.testing.subject import Subject
from attent_kit.testing.verdicts import Verdict, checks_of, judge

OURS = "attent-kit"
LOADS = (
    "A plugin that does not load offers nothing: `attentkit` sets it aside and goes on. Fix what the message says, then look "
    "at `attentkit plugins`."
)


@dataclass(frozen=True)
class Target:
    """What is to be examined, and which parts could not even be loaded."""

    loaded: LoadedPlugins
    components: tuple[Component, ...]
    broken: tuple[Verdict, ...]
    modules: dict[str, str]
    """The module of each installed plugin, by its name."""

    def subjects(self, words: tuple[str, ...] = (), device: str = "cpu", data: Path | None = None) -> list[Subject]:
        """Each component made small, with `--set` over that; ConfigError if no component has an option of that name."""
        chosen, used = [], set()
        for component in self.components:
            fields = component.load().Config.model_fields if component.kind in KINDS else {}
            options: dict[str, Any] = {}
            for path, value in parse_set(words):
                if path[0] in fields:
                    put(options, path, value)
                    used.add(path[0])
            module = "" if component.file else self.modules.get(component.plugin, "")
            subject = Subject.small(component, self.loaded.registry, options, module=module, device=device, data=data)
            chosen.append(subject)
        for path, _ in parse_set(words):
            if path[0] not in used:
                raise ConfigError(f"--set {'.'.join(path)}: nothing being checked has an option '{path[0]}'.")
        return chosen


def examine(found: Target, subjects: Sequence[Subject], words: Sequence[str], tell: ReportDone) -> list[Verdict]:
    """What every check whose name has one of `words` (all without any) finds in the subjects, after what did not even load.

    `tell(what, done, total)` hears before each check which one it is. ConfigError if no check has such a name.
    """
    planned = [(check, subject) for subject in subjects for check in checks_of(subject.kind, words)]
    if not planned and not found.broken:
        raise ConfigError(f"no check has {' or '.join(words)} in its name. `attentkit plugins check --list` shows all.")
    verdicts = list(found.broken)
    for done, (check, subject) in enumerate(planned):
        tell(f"{subject.called}, {check.name}", done, len(planned))
        verdicts.append(judge(check, subject))
    return verdicts


def target(word: str | None) -> Target:
    """Everything that `word` names; without one, everything that is not attent-kit's own."""
    path = Path(word) if word is not None else None
    if path is not None and path.is_dir():
        return _project(path)
    loaded = load()
    points = {point.name: point.module for point in entry_points(group=GROUP)}
    if word is None:
        names = {p.name for p in loaded.plugins if p.distribution != OURS} | {q.name for q in loaded.quarantined}
        if not names:
            raise ConfigError(
                "no plugin is installed besides attent-kit's own. Name what to check: a component of `attentkit list`, "
                "a file, or the folder of a project."
            )
        return _of(loaded, points, lambda c: c.plugin in names, names)
    if path is not None and path.suffix == ".py":
        file = str(path.expanduser().resolve())
        return _of(loaded, points, lambda c: c.file == file, set())
    plugins: list[Plugin | Quarantined] = [*loaded.plugins, *loaded.quarantined]
    names = {p.name for p in plugins if word in (p.name, p.distribution)}
    found = _of(loaded, points, lambda c: c.plugin in names or (not names and c.name == word), names)
    if not found.components and not found.broken:
        if names:
            raise ConfigError(f"the plugin '{word}' offers nothing that can be checked.")
        known = {c.name for c in loaded.registry} | {p.name for p in plugins}
        raise ConfigError(
            f"'{word}' is not a plugin, a component, a file or a folder.{did_you_mean(word, known)} `attentkit "
            f"plugins` and `attentkit list` show all."
        )
    return found


def _of(loaded: LoadedPlugins, modules: dict[str, str], wanted: Callable[[Component], bool], names: set[str]) -> Target:
    """The wanted components, without those that cannot be imported."""
    broken = [_loads(q.name, "plugins", q.error) for q in loaded.quarantined if q.name in names]
    components = []
    for component in loaded.registry:
        if component.kind not in CLASS_KINDS or not wanted(component):
            continue
        try:
            loaded.registry.find(component.kind, component.name)
            component.load()
        except AttentKitError as error:
            broken.append(_loads(component.name, component.kind, str(error)))
        else:
            components.append(component)
    return Target(loaded, tuple(components), tuple(broken), modules)


def _loads(name: str, kind: str, error: str) -> Verdict:
    return Verdict(kind, name, "loads", "fail", error, LOADS, 0.0)


def _project(folder: Path) -> Target:
    """The plugins that a folder's pyproject.toml declares, from that folder, installed or not."""
    declared = read_toml(folder / "pyproject.toml").get("project", {}).get("entry-points", {}).get(GROUP, {})
    if not declared:
        raise ConfigError(
            f"{folder / 'pyproject.toml'} declares no plugin: give it [project.entry-points.{GROUP}] with a line such as "
            f'mine = "attentkit_mine".'
        )
    # In front, so that it is this copy which is examined and no other that is installed.
    sys.path[:0] = [str(place) for place in (folder.resolve(), folder.resolve() / "src") if place.is_dir()]
    importlib.invalidate_caches()
    others = [point for point in entry_points(group=GROUP) if point.name not in declared]
    own = [EntryPoint(name, value, GROUP) for name, value in declared.items()]
    loaded = load_from([*others, *own])
    modules = {point.name: point.module for point in own}
    return _of(loaded, modules, lambda c: c.plugin in declared, set(declared))
