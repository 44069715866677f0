"""Slurm as a launcher: each run of a comparison is a job of sbatch."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.1"


@hookimpl
def attentkit_launchers() -> dict[str, str]:
    return {"slurm": "attentkit_slurm.slurm:Slurm"}
