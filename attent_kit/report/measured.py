"""What other commands have measured about a comparison: shift.csv of its folder, translation_audit.csv of a run."""

import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.errors import DataError


class Shift(NamedTuple):
    """One measure of how far the domains are apart, in one run."""

    direction: str
    row: str
    seed: int
    space: str
    """pixels, features, outputs or entropy."""
    when: str
    """before or after adaptation."""
    measure: str
    value: float


class Audited(NamedTuple):
    """One measure of how much a translation keeps of a slice."""

    case: str
    slice: str
    measure: str
    value: float


class ShiftRow(NamedTuple):
    """Means over seeds; NaN where there is none."""

    row: str
    space: str
    measure: str
    before: float
    after: float


class AuditRow(NamedTuple):
    """One measure of one run over its slices."""

    measure: str
    mean: float
    worst: float
    case: str
    """Of the worst slice."""
    slice: str
    slices: int


def read_shifts(path: Path) -> list[Shift]:
    """Rows of shift.csv; DataError with file and line if one makes no sense."""
    return [
        Shift(line["direction"], line["row"], int(line["seed"]), line["space"], line["when"], line["measure"], value)
        for line, value in _read(path, Shift._fields)
    ]


def read_audit(path: Path) -> list[Audited]:
    """Rows of translation_audit.csv; DataError with file and line if one makes no sense."""
    return [
        Audited(line["case"], line["slice"], line["measure"], value) for line, value in _read(path, Audited._fields)
    ]


def shift_rows(shifts: Sequence[Shift], direction: str) -> list[ShiftRow]:
    """Before and after of each row, space and measure of a direction, in order of appearance."""
    groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for shift in shifts:
        if shift.direction == direction and not math.isnan(shift.value):
            group = groups.setdefault((shift.row, shift.space, shift.measure), {})
            group.setdefault(shift.when, []).append(shift.value)
    return [
        ShiftRow(*key, *(statistics.fmean(found[when]) if when in found else math.nan for when in ("before", "after")))
        for key, found in groups.items()
    ]


def audit_rows(audited: Sequence[Audited]) -> list[AuditRow]:
    """Mean and worst slice of each measure; the worst drift is the largest either way, of all else the lowest."""
    groups: dict[str, list[Audited]] = {}
    for row in audited:
        if not math.isnan(row.value):
            groups.setdefault(row.measure, []).append(row)
    made = []
    for measure, rows in groups.items():
        drifts = measure.startswith("volume-drift")
        worst = max(rows, key=lambda row: abs(row.value)) if drifts else min(rows, key=lambda row: row.value)
        mean = statistics.fmean(row.value for row in rows)
        made.append(AuditRow(measure, mean, worst.value, worst.case, worst.slice, len(rows)))
    return made


def _read(path: Path, fields: Sequence[str]) -> list[tuple[dict[str, str], float]]:
    found = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [field for field in fields if field not in (reader.fieldnames or ())]:
                raise ValueError(f"the column {missing[0]} is missing")
            for line in reader:
                if None in line.values() or None in line:
                    raise ValueError("too few or too many fields")
                int(line.get("seed", "0"))
                found.append((line, float(line["value"])))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}, line {len(found) + 2}: {error}. Delete the file and run the command that made it again."
        ) from None
    return found
