"""What kills and large grids do to comparisons on clusters; results/machines.md has the answers.

    python benchmarks/machines.py kills slurm --data PREPARED --kills 16
    python benchmarks/machines.py kills ray --data PREPARED --kills 14
    python benchmarks/machines.py scale 500 2500 5000 --data PREPARED
    python benchmarks/machines.py half 1250 2500 5000 --data PREPARED

PREPARED holds mr.h5 and ct.h5. Kills: a grid of three rows and one that raises is killed until so many kills are counted, and its
tables are compared, bit for bit, with those of an undisturbed run on this machine. Scale: the time of --dry-run and of status,
and the time and memory of the command that looks after jobs which end at once. Half: the same of commands that read a grid of
which half is finished.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests")]

from support.cluster_runs import Disturbed  # noqa: E402, found by the line above
from support.waiting import until  # noqa: E402


class SlurmField:
    """A real Slurm of two nodes, and what can be done to it."""

    kinds = ("worker", "command", "node", "preemption")

    def __init__(self, folder: Path) -> None:
        from support.slurm_cluster import Cluster

        self._cluster = Cluster(folder / "slurm", 2, 1).start()
        self.words = ["--launcher", "slurm", "--launch", "gpus=0", "--launch", "seconds=0.5", "--launch", "retries=9"]
        self.environment, self.stop = self._cluster.environment, self._cluster.stop

    def node(self) -> None:
        """Power cut of a node that runs something; it comes back after Slurm has noticed."""
        busy = [line.split()[1] for line in self._cluster.squeue("%A %N", "--states=RUNNING") if len(line.split()) > 1]
        node = busy[0] if busy else "node1"
        self._cluster.kill_node(node)
        until(lambda: self._cluster.idle() < len(self._cluster.nodes), 60)
        self._cluster.start_node(node)

    def preemption(self) -> None:
        """An urgent job takes both nodes for a second."""
        self._cluster.command("sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1")


class RayField:
    """A real Ray cluster of two nodes, and what can be done to it."""

    kinds = ("worker", "command", "node")

    def __init__(self, folder: Path) -> None:
        from support.ray_cluster import RayNodes

        self._cluster = RayNodes(2)
        address = f"address={self._cluster.address}"
        self.words = [
            "--launcher",
            "ray",
            "--launch",
            address,
            "-d",
            "cpu",
            "--launch",
            "gpus=1",
            "--launch",
            "seconds=0.5",
        ]
        self.words += ["--launch", "retries=9"]
        self.environment, self.stop = dict(os.environ), self._cluster.stop

    def node(self) -> None:
        """A node is taken away with all that runs on it, and another one comes."""
        self._cluster.kill_node()
        self._cluster.add_node()


def kills(engine: str, data: Path, count: int, seed: int) -> None:
    """Print what was done, and whether the tables are those of an undisturbed run."""
    chance, done = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        field = {"slurm": SlurmField, "ray": RayField}[engine](Path(place))
        try:
            run = Disturbed(Path(place), data.resolve(), 3 * count, field.words, field.environment)
            assert run.undisturbed() == 1
            began = time.monotonic()
            run.start()
            while sum(done.values()) < count and not run.over:
                until(lambda: run.training(1) or run.over)
                time.sleep(chance.uniform(0, 1))
                kind = field.kinds[sum(done.values()) % len(field.kinds)]
                if run.over:
                    break
                if kind == "worker":
                    with suppress(AssertionError):  # It may have ended in this moment.
                        run.kill_worker()
                elif kind == "command":
                    run.kill_command()
                    run.start()
                else:
                    getattr(field, kind)()
                done[kind] += 1
                print(f"{time.monotonic() - began:6.0f} s: {kind}", flush=True)
            code, said = run.end(3600)
            same = run.tables()
            print(json.dumps({"engine": engine, "seed": seed, "kills": done, "code": code, "same": same}))
            if not all(same.values()) or code != 1 or said.count("FAILED: Broken") > 1:
                print(said)
        finally:
            field.stop()


SCALE = """
name = "mine"
directions = ["mr2ct"]
seeds = {seeds}
[domains]
mr = "{data}/mr.h5"
ct = "{data}/ct.h5"
[launcher]
name = "instant"
gpus = 0
seconds = 0.5
[[rows]]
label = "W/o"
alignment = "source_only"
"""
INSTANT = """
import json
from pathlib import Path

