"""A small grid on a real cluster: started, killed in several ways, and compared with an undisturbed run of this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from attent_kit.engine.run.status import CellState, cells_in, state_of
from attent_kit.errors import ConfigError
from support.waiting import until

ROOT = Path(__file__).parent.parent.parent
SUITE = """
name = "mine"
directions = ["mr2ct"]
settings = {{ precision = "32-true", save_seconds = 0.0, log_steps = 1, snapshots = 0 }}
[domains]
mr = "{prepared}/mr.h5"
ct = "{prepared}/ct.h5"
[options]
translate_steps = {steps}
segment_steps = {steps}
segment_batch_size = 2
segmentor = {{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [16, 8, 8] }}
translator = {{ width = 4, blocks = 1 }}
image_discriminator = {{ width = 4, layers = 1 }}
entropy_discriminator = {{ width = 4 }}
[[rows]]
label = "W/o"
alignment = "source_only"
[[rows]]
label = "Pixel"
alignment = "pixel"
[[rows]]
label = "AttENT"
alignment = "attent"
[[rows]]
label = "Broken"
alignment = "source_only"
options = {{ learning_rate = 1e30 }}
"""
"""Three rows, of which two share a stage, and one whose loss is no longer finite after a few steps."""
PLUGIN = """
from attent_kit import hookimpl

@hookimpl
def attentkit_launchers():
    return {"slurm": "attentkit_slurm.slurm:Slurm", "ray": "attentkit_ray.ray:Ray"}
