"""What a worker makes of its errand: signals that mean "save and end", machines that cannot run it, copies of the data."""

import hashlib
import json
import os
import signal
import subprocess

import pytest

from attent_kit import __version__
from attent_kit.config import read_toml
from attent_kit.engine.compare import cells
from attent_kit.engine.compare.resources import JobSettings, RowResources, node_hours
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.jobs import staging
from attent_kit.engine.jobs import work as jobs
from attent_kit.engine.jobs.errand import Errand
from attent_kit.engine.jobs.staging import copied, node_folder, reader_of_copies
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from attent_kit.errors import DataError, ProcessLost
from attent_kit.plugins import load

REGISTRY = load().registry


def settings_of(run):
    return run_settings(read_toml(run / "config.toml"), REGISTRY)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_ends_a_run_after_its_step_which_is_saved(trained, tmp_path, name):
    steps = []

    def told(progress):
        steps.append(progress.step)
        # A scheduler sends several, one after another; a person's second Ctrl-C would be immediate.
        for _ in range(1 if name == "SIGINT" else 3):
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(KeyboardInterrupt):
        train(settings_of(trained), tmp_path / "run", REGISTRY, "cpu", watcher=TrainWatcher(stepped=told))
    assert steps == [1] and checkpoint.read(RunFolder(tmp_path / "run").checkpoint)["step"] == 1
    assert signal.getsignal(getattr(signal, name)) == before


@pytest.mark.parametrize("until", [None, 1], ids=["run", "first stage"])
def test_a_job_that_loses_one_of_its_processes_ends_without_a_failure_of_its_run(trained, tmp_path, monkeypatch, until):
    def loses(settings, folder, *more):
        folder.mkdir(parents=True, exist_ok=True)
        RunFolder(folder).config.touch()
        raise ProcessLost("process 2 of the 2 of this run has ended (signal 9).")

    monkeypatch.setattr(cells, "train", loses)
    monkeypatch.setattr(jobs, "train", loses)
    cell = Cell("W/o", "source_only", "mr2ct", 0, settings_of(trained), tmp_path / "mr2ct/w-o/seed0")
    errand = {
        "device": "cpu", "devices_per_run": 1, "trackers": [], "copies": {}, "cells": [jobs.plain(cell)], "until": until,
        "out": str(tmp_path), "began": "",
    }  # fmt: skip
    told = []
    with pytest.raises(ProcessLost):
        jobs.work({**errand, "alone": True}, REGISTRY, told.append)
    assert told == [] and cell.run.is_run and cell.run.read_failure() is None
    # Nobody submits a process of this machine again.
    assert jobs.work({**errand, "alone": False}, REGISTRY, told.append) == 0
    assert json.loads(told[0])[0] == "failed" and "signal 9" in cell.run.read_failure()["error"]


# Machines


def worker(errand, **environment):
    return subprocess.run(errand.argv, capture_output=True, text=True, env={**os.environ, **environment})


def test_another_version_a_folder_that_is_not_seen_and_a_missing_errand_are_refused(tmp_path):
    errand = Errand(tmp_path / "a.json")
    done = worker(errand)
    assert done.returncode == 2 and "a.json cannot be read on" in done.stderr
    for changed, words in (
        ({"version": "9.9"}, f"{__version__} on"),
        ({"folder": "/nowhere"}, "does not see /nowhere"),
    ):
        errand.write([], alone=True, threads=None, with_parent=False)
        errand.events.unlink(missing_ok=True)
        errand.file.write_text(json.dumps(json.loads(errand.file.read_text()) | changed))
        done = worker(errand)
        ((event, _, sentence),) = map(json.loads, errand.events.read_text().splitlines())
        assert done.returncode == 1 and event == "refused" and words in sentence
        assert "Traceback" not in done.stderr and sentence in done.stderr


