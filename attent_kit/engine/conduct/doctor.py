"""This machine, and a folder of results: what runs would meet here, and what earlier ones have left."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from attent_kit.data.workers import ReportDone
from attent_kit.engine.run.dropped import Keep
from attent_kit.engine.study.machine import Machine, machine
from attent_kit.engine.study.upkeep import Cleaned, Upkeep, clean, upkeep


class Doctor(NamedTuple):
    """What was found."""

    machine: Machine
    results: Upkeep | None
    """Of the place that was asked about, if one was."""

    def clean(self) -> Cleaned:
        """Remove what `results` says may go; nothing that is held or not ours, and of what is finished and shown only what was
        not to be kept."""
        return Cleaned([], []) if self.results is None else clean(self.results)


def doctor(
    place: Path | None, set_aside: Mapping[str, str], tell: ReportDone | None = None, keep: Keep = "all"
) -> Doctor:
    """Look, and change nothing. ConfigError if there are no results at `place`.

    `set_aside`: installed plugins that did not load, and why. `keep`: what finished runs are to keep; more than that may go.
    """
    found = None if place is None else upkeep(place, tell or (lambda what, done, total: None), keep)
    return Doctor(machine(place or Path(), set_aside), found)
