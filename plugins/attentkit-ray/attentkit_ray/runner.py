"""The actor that runs the command of a job on a node of Ray. It imports nothing but the standard library."""

import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

SECONDS_TO_STOP = 60.0
"""Between being asked to save and being killed, where a time limit has passed."""
SECONDS_TO_BE_SEEN = 30.0
"""An actor whose command has ended says how for so long, and then leaves and frees what it holds."""


class Runner:
    """Runs one command from its creation on; it is asked how that goes, and told to stop."""

    def __init__(
        self, argv: Sequence[str], log: str, folder: str, environment: Mapping[str, str], seconds: float | None
    ) -> None:
        """`seconds`: the time limit, if there is one."""
        # Ray sets OMP_NUM_THREADS to the cores that an actor holds; how many threads a run has is said in its errand.
        own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        with open(log, "ab") as file:
            # With a stdin that ends when this actor dies: the worker then saves and ends, too.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, cwd=folder,
                env={**own, **environment}, start_new_session=True,
            )  # fmt: skip
        threading.Thread(target=self._watch, args=(seconds,), daemon=True).start()

    def state(self) -> tuple[str, int | None]:
        """The node, and the exit code once the command has ended."""
        return platform.node(), self._process.poll()

    def stop(self) -> None:
        """Ask the command to save and end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def _watch(self, seconds: float | None) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            try:
                self._process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        time.sleep(SECONDS_TO_BE_SEEN)
        os._exit(0)
