"""Which layout reads a place on disk: the one that recognises it, or the one that the user names."""

import inspect
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from attent_kit.data.sets.layout import Layout
from attent_kit.errors import AttentKitError, ConfigError, DataError, did_you_mean
from attent_kit.registry import Component, Registry


def open_layout(
    path: Path | str, registry: Registry, name: str | None = None, part: str | None = None, **options: Any
) -> Layout:
    """The data set at `path`, read by the layout called `name`, or else by the only one that recognises the place.

    `options` that are not None go to the constructor; a layout that does not take one of them is not considered.
    ConfigError that lists the layouts where none or several recognise the place, and the parts where it has several and
    none is chosen; DataError if there is nothing at `path`.
    """
    path = Path(path)
    given = {option: value for option, value in options.items() if value is not None}
    component, loaded, parts = _settled(path, registry, name, given)
    if part is not None and not parts:
        # One part alone need not be chosen, but naming it is not a mistake.
        only = _asked(component, lambda: loaded(path, None, **given)).part
        parts = () if only is None else (only,)
    chosen = _chosen(part, parts, path, component)
    layout = _asked(component, lambda: loaded(path, chosen, **given))
    if layout.part is None and len(parts) > 1:
        raise ConfigError(f"{path} holds several data sets. Choose one with --part NAME: {', '.join(parts)}.")
    layout.origin = f"{component.name} of {component.distribution} {component.version}"
    return layout


def parts_at(path: Path | str, registry: Registry, name: str | None = None, **options: Any) -> tuple[str, ...]:
    """The parts that `open_layout` chooses from; empty where there is one data set only. The same errors."""
    given = {option: value for option, value in options.items() if value is not None}
    return _settled(Path(path), registry, name, given)[2]


def _settled(
    path: Path, registry: Registry, name: str | None, given: dict[str, Any]
) -> tuple[Component, type[Layout], tuple[str, ...]]:
    """The layout that reads the place, its class, and the parts that it finds there."""
    named = None if name is None else registry.find("layouts", name)
    if not path.exists():
        raise DataError(f"{path} does not exist: check the spelling of the path.")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path} holds no .nii or .nii.gz file, nor any other: name the folder of the data set.")
    component = named or _recognising(path, registry, given)
    loaded = component.load()
    if refused := _not_taken(loaded, given):
        raise ConfigError(f"the layout '{component.name}' takes no {_typed(refused)}: leave it out.")
    return component, loaded, tuple(_asked(component, lambda: loaded.parts(path)))


def _recognising(path: Path, registry: Registry, given: dict[str, Any]) -> Component:
    """The one layout that recognises the place and takes the options."""
    found: list[Component] = []
    silent: list[str] = []
    offered = registry.of("layouts")
    for component in offered:
        try:
            loaded = registry.layout(component.name)
            if _asked(component, lambda loaded=loaded: loaded.recognises(path)):
                found.append(component)
        except AttentKitError as error:
            # One broken layout must not keep the others from being used.
            silent.append(f"\n  ({error})")
    taking = [c for c in found if not _not_taken(c.load(), given)]
    if len(taking) == 1:
        return taking[0]
    if found and not taking:
        names = ", ".join(c.name for c in found)
        words = _typed(_not_taken(found[0].load(), given))
        raise ConfigError(
            f"{path} is recognised as {names}, which takes no {words}: leave it out, or type --layout NAME."
        )
    if taking:
        raise ConfigError(
            f"{path} is recognised by {len(taking)} layouts. Choose one with --layout NAME:{_listed(taking)}"
        )
    raise ConfigError(
        f"no layout recognises {path}{_why(path)}: name the folder that the data set was unpacked to, or choose how to read it "
        f"with --layout NAME:{_listed(offered)}{''.join(silent)}"
    )


_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_OTHERS = {".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".img", ".hdr", ".mnc", ".par", ".npy", ".mat"}
"""Endings of volumes that no layout reads."""
_LOOKED_AT = 10_000
"""Files of a folder at most."""


def _why(path: Path) -> str:
    """What is known about a place that nobody recognises, in brackets."""
    if path.is_file():
        return " (it is an archive: unpack it first)" if path.name.lower().endswith(_ARCHIVES) else ""
    try:
        endings = Counter(each.suffix.lower() for each in islice(path.rglob("*"), _LOOKED_AT))
    except OSError:
        return ""
    found = [ending for ending, _ in endings.most_common() if ending in _OTHERS]
    return f" (it holds {' and '.join(found[:3])} files, which are not read: convert them to .nii.gz)" if found else ""


def _chosen(part: str | None, parts: tuple[str, ...], path: Path, component: Component) -> str | None:
    """The part that is meant, whatever its capitals; None, where none is named, leaves a default to the layout."""
    if part is None:
        return parts[0] if len(parts) == 1 else None
    for known in parts:
        if known.lower() == part.lower():
            return known
    there = f"The parts are: {', '.join(parts)}." if parts else f"A data set of layout '{component.name}' has none."
    raise ConfigError(f"{path} has no part '{part}'.{did_you_mean(part, parts)} {there}")


def _asked(component: Component, question: Any) -> Any:
    """The answer of a plugin's class; what it raises without meaning to becomes a sentence that names the plugin."""
    try:
        return question()
    except AttentKitError:
        raise
    except Exception as error:
        raise AttentKitError(
            f"layout '{component.name}' of {component.distribution} {component.version} failed with "
            f"{type(error).__name__} ({error}): tell its author, or choose another with --layout NAME."
        ) from error


def _not_taken(loaded: type[Layout], given: dict[str, Any]) -> list[str]:
    parameters = inspect.signature(loaded.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    return [option for option in given if option not in parameters]


def _typed(options: list[str]) -> str:
    return " and no ".join("--" + option.replace("_", "-") for option in options)


def _listed(components: list[Component]) -> str:
    width = max((len(c.name) for c in components), default=0)
    lines = [f"\n  {c.name.ljust(width)}  {c.summary()}" for c in components]
    return "".join(lines) or " none is installed."
