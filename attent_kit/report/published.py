"""Numbers that papers print, to be shown beside ours and never mixed with them."""

from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.config import read_toml
from attent_kit.errors import ConfigError

METRICS = ("dice", "assd")


class PublishedTable(NamedTuple):
    """One table of one publication."""

    direction: str
    metric: str
    """dice, in percent; or assd."""
    unit: str
    organs: tuple[str, ...]
    citation: str
    note: str
    rows: dict[str, tuple[float, ...]]
    """Values by label: one for each organ, then the average as printed."""


def read_published(path: Path) -> list[PublishedTable]:
    """The tables of a TOML file: `[[tables]]` with direction, metric, unit, organs, citation, note and rows."""
    tables = [_table(path, i, entry) for i, entry in enumerate(read_toml(path).get("tables", []))]
    if not tables:
        raise ConfigError(f"{path} holds no [[tables]] of published numbers.")
    return tables


def _table(path: Path, i: int, entry: dict[str, Any]) -> PublishedTable:
    try:
        table = PublishedTable(
            **{name: entry[name] for name in ("direction", "metric", "unit", "citation", "note")},
            organs=tuple(entry["organs"]),
            rows={label: tuple(map(float, values)) for label, values in entry["rows"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: tables[{i}] is not a table of published numbers ({error!r}).") from None
    for label, values in table.rows.items():
        if len(values) != len(table.organs) + 1 or table.metric not in METRICS:
            raise ConfigError(f"{path}: tables[{i}], row '{label}' needs a value for each organ and their average.")
    return table
