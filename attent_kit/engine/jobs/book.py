"""OUT/jobs: what the jobs of a comparison are called and who started them, so that any process finds them again. No torch.

book.json       the launcher with its options, and of each run its job
cancelled       there once `attentkit cancel` has ended them, until they are started again
NAME.json, NAME.events, NAME.log        the errand of a job, what its worker says, what it prints
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from attent_kit.config import dump
from attent_kit.engine.jobs.errand import Errand
from attent_kit.engine.jobs.settings import Launching, launching_of
from attent_kit.errors import AttentKitError, ConfigError, RunError, did_you_mean
from attent_kit.files import read_json, write_text
from attent_kit.launcher import JobState, Launcher
from attent_kit.registry import Registry

FOLDER, _BOOK, _CANCELLED = "jobs", "book.json", "cancelled"
LINES_OF_LOG = 40
STAGE = "-stage"
"""What the name of a shared stage's job ends in."""


class Booked(NamedTuple):
    """The job of a run, or of the first stage of one."""

    run: str
    """DIRECTION/ROW/seedN."""
    name: str
    """As its scheduler knows it."""
    errand: Errand


class Book(NamedTuple):
    """The jobs that `attentkit compare` has started, and the launcher of its last call."""

    launcher: str
    options: dict[str, Any]
    jobs: list[Booked]

    def start(self, registry: Registry, out: Path) -> Launcher:
        """The launcher that can be asked about them; ConfigError if it is no longer installed."""
        return launching_of(self.launcher, self.options, registry).start(out / FOLDER)


def write_book(out: Path, launching: Launching, jobs: Mapping[str, tuple[str, Errand]]) -> None:
    """Note jobs by the name of each, with the run that it is for, after those of earlier calls, whose logs people still read.

    What was cancelled before is forgotten.
    """
    before = read_book(out)
    earlier = {job.name: (job.run, job.errand) for job in before.jobs if job.name not in jobs} if before else {}
    said = {
        "launcher": launching.name,
        "options": {**dump(launching.jobs), **dump(launching.options)},
        "jobs": [
            {"run": run, "name": name, "file": errand.file.name} for name, (run, errand) in {**earlier, **jobs}.items()
        ],
    }
    write_text(out / FOLDER / _BOOK, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    (out / FOLDER / _CANCELLED).unlink(missing_ok=True)


def read_book(out: Path) -> Book | None:
    """None where no launcher was used, or the file is damaged."""
    said = read_json(out / FOLDER / _BOOK)
    try:
        if said is None:
            return None
        jobs = [
            Booked(str(job["run"]), str(job["name"]), Errand(out / FOLDER / Path(str(job["file"])).name))
            for job in said["jobs"]
        ]
        return Book(str(said["launcher"]), dict(said["options"]), jobs)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


@contextmanager
def alone_at(out: Path) -> Iterator[None]:
    """Hold the queue of a comparison against other commands; RunError if one of them holds it."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / FOLDER / ".lock", timeout=1.0):
            yield
    except Timeout:
        raise RunError(
            f"another `attentkit compare` looks after the jobs of {out}: `attentkit status {out}` shows them. Wait for it, or "
            "stop it first; the jobs go on."
        ) from None


def is_cancelled(out: Path) -> bool:
    """Whether somebody has ended the jobs since they were started."""
    return (out / FOLDER / _CANCELLED).exists()


def cancel(out: Path, registry: Registry) -> list[JobState]:
    """End all jobs that wait or run, each after saving; what they were doing. ConfigError if there is no book."""
    book = read_book(out)
    if book is None:
        raise ConfigError(f"{out} has no jobs of a launcher: name the --out of an `attentkit compare --launcher NAME`.")
    launcher = book.start(registry, out)
    try:
        # First, or the command that looks after them would submit them again.
        write_text(out / FOLDER / _CANCELLED, "")
        alive = [s for s in launcher.look([job.name for job in book.jobs]) if s.state != "ended"]
        launcher.stop([state.name for state in alive])
    finally:
        launcher.close()
    return alive


class KnownJob(NamedTuple):
    """A job that its scheduler still knows of."""

    log: Path
    state: JobState

    def as_json(self) -> dict[str, object]:
        """Its name, log and state, flat."""
        return {"name": self.state.name, "log": str(self.log), **self.state._asdict()}

    def in_words(self) -> str | None:
        """What it waits for or where it runs; None for one that has ended."""
        state = self.state
        if state.state == "ended":
            return None
        where = f" on {state.where}" if state.where else ""
        why = f" ({state.why})" if state.why and state.state == "queued" else ""
        return f"{state.state}{where}{why}, job {state.name}, log {self.log}"


def known_jobs(out: Path, registry: Registry) -> tuple[dict[str, list[KnownJob]], str | None]:
    """By the name of a run, the jobs that the scheduler still knows of, and why it cannot be asked, if so."""
    book = read_book(out)
    if book is None:
        return {}, None
    try:
        launcher = book.start(registry, out)
        try:
            states = {state.name: state for state in launcher.look([job.name for job in book.jobs])}
        finally:
            launcher.close()
    except AttentKitError as error:
        return {}, f"The launcher '{book.launcher}' cannot be asked: {error}"
    found: dict[str, list[KnownJob]] = {}
    for job in book.jobs:
        if job.name in states:
            found.setdefault(job.run, []).append(KnownJob(job.errand.log, states[job.name]))
    return found, None


def end_of_log(out: Path, cell: str) -> str:
    """The path of `log_of` and its last lines; RunError if there are none yet."""
    log = log_of(out, cell)
    words = Errand(log).last_words(LINES_OF_LOG)
    if not words:
        raise RunError(f"{log} is empty or not there yet: the job has printed nothing.")
    return f"{log}:{words}"


def log_of(out: Path, cell: str) -> Path:
    """The log of the job of a run that is named by its folder, or by a part of that which no other has."""
    book = read_book(out)
    if book is None or not book.jobs:
        raise ConfigError(
            f"{out} has no jobs of a launcher, and so no logs: name the --out of an `attentkit compare --launcher NAME`."
        )
    wanted = cell.strip("/").removeprefix(f"{out.as_posix().strip('/')}/")
    logs = {job.errand.file.stem if STAGE in job.errand.file.stem else job.run: job.errand.log for job in book.jobs}
    fitting = [run for run in logs if run == wanted] or [run for run in logs if wanted in run]
    runs = [run for run in fitting if "/" in run] or fitting
    if len(runs) != 1:
        several = f"{len(runs)} jobs are called so: {', '.join(runs[:5])}" if runs else "no job is called so"
        nearest = "" if runs else did_you_mean(wanted, logs)
        raise ConfigError(f"--logs {cell}: {several}.{nearest} Name one as in {next(iter(logs))}.")
    return logs[runs[0]]
