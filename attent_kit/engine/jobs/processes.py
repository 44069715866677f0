"""Several processes at one comparison, one per device, which share the cells: started, listened to, and stopped."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.engine.compare.cells import FailedCell
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.jobs.errand import Ear, Errand
from attent_kit.engine.jobs.settings import LOCAL
from attent_kit.engine.jobs.work import plain
from attent_kit.engine.run.heartbeat import now
from attent_kit.engine.run.processor import THREADS, on_processor
from attent_kit.engine.train.fit import interruptions
from attent_kit.errors import AttentKitError, RunError
from attent_kit.launcher import Job, Launcher
from attent_kit.registry import Registry

SECONDS_BETWEEN_LOOKS = 0.1


class _Worker(NamedTuple):
    """A process on one device."""

    device: str
    job: Job
    errand: Errand
    ear: Ear


class Hearing:
    """What all processes say, passed on once."""

    def __init__(self, cells: Sequence[Cell], watcher: CellWatcher) -> None:
        self.failed: dict[int, AttentKitError] = {}
        """By the number of the cell."""
        self._cells, self._watcher = cells, watcher

    def hear(self, event: str, number: int, sentence: str) -> None:
        """An event of a cell."""
        cell = self._cells[number]
        # Each process meets a failure, and says so.
        if event == "failed" and number not in self.failed:
            self.failed[number] = RunError(sentence)
            self._watcher.failed(cell, self.failed[number])
        elif event == "warned":
            self._watcher.warned(cell, sentence)
        elif event == "finished":
            self._watcher.finished(cell)


def run_on(
    devices: Sequence[str],
    cells: Sequence[Cell],
    registry: Registry,
    out: Path,
    watcher: CellWatcher,
    trackers: Sequence[str] = (),
    launcher: type[Launcher] | None = None,
) -> list[FailedCell]:
    """`run_cells` in one process for each device. The others take over what a process was doing when it died.

    Ctrl-C, or SIGTERM, stops each after its step; a second one at once. They also stop if this process is killed.
    """
    kind = launcher or registry.launcher(LOCAL)
    hearing, began = Hearing(cells, watcher), now()
    with tempfile.TemporaryDirectory(prefix="attentkit-") as folder:
        started = kind(kind.Options(), Path(folder))
        workers = []
        try:
            for number, device in enumerate(devices):
                errand = Errand(Path(folder, f"{number}.json"))
                errand.write(
                    [plain(cell) for cell in cells], device=device, threads=threads_on(device), out=str(out), began=began,
                    trackers=list(trackers), until=None, devices_per_run=1, alone=False, copies={}, with_parent=kind.holds_stdin,
                )  # fmt: skip
                job = Job(f"{os.getpid()}-{number}", errand.argv, errand.log)
                started.submit(job)
                workers.append(_Worker(device, job, errand, Ear(errand)))
            stopped = _wait_for(workers, started, hearing, watcher.said)
        finally:
            started.close()
    if stopped:
        raise KeyboardInterrupt
    # Where each lies is known only now: a process of another suite may have begun a run in between.
    left = {n for n, cell in enumerate(located(cells, registry)) if not cell.done} - hearing.failed.keys()
    for number in left:
        hearing.failed[number] = RunError(
            "its process ended before it was done. Start the same command again to go on."
        )
    return [(cells[number], error) for number, error in sorted(hearing.failed.items())]


def threads_on(device: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """A process on the processor computes with one thread, unless OMP_NUM_THREADS says otherwise; None leaves it to torch."""
    return environment.get(THREADS, "1" if on_processor(device) else None)


def _wait_for(workers: Sequence[_Worker], started: Launcher, hearing: Hearing, say: Callable[[str], None]) -> bool:
    """Until all have ended; whether they were asked to stop."""
    names = {worker.job.name: worker for worker in workers}
    asked = False
    with interruptions() as stop:
        while names:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            if stop.requested and not asked:
                asked = True
                say("Stopping: each process saves its run after the step at hand.")
                started.stop([*names])
            states = started.look([*names])
            # Heard after they were looked at: what has ended has said all.
            for worker in workers:
                for heard in worker.ear.hear():
                    hearing.hear(*heard)
            for state in states:
                if state.state != "ended":
                    continue
                worker = names.pop(state.name)
                if state.code and not asked:
                    say(
                        f"the process on {worker.device} ({state.where}) ended {how(state.code)}; its run is left to the "
                        f"others.{worker.errand.last_words()}"
                    )
    return asked


def how(code: int) -> str:
    """An exit code in words."""
    if code > 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