from attent_kit import hookimpl
from attent_kit.launcher import JobState, Launcher

ORGANS = ("liver", "right kidney", "left kidney", "spleen")
HEAD = "alignment,direction,seed,case,organ,metric,value,unit,protocol"


class Instant(Launcher):
    '''Jobs that are over when they are next looked at, and leave scores.'''

    def __init__(self, options, folder):
        super().__init__(options, folder)
        self._jobs = dict()

    def submit(self, job):
        self._jobs[job.name] = job

    def look(self, names):
        found = []
        for name in [name for name in names if name in self._jobs]:
            file = self._jobs.pop(name).log.with_suffix(".json")
            (cell,) = json.loads(file.read_text())["cells"]
            folder = Path(cell["folder"])
            folder.mkdir(parents=True, exist_ok=True)
            from attent_kit.report.scores import Score, write_scores

            scores = [
                Score(cell["row"], cell["direction"], cell["seed"], case, organ, metric, 0.5, unit, "3d-mm")
                for case in CASES for organ in ORGANS for metric, unit in (("dice", "fraction"), ("assd", "mm"))
            ]
            write_scores(folder / "scores.csv", scores)
            found.append(JobState(name, "ended", "here", 0))
        return found

    def stop(self, names):
        pass


@hookimpl
def attentkit_launchers():
    return {{"instant": Instant}}


CASES = {cases}
"""


def scale(sizes: list[int], data: Path) -> None:
    """Print seconds of the processor, and MiB, by the number of cells."""
    from attent_kit.data.prepared.file import Prepared

    cases = Prepared.open(data / "ct.h5").ids("test")
    print("| cells | --dry-run, s | jobs looked after, s | MiB | status, s |\n|---|---|---|---|---|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "mine.toml").write_text(SCALE.format(seeds=[*range(size)], data=data.resolve()))
            environment = _with_instant(folder, cases)
            suite, out = folder / "mine.toml", folder / "out"
            dry, _ = _cost(environment, "compare", suite, "-o", out, "--dry-run", "--json")
            _cost(environment, "compare", suite, "-o", out, "--dry-run", "--json")
            run, memory = _cost(environment, "compare", suite, "-o", out, "--no-report", program=QUEUE)
            status, _ = _cost(environment, "status", out, "--json")
            print(f"| {size} | {dry:.1f} | {run:.1f} | {memory} | {status:.1f} |", flush=True)


HALF = """
name = "mine"
directions = ["mr2ct"]
seeds = {seeds}
settings = {{ precision = "32-true", snapshots = 0 }}
[domains]
mr = "{data}/mr.h5"
ct = "{data}/ct.h5"
[options]
segment_steps = 2
segment_batch_size = 2
segmentor = {{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [16, 8, 8] }}
[launcher]
name = "instant"
gpus = 0
[[rows]]
label = "W/o"
alignment = "source_only"
[[rows]]
label = "Slow"
alignment = "source_only"
options = {{ learning_rate = 1e-4 }}
"""
BEGUN = """
import sys
from attent_kit.engine.compare.results_folder import remember
from attent_kit.engine.conduct.grid import expanded, planned_jobs
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.engine.jobs.book import alone_at, write_book
from attent_kit.engine.run.status import write_grid
from attent_kit.plugins import load
registry = load().registry
grid = expanded(CompareRequest(sys.argv[2], out=sys.argv[4]), registry)
write_grid(grid.out, grid.cells)
remember(grid.out, grid.whole, grid.cells, grid.reference)
with alone_at(grid.out):
    jobs = planned_jobs(grid, registry)
    write_book(grid.out, grid.launching, {each.job.name: (each.cell.run.name, each.errand) for each in jobs})
