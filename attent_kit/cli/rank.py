"""A process that helps another one of this machine to train a run on several devices: not a command of its own.

python -m attent_kit.cli.rank < JOB.json, whose stdin ends when the other process does
"""

import os
import signal
import sys
import threading
from typing import Any

from attent_kit.cli.streams import plain_streams
from attent_kit.errors import AttentKitError
from attent_kit.reading import json_in


def main() -> int:
    """Take the steps of the run that stdin names, in one line of JSON."""
    with plain_streams() as streams:
        try:
            _help(json_in(sys.stdin.buffer.readline()))
            return 0
        except (KeyboardInterrupt, BrokenPipeError):
            return 130
        except AttentKitError as error:
            streams.tell(str(error))
            return error.exit_code


def _help(job: dict[str, Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    from attent_kit.engine.run.device import launch_one_of
    from attent_kit.engine.run.ranks import Seat, ranks_of
    from attent_kit.engine.run.settings import run_settings
    from attent_kit.engine.train.train import help_to_train
    from attent_kit.plugins import load

    torch.set_num_threads(job["threads"])
    registry = load().registry
    settings = run_settings(job["settings"], registry)
    fabric = launch_one_of(job["device"], settings.precision, Seat(*job["seat"]))
    ranks_of(fabric).meet()
    help_to_train(settings, registry, fabric)


def _end_with_parent() -> None:
    """Nothing of the run is in this process that could be saved."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
