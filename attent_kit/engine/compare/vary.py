"""`--vary segmentor.encoder=resnet18,tu-convnext_atto`: a row of the table for each value of an option.

Several of them give every combination, so that two options with three and two values turn one row into six.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from attent_kit.config import Choice, dump, parse_set, put, validate
from attent_kit.engine.compare.suite import Suite, SuiteRow, expand
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.registry import Registry


def vary(
    suite: Suite,
    registry: Registry,
    domains: Mapping[str, Path],
    out: Path,
    words: Sequence[str],
    sets: Sequence[str] = (),
) -> Suite:
    """The suite with one row per value in place of each row that has the option; other rows stay. `sets` are `--set` options.

    A row is labelled with what it was and the value, as in "AttENT, resnet18", or "AttENT, auxiliary=4" for a number.
    """
    asked: list[list[str]] = []
    for word in words:
        path, values = _parse(word)
        if path in asked:
            raise ConfigError(
                f"--vary {'.'.join(path)} is given twice: write all values into one, separated by commas."
            )
        asked.append(path)
        suite = _vary(suite, path, values, _options(suite, registry, domains, out, sets), registry)
    return suite


def _parse(word: str) -> tuple[list[str], list[Any]]:
    """`a.b=x,y` -> (["a", "b"], [x, y]); each value is read as that of `--set`, and a comma in brackets does not separate."""
    option, equals, text = word.partition("=")
    values = _split(text)
    if not equals or not all(values):
        raise ConfigError(
            f"--vary {word}: write it as option=value,value, for example segmentor.encoder=resnet18,resnet34."
        )
    pairs = parse_set([f"{option}={value}" for value in values])
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ConfigError(f"--vary {option}: the value {twice[0]} occurs twice: write each value once.")
    return pairs[0][0], [value for _, value in pairs]


def _split(text: str) -> list[str]:
    values, depth = [""], 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if sign == "," and depth == 0:
            values.append("")
        else:
            values[-1] += sign
    return [value.strip() for value in values]


def _options(
    suite: Suite, registry: Registry, domains: Mapping[str, Path], out: Path, sets: Sequence[str]
) -> dict[str, BaseModel]:
    """The validated options of each row's alignment, by label."""
    cells = expand(suite, registry, domains, out, sets)
    return {cell.row: cell.settings.alignment.options for cell in cells}


def _vary(
    suite: Suite, path: list[str], values: list[Any], options: Mapping[str, BaseModel], registry: Registry
) -> Suite:
    rows: list[SuiteRow] = []
    known: dict[str, None] = {}
    for row in suite.rows:
        if row.is_external:
            rows.append(row)
            continue
        names = names_beside(options[row.label], path)
        known |= dict.fromkeys(names)
        if path[-1] not in names:
            rows.append(row)
            continue
        for value in values:
            own = dict(row.options)
            put(own, path, value)
            said = value if isinstance(value, str) else f"{path[-1]}={value}"
            label = f"{row.label}, {said}"
            rows.append(row.model_copy(update={"label": label, "options": own}))
    if path[-1] not in known:
        nearest = did_you_mean(path[-1], known)
        raise ConfigError(f"--vary {'.'.join(path)}: no row of this suite has such an option.{nearest}")
    return validate(Suite, {**dump(suite), "rows": [dump(row) for row in rows]}, registry)


def names_beside(options: BaseModel, path: Sequence[str]) -> list[str]:
    """Options where the last word of `path` would stand; none if the path does not lead there."""
    here: Any = options
    for part in path[:-1]:
        here = getattr(here, part, None)
        here = here.options if isinstance(here, Choice) else here
    return list(type(here).model_fields) if isinstance(here, BaseModel) else []
