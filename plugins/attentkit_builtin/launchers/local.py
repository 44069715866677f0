"""Processes of this machine."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attent_kit.launcher import Job, JobState, Launcher

SECONDS_TO_STOP = 10.0
"""After which a process that was asked to end is killed."""


class Local(Launcher):
    """Processes of this machine, one for each of --devices.

    Without a GPU one for each core. They end with the command that started them: each has its stdin from there, and saves its
    run and ends when that is closed.
    """

    outlives = False
    holds_stdin = True

    def __init__(self, options: Any, folder: Path) -> None:
        super().__init__(options, folder)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, job: Job) -> None:
        """Start it at once."""
        with open(job.log, "ab") as log:
            self._processes[job.name] = subprocess.Popen(
                job.argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C comes to the parent alone, which passes on one.
                start_new_session=True,
            )

    def look(self, names: Sequence[str]) -> list[JobState]:
        """Of its own processes."""
        found = []
        for name in names:
            if (process := self._processes.get(name)) is not None:
                code = process.poll()
                found.append(JobState(name, "running" if code is None else "ended", str(process.pid), code))
        return found

    def stop(self, names: Sequence[str]) -> None:
        """SIGINT; on Windows, which has no such signal, the end of its stdin says the same."""
        for name in names:
            process = self._processes.get(name)
            if process is None or process.poll() is not None:
                continue
            if sys.platform == "win32":
                _close_stdin(process)
            else:
                process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """End what is left."""
        deadline = time.monotonic() + SECONDS_TO_STOP
        for process in self._processes.values():
            _close_stdin(process)
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _close_stdin(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        try:
            process.stdin.close()
        except OSError:
            return  # It is dead already.
