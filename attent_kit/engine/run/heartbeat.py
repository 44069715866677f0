"""RUN/progress.json, which says how far a run is for as long as a process works on it; RUN/failed.json, why one gave up."""

import json
import math
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from attent_kit.engine.run.folder import RunFolder
from attent_kit.errors import AttentKitError, out_of_memory
from attent_kit.files import write_text

SECONDS_BETWEEN_BEATS = 2.0


class Heartbeat:
    """Writes progress.json whole, every few seconds and at once when the stage changes."""

    def __init__(self, run: RunFolder, device: str) -> None:
        self._path, self._device = run.progress, device
        self._stage, self._losses = "", {}  # type: tuple[str, dict[str, float]]
        self._written = self._began = -math.inf
        self._first = 0

    def __call__(self, stage: str, step: int, steps: int, losses: dict[str, float] | None = None) -> None:
        """`step` of `steps` of the whole run are done; fresh losses, now and then."""
        moment = time.monotonic()
        if stage != self._stage:
            # What was done before is not in the rate: it may have been another process or a shared stage.
            self._stage, self._losses, self._began, self._first, self._written = stage, {}, moment, step, -math.inf
        self._losses = losses or self._losses
        if moment - self._written >= SECONDS_BETWEEN_BEATS:
            self._written = moment
            rate = (step - self._first) / (moment - self._began) if moment > self._began else 0.0
            # A disk that refuses a heartbeat is not a reason to stop.
            with suppress(AttentKitError):
                write_text(self._path, json.dumps(self._words(step, steps, rate), indent=2) + "\n")

    def _words(self, step: int, steps: int, rate: float) -> dict[str, Any]:
        return {
            "stage": self._stage,
            "step": step,
            "steps": steps,
            "losses": self._losses,
            "steps_per_second": round(rate, 4),
            "seconds_left": round((steps - step) / rate, 1) if rate > 0 else None,
            "pid": os.getpid(),
            "host": platform.node(),
            "device": self._device,
            "updated": now(),
        }


@contextmanager
def beating(run: RunFolder, device: str) -> Iterator[Heartbeat]:
    """A heartbeat while the block runs; an earlier failure is forgotten."""
    run.failed.unlink(missing_ok=True)
    try:
        yield Heartbeat(run, device)
    finally:
        run.progress.unlink(missing_ok=True)


def write_failure(run: RunFolder, error: Exception) -> None:
    """failed.json of a run, if it is one by now: the sentence, when, and where in the code."""
    if not run.is_run:
        return
    where = [] if isinstance(error, AttentKitError) else traceback.format_exception(error)
    said = {"error": in_a_sentence(error), "time": now(), "traceback": "".join(where).splitlines()}
    with suppress(AttentKitError):
        write_text(run.failed, json.dumps(said, indent=2, ensure_ascii=False) + "\n")


def in_a_sentence(error: Exception) -> str:
    """What an error says, with its kind where it is not one of ours."""
    if isinstance(error, AttentKitError):
        return str(error)
    if out_of_memory(error):
        return "there is too little memory for it. Lower a batch size, or run fewer at a time."
    return f"{type(error).__name__}: {error}"


def now() -> str:
    """ISO time in UTC; the order of the texts is that of the times."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
