"""Several processes at one comparison, one per device. Their parent starts them, passes on what they say, and stops them.

A process gets its job as one line of JSON on stdin, and each thing that happens is a line of JSON on its stdout. The end of
its stdin is the end of its parent.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, NamedTuple

from attent_kit.config import dump
from attent_kit.engine.compare.cells import FailedCell, refuse_broken, run_cells
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.run.heartbeat import now
from attent_kit.engine.run.processor import THREADS, on_processor
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.fit import interruptions
from attent_kit.engine.train.tracking import find_trackers
from attent_kit.errors import AttentKitError, RunError
from attent_kit.reading import json_in
from attent_kit.registry import Registry

WORKER = "attent_kit.cli.worker"
"""Module that such a process runs: it loads the plugins and calls `work`."""
SECONDS_TO_STOP = 10.0
"""After a second Ctrl-C."""


class Worker(NamedTuple):
    """A process of ours on one device."""

    device: str
    process: "subprocess.Popen[bytes]"
    listener: threading.Thread
    errors: IO[bytes]

    @property
    def name(self) -> str:
        return f"the process on {self.device} ({self.process.pid})"


class _Ear:
    """Hears what all processes say, and passes it on once."""

    def __init__(self, cells: Sequence[Cell], watcher: CellWatcher) -> None:
        self.failed: dict[int, AttentKitError] = {}
        """By the number of the cell."""
        self._cells, self._watcher = cells, watcher
        self._speaking = threading.Lock()

    def hear(self, event: str, number: int, sentence: str) -> None:
        """An event of a cell, from any thread."""
        cell = self._cells[number]
        with self._speaking:
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
) -> list[FailedCell]:
    """`run_cells` in one process for each device. The others take over what a process was doing when it died.

    Ctrl-C, or SIGTERM, stops each after its step; a second one at once. They also stop if this process is killed.
    """
    ear = _Ear(cells, watcher)
    job: dict[str, Any] = {"out": str(out), "began": now(), "trackers": list(trackers), "command": sys.argv}
    job["cells"] = [_plain(cell) for cell in cells]
    workers = [_start({**job, "device": device}, _environment(device), ear.hear) for device in devices]
    try:
        stopped = _wait_for(workers, watcher.said)
    except KeyboardInterrupt:
        _stop_at_once(workers)
        raise
    finally:
        for worker in workers:
            if worker.process.stdin is not None:
                worker.process.stdin.close()
            worker.errors.close()
    if stopped:
        raise KeyboardInterrupt
    # Where each lies is known only now: a process of another suite may have begun a run in between.
    left = {n for n, cell in enumerate(located(cells, registry)) if not cell.done} - ear.failed.keys()
    for number in left:
        ear.failed[number] = RunError("its process ended before it was done. Start the same command again to go on.")
    return [(cells[number], error) for number, error in sorted(ear.failed.items())]


def _start(job: dict[str, Any], environment: dict[str, str], hear: Callable[[str, int, str], None]) -> Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115, open for as long as the process is
    process = subprocess.Popen(
        [sys.executable, "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        # A terminal's Ctrl-C comes to this process alone, which passes on one.
        start_new_session=True,
    )

    def listen() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                event, number, sentence = json_in(line)
                hear(event, number, sentence)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # It is dead already, which is seen when it is waited for.
    return Worker(job["device"], process, listener, errors)


def _wait_for(workers: Sequence[Worker], say: Callable[[str], None]) -> bool:
    """Until all have ended; whether they were asked to stop."""
    asked, ended = False, set()  # type: tuple[bool, set[int]]
    with interruptions() as stop:
        while len(ended) < len(workers):
            time.sleep(0.1)
            if stop.requested and not asked:
                asked = True
                say("Stopping: each process saves its run after the step at hand.")
                _interrupt(workers)
            for worker in workers:
                pid, code = worker.process.pid, worker.process.poll()
                if code is not None and pid not in ended:
                    ended.add(pid)
                    worker.listener.join()
                    if code and not asked:
                        say(f"{worker.name} ended {_how(code)}; its run is left to the others.{_last_words(worker)}")
    return asked


def _stop_at_once(workers: Sequence[Worker]) -> None:
    _interrupt(workers)
    deadline = time.monotonic() + SECONDS_TO_STOP
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()


def _environment(device: str) -> dict[str, str]:
    """A process on the processor computes with one thread, unless OMP_NUM_THREADS says otherwise."""
    environment = dict(os.environ)
    if on_processor(device):
        environment.setdefault(THREADS, "1")
    return environment


def _interrupt(workers: Sequence[Worker]) -> None:
    for worker in workers:
        if worker.process.poll() is not None:
            continue
        if sys.platform == "win32":  # which has no such signal; the end of its stdin says the same
            assert worker.process.stdin is not None
            worker.process.stdin.close()
        else:
            worker.process.send_signal(signal.SIGINT)


def _how(code: int) -> str:
    if code > 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def _last_words(worker: Worker) -> str:
    worker.errors.seek(0)
    words = worker.errors.read().decode(errors="replace").strip().splitlines()[-12:]
    return "".join(f"\n  {line}" for line in words)


def _plain(cell: Cell) -> dict[str, Any]:
    plain = {field.name: getattr(cell, field.name) for field in fields(cell)}
    return {**plain, "settings": dump(cell.settings), "folder": str(cell.folder)}


class _Reporter(CellWatcher):
    """Tells the parent, in lines, what happens to the cells."""

    def __init__(self, cells: Sequence[Cell], tell: Callable[[str], None]) -> None:
        self._numbers = {cell.key: number for number, cell in enumerate(cells)}
        self._tell = tell

    def finished(self, cell: Cell) -> None:
        self._say("finished", cell)

    def failed(self, cell: Cell, error: AttentKitError) -> None:
        self._say("failed", cell, str(error))

    def warned(self, cell: Cell, sentence: str) -> None:
        self._say("warned", cell, sentence)

    def _say(self, event: str, cell: Cell, sentence: str = "") -> None:
        self._tell(json.dumps([event, self._numbers[cell.key], sentence]))


def work(job: dict[str, Any], registry: Registry, tell: Callable[[str], None]) -> None:
    """What such a process does; `tell` takes a line for the parent."""
    refuse_broken(job["device"])
    cells = [_cell(plain, registry) for plain in job["cells"]]
    trackers = find_trackers(job["trackers"], registry)
    run_cells(cells, registry, Path(job["out"]), job["device"], _Reporter(cells, tell), trackers, job["began"])


def _cell(plain: dict[str, Any], registry: Registry) -> Cell:
    settings = run_settings(plain["settings"], registry)
    return Cell(**{**plain, "settings": settings, "folder": Path(plain["folder"])})
