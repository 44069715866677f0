"""What a comparison can be asked for: the options of `attentkit compare` as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attent_kit.config import as_words
from attent_kit.engine.compare.suite import Suite
from attent_kit.errors import ConfigError
from attent_kit.report.scores import LAST

LISTS = ("alignments", "seeds", "directions", "folds", "ablate", "devices", "track", "launch")


@dataclass(frozen=True)
class CompareRequest:
    """A suite, which part of it is to be run, and what is to be made of the scores; each as the option of that name."""

    suite: Suite | Path | str = "phantom"
    """Its TOML file, the name of an installed one, or the suite itself."""
    variant: str | None = None
    """Of the suite's [variants]."""
    alignments: Sequence[str] = ()
    """Rows of these alone; an alignment that is not a row of the suite becomes one. Empty: all rows."""
    seeds: Sequence[int] = ()
    """In place of the suite's."""
    directions: Sequence[str] = ()
    """In place of the suite's, as in mr2ct."""
    folds: Sequence[int] = ()
    """Numbers of those of the suite's folds that are to be run now, from 0. Empty: all."""
    set: Sequence[str] | Mapping[str, Any] = ()
    """For every row that has the option: "segment_steps=100", or {"segment_steps": 100}."""
    vary: Sequence[str] | Mapping[str, Sequence[Any]] = ()
    """A row for each value of every row that has the option: "cycle=1,10", or {"cycle": [1, 10]}."""
    ablate: Sequence[str] | None = None
    """Alignments to take apart: with all their terms, and without each of them."""
    channels: int | None = None
    """Neighbouring slices that networks see as channels (2.5-D), an odd number, for all rows that do not say their own."""
    devices: Sequence[str] = ("auto",)
    """Several start one process each; `auto` where there is no GPU one for each core."""
    devices_per_run: int = 1
    """Devices of one machine that train each run together; of `devices` so many at a time."""
    out: Path | str | None = None
    """Folder of all results; runs/NAME if it is None."""
    select: str = LAST
    """Snapshot that counts: last, a selector, or target-oracle."""
    reference: str | None = None
    """Label of the row that the others are tested against; the suite's first if it is None."""
    slide_test: bool = False
    """Whether to add the test that the slides of AttENT seem to have used."""
    track: Sequence[str] = ()
    """Names of trackers."""
    shift: bool = False
    """Whether to measure, afterwards, the shift of each run and audit its translation."""
    launcher: str | None = None
    """What starts the runs, such as slurm; that of the suite's [launcher] if it is None, and else processes of this machine."""
    launch: Sequence[str] = ()
    """Options of the launcher and of its jobs, over those of [launcher]: "partition=gpu", "minutes=480"."""
    stage_data: bool = False
    """Whether each node copies the prepared files to its own disk first."""
    report: bool = True
    """Whether to write report.html, table.tex, pairs.csv and figures."""

    def __post_init__(self) -> None:
        for name in LISTS:
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name}: give a list, as in {name}=['{getattr(self, name)}'].")
        if self.devices_per_run < 1:
            raise ConfigError(f"--devices-per-run {self.devices_per_run}: name at least one device.")

    @property
    def set_words(self) -> tuple[str, ...]:
        """`set` as words of the command line."""
        return as_words(self.set)

    @property
    def vary_words(self) -> tuple[str, ...]:
        """`vary` as words of the command line."""
        if not isinstance(self.vary, Mapping):
            return as_words(self.vary)
        return tuple(
            f"{option}={','.join(word.partition('=')[2] for value in values for word in as_words({option: value}))}"
            for option, values in self.vary.items()
        )
