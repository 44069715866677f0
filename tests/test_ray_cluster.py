"""Comparisons on a real two-node Ray cluster: to the end, whatever is killed, and to the same bits."""

import pytest

from support.cluster_runs import Disturbed, goes_on_in_twos
from support.ray_cluster import RayNodes
from support.waiting import until

pytest.importorskip("ray", reason="pip install ray")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core and one GPU, which is claimed and not there."""
    started = RayNodes(2)
    yield started
    started.stop()


@pytest.fixture
def disturbed(cluster, prepared, tmp_path):
    import os

    words = ["--launcher", "ray", "--launch", f"address={cluster.address}", "-d", "cpu", "--launch", "seconds=0.5"]
    return lambda steps, *more: Disturbed(tmp_path, prepared, steps, [*words, *more], dict(os.environ))


def test_a_grid_ends_in_the_same_bits_though_a_worker_a_node_and_the_command_are_killed(cluster, disturbed):
    run = disturbed(30, "--launch", "gpus=1")
    assert run.undisturbed() == 1
    run.start()
    run.kill_worker(3)
    until(lambda: run.training(6))
    cluster.kill_node()
    run.kill_command()
    run.start()
    until(lambda: run.training(9) or run.over)
    cluster.add_node()
    code, said = run.end()
    assert code == 1 and "1 of 4 runs failed" in said, said
    assert said.count("FAILED: Broken, mr2ct, seed 0: ") == 1 and "no longer a finite number" in said
    assert run.tables() == dict.fromkeys(run.tables(), True), said


def test_two_runs_share_a_gpu_and_cancel_ends_them(cluster, disturbed):
    run = disturbed(2000, "--launch", "gpus=0.25", "--launch", "cpus=1", "--launch", "address=auto")
    run.start()
    until(lambda: run.training(1))
    assert " running on " in run.command("status", run.out).stdout
    ended = run.command("cancel", run.out)
    assert ended.returncode == 0 and " jobs ended: " in ended.stdout, ended.stderr
    code, said = run.end()
    assert code == 130 and "cancelled" in said, said
    until(lambda: not run.training())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--launch", "gpus=3"], "no node has so much"),
        (["--launch", "address=127.0.0.1:1"], "no Ray cluster answers there"),
    ],
)
def test_what_cannot_run_there_is_a_sentence(cluster, disturbed, words, sentence):
    run = disturbed(2)
    run.start(*words)
    code, said = run.end()
    assert code == 2 and sentence in said and "Traceback" not in said, said


def test_two_processes_train_a_run_and_it_goes_on_when_either_dies(cluster, disturbed):
    run = disturbed(20, "--launch", "gpus=1")
    cluster.add_node(2)
    until(lambda: cluster.free() == "4")
    goes_on_in_twos(run, lambda: cluster.free() == "2")
