"""Rows that start from other rows: the run whose weights another begins with is trained before it, and is of the same direction,
seed and fold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attent_kit.engine.compare.rows import SuiteRow
from attent_kit.engine.run.settings import RunSettings, WarmStart, refuse_source
from attent_kit.engine.run.warm_start import digest_of
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.registry import Registry

if TYPE_CHECKING:
    from attent_kit.engine.compare.suite import Cell


def start_of(row: SuiteRow, rows: Sequence[SuiteRow], registry: Registry, elsewhere: bool = False) -> str | None:
    """Label of the row that a row starts from; None if it starts afresh, or from what is no row.

    A source-free row that does not say where it starts, nor the suite `elsewhere`, starts from the first row that learned from
    the source alone.
    """
    if row.start is not None:
        return row.start if row.start in [other.label for other in rows] else None
    if row.is_external or elsewhere or not registry.alignment(row.alignment).source_free:
        return None
    trained = [other for other in rows if not other.is_external]
    alone = (other.label for other in trained if registry.alignment(other.alignment).aligns_nothing())
    return next(alone, None)


def with_starts(chosen: Sequence[SuiteRow], rows: Sequence[SuiteRow], registry: Registry) -> list[SuiteRow]:
    """The chosen rows, each after the row of `rows` that it starts from, should that not be among them."""
    made: list[SuiteRow] = []
    labels = {row.label for row in chosen}
    everyone = [*rows, *(row for row in chosen if row.label not in {other.label for other in rows})]

    def add(row: SuiteRow) -> None:
        start = start_of(row, everyone, registry)
        if start is not None and start not in labels:
            labels.add(start)
            add(next(other for other in everyone if other.label == start))
        made.append(row)

    for row in chosen:
        add(row)
    return made


def settings_of_start(
    row: SuiteRow, rows: Sequence[SuiteRow], registry: Registry, top: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of every run, `top`, with where a row starts if that is no row. ConfigError if it is nothing at all."""
    settings = dict(top)
    if start_of(row, rows, registry, "warm_start" in top) is not None:
        settings.pop("warm_start", None)
    elif row.start is not None:
        if not Path(row.start).exists():
            labels = [other.label for other in rows]
            raise ConfigError(
                f"row '{row.label}': start = '{row.start}' is no row of this suite, no run and no file of weights."
                f"{did_you_mean(Path(row.start).name, labels)} Write the label of a row, as in start = '{labels[0]}'."
            )
        settings["warm_start"] = {"run": row.start}
    return settings


def begun(cells: "Sequence[Cell]", rows: Sequence[SuiteRow], registry: Registry, elsewhere: bool) -> "list[Cell]":
    """The cells, each with the one that it starts from. ConfigError for rows that start from each other, and for a source-free
    one that starts nowhere."""
    labels = {row.label: start_of(row, rows, registry, elsewhere) for row in rows}
    by_key = {(cell.row, cell.direction, cell.seed, cell.fold): cell for cell in cells}

    def begin(cell: "Cell", after: tuple[str, ...]) -> "Cell":
        label = labels[cell.row]
        if label is None:
            _refuse_source(cell, registry)
            return cell
        if label in (*after, cell.row):
            raise ConfigError(
                f"row '{cell.row}': it starts from '{label}', which starts from it. Change one of the two."
            )
        if (found := by_key.get((label, cell.direction, cell.seed, cell.fold))) is None:
            raise ConfigError(
                f"row '{cell.row}': it starts from '{label}', which is not trained. Name a row with an alignment."
            )
        if found.settings.data.channels != cell.settings.data.channels:
            raise ConfigError(
                f"row '{cell.row}': it starts from '{label}', whose networks see another number of slices at once: give both the "
                "same channels."
            )
        return begins_with(cell, begin(found, (*after, cell.row)))

    return [begin(cell, ()) for cell in cells]


def begins_with(cell: "Cell", start: "Cell") -> "Cell":
    """The cell with what it starts from as that lies now; the weights are known by their digest as soon as they are there."""
    there = WarmStart(run=start.folder, digest=digest_of(start.run) if start.done else None)
    return replace(cell, start=start, settings=cell.settings.model_copy(update={"warm_start": there}))


def _refuse_source(cell: "Cell", registry: Registry) -> None:
    settings: RunSettings = cell.settings
    try:
        refuse_source(settings, registry.alignment(cell.alignment))
    except ConfigError as error:
        raise ConfigError(f"row '{cell.row}': {error}") from None
