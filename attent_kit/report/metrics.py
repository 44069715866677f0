"""The metrics of the printed tables, one record each: whatever prints, compares or draws a metric asks its record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """One number about an organ, and how tables, sentences and figures speak of it."""

    name: str
    """In score rows."""
    unit: str
    """In score rows: "fraction", "mm"."""
    title: str
    """As a person reads it: "Dice"."""
    shown_unit: str
    """Of a printed number: "%"."""
    scale: float
    """From the unit of score rows to that of printed numbers."""
    digits: int
    """Decimals of a printed number."""
    higher_is_better: bool
    one_sided: str
    """What an organ comes to that is in the truth alone or in the prediction alone, after "it": "counts 0 in Dice"."""
    step: str
    """Unit of a printed difference: "points"."""
    row_step: str = ""
    """Unit of a difference in a sentence about two rows, where it says of which metric: "Dice points", as in "AttENT is 3.0 Dice
    points above SIFA". Empty: the sentence is about "the ASSD of AttENT" and "that of SIFA"."""
    every_organ_counts: bool = False
    """Whether a missed organ has a value, a bad one. A distance has none, so that its averages lack what was missed."""
    ends: tuple[float, float] | None = None
    """The lowest and highest number that can be printed; None where there is no highest."""

    @property
    def heading(self) -> str:
        """Dice, %; for LaTeX and Markdown to escape like any other text."""
        return f"{self.title}, {self.shown_unit}"

    @property
    def stem(self) -> str:
        """In the names of files."""
        return self.name.replace(" ", "-")

    def number(self, value: float, sign: str = "") -> str:
        """A value of score rows as it is printed, a dash for NaN; with its sign always, if "+"."""
        return "-" if math.isnan(value) else f"{self.scale * value:{sign}z.{self.digits}f}"

    def is_gain(self, difference: float) -> bool:
        """Whether a row is better than another if it is so much above it."""
        return difference != 0 and (difference > 0) is self.higher_is_better

    def best(self, means: Mapping[str, float]) -> tuple[str, ...]:
        """The labels of the best mean, several if they are equal; nobody where the best is a share of 0."""
        known = {label: mean for label, mean in means.items() if not math.isnan(mean)}
        if not known:
            return ()
        best = (max if self.higher_is_better else min)(known.values())
        return () if self.higher_is_better and best == 0 else tuple(k for k, mean in known.items() if mean == best)

    def in_unit(self, unit: str) -> "Metric":
        """The same metric as another protocol gives it, such as a distance in voxels."""
        return self if unit == self.unit else replace(self, unit=unit, shown_unit=unit, step=unit)


DICE = Metric(
    "dice", "fraction", "Dice", "%", 100.0, 1, higher_is_better=True, one_sided="counts 0 in Dice", step="points",
    row_step="Dice points", every_organ_counts=True, ends=(0.0, 100.0),
)  # fmt: skip
ASSD = Metric("assd", "mm", "ASSD", "mm", 1.0, 2, higher_is_better=False, one_sided="has no distance", step="mm")

METRICS = (DICE, ASSD)
"""What has a table, in their order, each under a name of its own; scores.csv has the rest. By the first of them the report says
which row is best."""


def metric_of(name: str) -> Metric:
    """That of `METRICS` with this name."""
    return next(found for found in METRICS if found.name == name)
