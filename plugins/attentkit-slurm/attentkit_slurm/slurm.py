"""Jobs of sbatch, found again by their names, asked about with one squeue.

A job is a shell script that becomes the worker with `exec`, so that Slurm's signals reach it. Everything is done with sbatch,
squeue, scontrol and scancel, and works without slurmdbd: what became of a run stands in its folder.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from attent_kit.config import ComponentConfig
from attent_kit.errors import ConfigError, RunError
from attent_kit.launcher import Job, JobState, Launcher

WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED", "CONFIGURING"}
RUNNING = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING"}
SECONDS = 60.0
"""A command of Slurm that answers in none of them counts as one that did not answer."""
BETWEEN = "\x1f"
"""Between two fields of squeue: no name of a node or a reason has it."""


class Slurm(Launcher):
    """Jobs of Slurm, one for each run.

    They need a disk that all nodes see, and sbatch, squeue and scancel where `attentkit compare` runs. A job is told some time
    before its limit, and when it is preempted, and then saves its run and ends; it is submitted again and goes on from there.
    """

    class Options(ComponentConfig):
        """What sbatch is told, beside GPUs, cores, minutes and memory."""

        partition: str | None = None
        """Partition, or several with commas between them."""
        account: str | None = None
        """Account that is charged."""
        qos: str | None = None
        """Quality of service."""
        constraint: str | None = None
        """Features that a node must have, as in a100|h100."""
        nodelist: str | None = None
        """Nodes that may be used, as in node[1-4]."""
        exclude: str | None = None
        """Nodes that may not be used."""
        gres: str = "gpu"
        """What a GPU is called: gpu, or gpu:a100."""
        warning: int = Field(120, ge=1)
        """Seconds before its time limit at which a job is told to save and end."""
        lines: Path | None = None
        """File of further lines for each job's script: #SBATCH lines, then commands such as module load."""

        @field_validator("lines")
        @classmethod
        def _is_there(cls, lines: Path | None) -> Path | None:
            if lines is not None and not lines.is_file():
                raise ValueError(f"{lines}: there is no such file of sbatch lines.")
            return lines

    def __init__(self, options: Any, folder: Path) -> None:
        super().__init__(options, folder)
        self._ids: dict[str, str] = {}
        """Slurm's number of the last job of each name that was seen."""

    def check(self, jobs: Sequence[Job]) -> None:
        """Let Slurm try one job of each kind, without submitting it."""
        missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise ConfigError(
                f"--launcher slurm: {missing[0]} is not installed here. Start this on a login node of the cluster, or use "
                "--launcher local."
            )
        alike = {job[3:7]: job for job in jobs}
        for job in alike.values():
            done = _run(["sbatch", "--test-only"], script(job._replace(after=()), self.options, {}))
            if done.returncode:
                raise ConfigError(f"--launcher slurm: sbatch refuses such a job: {_said(done)}")

    def submit(self, job: Job) -> None:
        """sbatch its script, which stays beside its log."""
        text = script(job, self.options, self._ids)
        job.log.with_suffix(".sh").write_text(text, encoding="utf-8")
        done = _run(["sbatch", "--parsable"], text)
        if done.returncode:
            raise RunError(f"sbatch took no job: {_said(done)}")
        self._ids[job.name] = done.stdout.strip().partition(";")[0]

    def look(self, names: Sequence[str]) -> list[JobState]:
        """One squeue for all. It knows jobs that are over for some minutes, and no longer."""
        wanted = {*names}
        fields = BETWEEN.join(("%A", "%j", "%T", "%N", "%r"))
        done = _run(["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", f"--format={fields}"])
        if done.returncode:
            raise RunError(f"squeue does not answer: {_said(done)}")
        found: dict[str, tuple[int, JobState]] = {}
        for line in done.stdout.splitlines():
            number, name, state, node, why = (line.split(BETWEEN) + [""] * 5)[:5]
            # A job that is submitted again has the same name; the last of them counts.
            if name in wanted and int(number) >= found.get(name, (0, None))[0]:
                found[name] = int(number), _state(name, state, node, why)
                self._ids[name] = number
        return [state for _, state in found.values()]

    def stop(self, names: Sequence[str]) -> None:
        """scancel: SIGTERM, and SIGKILL after the cluster's KillWait."""
        if unknown := [name for name in names if name not in self._ids]:
            self.look(unknown)
        numbers = [self._ids[name] for name in names if name in self._ids]
        for first in range(0, len(numbers), 500):
            done = _run(["scancel", *numbers[first : first + 500]])
            if done.returncode:
                raise RunError(f"scancel failed: {_said(done)}")


def script(job: Job, options: Any, ids: dict[str, str]) -> str:
    """What sbatch is given: `ids` has Slurm's number of each job that it may come after.

    Without a dependency that can be met the job would wait for ever, so Slurm gives it up, and it is submitted again.
    """
    if job.gpus != int(job.gpus):
        raise ConfigError(
            f"--launch gpus={job.gpus:g}: Slurm gives whole GPUs. Write 1, or use a launcher that shares them."
        )
    after = [ids[name] for name in job.after if name in ids]
    given = {
        "job-name": job.name,
        "output": job.log.absolute(),
        "open-mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": job.cpus,
        "time": job.minutes,
        "mem": None if job.memory is None else f"{round(job.memory * 1024)}M",
        "gres": f"{options.gres}:{int(job.gpus)}" if job.gpus else None,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "nodelist": options.nodelist,
        "exclude": options.exclude,
        "signal": f"B:USR1@{options.warning}",
        "dependency": f"afterok:{':'.join(after)}" if after else None,
        "kill-on-invalid-dep": "yes" if after else None,
        "requeue": True,
    }
    lines = [
        f"#SBATCH --{name}" + ("" if value is True else f"={shlex.quote(str(value))}")
        for name, value in given.items()
        if value is not None
    ]
    more = [] if options.lines is None else options.lines.read_text(encoding="utf-8").splitlines()
    return "\n".join(["#!/bin/bash", *lines, *more, f"exec {shlex.join(job.argv)}", ""])


def _state(name: str, state: str, node: str, why: str) -> JobState:
    """A line of squeue."""
    word = re.split(r"[ +]", state)[0]
    if word in WAITING:
        return JobState(name, "queued", "", None, why)
    if word in RUNNING:
        return JobState(name, "running", node)
    return JobState(name, "ended", node, 0 if word == "COMPLETED" else None, word.lower().replace("_", " "))


def _run(words: Sequence[str], text: str = "") -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            words,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            # Ctrl-C is for the command that waits, not for a submission at hand.
            start_new_session=True,
        )
    except FileNotFoundError:
        raise RunError(f"{words[0]} is not installed here: this needs a login node of the cluster.") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"{words[0]} did not answer within {SECONDS:.0f} s.") from None


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line of what a command of Slurm complains about."""
    lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    text = (lines[-1] if lines else f"exit code {done.returncode}").removeprefix("sbatch: error: ")
    return text.removeprefix("allocation failure: ").rstrip(".") + "."
