"""Rows of a suite: methods that are trained, and label maps that somebody else has made."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from attent_kit.config import ComponentConfig
from attent_kit.data.phantom import SIZES
from attent_kit.data.sets.labelmap import LabelMap
from attent_kit.engine.compare.resources import RowResources
from attent_kit.engine.run.settings import odd
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.naming import LONGEST_TEXT, is_a_line, is_a_text, names_a_file

LONGEST_FOLDER = 200
"""Bytes of the name of a row's folder; file systems take 255."""


class SuiteRow(ComponentConfig):
    """One row of the table: a method, or the label maps of another tool."""

    label: str
    """What the table calls it."""
    alignment: str = ""
    """Name of the alignment; left out of a row with `predictions`."""
    options: dict[str, Any] = {}
    """Options of this row alone, laid over the suite's."""
    channels: int | None = None
    """Neighbouring slices that its networks see as channels (2.5-D), in place of the suite's number."""
    start: str | None = None
    """Whose weights its runs start from: the label of another row, whose run of the same direction, seed and fold is trained
    before; or the folder of a run, or a file of weights, relative to the suite's file. A source-free method that leaves it out
    starts from the first row that learns from the source alone."""
    predictions: Path | dict[str, Path] | None = None
    """In place of an alignment: a folder of label maps that another tool has made of the target's test cases, one NIfTI file on
    the grid of each case, called as the case or as its image. They are scored like every other row and never trained. In a
    suite of several directions a folder for each: `{ mr2ct = "folder" }`. Relative to the suite's file."""
    organs: str | None = None
    """Of a row with `predictions`: organs with their values in the label maps, as in `liver=5,spleen=1,*=0`; left out, the
    values are those of the data: 1 for the first organ, 2 for the second."""
    seen: str | None = None
    """Of a row with `predictions`: what the tool has been trained on, said below every table; left out, that is unknown."""
    resources: RowResources = RowResources()
    """What a job of this row may use (gpus, cpus, minutes, memory), laid over [launcher]."""

    @field_validator("label")
    @classmethod
    def _can_be_shown(cls, label: str) -> str:
        if not is_a_line(label):
            raise ValueError(f"{label[:40]!r} is not a label: write one short line of words that can be printed.")
        if len(slug(label).encode()) > LONGEST_FOLDER:
            raise ValueError(f"the label '{label[:40]}...' is too long for the name of a folder: shorten it.")
        return label

    @field_validator("channels")
    @classmethod
    def _has_a_middle(cls, channels: int | None) -> int | None:
        return None if channels is None else odd(channels)

    @field_validator("organs")
    @classmethod
    def _names_values(cls, organs: str | None) -> str | None:
        try:
            return None if organs is None else str(LabelMap.parse(organs))
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("seen")
    @classmethod
    def _can_be_said(cls, seen: str | None) -> str | None:
        if seen is not None and not (seen.strip() and is_a_text(seen)):
            raise ValueError(
                f"{seen[:40]!r} does not say what the tool was trained on: write 1 to {LONGEST_TEXT} letters."
            )
        return seen

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "SuiteRow":
        if self.predictions is None:
            if not self.alignment:
                raise ValueError(
                    f"the row '{self.label}' has neither an alignment nor predictions: name one of the two."
                )
            for name in ("organs", "seen"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"the row '{self.label}' is trained, and {name} is for rows with predictions: leave it out."
                    )
            return self
        for name in ("alignment", "options", "channels", "start"):
            if getattr(self, name):
                raise ValueError(
                    f"the row '{self.label}' has predictions, which are not trained: leave out its {name}, or predictions."
                )
        return self

    @property
    def is_external(self) -> bool:
        """Whether it is made of another tool's label maps, so that there is nothing to train."""
        return self.predictions is not None


class PhantomData(ComponentConfig):
    """The built-in phantom as the data of a suite."""

    size: str = "small"
    """small, medium or full."""
    seed: int = Field(0, ge=0)
    """Which patients."""

    @model_validator(mode="after")
    def _size_exists(self) -> "PhantomData":
        if self.size not in SIZES:
            raise ValueError(f"no phantom size is called '{self.size}'.{did_you_mean(self.size, SIZES)}")
        return self


def slug(label: str) -> str:
    """A label as the name of a folder, on every system."""
    kept = "".join(c if c.isalnum() else "-" for c in label.lower())
    name = "-".join(part for part in kept.split("-") if part) or "row"
    return name if names_a_file(name) else f"row-{name}"