"""
"""What `compare` writes before it trains."""


def half(sizes: list[int], data: Path) -> None:
    """Print seconds of the processor, and MiB, of what reads a grid of two rows of which half is finished.

    One run of each row is trained, and the others are copies of it with other seeds and scores.
    """
    commands = {
        "--dry-run": ("compare", "mine.toml", "-o", "out", "--dry-run"),
        "status": ("status", "out"),
        "report": ("report", "out"),
        "--plan": ("compare", "mine.toml", "-o", "out", "--plan", "-d", "cpu"),
    }
    print(f"| cells | {' | '.join(commands)} |\n|---{'|---' * len(commands)}|", flush=True)
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            folder, seeds = Path(place), size // 2
            environment = _with_instant(folder, cases=())
            (folder / "mine.toml").write_text(HALF.format(seeds=[*range(seeds)], data=data.resolve()))
            common = "compare", "mine.toml", "-o", "out"
            _cost(
                environment, *common, "--launcher", "local", "--seeds", "0", "-d", "cpu", "--no-report", folder=folder
            )
            for run in [*folder.glob("out/*/*/seed0")]:
                for seed in range(1, seeds // 2):
                    _copied(run, run.with_name(f"seed{seed}"), seed)
            _cost(environment, *common, program=BEGUN, folder=folder)
            found = [_cost(environment, *words, folder=folder) for words in commands.values()]
            print(
                f"| {size} | {' | '.join(f'{seconds:.1f} s, {memory} MiB' for seconds, memory in found)} |", flush=True
            )


def _with_instant(folder: Path, cases: Sequence[str]) -> dict[str, str]:
    """An environment with the launcher of jobs that end at once, and leave scores of these cases."""
    (folder / "instant_launcher.py").write_text(INSTANT.format(cases=cases))
    source = os.pathsep.join([*map(str, (ROOT, ROOT / "plugins")), os.environ.get("PYTHONPATH", "")])
    plugin = {"ATTENTKIT_PLUGIN_FILES": str(folder / "instant_launcher.py")}
    return {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", **plugin}


def _copied(run: Path, copy: Path, seed: int) -> None:
    """A finished run with another seed; what does not name it is the same file."""
    from attent_kit.report.scores import read_scores, write_scores

    shutil.copytree(
        run, copy, copy_function=os.link, ignore=shutil.ignore_patterns("config.toml", "*scores.csv*", ".lock")
    )
    text = (run / "config.toml").read_text()
    assert "\nseed = 0\n" in f"\n{text}"
    (copy / "config.toml").write_text(text.replace("seed = 0\n", f"seed = {seed}\n", 1))
    scores = [s._replace(seed=seed, value=s.value + 1e-4 * seed) for s in read_scores(run / "scores.csv")]
    write_scores(copy / "scores.csv", scores, vouched=True)


COMMAND = "import sys; from attent_kit.cli import run; sys.exit(run(sys.argv[1:]))"
QUEUE = """
import sys
from attent_kit.engine.conduct import compare as module
from attent_kit.engine.conduct.grid import expanded
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.engine.conduct.watcher import Watcher
from attent_kit.engine.run.status import write_grid
from attent_kit.plugins import load
request, registry = CompareRequest(sys.argv[2], out=sys.argv[4]), load().registry
grid = expanded(request, registry)
write_grid(grid.out, grid.cells)
assert module._run_as_jobs(request, grid, registry, Watcher()) == []
"""
"""The queue alone: tables and statistics of so many runs are another matter."""


def _cost(
    environment: dict[str, str], *words: object, program: str = COMMAND, folder: Path | None = None
) -> tuple[float, int]:
    """Seconds of the processor and peak MiB of a command."""
    line = [sys.executable, "-c", program, *map(str, words)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(line, env=environment, stdout=said, stderr=said, cwd=folder)
        _, state, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(state)
        said.seek(0)
        assert process.returncode == 0, said.read().decode()
    return used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


def main() -> None:
    """Parse the words above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "scale", "half"])
    parser.add_argument("of", nargs="+", help="slurm or ray; or numbers of cells")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.what == "kills":
        kills(asked.of[0], asked.data, asked.kills, asked.seed)
    else:
        {"scale": scale, "half": half}[asked.what]([int(word) for word in asked.of], asked.data)


if __name__ == "__main__":
    main()
