"""Without a GPU a comparison is one process of one thread for each core, and its digits do not depend on how many there are."""

import json

import pytest
import torch

from attent_kit.data import workers
from attent_kit.data.workers import cores, host_memory
from attent_kit.engine.compare.cells import longest_first
from attent_kit.engine.run import device, processor
from attent_kit.engine.run.processor import PROCESS_BYTES, one_thread, processes
from attentkit_builtin.launchers.local import Local


def test_processes_are_as_many_as_there_are_cores_memory_and_runs(monkeypatch):
    monkeypatch.setattr(processor, "cores", lambda: 8)
    monkeypatch.setattr(processor, "host_memory", lambda: 5 * PROCESS_BYTES + 1)
    assert [processes(most) for most in (0, 1, 3, 99)] == [1, 1, 3, 5]
    monkeypatch.setattr(processor, "host_memory", lambda: 10)
    assert processes(99) == 1
    monkeypatch.setattr(processor, "host_memory", lambda: 2**62)
    assert processes(99) == 8


def test_cores_and_memory_are_those_of_this_machine(monkeypatch):
    monkeypatch.undo()
    assert cores() >= 1 and host_memory() > 2**20
    monkeypatch.setattr(workers, "_available", lambda: None)
    monkeypatch.setattr(workers, "_left_in_container", lambda: 10)
    assert host_memory() == 10
    monkeypatch.setattr(workers, "_left_in_container", lambda: None)
    assert host_memory() == 4 * 2**30


@pytest.mark.parametrize(("said", "meanwhile"), [(None, 1), ("3", 2)])
def test_one_thread_holds_meanwhile_unless_the_environment_says_otherwise(monkeypatch, said, meanwhile):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError), one_thread("cpu"):
            assert torch.get_num_threads() == meanwhile
            raise ValueError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be used instead")
def test_two_cores_are_two_processes_and_write_what_one_writes(attentkit, suite, tmp_path, monkeypatch):
    started, submit = [], Local.submit

    def starting(self, job):
        started.append(job)
        submit(self, job)

    monkeypatch.setattr(Local, "submit", starting)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = ("compare", suite, "--seeds", 0, "--directions", "mr2ct", "--no-report")
    assert attentkit(*words, "-o", tmp_path / "one").code == 0 and not started
    monkeypatch.setattr(processor, "cores", lambda: 2)
    assert attentkit(*words, "-o", tmp_path / "two").code == 0
    assert len(started) == 2
    threads = [json.loads(run.read_text())["threads"] for run in (tmp_path / "two").glob("*/*/*/env.json")]
    assert threads == [1, 1]
    for name in ("scores.csv", "table.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert attentkit(*words, "-o", tmp_path / "two").code == 0 and len(started) == 2


def test_the_longest_runs_are_begun_first_and_equals_stay_in_the_order_of_the_table():
    class Named:
        def __init__(self, row):
            self.row = row

    cells = [Named(row) for row in ("W/o", "AdaOutput", "CycleGAN", "AttENT", "Supervised")]
    steps = {"W/o": 300, "AdaOutput": 300, "CycleGAN": 800, "AttENT": 800}
    ordered = [cell.row for cell in longest_first(cells, steps)]
    assert ordered == ["CycleGAN", "AttENT", "W/o", "AdaOutput", "Supervised"]


def test_a_run_is_one_process_whatever_slurm_is_installed_or_has_started_it(monkeypatch, tmp_path):
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert device.launch("cpu").world_size == 1
    for name, value in {"NTASKS": 4, "PROCID": 2, "LOCALID": 2, "JOB_NAME": "compare", "JOB_ID": 7}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    fabric = device.launch("cpu")
    assert (fabric.world_size, fabric.is_global_zero) == (1, True)
