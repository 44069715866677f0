"""What the training cases of a domain look like, and whether another image looks like them.

Only what shows without labels: grey values as the networks see them, and the grid. Grey values are told on the scale of
`attent_kit.data.space.intensity`, where the rule's low is -1 and its high is 1, so that one limit serves every rule and unit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.space.geometry import Grid
from attent_kit.data.space.intensity import PERCENTS, SAMPLES, Intensity

GREY_APART = 0.4
"""Mean distance of these percentiles from the range of the training cases that is too far; low to high is 2. CT of
other scanners, contrast phases and fields of view stays within; MR read as CT, and CT that is not in HU, do not."""
FLOOR_ABOVE, FLOOR_BELOW = 0.4, 1.0
"""The same for the first percentile of all voxels, which is air, above and below the training cases: it tells CT, with air
far below 0, from anything else. Above, only what lies above low counts, since all below it is the same to a network."""
PIXEL_FACTOR, DISTANCE_FACTOR = 1.5, 2.0
"""Factor by which pixels, and the distance between slices, are too far beyond those of the training cases."""

Range = tuple[float, float]
"""Least and largest value over the training cases."""


def grey_values(array: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """A few numbers on the grey values of an image [X, Y, Z], whose rule made -1 of `low` and 1 of `high`; plain values.

    `floor`: first percentile of all voxels, at least low - (high - low). `percentiles`: of the voxels above low, at most
    `high`; all equal to low if there is none.
    """
    flat = array.ravel(order="K")
    values = flat[:: -(-flat.size // SAMPLES)].astype(np.float32)
    above = values[values > low]
    percentiles = np.percentile(above, PERCENTS).clip(low, high) if above.size else np.full(len(PERCENTS), low)
    return {
        "floor": _short(max(float(np.percentile(values, 1)), 2 * low - high)),
        "percentiles": [_short(p) for p in percentiles],
    }


@dataclass(frozen=True)
class Familiar:
    """The training cases of a domain, as ranges."""

    cases: int
    pixel_mm: Range
    """Side of a pixel of a slice."""
    resolution_mm: Range
    """The coarser of that and the native pixels."""
    distance_mm: Range
    """Between slices."""
    floor: Range
    """This and `percentiles` on the scale from -1 to 1."""
    percentiles: tuple[Range, ...]

    @classmethod
    def of(cls, prepared: Prepared) -> "Familiar | None":
        """Of the training cases of a prepared file; None if there is none."""
        records = [record for record in prepared.manifest["cases"] if "train" in record["splits"]]
        if not records:
            return None
        grids = [prepared.grid(record["id"]) for record in records]
        scaled = [_scaled(record["grey"], record["low"], record["high"]) for record in records]
        floor, *percentiles = (_range(values) for values in zip(*scaled, strict=True))
        return cls(
            len(records),
            _range([grid.pixel for grid in grids]),
            _range([grid.resolution for grid in grids]),
            _range([grid.distance for grid in grids]),
            floor,
            tuple(percentiles),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` is the way back."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Familiar":
        """What `to_dict` wrote. TypeError, ValueError or KeyError for anything else."""
        pixel, resolution, distance = (_pair(values[name]) for name in ("pixel_mm", "resolution_mm", "distance_mm"))
        percentiles = tuple(_pair(pair) for pair in values["percentiles"])
        if len(percentiles) != len(PERCENTS):
            raise ValueError(f"{len(percentiles)} percentiles, not {len(PERCENTS)}")
        return cls(int(values["cases"]), pixel, resolution, distance, _pair(values["floor"]), percentiles)

    def doubts(self, array: np.ndarray, grid: Grid, intensity: Intensity, modality: str) -> list[str]:
        """In what an image [X, Y, Z] is unlike the training cases, a sentence each."""
        return [*self._grid_doubts(grid), *self._grey_doubts(array, intensity, modality)]

    def _grid_doubts(self, grid: Grid) -> list[str]:
        found = []
        if _beyond(grid.pixel, self.pixel_mm, PIXEL_FACTOR):
            found.append(
                f"a pixel of its slices is {grid.pixel:.3g} mm wide, against {_words(self.pixel_mm)} mm in training."
            )
        elif _beyond(grid.resolution, self.resolution_mm, PIXEL_FACTOR):
            known = _words(self.resolution_mm)
            found.append(f"its resolution in plane is {grid.resolution:.3g} mm, against {known} mm in training.")
        if _beyond(grid.distance, self.distance_mm, DISTANCE_FACTOR):
            found.append(
                f"its slices are {grid.distance:.3g} mm apart, against {_words(self.distance_mm)} mm in training."
            )
        return found

    def _grey_doubts(self, array: np.ndarray, intensity: Intensity, modality: str) -> list[str]:
        low, high = intensity.bounds(array)
        floor, *percentiles = _scaled(grey_values(array, low, high), low, high)

        def grey(scaled: float) -> str:
            value = f"{low + (scaled + 1) / 2 * (high - low):.4g}"
            return f"{value} or less" if scaled < -2.999 else f"{value} or more" if scaled > 0.999 else value

        ask = "is it a CT in HU?" if modality == "ct" else f"is it {modality}, on the same scale?"
        known = self.floor
        if max(floor, -1.0) - max(known[1], -1.0) > FLOOR_ABOVE or known[0] - floor > FLOOR_BELOW:
            return [f"its darkest voxels are {grey(floor)}, against {_words(known, grey)} in training: {ask}"]
        apart = [max(known[0] - p, p - known[1], 0) for p, known in zip(percentiles, self.percentiles, strict=True)]
        if sum(apart) / len(apart) <= GREY_APART:
            return []
        n = int(np.argmax(apart))
        known = self.percentiles[n]
        return [
            f"the {PERCENTS[n]}th percentile of its voxels above {low:.4g} is {grey(percentiles[n])}, against "
            f"{_words(known, grey)} in training: {ask}"
        ]


def _scaled(grey: Mapping[str, Any], low: float, high: float) -> list[float]:
    """The values of `grey_values`, floor first, on the scale where `low` is -1 and `high` is 1."""
    return [2 * (value - low) / (high - low) - 1 for value in (grey["floor"], *grey["percentiles"])]


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _range(values: Sequence[float]) -> Range:
    return round(min(values), 4), round(max(values), 4)


def _pair(values: Sequence[float]) -> Range:
    least, largest = (float(value) for value in values)
    if not (math.isfinite(least) and math.isfinite(largest) and least <= largest):
        raise ValueError(f"{values} is not a range")
    return least, largest


def _beyond(value: float, known: Range, factor: float) -> bool:
    return not known[0] / factor <= value <= known[1] * factor


def _words(known: Range, unit: Callable[[float], str] = "{:.4g}".format) -> str:
    least, largest = unit(known[0]), unit(known[1])
    return least if least == largest else f"{least} to {largest}"
