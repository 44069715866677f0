"""The stages of a run among its steps: those of the method, and what `--more-steps` has added to the last of them.

A part that is added goes on counting the steps of its stage, so that its batches are new, and stretches the stage's schedule
over all steps that the stage has by then: step k of s old and n new ones has the rate of the fraction k / (s + n). With a
constant rate a run of s and n more steps ends in the bits of one that was asked for s + n at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

from attent_kit.errors import ConfigError
from attent_kit.interfaces import Alignment, Batch, Losses, Stage, Update


class Part(NamedTuple):
    """Steps of one stage that follow each other."""

    stage: Stage
    first: int
    """Of the steps of the run."""
    last: int
    """The step after its last."""
    before: int = 0
    """Steps of the stage that earlier parts have."""

    @property
    def name(self) -> str:
        """The stage, and where it begins if that is not its beginning."""
        return f"{self.stage.name} from {self.before}" if self.before else self.stage.name

    def in_stage(self, step: int) -> int:
        """A step of the run, counted within the stage."""
        return self.before + step - self.first

    def fraction(self, step: int) -> float:
        """How much of its stage is done before a step of the run, from 0 to 1: what a schedule is asked with."""
        return self.in_stage(step) / (self.before + self.last - self.first)


def _nothing(batch: Batch, update: Update) -> Losses:
    return {}


AS_IT_IS = Stage("as it is", _nothing, 0, 1, ())
"""Stands for the stages of a method that has none and answers with the weights that it starts from."""


def parts_of(alignment: Alignment, more_steps: Sequence[int] | None = None) -> list[Part]:
    """Every part of a run in the order of training; `more_steps` are those that were added to the last stage. There is at least
    one. ConfigError for steps that are added where there is no stage."""
    parts: list[Part] = []
    done = 0
    for stage in alignment.stages():
        parts.append(Part(stage, done, done + stage.steps))
        done += stage.steps
    if not parts:
        parts = [Part(AS_IT_IS, 0, 0)]
        if more_steps:
            raise ConfigError(f"more_steps: '{type(alignment).__name__}' trains nothing, so that nothing can go on.")
    for steps in more_steps or ():
        stage, before = parts[-1].stage, parts[-1].in_stage(done)
        parts.append(Part(stage, done, done + steps, before))
        done += steps
    return parts


def total_steps(alignment: Alignment, more_steps: Sequence[int] | None = None) -> int:
    """Steps of all parts together."""
    return parts_of(alignment, more_steps)[-1].last
