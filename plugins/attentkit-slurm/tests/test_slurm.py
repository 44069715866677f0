"""What sbatch is told and how the answers of squeue are read; the tests of attent-kit itself run all of it on a real Slurm."""

import os
import stat
from pathlib import Path

import pytest
from attentkit_slurm.slurm import Slurm, script

from attent_kit.config import validate
from attent_kit.errors import ConfigError, RunError
from attent_kit.launcher import Job
from attent_kit.plugins import load

REGISTRY = load().registry
JOB = Job(
    "ak-1-a",
    ("/opt/my python", "-m", "worker", "/shared/a.json"),
    Path("/shared/a.log"),
    minutes=90,
    memory=7.5,
    gpus=2,
)


def options(**given):
    return validate(Slurm.Options, given, REGISTRY)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """`tool("squeue", text)` puts a command of that name first in PATH, which notes how it is called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name, answer="", code=0, complaint=""):
        (tmp_path / f"{name}.answer").write_text(answer)
        file = folder / name
        file.write_text(
            f'#!/bin/bash\necho "$@" >> {tmp_path}/{name}.called\ncat > {tmp_path}/{name}.stdin\n'
            f"cat {tmp_path}/{name}.answer\n[ -z '{complaint}' ] || echo '{complaint}' >&2\nexit {code}\n"
        )
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return lambda: (tmp_path / f"{name}.called").read_text().splitlines()

    return make


def test_a_script_says_all_and_becomes_the_worker(tmp_path):
    lines = tmp_path / "lines.sh"
    lines.write_text("#SBATCH --reservation=mine\nmodule load cuda\n")
    text = script(JOB, options(partition="gpu", gres="gpu:a100", lines=lines), {}).splitlines()
    assert text[0] == "#!/bin/bash" and text[-1] == "exec '/opt/my python' -m worker /shared/a.json"
    assert text[-3:-1] == ["#SBATCH --reservation=mine", "module load cuda"]
    for line in ("--job-name=ak-1-a", "--time=90", "--mem=7680M", "--gres=gpu:a100:2", "--partition=gpu", "--requeue"):
        assert f"#SBATCH {line}" in text
    assert "#SBATCH --signal=B:USR1@120" in text and not any("dependency" in line or "account" in line for line in text)


def test_a_job_comes_after_those_that_are_known_by_number():
    text = script(JOB._replace(after=("x", "y", "gone")), options(), {"x": "7", "y": "9"})
    assert "#SBATCH --dependency=afterok:7:9\n" in text and "--kill-on-invalid-dep=yes" in text
    assert "dependency" not in script(JOB._replace(after=("gone",)), options(), {})


def test_half_a_gpu_and_a_file_that_is_not_there_are_refused():
    with pytest.raises(ConfigError, match="whole GPUs"):
        script(JOB._replace(gpus=0.5), options(), {})
    with pytest.raises(ConfigError, match="there is no such file"):
        options(lines="nowhere.sh")


def test_one_squeue_tells_of_all_jobs_and_the_last_of_a_name_counts(tool, tmp_path):
    rows = [
        ("5", "a", "RUNNING", "node3", "None"), ("3", "a", "TIMEOUT", "node1", "TimeLimit"),
        ("6", "b", "PENDING", "", "Priority"), ("7", "c", "NODE_FAIL", "node2", "None"),
        ("8", "d", "COMPLETED", "node2", "None"), ("9", "stranger", "RUNNING", "node2", "None"),
    ]  # fmt: skip
    called = tool("squeue", "".join("\x1f".join(row) + "\n" for row in rows))
    found = {s.name: s for s in Slurm(options(), tmp_path).look(["a", "b", "c", "d", "e"])}
    assert len(called()) == 1 and set(found) == {"a", "b", "c", "d"}
    assert (found["a"].state, found["a"].where) == ("running", "node3")
    assert (found["b"].state, found["b"].why) == ("queued", "Priority")
    assert (found["c"].state, found["c"].why, found["c"].code) == ("ended", "node fail", None)
    assert (found["d"].state, found["d"].code) == ("ended", 0)


def test_jobs_are_stopped_by_number_all_at_once(tool, tmp_path):
    tool("squeue", "5\x1fa\x1fRUNNING\x1fn\x1f\n6\x1fb\x1fPENDING\x1f\x1f\n")
    called = tool("scancel")
    Slurm(options(), tmp_path).stop(["a", "b", "gone"])
    assert called() == ["5 6"]


def test_what_slurm_refuses_is_a_sentence(tool, tmp_path):
    tool("sbatch", code=1, complaint="sbatch: error: Batch job submission failed: Invalid partition name specified")
    tool("squeue", code=1, complaint="slurm_load_jobs error: Unable to contact slurm controller")
    tool("scancel")
    slurm = Slurm(options(), tmp_path)
    job = JOB._replace(log=tmp_path / "a.log")
    with pytest.raises(ConfigError, match="sbatch refuses such a job: .*Invalid partition name specified"):
        slurm.check([job, job])
    with pytest.raises(RunError, match="sbatch took no job"):
        slurm.submit(job)
    with pytest.raises(RunError, match="squeue does not answer: .*Unable to contact"):
        slurm.look(["a"])


def test_a_submitted_job_is_known_by_its_number(tool, tmp_path):
    called = tool("sbatch", "41;cluster\n")
    slurm = Slurm(options(), tmp_path)
    slurm.submit(JOB._replace(log=tmp_path / "a.log"))
    slurm.submit(JOB._replace(name="b", log=tmp_path / "b.log", after=("ak-1-a",)))
    assert called() == ["--parsable", "--parsable"]
    assert "afterok:41" in (tmp_path / "b.sh").read_text() == (tmp_path / "sbatch.stdin").read_text()


def test_without_slurm_the_sentence_says_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="sbatch is not installed here"):
        Slurm(options(), tmp_path).check([JOB])
