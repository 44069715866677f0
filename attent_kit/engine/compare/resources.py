"""What jobs of a comparison may use, as [launcher] of a suite, `resources` of a row and `--launch` say it."""

from typing import Any

from pydantic import Field

from attent_kit.config import ComponentConfig


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
    """GPUs of a run, or a fraction of one; with 0 it computes on the processor."""
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

    def of(self, row: RowResources) -> dict[str, Any]:
        """gpus, cpus, minutes and memory of a run of a row."""
        names = RowResources.model_fields
        return {name: getattr(self, name) if (own := getattr(row, name)) is None else own for name in names}
