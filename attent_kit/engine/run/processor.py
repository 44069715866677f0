"""The processor: how many processes of one thread each it takes, so that the digits of a comparison do not depend on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from attent_kit.data.workers import cores
from attent_kit.engine.run.device import launch

THREADS = "OMP_NUM_THREADS"
"""Environment variable that says how many threads a process computes with."""
PROCESS_BYTES = 3 * 2**29
"""Memory that each process needs on small networks; the demo's peak is 1.1 GB."""


def on_processor(device: str) -> bool:
    """Whether the device, `auto` among them, is the processor."""
    return launch(device).device.type == "cpu"


def processes(most: int) -> int:
    """How many processes of one thread are started for so many runs: one for each core, as far as memory goes."""
    return max(1, min(cores(), free_memory() // PROCESS_BYTES, most))


def free_memory() -> int:
    """Bytes that can be had without swapping, here and in this container; a great many where nobody says."""
    bounds = [_available(), _left_in_group()]
    return min((bound for bound in bounds if bound is not None), default=2**62)


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Torch computes with one thread meanwhile if the device is the processor, unless OMP_NUM_THREADS says otherwise."""
    before = torch.get_num_threads()
    if THREADS not in os.environ and on_processor(device):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _left_in_group() -> int | None:
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return None  # no such file, or "max"
