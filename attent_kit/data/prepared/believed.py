"""What a manifest may say: each fact of the kind and size that `prepare` writes, so that nobody who reads it has to ask."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from attent_kit.data.sets.splits import SPLITS
from attent_kit.data.space.intensity import PERCENTS
from attent_kit.naming import is_a_line, names_a_file

CanBe = Callable[[Any], bool]
LARGEST_SIDE = 2**14
"""Pixels of a slice."""
MOST_CHANNELS = 2**8
MOST_SLICES = 2**20


def strange(manifest: Mapping[str, Any]) -> str:
    """The first fact of a complete manifest that cannot be, as in "'size' is 'large'", or ""."""
    for name, can_be in _FACTS.items():
        if not can_be(manifest[name]):
            return f"'{name}' is {manifest[name]!r:.60}"
    for record in manifest["cases"]:
        for name, can_be in _RECORD.items():
            if name in record and not can_be(record[name]):
                return f"'{name}' of case {record['id']!r:.60} is {record[name]!r:.60}"
        if "low" in record and "high" in record and not record["low"] < record["high"]:
            return f"'low' of case {record['id']!r:.60} is {record['low']!r} and 'high' {record['high']!r}"
        if not {*record["blank"], *record.get("without_organ", ())} <= {*range(record["slices"])}:
            return f"'blank' of case {record['id']!r} names slices that it does not have"
    ids = [record["id"] for record in manifest["cases"]]
    return f"'cases' has {max(ids, key=ids.count)!r} twice" if len({*ids}) < len(ids) else ""


def _count(least: int, most: int) -> CanBe:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30  # NaN is not


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _list_of(can_be: CanBe, least: int = 0, most: float = math.inf) -> CanBe:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(can_be, value))


def _or_none(can_be: CanBe) -> CanBe:
    return lambda value: value is None or can_be(value)


def _object(**facts: CanBe) -> CanBe:
    """An object that has these facts at least."""
    return lambda value: (
        isinstance(value, dict) and all(name in value and ok(value[name]) for name, ok in facts.items())
    )


def _text(value: Any) -> bool:
    return isinstance(value, str)


_FACTS: dict[str, CanBe] = {
    "domain": names_a_file,
    "modality": is_a_line,
    "organs": _list_of(is_a_line, 1, 254),
    "size": _count(1, LARGEST_SIDE),
    "channels": lambda value: _count(1, MOST_CHANNELS)(value) and value % 2 == 1,
    "pixel_mm": _or_none(_positive),
    "intensity": _object(kind=_text),
    "measured_on": _list_of(_text),
    "split": _or_none(is_a_line),
    "splits": _object(),
    "shared_cases": _list_of(_text),
    "decisions": _list_of(_text),
    "warnings": _list_of(_text),
    "versions": _object(),
    "cases": _list_of(_object()),
}
_RECORD: dict[str, CanBe] = {
    "id": names_a_file,
    "splits": _list_of(lambda value: value in SPLITS),
    "slices": _count(1, MOST_SLICES),
    "blank": _list_of(_count(0, MOST_SLICES)),
    "without_organ": _list_of(_count(0, MOST_SLICES)),
    "shape": _list_of(_count(1, MOST_SLICES), 3, 3),
    "affine": _list_of(_list_of(_number, 4, 4), 4, 4),
    "spacing": _list_of(_positive, 3, 3),
    "middle": _or_none(_list_of(_number, 2, 2)),
    "orientation": is_a_line,
    "pixel": _positive,
    "low": _number,
    "high": _number,
    "grey": _object(floor=_number, percentiles=_list_of(_number, len(PERCENTS), len(PERCENTS))),
    "image": _object(sha256=_text),
    "labels": _or_none(_object()),
    "decisions": _list_of(_text),
    "doubts": _list_of(_text),
    "annotated": _list_of(_text),
    "content": _text,
}
"""The same of each case."""
