"""The interface of an experiment tracker: where a run tells others how it goes.

A tracker imports its package in `start`, so that nobody who does not use it pays for it. Unless its own environment variables
tell the package otherwise, it writes files and reaches no network.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple


class TrackedRun(NamedTuple):
    """What a tracker is told about a run."""

    name: str
    """Direction, method and seed."""
    folder: Path
    """The run's own folder."""
    store: Path
    """A folder that all runs of a comparison share; of a run by itself its own."""
    config: Mapping[str, Any]
    """All settings, as config.toml has them."""
    step: int
    """Steps done before: what was logged of later ones will be logged again."""
    id: str | None
    """What `start` returned when this run was first tracked; None if now is the first time."""


class Tracker(ABC):
    """Writes down one run. What it raises switches it off, and never stops the run."""

    kind: ClassVar[str] = "trackers"
    package: ClassVar[str] = ""
    """Package that must be importable, if it needs one."""
    install: ClassVar[str] = ""
    """What pip installs to get that package."""

    @abstractmethod
    def start(self, run: TrackedRun) -> str:
        """Begin, or append to the run of that id; returns the tracker's id of it."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after so many steps: "STAGE/LOSS" averaged since the last time, "snapshot/SCORE"."""

    @abstractmethod
    def end(self, scores: Mapping[str, float] | None, artefacts: Sequence[Path]) -> None:
        """The run is over: "METRIC/ORGAN" as the mean of its test cases, "SELECTION/METRIC/ORGAN" if another snapshot than the
        last was scored, and files of its folder. None and no files if it was stopped before."""
