"""The launcher against a stand-in for Ray, and its actor as a plain object; `tests/test_ray_cluster.py` has the real one."""

import os
import sys
import types

import pytest
from attentkit_ray import runner as module
from attentkit_ray.ray import Ray
from attentkit_ray.runner import Runner

from attent_kit.config import validate
from attent_kit.errors import ConfigError, RunError
from attent_kit.launcher import Job
from attent_kit.plugins import load

REGISTRY = load().registry


class RayError(Exception):
    pass


class FakeRay(types.ModuleType):
    """Named actors whose answers a test sets: `answers[name]` is (node, code), an exception, or missing while it waits."""

    def __init__(self):
        super().__init__("ray")
        self.actors, self.answers, self.killed, self.stopped, self.joined = {}, {}, [], [], []
        self.exceptions = types.SimpleNamespace(RayError=RayError)
        self.util = types.SimpleNamespace(
            list_named_actors=lambda all_namespaces: [{"name": n, "namespace": "attentkit"} for n in self.actors]
        )
        self.cloudpickle = types.SimpleNamespace(register_pickle_by_value=lambda module: None)
        self.resources = [{"GPU": 1.0, "CPU": 4.0}]

    def init(self, **how):
        self.joined.append(how)
        if how["address"] == "nowhere":
            raise ConnectionError("Could not find any running Ray instance")

    def shutdown(self):
        self.joined.append("left")

    def nodes(self):
        return [{"Alive": True, "Resources": has} for has in self.resources]

    def remote(self, cls):
        def options(**how):
            def create(*arguments):
                if how["name"] in self.actors:
                    raise ValueError("taken")
                self.actors[how["name"]] = how, arguments

            return types.SimpleNamespace(remote=create)

        return types.SimpleNamespace(options=options)

    def get_actor(self, name, namespace):
        if name not in self.actors:
            raise ValueError(name)
        say, end = types.SimpleNamespace(), types.SimpleNamespace()
        say.remote, end.remote = (lambda: name), (lambda: self.stopped.append(name))
        return types.SimpleNamespace(state=say, stop=end, name=name)

    def wait(self, owed, num_returns=1, timeout=0):
        return [name for name in owed if name in self.answers], []

    def get(self, name):
        if isinstance(self.answers[name], Exception):
            raise self.answers[name]
        return self.answers[name]

    def kill(self, actor):
        self.killed.append(actor.name)
        del self.actors[actor.name]


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def launcher(folder, **given):
    return Ray(validate(Ray.Options, given, REGISTRY), folder)


def job(folder, name, **more):
    return Job(name, ("true",), folder / f"{name}.log", **more)


def states(found):
    return {state.name: (state.state, state.code) for state in found}


def test_an_actor_holds_what_its_job_takes_and_its_name_is_given_once(ray, tmp_path):
    started = launcher(tmp_path, address="auto")
    started.submit(job(tmp_path, "a", gpus=0.5, cpus=2, memory=3.0, minutes=2))
    how, (argv, log, folder, _, seconds) = ray.actors["a"]
    assert (how["num_gpus"], how["num_cpus"], how["memory"], how["lifetime"]) == (0.5, 2, 3 * 2**30, "detached")
    assert (argv, log, folder, seconds) == (["true"], str(tmp_path / "a.log"), os.getcwd(), 120.0)
    with pytest.raises(RunError, match="an actor a already"):
        started.submit(job(tmp_path, "a"))
    assert started.outlives and not launcher(tmp_path).outlives


def test_actors_are_asked_and_those_that_ended_are_let_go(ray, tmp_path):
    started = launcher(tmp_path, address="auto")
    for name in "abcd":
        started.submit(job(tmp_path, name))
    ray.answers |= {"a": ("node1", None), "b": ("node2", 3), "c": RayError("died")}
    found = started.look([*"abcde"])
    assert states(found) == {"a": ("running", None), "b": ("ended", 3), "c": ("ended", None), "d": ("queued", None)}
    assert {state.name: state.where for state in found} == {"a": "node1", "b": "node2", "c": "", "d": ""}
    assert [state.why for state in found if state.name == "c"] == ["died"]
    assert ray.killed == ["b"]
    assert states(launcher(tmp_path, address="auto").look(["a"])) == {"a": ("running", None)}, "anybody may ask"


def test_a_job_is_held_until_what_it_comes_after_went_well_and_forgotten_if_that_is_lost(ray, tmp_path):
    started = launcher(tmp_path, address="auto")
    started.submit(job(tmp_path, "stage"))
    started.submit(job(tmp_path, "run", after=("stage",)))
    assert "run" not in ray.actors and states(started.look(["stage", "run"]))["run"] == ("queued", None)
    del ray.actors["stage"]
    assert states(started.look(["stage", "run"])) == {}
    started.submit(job(tmp_path, "stage"))
    started.submit(job(tmp_path, "run", after=("stage",)))
    ray.answers["stage"] = ("node1", 0)
    assert states(started.look(["stage", "run"])) == {"stage": ("ended", 0), "run": ("queued", None)}
    assert "run" in ray.actors


def test_those_that_run_are_told_and_those_that_wait_are_taken_away(ray, tmp_path):
    started = launcher(tmp_path, address="auto")
    for name in "ab":
        started.submit(job(tmp_path, name))
    started.submit(job(tmp_path, "c", after=("a",)))
    ray.answers["a"] = ("node1", None)
    started.stop([*"abc"])
    assert (ray.stopped, ray.killed) == (["a"], ["b"]) and states(started.look([*"abc"])) == {"a": ("running", None)}
    started.close()
    assert ray.joined[-1] == "left"


def test_what_no_node_can_hold_and_an_address_that_does_not_answer_are_sentences(ray, tmp_path):
    with pytest.raises(ConfigError, match="2 GPUs and 1 cores.*1 GPUs and 4 cores"):
        launcher(tmp_path).check([job(tmp_path, "a", gpus=2)])
    launcher(tmp_path).check([job(tmp_path, "a", gpus=0.5)])
    launcher(tmp_path, autoscaling=True).check([job(tmp_path, "a", gpus=2)])
    for address in ("nowhere", "127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(ConfigError, match=f"{address}: no Ray cluster answers there"):
            launcher(tmp_path, address=address).look(["a"])
    asked = [how["address"] for how in ray.joined]
    assert asked == [*["local"] * 3, "nowhere"], "Ray, which tries for minutes, is not asked where nobody listens"


def test_the_actor_runs_a_command_says_how_it_ended_and_frees_what_it_holds(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(module.os, "_exit", left.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    program = "import os, sys; print(os.environ.get('OMP_NUM_THREADS'), os.environ['MINE']); sys.exit(4)"
    runner = Runner([sys.executable, "-c", program], str(tmp_path / "log"), str(tmp_path), {"MINE": "x"}, None)
    runner._process.wait()
    runner._process.stdin.close()
    assert runner.state()[1] == 4 and (tmp_path / "log").read_text() == "None x\n"
    runner.stop()


def test_a_time_limit_asks_the_command_to_save(tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "_exit", lambda code: None)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    program = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(9)); signal.pause()"
    runner = Runner([sys.executable, "-c", program], str(tmp_path / "log"), str(tmp_path), {}, 1.0)
    code = runner._process.wait(60)
    runner._process.stdin.close()
    # A slow machine may not have set its handler by then; killed at once or saved, it has ended.
    assert code in (9, -15)
