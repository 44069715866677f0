"""The processor: how many processes of one thread each it takes, so that the digits of a comparison do not depend on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from attent_kit.data.workers import cores, host_memory
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
    return max(1, min(cores(), host_memory() // PROCESS_BYTES, most))


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
