"""A process that `attentkit compare` starts, here or on another machine: not a command of its own.

python -m attent_kit.cli.worker ERRAND.json
"""

import _thread
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from attent_kit.cli.streams import plain_streams
from attent_kit.engine.jobs.errand import refused_here
from attent_kit.errors import AttentKitError
from attent_kit.files import read_json
from attent_kit.reading import json_in

SAVE_AND_END = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""Each means: save after this step and end. Schedulers send one of them before a time limit, and when others need the node."""


def main(arguments: list[str]) -> int:
    """Do the errand of the file that is named, and say in a file beside it what happens."""
    for name in SAVE_AND_END:
        if hasattr(signal, name):
            # A parent in the background of a shell passes on that it ignores them.
            signal.signal(getattr(signal, name), signal.default_int_handler)
    file = Path(arguments[0])
    with plain_streams() as streams:
        try:
            errand = read_json(file)
            if errand is None:
                streams.tell(f"{file} cannot be read on {platform.node()}.")
                return 2
            with open(file.with_suffix(".events"), "a", buffering=1, encoding="utf-8") as events:
                return _work(errand, _Teller(events, errand["alone"]))
        except (KeyboardInterrupt, BrokenPipeError):
            return 130
        except AttentKitError as error:
            streams.tell(str(error))
            return error.exit_code


class _Teller:
    """Writes lines for whoever asked, and where a log belongs to one run, says the same there for people."""

    def __init__(self, events: TextIO, in_words: bool) -> None:
        self._events, self._in_words = events, in_words

    def __call__(self, line: str) -> None:
        print(line, file=self._events, flush=True)
        if self._in_words:
            event, _, sentence = json_in(line)
            moment = datetime.now().isoformat(sep=" ", timespec="seconds")
            print(f"{moment} {platform.node()}: {event}{f', {sentence}' if sentence else ''}", flush=True)


def _work(errand: dict[str, Any], tell: Callable[[str], None]) -> int:
    """Where the command was started, with its plugins and its number of threads, which torch reads when it is imported."""
    reason = refused_here(errand)
    if reason is not None:
        tell(json.dumps(["refused", 0, reason]))
        raise AttentKitError(reason)
    os.chdir(errand["folder"])
    os.environ.update(errand["environment"])
    if errand["threads"] is not None:
        os.environ["OMP_NUM_THREADS"] = errand["threads"]
    sys.argv = errand["command"]  # what a run says it was made by
    if errand["with_parent"]:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    tell(json.dumps(["began", 0, f"process {os.getpid()}"]))

    from attent_kit.engine.jobs.work import work
    from attent_kit.plugins import load

    try:
        return work(errand, load().registry, tell)
    except KeyboardInterrupt:
        tell(json.dumps(["stopped", 0, ""]))
        raise


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    if sys.platform == "win32":  # where os.kill ends a process at once
        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
