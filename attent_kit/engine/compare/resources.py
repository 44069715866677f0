"""What jobs of a comparison may use, as [launcher] of a suite, `resources` of a row and `--launch` say it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import Field

from attent_kit.config import ComponentConfig
from attent_kit.errors import ConfigError


class RowResources(ComponentConfig):
    """Resources of the runs of one row, laid over those of all."""

    gpus: float | None = Field(None, ge=0)
    """GPUs of a run, or a fraction of one."""
    cpus: int | None = Field(None, ge=1)
    """Processor cores of a run."""
    minutes: int | None = Field(None, ge=1)
    """Time limit of a job; a run that needs longer goes on in another job."""
    memory: float | None = Field(None, gt=0)
    """Main memory of a run in GiB."""


class JobSettings(ComponentConfig):
    """What every launcher understands; what else is given are options of the launcher."""

    gpus: float = Field(1.0, ge=0)
    """GPUs of a run, or a fraction of one; with 0 it computes on the processor. With --devices-per-run these, the cores and the
    memory are those of each device of a run."""
    cpus: int = Field(1, ge=1)
    """Processor cores of a run."""
    minutes: int | None = Field(None, ge=1)
    """Time limit of a job; a run that needs longer goes on in another job. Left out, the cluster's."""
    memory: float | None = Field(None, gt=0)
    """Main memory of a run in GiB. Left out, the cluster's."""
    queued: int = Field(1000, ge=1)
    """Most jobs that wait or run at one time."""
    retries: int = Field(3, ge=0)
    """How often a run is submitted again whose job was lost and left no new checkpoint."""
    seconds: float = Field(10.0, gt=0)
    """Time between two looks at the queue."""

    def of(self, row: RowResources, devices: int = 1) -> dict[str, Any]:
        """gpus, cpus, minutes and memory of a run of a row, which takes for each of its devices what a run on one takes.

        ConfigError for a part of a GPU, which cannot be one of several.
        """
        names = RowResources.model_fields
        found = {name: getattr(self, name) if (own := getattr(row, name)) is None else own for name in names}
        if devices == 1:
            return found
        if found["gpus"] not in (0, 1):
            said, write = ("--launch", "type --launch") if row.gpus is None else ("resources of a row,", "write there")
            raise ConfigError(
                f"{said} gpus={found['gpus']:g} is of one device of a run, and --devices-per-run asks for {devices} devices: "
                f"{write} gpus=1, or gpus=0 for the processor."
            )
        several = ("gpus", "cpus", "memory")
        return found | {name: found[name] * devices for name in several if found[name] is not None}


class NodeHours(NamedTuple):
    """What runs cost as jobs, if the nodes are as fast as the machine that measured."""

    launcher: str
    hours: float
    """Of nodes, of which a job takes one."""
    core_hours: float
    gpu_hours: float
    longest: float
    """Seconds of the longest run."""
    jobs: int
    """Of all runs, by their time limits; at least one each."""

    @property
    def sentence(self) -> str:
        """In words."""
        parts = {"node": self.hours}
        if self.core_hours != self.hours:  # a job is more than one core
            parts["core"] = self.core_hours
        if self.gpu_hours:
            parts["GPU"] = self.gpu_hours
        *before, last = [f"{hours:.3g} {name} hours" for name, hours in parts.items()]
        hours = f"{', '.join(before)} and {last}" if before else last
        return (
            f"As {self.jobs} jobs of {self.launcher} about {hours} at the speed of this machine; "
            f"the longest run takes {self.longest / 3600:.3g} h."
        )


def node_hours(launcher: str, runs: Sequence[tuple[float, dict[str, Any]]]) -> NodeHours:
    """Of runs by their seconds and what `JobSettings.of` says of each."""
    jobs = sum(
        max(1, math.ceil(seconds / 60 / resources["minutes"])) if resources["minutes"] else 1
        for seconds, resources in runs
    )
    return NodeHours(
        launcher,
        sum(seconds for seconds, _ in runs) / 3600,
        sum(seconds * resources["cpus"] for seconds, resources in runs) / 3600,
        sum(seconds * resources["gpus"] for seconds, resources in runs) / 3600,
        max((seconds for seconds, _ in runs), default=0.0),
        jobs,
    )
