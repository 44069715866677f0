"""The sections of the report that say how it was made: environment, commands, configurations, data, and what to cite."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attent_kit.config import to_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.folds import all_folds, folds_of
from attent_kit.data.sets.splits import WHOLE
from attent_kit.engine.compare.external import ShownExternal
from attent_kit.engine.compare.results_folder import ShownRun
from attent_kit.engine.run.domains import domains_seen, target_seen
from attent_kit.engine.run.settings import DataSettings, FoldSettings, odd
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.files import read_json
from attent_kit.registry import Registry
from attent_kit.report.page import Facts, Heading, Listing, Section, Text


def prepared_of(runs: Sequence[ShownRun], direction: str, side: str, out: Path) -> Prepared | str:
    """The prepared file of the source or the target of a direction, or a sentence that says why it cannot be shown.

    It is looked for where the runs name it, then in the folder of the comparison.
    """
    data = _data_of(runs, direction)
    if not data.get(side):
        return f"No run from {direction} says what its {side} was, so no image can be shown."
    path = _place(data[side], out)
    if path is None:
        return f"{data[side]} is missing, so no image of {direction} can be shown: restore it and type `attentkit report` again."
    try:
        found = Prepared.open(path)
        seen = _as_the_run_saw(found, data, side, out)
    except AttentKitError as error:
        return str(error)
    if data.get(f"{side}_hash") not in (None, seen.content_hash()):
        return (
            f"{path} is not what the runs of {direction} were made with, so no image of it is shown: restore the data."
        )
    return found.with_channels(_channels_of(data))


def tested_of(runs: Sequence[ShownRun], direction: str, out: Path) -> Prepared | str:
    """The target of a direction, in test whatever its runs test: with folds all that is labelled. Else as `prepared_of`."""
    found = prepared_of(runs, direction, "target", out)
    if isinstance(found, str) or _fold_of(_data_of(runs, direction)) is None:
        return found
    return all_folds(found)


def _data_of(runs: Sequence[ShownRun], direction: str) -> dict[str, Any]:
    """[data] of the first run that says it."""
    data: Any = next((run.config["data"] for run in runs if run.direction == direction and "data" in run.config), {})
    return data if isinstance(data, dict) else {}


def _fold_of(data: Mapping[str, Any]) -> FoldSettings | None:
    """ConfigError if somebody has changed it."""
    if "fold" not in data:
        return None
    try:
        return FoldSettings.model_validate(data["fold"])
    except ValueError:
        raise ConfigError("the [data.fold] of a run's config.toml is not as `attentkit compare` writes it.") from None


def _channels_of(data: Mapping[str, Any]) -> int | None:
    """ConfigError if somebody has changed them."""
    try:
        return odd(data["channels"]) if "channels" in data else None
    except (ValueError, TypeError):
        raise ConfigError("data.channels of a run's config.toml is not as attentkit writes it.") from None


def _place(named: str, out: Path) -> Path | None:
    places = (Path(named), out / "data" / Path(named).name)
    return next((place for place in places if place.is_file()), None)


def _as_the_run_saw(found: Prepared, data: Mapping[str, Any], side: str, out: Path) -> Prepared:
    """The fold of a domain, which its hash in config.toml is of; of a source, where its target is still there."""
    fold = _fold_of(data)
    if fold is None:
        return found.with_channels(_channels_of(data))
    places = {name: _place(str(data.get(name, "")), out) or Path() for name in ("source", "target")}
    settings = DataSettings(**places, fold=fold, channels=_channels_of(data))
    return target_seen(settings) if side == "target" else domains_seen(settings)[0]


def made_section(
    runs: Sequence[ShownRun], titles: Mapping[str, str], out: Path, externals: Sequence[ShownExternal] = ()
) -> Section:
    """Environments, commands, configurations, label maps of other tools and data; what several runs share is shown once."""
    blocks: list = [Heading("Environment")]
    environments: dict[str, list[str]] = {}
    commands: dict[str, None] = {}
    facts: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        env = read_json(run.folder.environment)
        if not env:
            continue
        rows = _environment(env)
        environments.setdefault(repr(rows), []).append(run.name)
        facts[repr(rows)] = rows
        command = env.get("command")
        if isinstance(command, list) and command:
            commands[shlex.join([Path(str(command[0])).name, *map(str, command[1:])])] = None
    for key, names in environments.items():
        of = [("runs", f"all {len(names)}" if len(environments) == 1 else "; ".join(names))]
        blocks.append(Facts([*of, *facts[key]]))
    if not environments:
        blocks.append(Text(["No run has left env.json, which says what it was computed with."]))
    if commands:
        blocks += [Heading("Commands"), Listing("Commands of the runs", "\n".join(commands), folded=False)]
    blocks += [Heading("Configurations"), *_configurations(runs)]
    if externals:
        blocks += [Heading("Label maps of other tools"), *(Facts(_of_tool(each)) for each in externals)]
    blocks += [Heading("Data"), *_data(runs, titles, out)]
    return Section("made", "How it was made", blocks)


def _of_tool(each: ShownExternal) -> list[tuple[str, str]]:
    return [
        ("row", f"{each.row}, {each.direction}, external: scored, not trained here"),
        ("trained on", each.seen),
        ("label maps", f"{len({score.case for score in each.scores})} of {each.predictions}"),
    ]


def citations_section(runs: Sequence[ShownRun], registry: Registry) -> Section:
    """BibTeX of the methods that the runs used, each entry once."""
    entries: dict[str, None] = {}
    for alignment in dict.fromkeys(run.alignment for run in runs):
        try:
            text = str(registry.alignment(alignment).bibtex)
        except AttentKitError:
            continue
        entries.update(dict.fromkeys(entry.strip() for entry in re.split(r"\n\s*\n(?=@)", text) if entry.strip()))
    if not entries:
        return Section("cite", "To cite", [Text(["No row is a published method with an entry to cite."])])
    listing = Listing("BibTeX of the methods", "\n\n".join(sorted(entries)), folded=False)
    return Section("cite", "To cite", [Text(["What the methods of the rows were published as."]), listing])


def _environment(env: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(name.replace("attent_kit", "attent-kit"), str(env[name])) for name in _PLAIN if env.get(name)]
    for name in ("plugins", "packages"):
        if isinstance(env.get(name), dict):
            rows.append((name, ", ".join(f"{key} {value}" for key, value in env[name].items())))
    return rows


_PLAIN = ("attent_kit", "python", "platform", "device", "threads", "precision")


def _configurations(runs: Sequence[ShownRun]) -> list[Listing | Text]:
    """Each configuration once; those that differ in seed and data alone are one."""
    texts: dict[str, list[ShownRun]] = {}
    for run in runs:
        shared = {key: value for key, value in run.config.items() if key not in ("seed", "data")}
        if shared:
            texts.setdefault(f"{run.row}\n{to_toml(shared)}", []).append(run)
    made: list[Listing | Text] = []
    for found in texts.values():
        seeds = ", ".join(map(str, sorted({run.seed for run in found})))
        directions = ", ".join(dict.fromkeys(run.direction for run in found))
        folds = len({run.fold for run in found})
        parts = f"; {folds} folds" if found[0].fold != WHOLE else ""
        made.append(Listing(f"{found[0].row}: {directions}; seeds {seeds}{parts}", to_toml(found[0].config)))
    return made or [Text(["No run has left a config.toml."])]


def _data(runs: Sequence[ShownRun], titles: Mapping[str, str], out: Path) -> list[Facts | Text | Listing]:
    found: dict[str, Prepared] = {}
    folds: dict[str, FoldSettings] = {}
    absent: dict[str, None] = {}
    for direction in titles:
        for side in ("source", "target"):
            prepared = prepared_of(runs, direction, side, out)
            if isinstance(prepared, str):
                absent[prepared] = None
                continue
            found[prepared.content_hash()] = prepared
            if side == "target" and (fold := _fold_of(_data_of(runs, direction))) is not None:
                folds[prepared.content_hash()] = fold
    made: list[Facts | Text | Listing] = [Text(list(absent))] if absent else []
    for key, prepared in found.items():
        made.append(Facts([*_facts(prepared), *_dealt(prepared, folds.get(key))]))
        manifest = prepared.path.with_suffix(".toml")
        if manifest.is_file():
            text = manifest.read_text(encoding="utf-8", errors="replace")
            made.append(Listing(f"{manifest.name}: the manifest of {prepared.domain}", text[:LONGEST_MANIFEST]))
    return made


LONGEST_MANIFEST = 200_000
"""Characters of a manifest that the report holds."""


def _dealt(prepared: Prepared, fold: FoldSettings | None) -> list[tuple[str, str]]:
    """As a target: whom each fold tests."""
    if fold is None:
        return []
    dealt = folds_of(prepared, fold.parts, fold.seed)
    return [(f"fold {n}/{fold.parts}, as a target", ", ".join(cases)) for n, cases in enumerate(dealt)]


def _facts(prepared: Prepared) -> list[tuple[str, str]]:
    rows = [
        (
            "domain",
            f"{prepared.domain} ({prepared.modality})" + (", a phantom" if prepared.manifest["phantom"] else ""),
        ),
        ("organs", ", ".join(prepared.organs)),
        (
            "slices",
            f"{prepared.plane}, {prepared.size} x {prepared.size} pixels, "
            f"{prepared.channels} channel{'s' if prepared.channels > 1 else ''}",
        ),
        ("grey values", ", ".join(f"{name} {value}" for name, value in prepared.intensity.to_dict().items())),
    ]
    for split in ("train", "val", "test"):
        ids = prepared.ids(split)
        rows.append((split, f"{len(ids)} case{'s' if len(ids) > 1 else ''}: {', '.join(ids)}" if ids else "no case"))
    unlabelled = [case.id for case in prepared.cases if not case.has_labels]
    rows += [("without labels", ", ".join(unlabelled))] if unlabelled else []
    labelled = [case for case in prepared.cases if case.has_labels]
    counts = {organ: sum(organ in case.annotated for case in labelled) for organ in prepared.organs}
    if any(count < len(labelled) for count in counts.values()):
        rows.append(("annotated", ", ".join(f"{organ} in {n} of {len(labelled)}" for organ, n in counts.items())))
    rows += [("doubtful", str(warning)) for warning in prepared.warnings]
    return [*rows, ("SHA-256 of the content", prepared.content_hash())]
