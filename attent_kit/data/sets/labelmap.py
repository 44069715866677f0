"""Which value of a label file is which organ of the task."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from attent_kit.data.sets.synonyms import words_of
from attent_kit.errors import ConfigError, DataError, did_you_mean
from attent_kit.naming import is_a_line

Others = Literal["error", "background"]
TASK_ORGANS = ("liver", "right kidney", "left kidney", "spleen")
"""What is segmented unless something else is said, in the order of the classes."""
UNKNOWN = "?"
"""The value of an organ that label files do not annotate, as it is typed."""
MOST_LABELS = 255
"""Different values that a label map may have; an image has more."""


@dataclass(frozen=True)
class LabelMap:
    """Organs in task order with the file values that belong to each: the n-th organ becomes class n, from 1.

    An organ without a value is not annotated by these files: what they call background may be that organ.
    `others` says what becomes of a value that is not named: an error, so that a stray value is noticed, or background.
    """

    values: tuple[tuple[str, tuple[int, ...]], ...]
    others: Others = "error"

    def __post_init__(self) -> None:
        given = [value for _, values in self.values for value in values]
        names = [name for name, _ in self.values]
        if not 1 <= len(names) <= 254:
            raise ConfigError(
                f"a label map names 1 to 254 organs, not {len(names)}: write for example liver=6,spleen=1."
            )
        if bad := [name for name in names if not is_a_line(name)]:
            raise ConfigError(f"{bad[0]!r:.60} cannot name an organ: use letters and digits, as in liver=6.")
        if self.others not in ("error", "background"):
            raise ConfigError(f"others='{self.others}' is not known: choose 'error' or 'background'.")
        for kind, items in (("organ", names), ("value", [str(value) for value in given])):
            if twice := sorted({item for item in items if items.count(item) > 1}):
                raise ConfigError(f"the label map names the {kind} {', '.join(twice)} twice: name each once.")
        if 0 in given:
            raise ConfigError("0 is background and no organ: give each organ of the label map another value.")
        if not given:
            raise ConfigError("the label map has a value for none of its organs: give at least one, as in liver=6.")

    @classmethod
    def of(cls, organs: "Mapping[str, int | Sequence[int] | None] | LabelMap", others: Others = "error") -> "LabelMap":
        """`LabelMap.of({"liver": 6, "kidneys": (2, 3), "spleen": None})`, None being not annotated; a LabelMap is passed on."""
        if isinstance(organs, LabelMap):
            return organs
        pairs = (
            (name, (v,) if isinstance(v, int | np.integer) else tuple(() if v is None else v))
            for name, v in organs.items()
        )
        return cls(tuple((name, tuple(int(v) for v in values)) for name, values in pairs), others)

    @classmethod
    def parse(cls, text: str) -> "LabelMap":
        """`liver=6, kidneys=2+3, spleen=?, *=0`: `2+3` joins values, `?` is not annotated, `*=0` makes the rest background."""
        organs: list[tuple[str, tuple[int, ...]]] = []
        others: Others = "error"
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, values = (side.strip() for side in part.rpartition("="))
            if name == "*" and values == "0":
                others = "background"
                continue
            try:
                if name in ("", "*") or "=" in name:
                    raise ValueError
                organs.append((name, () if values == UNKNOWN else tuple(int(value) for value in values.split("+"))))
            except ValueError:
                raise ConfigError(
                    f"'{part}' is not of the form organ=value: write for example 'liver=6,spleen=1,*=0', "
                    "where *=0 makes every other value background; spleen=? says that it is not annotated."
                ) from None
        return cls(tuple(organs), others)

    def __str__(self) -> str:
        """As `parse` reads it."""
        rest = ["*=0"] if self.others == "background" else []
        return ",".join([*(f"{name}={_plus(values)}" for name, values in self.values), *rest])

    def in_task_order(self) -> "LabelMap":
        """Liver, right kidney, left kidney and spleen of this map, known by name; all its other organs are background.

        Names need not be the usual ones: 'kidney_right' and 'RK' are the right kidney. A map with none of
        the four is passed through.
        """
        by_words = {words_of(name): values for name, values in self.values}
        found = tuple((organ, by_words[words_of(organ)]) for organ in TASK_ORGANS if words_of(organ) in by_words)
        if not found:
            return self
        return LabelMap(found, self.others if len(found) == len(self.values) else "background")

    def annotating(self, names: Collection[str]) -> "LabelMap | None":
        """The same organs, those that are not among `names` not annotated; None if none is left."""
        there = {words_of(name) for name in names}
        values = tuple((organ, own if words_of(organ) in there else ()) for organ, own in self.values)
        return LabelMap(values, self.others) if any(own for _, own in values) else None

    def in_order(self, like: "LabelMap") -> "LabelMap":
        """The same map with its organs in the order of another, where both name the same ones; else as it is."""
        values = dict(self.values)
        if {*values} != {*like.organs}:
            return self
        return LabelMap(tuple((organ, values[organ]) for organ in like.organs), self.others)

    @property
    def organs(self) -> tuple[str, ...]:
        """Names in task order; the n-th is class n + 1."""
        return tuple(name for name, _ in self.values)

    @property
    def annotated(self) -> tuple[str, ...]:
        """Those that have a value, in the same order."""
        return tuple(name for name, values in self.values if values)

    def apply(self, labels: np.ndarray, source: str) -> np.ndarray:
        """File values to class indices, uint8.

        DataError for as many values as only an image has, and for one that is not named, if `others` is 'error'.
        """
        if labels.dtype != np.uint8 and len(found := values_in(labels)) > MOST_LABELS:
            raise DataError(
                f"{source} holds {len(found)} different values from {found[0]} to {found[-1]}, as an image does: "
                "give its label map instead."
            )
        if self.others == "error" and (stray := self._stray(labels)):
            raise DataError(
                f"{source} holds {_ranges(stray)}, which the label map does not name "
                f"(it names {', '.join(f'{name}={_in_short(values)}' for name, values in self.values if values)}): "
                "add the organ, or end the map with '*=0' to make every other value background."
            )
        classes = np.zeros_like(labels, np.uint8)  # in the memory order of labels, which is much faster
        for index, (_, values) in enumerate(self.values, start=1):
            for value in values:
                classes[labels == value] = index
        return classes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: {"organs": {name: [values]}, "others": ...}."""
        return {"organs": {name: list(values) for name, values in self.values}, "others": self.others}

    def _stray(self, labels: np.ndarray) -> list[int]:
        known = {0, *(value for _, values in self.values for value in values)}
        return sorted({*values_in(labels)} - known)


