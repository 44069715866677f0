"""A process that `attentkit compare --devices` starts: not a command of its own."""

import _thread
import os
import signal
import sys
import threading

from attent_kit.cli.streams import plain_streams
from attent_kit.errors import AttentKitError
from attent_kit.reading import json_in


def main() -> int:
    """Do the job of the first line of stdin, and stop after a step when stdin ends or on SIGINT."""
    from attent_kit.engine.compare.launch import work
    from attent_kit.plugins import load

    for number in (signal.SIGINT, signal.SIGTERM):
        # A parent in the background of a shell passes on that it ignores them.
        signal.signal(number, signal.default_int_handler)
    # What a method prints goes where errors go: stdout is for the parent alone.
    with os.fdopen(os.dup(1), "w", buffering=1) as events, plain_streams() as streams:
        os.dup2(2, 1)
        try:
            job = json_in(sys.stdin.buffer.readline())
            sys.argv = job["command"]  # what a run says it was made by
            threading.Thread(target=_stop_with_parent, daemon=True).start()
            work(job, load().registry, lambda line: print(line, file=events))
        except (KeyboardInterrupt, BrokenPipeError):
            return 130
        except AttentKitError as error:
            streams.tell(str(error))
            return error.exit_code
    return 0


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    if sys.platform == "win32":  # where os.kill ends a process at once
        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
