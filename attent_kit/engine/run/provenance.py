"""Which components a run is made of and which plugins offer them; and what to type where one of them is missing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors import safe_open

from attent_kit.config import Choice
from attent_kit.engine.run.checkpoint import FACTS
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.settings import RunSettings
from attent_kit.errors import ConfigError
from attent_kit.files import parse_object, read_json
from attent_kit.registry import Component, Registry

Record = Mapping[str, str]
"""kind, name, plugin, distribution and version of a component; and of one that came from a single file, that file."""

_FIELDS = ("kind", "name", "plugin", "distribution", "version", "file")


def components_of(settings: RunSettings, registry: Registry) -> list[Component]:
    """The method of a run and every network that its settings choose, at any depth."""
    return [registry.find(choice.kind, choice.name) for choice in _choices(settings)]


def _choices(value: Any) -> Iterator[Choice[Any]]:
    if value is None or isinstance(value, (str, int, float)):
        return  # Most values: asked first, since the others are slow to ask and grids have thousands of runs.
    if isinstance(value, Choice):
        yield value
        yield from _choices(value.options)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _choices(getattr(value, name))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _choices(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _choices(one)


def by_component(records: Iterable[Record | Component]) -> dict[str, str]:
    """ "translators/attention": "attent-kit 0.1.0"."""
    plain = [r if isinstance(r, Mapping) else vars(r) for r in records]
    return {f"{r['kind']}/{r['name']}": f"{r['distribution']} {r['version']}" for r in plain}


def record(components: Iterable[Component]) -> list[dict[str, str]]:
    """Where components come from, once each."""
    records = [{field: getattr(c, field) for field in _FIELDS if field != "file" or c.file} for c in components]
    return [r for n, r in enumerate(records) if r not in records[:n]]


def recorded(run: RunFolder, said: Mapping[str, Any] | None = None) -> list[Record]:
    """What a run's folder says about its components: env.json, or where only weights were passed on, the weights; else nothing.

    `said`: what env.json holds, where that is at hand.
    """
    said = read_json(run.environment) if said is None else said
    if said is not None:
        return well_formed(said.get("components"))
    try:
        with safe_open(run.answers().segmentor, framework="np") as file:
            return well_formed((parse_object((file.metadata() or {}).get(FACTS, "{}")) or {}).get("components"))
    except Exception:  # whatever is wrong with the file is said when it is loaded
        return []


def well_formed(said: Any) -> list[Record]:
    """Those that are well formed."""
    needed = set(_FIELDS) - {"file"}
    return [
        r
        for r in (said if isinstance(said, list) else [])
        if isinstance(r, dict) and needed <= r.keys() and all(isinstance(v, str) for v in r.values())
    ]


def missing(records: Sequence[Record], registry: Registry) -> list[Record]:
    """Those that no plugin offers now."""
    return [r for r in records if r["name"] not in [c.name for c in registry.of(r["kind"])]]


def what_to_type(folder: Path, lacking: Sequence[Record]) -> str:
    """One sentence that says which components are missing and what brings them back."""
    names = " and ".join(f"the {r['kind'][:-1]} '{r['name']}'" for r in lacking)
    verb = "is not" if len(lacking) == 1 else "are not"
    files = list(dict.fromkeys(r["file"] for r in lacking if r.get("file")))
    wanted = list(dict.fromkeys(f"{r['distribution']}=={r['version']}" for r in lacking if not r.get("file")))
    ways = []
    if wanted:
        ways.append(f"pip install {' '.join(wanted)} (`attentkit plugins` says if it is there and does not load)")
    for file in files:
        gone = "" if Path(file).exists() else ", which is no longer there"
        ways.append(f"type `attentkit --plugin {file} ...`{gone}")
    return f"{folder} was trained with {names}, which {verb} installed: {', and '.join(ways)}."


def explained(error: ConfigError, folder: Path, registry: Registry) -> ConfigError:
    """The same error; or if it is about a component that runs in or below `folder` have had from a plugin that is missing,
    what to type."""
    for run in (RunFolder(folder), *RunFolder.find(folder)):
        lacking = [r for r in missing(recorded(run), registry) if f"'{r['name']}'" in str(error)]
        if lacking:
            return ConfigError(what_to_type(run.path, lacking))
    return error


def refuse_changed_file(run: RunFolder, components: Iterable[Component]) -> None:
    """ConfigError if the run was begun with a single file that has changed since: it would not go on as the same method."""
    before = {r["file"]: r["version"] for r in recorded(run) if r.get("file")}
    for component in components:
        if component.file and before.get(component.file, component.version) != component.version:
            raise ConfigError(
                f"{run} was begun with {component.file} as it was ({before[component.file]}), and the file has changed "
                f"since ({component.version}). Restore it, or name another folder with --out."
            )
