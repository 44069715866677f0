"""Several processes at one comparison: started by hand or by `--devices`, killed, stopped, or made to fail."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
import torch

from attent_kit.engine.compare.suite import expand, read_suite
from attent_kit.engine.run.folder import Busy, is_held
from attent_kit.engine.run.status import cells_in, state_of
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train, trained_by_one
from attent_kit.errors import ConfigError
from attent_kit.plugins import load
from support.commands import COMMAND, NETWORKS
from support.waiting import until

SUITE = (
    """
name = "mine"
directions = ["mr2ct"]
settings = {{ precision = "32-true", save_seconds = 0.0, log_steps = 1 }}
[domains]
mr = "{prepared}/mr.h5"
ct = "{prepared}/ct.h5"
[options]
translate_steps = {steps}
segment_steps = {steps}
"""
    + NETWORKS
    + """
[[rows]]
label = "W/o"
alignment = "source_only"
[[rows]]
label = "Pixel"
alignment = "pixel"
[[rows]]
label = "AttENT"
alignment = "attent"
"""
)
KILLS = int(os.environ.get("ATTENTKIT_KILLS", "2"))
"""Of the test that kills at random."""


@pytest.fixture
def suite(prepared, tmp_path):
    """`suite(steps)`: a file of three rows, of which two share a stage."""

    def write(steps, more=""):
        path = tmp_path / "mine.toml"
        path.write_text(SUITE.format(prepared=prepared, steps=steps) + more)
        return path

    return write


def start(suite, out, *more):
    """`compare` in a process of its own."""
    words = ["compare", str(suite), "-o", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(
        [*COMMAND, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def tables(out):
    """The files of a comparison that hold numbers."""
    names = ("scores.csv", "table.md", "table.csv", "comparisons.csv")
    return {name: (out / name).read_bytes() for name in names}


def states(out):
    try:
        return [state_of(place) for place in cells_in(out)]
    except ConfigError:
        return []  # nothing is there yet


def training(out, more_than=0):
    """Runs at which a living process is, in a step."""
    return [s for s in states(out) if s.state == "running" and s.progress and s.progress["step"] > more_than]


def workers(process):
    """The processes that `compare --devices` has started."""
    answer = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in answer.stdout.split()]


def test_two_processes_killed_at_random_and_started_again_end_in_the_tables_of_an_undisturbed_run(
    attentkit, suite, tmp_path
):
    file = suite(12 * KILLS)
    assert attentkit("compare", file, "-d", "cpu", "-o", tmp_path / "undisturbed").code == 0
    # Each run of the tests kills elsewhere; pytest prints the seed of one that fails.
    seed = int(os.environ.get("ATTENTKIT_KILL_SEED", random.randrange(2**32)))
    print(f"ATTENTKIT_KILL_SEED={seed} kills at the same moments")
    out, chance = tmp_path / "out", random.Random(seed)
    processes = [start(file, out, "-d", "cpu") for _ in range(2)]
    killed = 0
    while killed < KILLS:
        # A process takes seconds to start: a kill before it trains would prove little.
        until(lambda: training(out) or len(list(out.glob("*/*/seed*/scores.csv"))) == 3)
        time.sleep(chance.uniform(0, 1))
        victim = chance.randrange(2)
        processes[victim].kill()
        processes[victim].communicate()
        killed += 1
        processes[victim] = start(file, out, "-d", "cpu")
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert tables(out) == tables(tmp_path / "undisturbed")
    assert not list(out.rglob("progress.json")) and not list(out.rglob("failed.json"))


BROKEN = '[[rows]]\nlabel = "Broken"\nalignment = "source_only"\noptions = { learning_rate = 1e30 }\n'


def test_a_process_for_each_device_makes_the_same_tables_though_one_dies_and_a_row_fails(attentkit, suite, tmp_path):
    file = suite(20, BROKEN)
    assert attentkit("compare", file, "-d", "cpu", "-o", tmp_path / "undisturbed").code == 1
    out = tmp_path / "out"
    process = start(file, out, "--devices", "cpu,cpu")
    until(lambda: training(out))
    at_work = training(out)[0].progress["pid"]
    assert at_work in workers(process)
    os.kill(at_work, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "1 of 4 runs failed" in output, output
    assert f"the process on cpu ({at_work}) ended by SIGKILL; its run is left to the others." in output
    assert output.count(" of 4 runs done: ") == 3 and output.count("FAILED: Broken, mr2ct, seed 0: ") == 1
    assert "Traceback" not in output and "\x1b" not in output
    assert tables(out) == tables(tmp_path / "undisturbed")
    made_by = json.loads(next(out.glob("*/*/seed0/env.json")).read_text())["command"]
    assert "compare" in made_by and "cpu,cpu" in made_by
    failure = json.loads((out / "mr2ct/broken/seed0/failed.json").read_text())
    assert "no longer a finite number" in failure["error"]


def test_an_interrupt_stops_every_process_after_its_step_and_the_same_command_goes_on(suite, tmp_path):
    out, words = tmp_path / "out", ("--devices", "cpu,cpu")
    process = start(suite(500), out, *words)
    until(lambda: len(training(out, 2)) == 2)
    own = workers(process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "What is finished is saved" in output, output
    assert not any(os.path.exists(f"/proc/{pid}") for pid in own)
    assert [s.state for s in states(out)].count("stopped") == 2 and not list(out.rglob("progress.json"))
    process = start(suite(500), out, *words)
    until(lambda: len(training(out, 2)) == 2)
    own = workers(process)
    process.kill()
    process.communicate()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in own), 30)
    assert [s.state for s in states(out)].count("stopped") == 2, "they stop in good order when their parent is killed"


def test_a_shared_stage_is_trained_by_one_process_until_it_is_there(tmp_path):
    file = tmp_path / "shared" / "translate-1.ckpt"
    with trained_by_one(file) as release:
        with pytest.raises(Busy, match="another process trains the stage"), trained_by_one(file):
            pass
        release()
        with trained_by_one(file):
            pass
    file.touch()
    with trained_by_one(file), trained_by_one(file), trained_by_one(None):
        pass


def test_the_claim_on_a_shared_stage_ends_with_the_first_step_of_the_next(suite, tmp_path):
    registry = load().registry
    read = read_suite(suite(2), registry)
    cell = next(c for c in expand(read, registry, read.domains, tmp_path / "out") if c.row == "Pixel")
    held = []

    def look(progress):
        (claim,) = (tmp_path / "shared").glob("*.claim")
        held.append((progress.stage, is_held(claim), len([*(tmp_path / "shared").glob("*.ckpt")])))

    shared, watcher = TrainOptions(shared=tmp_path / "shared"), TrainWatcher(stepped=look)
    train(cell.settings, cell.folder, registry, "cpu", shared, watcher)
    assert held == [("translate", True, 0), ("translate", True, 0), ("segment", False, 1), ("segment", False, 1)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--devices=cpu,tpu"], "--device tpu: write auto, cpu, cuda, cuda:N or mps."),
        (["--devices=,"], "--devices: name at least one"),
        (["--devices=cpu,cpu", "--device=cpu"], "--device and --devices: give one of them."),
        (["--devices=0,cuda:99"], "--device cuda:"),
    ],
)
def test_devices_that_are_not_there_are_one_sentence(attentkit, suite, tmp_path, words, sentence):
    outcome = attentkit("compare", suite(2), "-o", tmp_path / "out", *words)
    assert outcome.code == 2 and sentence in outcome.err and not (tmp_path / "out").exists()
