"""Comparisons on a real Slurm that is started here: to the end, whatever is killed, and to the same bits."""

import json
import re
import shlex
import subprocess

import pytest

from support.cluster_runs import TINY, Disturbed, goes_on_in_twos, lines_of_the_page, with_commands
from support.slurm_cluster import Cluster
from support.waiting import until

WORDS = ["--launcher", "slurm", "--launch", "gpus=0", "--launch", "seconds=0.5"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes, named node1 and node2, of one core each."""
    try:
        started = Cluster(tmp_path_factory.mktemp("slurm"), 2, 1).start()
    except RuntimeError as error:
        pytest.skip(f"no Slurm can be started here: {error}")
    yield started
    started.stop()


@pytest.fixture
def disturbed(cluster, prepared, tmp_path):
    return lambda steps: Disturbed(tmp_path, prepared, steps, WORDS, cluster.environment)


def test_a_grid_ends_in_the_same_bits_though_workers_the_command_and_an_urgent_job_get_in_its_way(cluster, disturbed):
    run = disturbed(30)
    assert run.undisturbed() == 1
    run.start()
    # Killed in mid-cell.
    run.kill_worker(3)
    # The command is killed while jobs wait and run; started again it finds them.
    until(lambda: run.training(3))
    before = {line.split()[0] for line in cluster.squeue("%A")}
    run.kill_command()
    assert before
    run.start()
    until(lambda: run.training(6))
    # Preempted on both nodes.
    cluster.command("sbatch", "--partition=urgent", "--nodes=2", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1")
    code, said = run.end()
    assert code == 1 and "1 of 4 runs failed" in said, said
    assert said.count("FAILED: Broken, mr2ct, seed 0: ") == 1 and "no longer a finite number" in said
    assert run.tables() == dict.fromkeys(run.tables(), True), said
    # It may have been preempted before it could begin, but its own error is met once.
    (said_of_broken,) = (run.out / "jobs").glob("*broken*.events")
    assert said_of_broken.read_text().count('["failed"') == 1, "an error of a method is not tried again"
    assert not cluster.squeue()


def test_status_shows_jobs_and_logs_and_cancel_ends_them(cluster, disturbed):
    run = disturbed(2000)
    run.start()
    until(lambda: run.training(1))
    said = run.command("status", run.out).stdout
    assert re.search(r"running on node\d, job ak-\w+-mr2ct-\w+-seed0-\w+(-stage)?, log .*\.log", said), said
    (shown,) = [cell for cell in json.loads(run.command("status", run.out, "--json").stdout) if cell["row"] == "AttENT"]
    assert shown["jobs"][0]["state"] == "queued" and shown["jobs"][0]["why"] == "Dependency"
    assert run.command("status", run.out, "--logs", "nobody").returncode == 2
    ended = run.command("cancel", run.out)
    assert ended.returncode == 0 and " jobs ended: " in ended.stdout
    code, said = run.end()
    assert code == 130 and "cancelled" in said, said
    until(lambda: not cluster.squeue())
    assert not run.training() and any(run.out.glob("*/*/*/checkpoint.ckpt"))


def test_two_processes_train_a_run_and_it_goes_on_when_either_dies(prepared, tmp_path, tmp_path_factory):
    """On a node of two cores and two GPUs, which are claimed and not there."""
    try:
        cluster = Cluster(tmp_path_factory.mktemp("slurm"), 1, 2, 2).start()
    except RuntimeError as error:
        pytest.skip(f"no Slurm can be started here: {error}")
    try:
        words = ["--launcher", "slurm", "-d", "cpu", "--launch", "gpus=1", "--launch", "seconds=0.5"]
        run = Disturbed(tmp_path, prepared, 20, words, cluster.environment)
        goes_on_in_twos(run)
        asked = cluster.command("scontrol", "--oneliner", "show", "job").splitlines()
        assert len(asked) == 4, "two jobs, and two that were submitted again"
        for job in asked:
            assert "NumNodes=1 NumCPUs=2 NumTasks=1 CPUs/Task=2 " in job and "TresPerNode=gres:gpu:2" in job
    finally:
        cluster.stop()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--launch", "partition=nowhere"], "Invalid partition name"),
        (["--launch", "cpus=64"], "sbatch refuses such a job"),
        (["--launch", "gpus=0.5"], "whole GPUs"),
    ],
)
def test_what_slurm_would_refuse_is_refused_before_anything_is_submitted(cluster, disturbed, words, sentence):
    run = disturbed(2)
    run.start(*words)
    code, said = run.end()
    assert code == 2 and sentence in said and "Traceback" not in said, said
    assert not cluster.squeue()


def test_the_page_on_clusters_is_word_for_word(cluster, disturbed):
    run = disturbed(2)
    run.suite.write_text(run.suite.read_text().partition('[[rows]]\nlabel = "Broken"')[0])
    lines = lines_of_the_page()
    commands = [line for line in lines if re.match("attentkit (compare|status|cancel) ", line) and "ray" not in line]
    assert len(commands) == 6
    for line in commands:
        words = [word.replace("attent", "w-o") for word in shlex.split(line)[1:]]
        done = run.command(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "--logs" not in words or ": finished" in done.stdout
    assert (run.suite.parent / "runs/mine/table.md").exists()


def test_srun_starts_the_processes_of_a_run_as_the_page_says(cluster, prepared, tmp_path):
    (line,) = [line for line in lines_of_the_page() if line.startswith("srun ")]
    # One device of each node, and no GPU; what these nodes are called, Slurm alone knows.
    line = re.sub(r"--gpus-per-node \d+ ", "", re.sub(r"(per-node|per-run) \d+", r"\1 1", line))
    environment = {**with_commands(tmp_path, prepared, cluster.environment), "MASTER_ADDR": "127.0.0.1"}
    words = [*shlex.split(line), *TINY, "--device=cpu"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0 and done.stdout.count("attent, Dice in %") == 1, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("*/*/*")
    assert json.loads((run / "env.json").read_text())["devices_per_run"] == 2
