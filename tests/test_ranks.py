"""One run in two processes: what it leaves, what it goes on from, what stops it, and what is refused."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attent_kit.data.workers import cores
from attent_kit.engine.compare.resources import JobSettings, RowResources
from attent_kit.engine.run import device as devices
from attent_kit.engine.run.ranks import Seat, refuse_starter, seat_found
from attent_kit.engine.train.train import TrainWatcher, train
from attent_kit.errors import ConfigError, RunError
from support.cluster_runs import TINY, helpers, lines_of_the_page, with_commands
from support.commands import COMMAND, train_words
from support.later import later_in
from support.messages import quotes
from support.small_runs import REGISTRY, SMALL, settings, weights
from support.waiting import until

FAR = 0.02
two_cores = pytest.mark.skipif(cores() < 2 or sys.platform == "win32", reason="needs two cores, and no Windows")
SGD = {"optimizer": "sgd", "schedule": "constant"}
"""Of the segmentor: steps of Adam make whole steps of what rounding leaves of a gradient that is zero."""


@pytest.fixture
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


def start(*words):
    """A command in a process of its own, with one thread for each of its processes."""
    return subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def step(run):
    """Of the run that is being trained in a folder."""
    return (json.loads((run / "progress.json").read_text() or "{}") if (run / "progress.json").exists() else {}).get(
        "step", 0
    )


def far(one, other):
    """The largest difference of a weight of two segmentors, by the largest of its layer."""
    found, others = (weights(run)["networks"]["S"] for run in (one, other))
    assert found.keys() == others.keys()
    pairs = [(a.double(), others[name].double()) for name, a in found.items()]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-2)) for a, b in pairs)


@two_cores
def test_one_run_goes_on_with_two_processes_and_with_one_as_one_that_was_never_stopped(domains, tmp_path):
    """It leaves the same files; a signal to either process ends both after the same step."""
    of = settings(domains, {**SMALL, **SGD}, snapshots=2, log_steps=1)
    train(of, tmp_path / "whole", REGISTRY, "cpu")
    run = tmp_path / "run"

    def told_at(number, whom):
        def stepped(progress):
            if progress.step == number:
                os.kill(whom(), signal.SIGTERM)

        return TrainWatcher(stepped=stepped)

    reached = []
    for device, watcher in (
        ("cpu", told_at(3, os.getpid)),
        ("cpu+cpu", told_at(5, os.getpid)),
        ("cpu+cpu", told_at(8, lambda: helpers(os.getpid())[0])),
    ):
        with pytest.raises(KeyboardInterrupt):
            train(of, run, REGISTRY, device, watcher=watcher)
        reached.append(weights(run)["step"])
        assert not helpers(os.getpid())
    # The other process may be told while it is a step ahead of its answer.
    assert reached[:2] == [3, 5] and reached[2] in (8, 9, 10)
    train(of, run, REGISTRY, "cpu")
    ends = [tmp_path / "whole", run]
    assert [weights(end)["step"] for end in ends] == [12, 12] and far(*ends) < FAR
    files = [sorted(p.relative_to(end).as_posix() for p in end.rglob("*") if p.is_file()) for end in ends]
    assert files[0] == files[1]
    logs = [[json.loads(line)["step"] for line in (end / "log.jsonl").read_text().splitlines()] for end in ends]
    assert logs[0] == logs[1] == [*range(12)]
    pools = [weights(end)["networks"]["pool_s"] for end in ends]
    assert pools[0]["seen"] == pools[1]["seen"] == 12 and torch.allclose(*(p["images"] for p in pools), atol=0.02)


@two_cores
def test_a_process_that_dies_ends_the_run_in_a_sentence(domains, tmp_path):
    of = settings(domains, {**SMALL, **SGD})

    def stepped(progress):
        if progress.step == 2:
            os.kill(helpers(os.getpid())[0], signal.SIGKILL)

    with pytest.raises(
        RunError, match="process 2 of the 2 of this run has ended .signal 9.: start the same command again"
    ):
        train(of, tmp_path / "run", REGISTRY, "cpu+cpu", watcher=TrainWatcher(stepped=stepped))
    assert weights(tmp_path / "run")["step"] in (1, 2, 3) and not torch.distributed.is_initialized()


@two_cores
def test_the_others_end_with_the_first(prepared, tmp_path):
    run = tmp_path / "run"
    process = start(*train_words(prepared, run, "--set=segment_steps=100000", "--devices-per-run", "2"))
    until(lambda: step(run) > 5)
    (other,) = helpers(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not Path(f"/proc/{other}").exists())


@two_cores
@pytest.mark.parametrize("first", ["attentkit train", "torchrun"])
def test_a_line_of_the_page_trains_in_two_processes_of_which_the_first_alone_speaks(prepared, tmp_path, first):
    (line,) = [line for line in lines_of_the_page() if line.startswith(first)]
    environment = with_commands(tmp_path, prepared, os.environ)
    words = [*shlex.split(line), *TINY, "--device=cpu"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("attent, Dice in %") == 1, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("*/*/*")
    assert weights(run)["step"] == 4 and json.loads((run / "env.json").read_text())["devices_per_run"] == 2


@two_cores
def test_a_comparison_trains_each_run_in_two_processes_and_prints_the_table(attentkit, prepared, tmp_path):
    file, out = tmp_path / "mine.toml", tmp_path / "out"
    file.write_text(SUITE.format(prepared=prepared))
    outcome = attentkit("compare", file, "-o", out, "-d", "cpu", "--devices-per-run", "2", "--no-report")
    assert outcome.code == 0, outcome
    runs = [*out.glob("mr2ct/*/seed0")]
    assert len(runs) == 1 and (runs[0] / "scores.csv").exists()
    assert json.loads((runs[0] / "env.json").read_text())["devices_per_run"] == 2


SUITE = """
name = "mine"
directions = ["mr2ct"]
settings = {{ precision = "32-true", snapshots = 0 }}
[domains]
mr = "{prepared}/mr.h5"
ct = "{prepared}/ct.h5"
[options]
segment_steps = 3
segment_batch_size = 2
segmentor = {{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [16, 8, 8] }}
[[rows]]
label = "W/o"
alignment = "source_only"
"""


def refused(attentkit, *words):
    outcome = attentkit(*words)
    assert outcome.code == 2 and "Traceback" not in outcome.err, outcome
    return outcome.err


def test_what_cannot_be_shared_is_refused_before_anything_is_there(attentkit, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    out = tmp_path / "out"
    words = train_words(prepared, out)
    said = refused(attentkit, *words, "--devices-per-run", "3")
    assert "'segment' has 2 slices" in said and "--set segment_batch_size=3" in said
    said = refused(attentkit, *words, "--devices-per-run", "5")
    assert "at most 4, for 4 cores" in said
    said = refused(attentkit, *words, "--nodes", "2")
    assert "--nodes 2" in said and "srun --nodes 2 --ntasks-per-node 1" in said
    said = refused(attentkit, *words, "--device", "cuda:0", "--devices-per-run", "2")
    assert "--device cuda" in said
    assert "0 is not in the range" in refused(attentkit, *words, "--devices-per-run", "0")
    assert "0 is not in the range" in refused(attentkit, *words, "--nodes", "0")
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    assert "not in this PyTorch (gloo" in refused(attentkit, *words, "--devices-per-run", "2")
    monkeypatch.setattr(sys, "platform", "win32")
    assert "not tried on Windows" in refused(attentkit, *words, "--devices-per-run", "2")
    assert not [path for path in out.rglob("*") if not path.name.startswith(".")]


def test_a_comparison_refuses_what_cannot_be_shared_and_names_the_row(attentkit, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    file = tmp_path / "mine.toml"
    file.write_text(SUITE.format(prepared=prepared))
    words = ("compare", file, "-o", tmp_path / "out")
    assert "row 'W/o': stage 'segment' has 2 slices" in refused(
        attentkit, *words, "-d", "cpu", "--devices-per-run", "3"
    )
    said = refused(attentkit, *words, "--devices", "cpu,cpu,cpu", "--devices-per-run", "2")
    assert "are 3" in said and "name 2" in said
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "leave out torchrun, and type --devices-per-run 2" in refused(attentkit, *words)


@pytest.mark.parametrize(
    ("words", "rows", "said"),
    [
        (["--launch", "gpus=0.5"], "", ["row 'W/o'", "--launch gpus=0.5", "--devices-per-run", "gpus=1"]),
        ([], "resources = { gpus = 0.25 }", ["row 'W/o'", "resources", "gpus=0.25", "gpus=1"]),
        (["-d", "cuda:0"], "", ["--device cuda:0", "--devices-per-run 2", "--device cuda."]),
        (["-d", "mps"], "", ["--devices-per-run 2", "Metal"]),
        (["-d", "gpu"], "", ["--device gpu", "cuda:N"]),
    ],
)
def test_devices_that_no_job_could_share_are_refused_before_anything_is_submitted(
    attentkit, prepared, tmp_path, words, rows, said
):
    """Also by --dry-run, as is one that no machine has."""
    (tmp_path / "mine.toml").write_text(SUITE.format(prepared=prepared) + rows)
    command = ["compare", tmp_path / "mine.toml", "-o", tmp_path / "out", "--plugin", later_in(tmp_path)]
    for more in ([], ["--dry-run"], ["--plan"]):
        assert quotes(refused(attentkit, *command, "--launcher=later", "--devices-per-run=2", *words, *more), *said)
    assert not (tmp_path / "out").exists()


def test_the_devices_of_a_run_are_the_first_of_their_kind_or_those_that_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    assert devices.several("auto", 1) == "auto"
    assert devices.several("auto", 2) == devices.several("cuda", 2) == "cuda:0+cuda:1"
    assert devices.together(["cuda:2", "cuda:3"]) == "cuda:2+cuda:3"
    for wrong in (["cuda:0", "cuda:0"], ["cuda:0", "cpu"], ["cuda", "cuda"]):
        with pytest.raises(ConfigError, match="cannot train one run together"):
            devices.together(wrong)
    with pytest.raises(ConfigError, match="at most 2, for 2 CUDA devices"):
        devices.several("cuda", 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    # Slurm may show each of its tasks one GPU alone.
    assert devices.several("cuda", 2, Seat(1, 2, 1, 2, "a", 1, "srun")) == "cuda:0+cuda:0"


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a7", "MASTER_PORT": "29400",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "a[07-08],b1", "SLURM_NTASKS": "4",
}  # fmt: skip


def test_a_process_finds_its_seat_in_what_torchrun_and_srun_tell_it():
    assert seat_found(None, None, TORCHRUN) == seat_found(2, 2, TORCHRUN) == Seat(3, 4, 1, 2, "a7", 29400, "torchrun")
    assert seat_found(2, 2, SRUN) == Seat(3, 4, 1, 2, "a07", 16203, "srun")
    # Tasks of a job are no processes of a run unless that is said; nor is a script of sbatch, which is no step.
    assert seat_found(None, None, SRUN) is None
    assert seat_found(2, None, {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "12"}) is None
    assert seat_found(None, None, {**TORCHRUN, "WORLD_SIZE": "1"}) is None
    with pytest.raises(ConfigError, match="srun --nodes 2 --ntasks-per-node 4"):
        seat_found(4, 2, SRUN)
    refuse_starter({})


def test_a_job_of_a_run_on_several_devices_asks_for_each_of_them():
    asked, row = JobSettings(gpus=1, cpus=3, minutes=5), RowResources(memory=8)
    assert asked.of(row) == {"gpus": 1, "cpus": 3, "minutes": 5, "memory": 8}
    assert asked.of(row, 2) == {"gpus": 2, "cpus": 6, "minutes": 5, "memory": 16}
    assert asked.of(RowResources(gpus=0), 4) == {"gpus": 0, "cpus": 12, "minutes": 5, "memory": None}
    with pytest.raises(ConfigError, match="resources of a row, gpus=0.5"):
        asked.of(RowResources(gpus=0.5), 2)