"""
SCRIPT = "import sys; from attent_kit.cli import run; sys.exit(run(sys.argv[1:]))"
TINY = [
    f"--set={option}"
    for option in (
        "translate_steps=2", "segment_steps=2", "segmentor.encoder=tu-test_resnet", "segmentor.encoder_depth=3",
        "segmentor.decoder_channels=[16,8,8]", "translator.width=4", "translator.blocks=1", "image_discriminator.width=4",
        "image_discriminator.layers=1", "entropy_discriminator.width=4", "precision=32-true", "snapshots=0",
    )
]  # fmt: skip
"""What makes a run of AttENT short, and leaves its batches as they are."""
NUMBERS = ("scores.csv", "table.md", "table.csv", "comparisons.csv")


def helpers(pid: int) -> list[int]:
    """The processes that a process has started to train with it."""
    from attent_kit.engine.run.ranks import HELPER  # With it comes torch, which counts where memory is measured.

    answer = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in answer.stdout.splitlines() if HELPER in line]


def lines_of_the_page() -> list[str]:
    """The commands of docs/howto/cluster.md, word for word."""
    page = (ROOT / "docs" / "howto" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```text\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]


def with_commands(folder: Path, prepared: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """An environment that finds attentkit and torchrun by their names; `folder` has mr.h5 and ct.h5."""
    for name in ("mr.h5", "ct.h5"):
        shutil.copy(prepared / name, folder)
    for name, call in (("attentkit", f'-c "{SCRIPT}"'), ("torchrun", "-m torch.distributed.run")):
        place = folder / "bin" / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        place.chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), environment["PATH"]])
    source = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), environment.get("PYTHONPATH", "")])
    return {**environment, "PATH": path, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


class Disturbed:
    """One comparison with a launcher, whose command may be killed and started again."""

    def __init__(self, folder: Path, prepared: Path, steps: int, words: list[str], environment: dict[str, str]) -> None:
        self.suite, self.out, self._words = folder / "mine.toml", folder / "out", words
        self.steps = steps
        self.suite.write_text(SUITE.format(prepared=prepared, steps=steps))
        plugin = folder / "clusters_under_test.py"
        plugin.write_text(PLUGIN)
        places = [str(ROOT), *(str(ROOT / "plugins" / name) for name in (".", "attentkit-slurm", "attentkit-ray"))]
        self.environment = {
            **environment,
            "PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")]),
            "ATTENTKIT_PLUGIN_FILES": str(plugin),
            "OMP_NUM_THREADS": "1",
        }
        self.process: subprocess.Popen[str] | None = None

    def command(self, *words: object) -> subprocess.CompletedProcess:
        """Another command of attentkit, to its end."""
        line = [sys.executable, "-c", SCRIPT, *map(str, words)]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, cwd=self.suite.parent)

    def undisturbed(self, *more: str) -> int:
        """The same in one process; its exit code."""
        return self.command(
            "compare",
            self.suite,
            "--launcher",
            "local",
            "-d",
            "cpu",
            "-o",
            self.out.with_name("undisturbed"),
            "--no-report",
            *more,
        ).returncode

    def in_twos(self) -> None:
        """Of the suite W/o and Pixel, with batches that two processes can share; each run is trained by two."""
        text = self.suite.read_text().partition('[[rows]]\nlabel = "AttENT"')[0]
        text = text.replace("entropy_discriminator = { width = 4 }\n", "")
        self.suite.write_text(text.replace("[options]", "[options]\ntranslate_batch_size = 2"))
        self._words = [*self._words, "--devices-per-run", "2"]

    def ranks(self) -> set[int]:
        """How many devices have trained each run."""
        return {json.loads(file.read_text()).get("devices_per_run", 1) for file in self.out.glob("*/*/*/env.json")}

    def start(self, *more: str) -> None:
        """`compare`, in the background."""
        words = ["compare", str(self.suite), "-o", str(self.out), "--no-report", *self._words, *more]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *words], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, cwd=self.suite.parent,
        )  # fmt: skip

    def kill_command(self) -> str:
        """SIGKILL of the process that submits; what it had said."""
        assert self.process is not None
        self.process.kill()
        return self.process.communicate()[0]

    def end(self, seconds: int = 600) -> tuple[int, str]:
        """Exit code and all that it said."""
        assert self.process is not None
        said, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def training(self, more_than: int = 0) -> list[CellState]:
        """Runs at which a living process is, in a step."""
        try:
            states = [state_of(place) for place in cells_in(self.out)]
        except ConfigError:
            return []
        return [s for s in states if s.state == "running" and s.progress and s.progress["step"] > more_than]

    def kill_worker(self, more_than: int = 0, helping: bool = False) -> CellState:
        """SIGKILL of a process in mid-cell, or of one that helps it; where the run was."""
        while True:
            until(lambda: self.training(more_than) or self.over)
            assert not self.over, self.end()[1]
            state = self.training(more_than)
            try:
                pid = state[0].progress["pid"]
                os.kill(helpers(pid)[0] if helping else pid, signal.SIGKILL)
            except (IndexError, ProcessLookupError):
                continue  # It ended in this moment.
            return state[0]

    def again(self, killed: CellState) -> int:
        """The first step of a run that is seen of the process after the one that was killed."""
        assert killed.progress

        def others() -> list[int]:
            runs = [s.progress for s in self.training() if s.row == killed.row and s.progress]
            return [run["step"] for run in runs if run["pid"] != killed.progress["pid"]]

        until(lambda: others() or self.over)
        return (others() or [0])[0]

    def saved(self) -> bool:
        """Whether a run could go on from a checkpoint."""
        return any(self.out.glob("*/*/*/checkpoint.ckpt"))

    @property
    def over(self) -> bool:
        """Whether the command has ended."""
        return self.process is not None and self.process.poll() is not None

    def tables(self) -> dict[str, bool]:
        """By file, whether it is that of the undisturbed run, bit for bit."""
        other = self.out.with_name("undisturbed")
        return {name: (self.out / name).read_bytes() == (other / name).read_bytes() for name in NUMBERS}


def goes_on_in_twos(run: Disturbed, asked: Callable[[], bool] = lambda: True) -> None:
    """Two runs of two processes each, to the tables of this machine, though one process of each kind is killed in mid-cell.

    `asked`: whether a job, of which one runs at a time, has asked its scheduler for what two processes take.
    """
    run.in_twos()
    assert run.undisturbed("--devices-per-run", "2") == 0
    run.start()
    until(lambda: run.saved() or run.over)
    assert asked()
    killed = run.kill_worker(helping=True)
    assert killed.progress and run.again(killed) >= max(2, killed.progress["step"])
    # In the second stage of Pixel.
    run.kill_worker(run.steps)
    code, said = run.end()
    assert code == 0 and said.count("goes on from its checkpoint") == 2, said
    assert run.ranks() == {2} and run.tables() == dict.fromkeys(run.tables(), True), said
