"""Waiting for what another process or thread does."""

import time


def until(true, seconds=300):
    """Only a broken program gets to the end of this: a machine may be slow, and nothing here measures it."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