def test_a_run_inside_an_allocation_of_several_tasks_is_one_process(trained, tmp_path, monkeypatch):
    for name, value in {
        "JOB_ID": 7,
        "NTASKS": 4,
        "PROCID": 0,
        "LOCALID": 0,
        "NODEID": 0,
        "NODELIST": "n1",
        "JOB_NAME": "x",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    scores = train(settings_of(trained), tmp_path / "run", REGISTRY, "cpu")
    assert [s.value for s in scores] == pytest.approx(
        [s.value for s in RunFolder(trained).answers().read()], nan_ok=True
    )


# Copies


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def node(tmp_path, monkeypatch):
    """The disk of a node."""
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "local"))
    return node_folder()


def test_a_file_is_copied_once_a_node_and_again_if_the_copy_is_damaged(prepared, node):
    file = prepared / "mr.h5"
    copy = copied(file, sha256(file), node)
    assert copy.parent == node and copy.read_bytes() == file.read_bytes() and oct(node.stat().st_mode)[-3:] == "700"
    before = copy.stat().st_mtime_ns
    assert copied(file, sha256(file), node).stat().st_mtime_ns == before
    copy.write_bytes(b"half of it")
    assert copied(file, sha256(file), node).read_bytes() == file.read_bytes()


def test_a_file_that_is_another_by_now_is_not_read(prepared, node):
    with pytest.raises(DataError, match="has changed since the jobs were submitted"):
        copied(prepared / "mr.h5", sha256(prepared / "ct.h5"), node)
    assert not [*node.glob("*.h5")]


def test_a_run_reads_the_copies_and_names_the_files_themselves(trained, prepared, node, tmp_path, monkeypatch):
    opened = []
    hashes = {str(prepared / f"{name}.h5"): sha256(prepared / f"{name}.h5") for name in ("mr", "ct")}
    read = reader_of_copies(hashes, node)

    def reading(path):
        opened.append(read(path))
        return opened[-1]

    scores = train(settings_of(trained), tmp_path / "run", REGISTRY, "cpu", TrainOptions(read=reading))
    assert {file.path.parent for file in opened} == {node}
    assert read_toml(tmp_path / "run/config.toml")["data"] == read_toml(trained / "config.toml")["data"]
    assert [s.value for s in scores] == pytest.approx(
        [s.value for s in RunFolder(trained).answers().read()], nan_ok=True
    )


def test_a_node_without_room_reads_the_share(prepared, node, capsys, monkeypatch):
    file = prepared / "mr.h5"
    monkeypatch.setattr(staging, "write_whole", full)
    assert reader_of_copies({str(file): sha256(file)}, node)(file).path == file
    assert "No space left" in capsys.readouterr().out


def full(path, write):
    from attent_kit.files import not_written

    raise not_written(path, OSError(28, "No space left on device"))


# Costs


def test_node_hours_are_counted_by_the_resources_of_each_row():
    settings = JobSettings(gpus=1, minutes=30)
    rows = [settings.of(RowResources()), settings.of(RowResources(gpus=2, minutes=600))]
    found = node_hours("slurm", [(3601.0, rows[0]), (7200.0, rows[1])])
    assert found.jobs == 3 + 1 and found.hours == pytest.approx(10801 / 3600)
    assert found.gpu_hours == pytest.approx((3601 + 2 * 7200) / 3600) and found.longest == 7200
    assert "4 jobs of slurm" in found.sentence and "3 node hours and 5 GPU hours" in found.sentence


def test_each_device_of_a_run_is_counted_in_core_and_gpu_hours():
    asked, runs = JobSettings(gpus=1, cpus=3), [3600.0, 7200.0]
    found = node_hours("slurm", [(seconds, asked.of(RowResources(), 2)) for seconds in runs])
    assert (found.hours, found.core_hours, found.gpu_hours) == (3, 3 * 3 * 2, 3 * 2)
    assert "3 node hours, 18 core hours and 6 GPU hours" in found.sentence
    alone = node_hours("slurm", [(3600.0, JobSettings(gpus=0).of(RowResources()))])
    assert "1 node hours at" in alone.sentence