def parse_organs(text: str) -> "LabelMap | OrganNames":
    """What `--organs` says: organs with their values, or names alone, as in 'liver,spleen=?', whose values the data set has."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    sides = [tuple(side.strip() for side in part.rpartition("=")) for part in parts]
    if not parts or any(equals and value != UNKNOWN for _, equals, value in sides):
        return LabelMap.parse(text)
    names = tuple(name if equals else value for name, equals, value in sides)
    return OrganNames(names, tuple(name for name, equals, _ in sides if equals))


@dataclass(frozen=True)
class OrganNames:
    """Organs in task order, by name alone."""

    names: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    """Those of them that the label files do not annotate."""

    def __str__(self) -> str:
        """As `parse_organs` reads it."""
        return ",".join(f"{name}={UNKNOWN}" if name in self.unknown else name for name in self.names)

    def of(self, known: LabelMap) -> LabelMap:
        """Their values in another map, where everything else is background. ConfigError for an organ that it lacks."""
        values = {words_of(name): own for name, own in known.values}
        values |= dict.fromkeys(map(words_of, self.unknown), ())
        for name in self.names:
            if words_of(name) not in values:
                raise ConfigError(
                    f"the data set names no organ '{name}'.{did_you_mean(name, known.organs)} It names "
                    f"{', '.join(known.organs)}; write the value of any other, as in 'liver=6', or '{name}=?' if it is not "
                    "annotated."
                )
        return LabelMap(tuple((name, values[words_of(name)]) for name in self.names), "background")


def values_in(labels: np.ndarray) -> list[int]:
    """Every value that occurs, sorted."""
    # Slice by slice, since np.unique of a whole volume copies and sorts it.
    return sorted({int(value) for plane in np.moveaxis(labels, -1, 0) for value in np.unique(plane)})


def _plus(values: tuple[int, ...]) -> str:
    return "+".join(str(value) for value in values) or UNKNOWN


def _in_short(values: tuple[int, ...]) -> str:
    """As `_plus` writes it, but a long list as its runs: '56-70'."""
    return _plus(values) if len(values) <= 8 else ", ".join(_runs(sorted(values)))


def _ranges(values: list[int]) -> str:
    """[4, 6, 7, 8] -> 'the values 4, 6-8', of many the first."""
    words = _runs(values)
    listed = ", ".join(words[:8]) + (f" and others up to {values[-1]}" if len(words) > 8 else "")
    return f"the value{'s' if len(values) > 1 else ''} {listed}"


def _runs(values: list[int]) -> list[str]:
    """[4, 6, 7, 8] -> ['4', '6-8']."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
