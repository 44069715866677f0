"""The same function on many cases, in this process or in several; the answers come in the order of the cases."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from attent_kit.errors import RunError

MOST = 8
"""Processes at most, unless more are asked for: beyond that the disk is the limit."""
MEMORY = 2 * 2**30
"""Bytes that a process may need for one CT of 512 x 512 x 200 voxels: its voxels in float32, a few times."""
WORTHWHILE = 64 * 2**20
"""Bytes of input below which starting processes takes longer than the work."""

ReportDone = Callable[[str, int, int], None]
"""`report(what, done, total)`: what was done last, and how far all is; first with 0 done."""

Ask = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""`ask(function, tasks)`: an iterator over function(task) in the order of the tasks."""


def counted(report: ReportDone | None, total: int) -> Callable[[str], None]:
    """Tells `report` that nothing is done yet; returns what to call with each thing that is done."""
    done = iter(range(1, total + 1))
    if report is not None:
        report("", 0, total)

    def tell(what: str) -> None:
        if report is not None:
            report(what, next(done), total)

    return tell


def sensible_workers(cases: int, size: int) -> int:
    """Processes for so many cases of `size` bytes in all: as many as there are processors and memory for, 8 at most."""
    return 1 if size < WORTHWHILE else most_workers(cases)


def most_workers(useful: int) -> int:
    """Processes that there are processors and memory for: `useful` and 8 at most, 1 at least."""
    return max(1, min(cores(), useful, host_memory() // MEMORY, MOST))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """Bytes of memory that can be used without swapping, here and in this container; 4 GiB where nobody says."""
    bounds = [bound for bound in (_available(), _left_in_container()) if bound is not None]
    return max(0, min(bounds, default=4 * 2**30))


def _available() -> int | None:
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _left_in_container() -> int | None:
    """What its limit leaves; pages of files that can be dropped count as free."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["inactive_file"])
    except (OSError, KeyError, ValueError):
        return None  # no such file, or "max"


class WorkerEnded(RunError):
    """A process was ended from outside; what others have finished is still good."""


@contextmanager
def asking(workers: int, shared: object) -> Iterator[Ask]:
    """`ask` of so many processes, or of this one if `workers` is 1 or `shared` cannot be sent to another.

    They do not run the script that asks, which therefore needs no `if __name__ == "__main__"`: what is in it stays here.

    On the way out what has begun is finished and what has not is dropped. RunError if a process was ended from outside.
    """
    if workers == 1 or not _can_be_sent(shared):
        yield map
        return
    # Started afresh, not forked: a fork of a process with threads may stand still for ever.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)

    def ask(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        with _born_deaf(), _born_without_the_script():
            return pool.map(function, tasks)

    try:
        yield ask
    except BrokenProcessPool as error:
        raise WorkerEnded(
            "a process was ended before its case was done, as happens when memory runs out. What is finished is kept: "
            "start the same command again with --workers 1."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _can_be_sent(shared: object) -> bool:
    try:
        return b"__main__" not in pickle.dumps(shared)
    except Exception:
        return False


@contextmanager
def _born_deaf() -> Iterator[None]:
    """Processes that begin here never hear Ctrl-C, not even while they import; this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _born_without_the_script() -> Iterator[None]:
    """Processes that begin here do not import the script or notebook that this one runs."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    for name in hidden:
        delattr(main, name)
    main.__spec__ = None
    try:
        yield
    finally:
        del main.__spec__
        for name, value in hidden.items():
            setattr(main, name, value)


def _begin() -> None:
    """Leave Ctrl-C to the process that hands out the work, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
