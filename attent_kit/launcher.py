"""The interface of a launcher: what starts the runs of a comparison as jobs, on this machine or on others.

A job is a command, never a pickled function, and takes what it has to do from a file that it is named: the folder of the
results must lie on a disk that all machines see. What became of a run is read from its folder; a launcher only says which of
its jobs wait, run, or are over. Who calls it decides what is submitted, when, and how often.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from attent_kit.config import ComponentConfig


class Job(NamedTuple):
    """A command that is to be run somewhere."""

    name: str
    """No other job of the comparison, and of the person on the cluster, is called so: letters, digits, '-' and '_'."""
    argv: tuple[str, ...]
    """The command and its arguments, to be run in the folder that is the current one now."""
    log: Path
    """File that stdout and stderr are appended to."""
    gpus: float = 0.0
    """How many; a fraction where several jobs may share one."""
    cpus: int = 1
    """Processor cores."""
    minutes: int | None = None
    """Time limit; None leaves it to the cluster."""
    memory: float | None = None
    """GiB of main memory; None leaves it to the cluster."""
    after: tuple[str, ...] = ()
    """Names of jobs that must have ended with exit code 0 before this one may start."""


class JobState(NamedTuple):
    """How a job is getting on."""

    name: str
    state: Literal["queued", "running", "ended"]
    where: str = ""
    """The node that it runs on, or ran on."""
    code: int | None = None
    """Exit code once it has ended, negative for a signal; None where nobody knows."""
    why: str = ""
    """What the scheduler says of it in a word or two: why it waits, or why it ended."""


class Launcher(ABC):
    """Starts jobs and says what they do. A RunError of any method is tried again later."""

    kind: ClassVar[str] = "launchers"
    package: ClassVar[str] = ""
    """Package that must be importable, if it needs one."""
    install: ClassVar[str] = ""
    """What pip installs to get that package."""
    outlives: ClassVar[bool] = True
    """Whether jobs go on when the process that submitted them ends; each run is then a job of its own. Otherwise there is a job
    for each device, and these share the runs among them."""

    holds_stdin: ClassVar[bool] = False
    """Whether a job has a stdin that ends when whatever started it dies: it then saves and ends."""

    class Options(ComponentConfig):
        """What `--launch` and a suite's [launcher] may say to it."""

    def __init__(self, options: Any, folder: Path) -> None:
        """`options`: an instance of Options. `folder`: that of the job files, where it may keep files of its own."""
        self.options, self.folder = options, folder

    def check(self, jobs: Sequence[Job]) -> None:
        """ConfigError or RunError, before anything is submitted, for what cannot be run at all."""
        return None

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Start it, or put it in the queue. RunError if that is refused now and may be accepted later."""

    @abstractmethod
    def look(self, names: Sequence[str]) -> list[JobState]:
        """Of those jobs that are known, asked all at once; what is not known, or not any more, is left out.

        Any process may ask, also one that has not submitted them.
        """

    @abstractmethod
    def stop(self, names: Sequence[str]) -> None:
        """Ask these to save and end; those that still wait never start. A second time, end them soon."""

    def close(self) -> None:
        """Nothing is asked any more."""
        return None
