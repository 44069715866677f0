"""What makes a run the one that a cell of a comparison asks for: its settings, its data and the code that it was made with."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit import __version__
from attent_kit.config import dump, read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.unread import is_read
from attent_kit.engine.compare.starts import begins_with
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.run.domains import domains_seen, facts_in
from attent_kit.engine.run.folder import RunFolder, RunKey
from attent_kit.engine.run.provenance import by_component, components_of, recorded
from attent_kit.engine.run.settings import DataSettings, RunSettings, shaping
from attent_kit.errors import AttentKitError
from attent_kit.files import read_json, while_unchanged
from attent_kit.registry import Registry

CORE, _CORE = "attent-kit", "attent_kit"
"""Its name as a distribution, and in env.json."""


class Content(NamedTuple):
    """Two runs of equal content end in equal scores, whatever they are called and wherever they lie."""

    settings: dict[str, Any]
    """Those that shape a run, without its data."""
    data: dict[str, str | None]
    """Content hash of source and target; None where it is not known."""
    versions: dict[str, str]
    """Distribution and version of each component that it uses, and of attent-kit; fewer where the run does not say."""

    @property
    def short(self) -> str:
        """Eight hexadecimal digits that stand for it."""
        return hashlib.sha256(json.dumps(self, sort_keys=True).encode()).hexdigest()[:8]


def content_asked(settings: RunSettings, hashes: Sequence[str | None], registry: Registry) -> Content:
    """The content of a run that is to be, with the hashes of its source and its target."""
    shaped = shaping(dump(settings))
    shaped.pop("data")
    data = dict(zip(("source", "target"), hashes, strict=True))
    return Content(shaped, data, {**by_component(components_of(settings, registry)), CORE: __version__})


def content_there(run: RunFolder) -> Content | None:
    """The content of what was trained in a run's folder; None if nothing was."""
    if not run.has_results:
        return None
    settings, hashes = _settings_in(run.config)
    return Content(settings, hashes, _versions_in(run.environment) if hashes else {})


@while_unchanged
def _settings_in(config: Path) -> tuple[dict[str, Any], dict[str, str | None]]:
    """What shapes a run, and the hashes of its data."""
    try:
        settings = shaping(read_toml(config))
        data = settings.pop("data")
        return settings, {name: data.get(f"{name}_hash") for name in ("source", "target")}
    except (AttentKitError, KeyError, AttributeError):
        return {config.name: "cannot be read"}, {}


@while_unchanged
def _versions_in(environment: Path) -> dict[str, str]:
    """Those of the parts of a run; empty where it does not say."""
    said = read_json(environment) or {}
    if _CORE not in said:
        return {}
    return {**by_component(recorded(RunFolder(environment.parent), said)), CORE: str(said[_CORE])}


def differences(there: Content, asked: Content) -> list[str]:
    """What in `there` is not as asked, by dotted name; what one of them does not know is not a difference."""
    was, now = dict(_flat(there.settings)), dict(_flat(asked.settings))
    found = [name for name in {**was, **now} if name not in was or name not in now or was[name] != now[name]]
    for name, known in asked.data.items():
        if None not in (known, there.data.get(name)) and known != there.data[name]:
            found.append(f"the data of the {name}")
    for name, version in there.versions.items():
        if asked.versions.get(name) != version:
            found.append(f"{name} ({version} then, {asked.versions.get(name, 'none')} now)")
    return found


def located(cells: Sequence[Cell], registry: Registry) -> list[Cell]:
    """The cells with the folder in which each lies, or will lie.

    That is seedN, or of a fold seedN-foldKofM, which is readable, as long as no run of other content has it; then the same
    with a hash of the content. So what is there is never moved, and going back to earlier options finds it again.

    The answer holds until somebody trains in seedN, which may be another process with another suite, and until the data are
    made, whose hashes are part of the content: then look again. Files that have not changed are not read again.
    """
    found = []
    for cell in cells:
        if cell.start is not None:
            cell = begins_with(cell, located([cell.start], registry)[0])
        asked = content_of(cell, registry)
        plain = cell.key.folder(cell.run.out)
        there = content_there(plain)
        taken = there is not None and differences(there, asked)
        run = cell.key.folder(cell.run.out, asked.short) if taken else plain
        found.append(replace(cell, folder=run.path))
    return found


def superseded(cells: Sequence[Cell], registry: Registry) -> dict[Path, dict[Path, list[str]]]:
    """By the folder of each of these cells of one comparison: folders of its row, direction, seed and fold that hold runs of
    other content, and in what each of them differs."""
    beside: dict[RunKey | None, list[RunFolder]] = {}
    # A folder of thousands of runs is listed once for all.
    for run in RunFolder.find(cells[0].run.out) if cells else ():
        beside.setdefault(run.key, []).append(run)
    found: dict[Path, dict[Path, list[str]]] = {}
    for cell in cells:
        others = {run.path: content_there(run) for run in beside.get(cell.key, ()) if run.path != cell.folder}
        there = {folder: content for folder, content in others.items() if content is not None}
        asked = content_of(cell, registry) if there else None
        found[cell.folder] = {folder: differences(content, asked) for folder, content in there.items() if asked}
    return found


def content_of(cell: Cell, registry: Registry) -> Content:
    """The content that a cell asks for; a file that is not there yet has no hash."""
    return content_asked(cell.settings, _hashes(cell.settings.data), registry)


def _hashes(data: DataSettings) -> list[str | None]:
    """Of source and target."""
    files = data.source, data.target
    if data.fold is None and not data.untested and data.channels is None:
        return [_hash_of(file) if file is not None and file.exists() else None for file in files]
    # What a fold leaves of the source follows from the target, and what a network sees of a file from the channels.
    if not all(file.exists() for file in files if file is not None):
        return [None, None]
    return [seen.content_hash() if is_read(seen) else None for seen in domains_seen(data, facts_in)]


@while_unchanged
def _hash_of(file: Path) -> str:
    return Prepared.open(file).content_hash()


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
