"""How grey values become [-1, 1].

- `window`: low and high are given, in HU for CT; default -125 to 275, as is common for abdominal CT.
- `percentiles`: low and high are the 0.5th and 99.5th percentiles of the training cases of the domain, pooled.
- `percentiles-per-volume`: the same percentiles of each volume by itself, for scanners without a common scale.

Percentiles are taken over the voxels above their volume's own minimum, which leaves out the padding around a scan, however
few voxels lie below it. A volume gives at most 2**20 of them, evenly spaced in memory order, so that a large volume does not
outvote the rest, and all volumes together at most 2**25, so that they fit into memory however many there are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from attent_kit.errors import ConfigError, DataError

KINDS = ("window", "percentiles", "percentiles-per-volume")
PERCENTILES = (0.5, 99.5)
SAMPLES = 2**20
POOLED = 2**25
PERCENTS = (10, 25, 50, 75, 90)
"""Percentiles of the voxels above the rule's low. Air is not among them, so that neither the field of view nor the padding
around a scan matters."""
PADDING, STRAY = 0.01, 0.05
"""Share of the voxels that have one value where it may be padding, and share of these that may lie below it: a stray negative
voxel, as interpolation and filters leave, does not make grey values of the zeros around an MR."""


@dataclass(frozen=True)
class Intensity:
    """Values at or below `low` become -1, at or above `high` become 1, linear between. Units are those of the image."""

    kind: str = "window"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"no intensity rule is called '{self.kind}': choose one of {', '.join(KINDS)}.")
        if self.kind == "window" and self.low is None and self.high is None:
            object.__setattr__(self, "low", -125.0)
            object.__setattr__(self, "high", 275.0)
        if (self.low is None) != (self.high is None):
            raise ConfigError(f"intensity '{self.kind}' needs both low and high, or neither.")
        if self.kind == "percentiles-per-volume" and self.low is not None:
            raise ConfigError("intensity 'percentiles-per-volume' takes no low and high: each volume has its own.")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ConfigError(f"intensity low {self.low:g} must be below high {self.high:g}.")

    @classmethod
    def default(cls, modality: str) -> "Intensity":
        """The window -125 to 275 HU for 'ct', pooled percentiles for every other modality."""
        return cls("window") if modality == "ct" else cls("percentiles")

    @property
    def measured(self) -> bool:
        """Whether `apply` can be called: only pooled percentiles must be measured first."""
        return self.kind != "percentiles" or self.low is not None

    def measure(self, samples: Sequence[np.ndarray]) -> "Intensity":
        """The same rule with low and high from the `sample` of each training case; unchanged if it needs none."""
        return self if self.measured else self._between(*_percentiles(np.concatenate(samples)))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """An image of any shape as float32 in [-1, 1]."""
        low, high = self.bounds(array)
        scaled = np.clip(array, low, high, dtype=np.float32)
        scaled -= np.float32(low)
        scaled *= np.float32(2 / (high - low))
        scaled -= np.float32(1)
        return np.clip(scaled, -1, 1, out=scaled)

    def bounds(self, array: np.ndarray) -> tuple[float, float]:
        """The low and high that `apply` uses for this image."""
        if self.kind == "percentiles-per-volume":
            return _percentiles(sample(array))
        if self.low is None or self.high is None:
            raise DataError("the percentiles of the training cases are not measured yet: call measure first.")
        return self.low, self.high

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML; `from_dict` is the way back."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Intensity":
        """The rule that `to_dict` wrote."""
        return cls(**values)

    def _between(self, low: float, high: float) -> "Intensity":
        return replace(self, low=low, high=high)


def sample(array: np.ndarray, volumes: int = 1) -> np.ndarray:
    """Voxels above the minimum of the image, evenly spaced in memory order, as float32: its share of so many `volumes`."""
    above = array[array > floor_of(array)]
    most = max(1, min(SAMPLES, POOLED // volumes))
    return above[:: -(-above.size // most)].astype(np.float32)


def floor_of(array: np.ndarray) -> float:
    """The value of the padding around a scan: the minimum, unless a few stray voxels lie below a value that many have."""
    flat = array.ravel(order="K")
    values, counts = np.unique(flat[:: -(-flat.size // SAMPLES)], return_counts=True)
    plateau = np.flatnonzero(counts >= PADDING * counts.sum())
    if plateau.size and counts[: plateau[0]].sum() <= STRAY * counts[plateau[0]]:
        return float(values[plateau[0]])
    return float(array.min())


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(p) for p in np.percentile(values, PERCENTILES))
    if not low < high:
        raise DataError(
            f"the 0.5th and 99.5th percentile are both {low:g}, so there is no contrast to scale: is this an image and "
            "not a label map? Otherwise give a window with low and high."
        )
    return low, high
