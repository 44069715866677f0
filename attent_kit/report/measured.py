"""What `attentkit shift` has measured of a comparison, as its report shows it: shift.csv, read."""

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


class ShiftRow(NamedTuple):
    """Means over seeds; NaN where there is none."""

    row: str
    space: str
    measure: str
    before: float
    after: float


def read_shifts(path: Path) -> list[Shift]:
    """Rows of shift.csv; DataError with file and line if one makes no sense."""
    found = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [field for field in Shift._fields if field not in (reader.fieldnames or ())]:
                raise ValueError(f"the column {missing[0]} is missing")
            for line in reader:
                if None in line.values() or None in line:
                    raise ValueError("too few or too many fields")
                direction, row, seed, space, when, measure, value = (line[field] for field in Shift._fields)
                found.append(Shift(direction, row, int(seed), space, when, measure, float(value)))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}, line {len(found) + 2}: {error}. Delete the file and run `attentkit shift` again."
        ) from None
    return found


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
