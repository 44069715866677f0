"""Numbers that papers print, to be shown beside ours and never mixed with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.config import read_toml
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.report.metrics import METRICS

KINDS = ("published", "re-run")


class PublishedTable(NamedTuple):
    """One table of one publication."""

    direction: str
    metric: str
    """The name of one of METRICS; a share is in percent."""
    unit: str
    organs: tuple[str, ...]
    """Empty where the average alone is printed."""
    citation: str
    note: str
    rows: dict[str, tuple[float, ...]]
    """Values by label: one for each organ, then the average as printed."""
    spread: dict[str, tuple[float, ...]] = {}
    """What is printed after a ±, by label, in the order of `rows`; one shorter where the average has none."""
    of: str = ""
    """What the ± is, over what."""
    kind: str = "published"
    """Whether a publication prints the numbers, or others got them from its released models."""

    def cells(self, label: str) -> list[str]:
        """A row as printed: "88.0 ± 3.6" for each organ and the average."""
        values, spread = self.rows[label], self.spread.get(label, ())
        # A paper prints a row with equal digits, and TOML reads 1.10 as 1.1.
        digits = max(len(str(value).partition(".")[2]) for value in (*values, *spread))
        after = [f" ± {value:.{digits}f}" for value in spread] + [""] * (len(values) - len(spread))
        return [f"{value:.{digits}f}{sd}" for value, sd in zip(values, after, strict=True)]


def read_published(path: Path) -> list[PublishedTable]:
    """The tables of a TOML file: `[[tables]]` with direction, metric, unit, organs, citation, note and rows.

    A table may have `[tables.spread]` too, and says then what it is `of`. What stands before the first table holds for
    every table that does not say otherwise.
    """
    data = read_toml(path)
    entries = data.pop("tables", None)
    if not isinstance(entries, list) or not entries:
        raise ConfigError(
            f"{path} holds no [[tables]] of published numbers: write one, as benchmarks/published.toml does."
        )
    return [_table(path, i, {**data, **entry}) for i, entry in enumerate(entries)]


def _table(path: Path, i: int, entry: Mapping[str, Any]) -> PublishedTable:
    if unknown := [name for name in entry if name not in PublishedTable._fields]:
        nearest = did_you_mean(unknown[0], PublishedTable._fields)
        accepted = ", ".join(PublishedTable._fields)
        raise ConfigError(f"{path}: tables[{i}].{unknown[0]}: no such entry.{nearest} Accepted here: {accepted}.")
    try:
        table = PublishedTable(
            **{name: entry[name] for name in ("direction", "metric", "unit", "citation", "note")},
            organs=tuple(entry["organs"]),
            rows={label: tuple(map(float, values)) for label, values in entry["rows"].items()},
            spread={label: tuple(map(float, values)) for label, values in entry.get("spread", {}).items()},
            of=entry.get("of", ""),
            kind=entry.get("kind", KINDS[0]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: tables[{i}] is not a table of published numbers ({error!r}): it needs direction, "
            "metric, unit, citation, note, organs and rows."
        ) from None
    if table.metric not in (names := [metric.name for metric in METRICS]):
        raise ConfigError(f"{path}: tables[{i}]: the metric is '{table.metric}': write one of {', '.join(names)}.")
    if table.kind not in KINDS:
        raise ConfigError(f"{path}: tables[{i}]: the kind is '{table.kind}': write one of {', '.join(KINDS)}.")
    columns = len(table.organs) + 1
    for label, values in table.rows.items():
        if len(values) != columns:
            raise ConfigError(f"{path}: tables[{i}], row '{label}' needs a value for each organ and their average.")
    for label, values in table.spread.items():
        if label not in table.rows or len(values) not in (columns, columns - 1) or not values:
            raise ConfigError(
                f"{path}: tables[{i}], spread '{label}' needs a row of that label, and a value for each organ and, where "
                "it has one, their average."
            )
    if table.spread and not table.of:
        raise ConfigError(f'{path}: tables[{i}] has a spread: say what it is, as in of = "SD of the test volumes".')
    return table
