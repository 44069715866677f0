"""Jobs as detached actors, found again by their names.

A detached actor belongs to the cluster: it goes on when the command that created it ends, it holds its share of a GPU, and its
name cannot be given twice. Nothing is restarted by Ray itself: a job that is lost with its node is submitted again by
`attentkit compare`, and goes on from its checkpoint on another one.
"""

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attent_kit.config import ComponentConfig
from attent_kit.errors import ConfigError, RunError
from attent_kit.launcher import Job, JobState, Launcher

NAMESPACE = "attentkit"
SECONDS_TO_ANSWER = 2.0
SECONDS_TO_CONNECT = 5.0
HANDED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME")
"""Environment variables of this process that a job is to have, too."""


class Ray(Launcher):
    """Actors of a Ray cluster, one for each run.

    It joins the cluster at `address`, whose nodes all see the disk with results and Python; without an address it starts one on
    this machine, which ends with this command. GPUs may be fractions: with gpus=0.5 two runs share one.
    """

    package = "ray"
    install = "ray"
    holds_stdin = True

    class Options(ComponentConfig):
        """Where the cluster is."""

        address: str | None = None
        """host:port of its head node, or auto for the one that runs here; left out, one is started on this machine."""
        autoscaling: bool = False
        """Whether nodes that a run needs may join later; otherwise a run that no node can hold is refused."""

    def __init__(self, options: Any, folder: Path) -> None:
        super().__init__(options, folder)
        self.outlives = options.address is not None  # type: ignore[misc]  # of this instance: its own cluster ends with it
        self._ray: Any = None
        self._asked: dict[str, Any] = {}
        """By the name of a job, the answer that its actor owes."""
        self._held: dict[str, Job] = {}
        """Jobs that come after others; Ray knows no such thing."""
        self._went_well: set[str] = set()

    def check(self, jobs: Sequence[Job]) -> None:
        """Whether some node could hold each job."""
        nodes = [node["Resources"] for node in self._cluster().nodes() if node["Alive"]]
        for job in {job[3:5]: job for job in jobs}.values():
            if self.options.autoscaling or any(
                node.get("GPU", 0.0) >= job.gpus and node.get("CPU", 0.0) >= job.cpus for node in nodes
            ):
                continue
            most = (
                ", ".join(f"{node.get('GPU', 0):g} GPUs and {node.get('CPU', 0):g} cores" for node in nodes)
                or "nothing"
            )
            raise ConfigError(
                f"--launcher ray: a run takes {job.gpus:g} GPUs and {job.cpus} cores, and no node has so much (there are: "
                f"{most}). Type --launch gpus=... and cpus=..., or --launch autoscaling=true where nodes join on demand."
            )

    def submit(self, job: Job) -> None:
        """Create its actor, which waits until a node can hold it."""
        if job.after and not self._went_well >= {*job.after}:
            self._held[job.name] = job
            return
        from attentkit_ray import runner

        ray = self._cluster()
        # The actor travels with its code, so that nodes need Ray and the shared disk, and not this plugin.
        ray.cloudpickle.register_pickle_by_value(runner)
        environment = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        seconds = None if job.minutes is None else 60.0 * job.minutes
        memory = {} if job.memory is None else {"memory": int(job.memory * 2**30)}
        actor = ray.remote(runner.Runner).options(
            name=job.name, namespace=NAMESPACE, lifetime="detached", max_restarts=0,
            num_cpus=job.cpus, num_gpus=job.gpus, **memory,
        )  # fmt: skip
        self._went_well.discard(job.name)
        self._asked.pop(job.name, None)
        try:
            actor.remote(list(job.argv), str(job.log.absolute()), os.getcwd(), environment, seconds)
        except ValueError:
            raise RunError(f"Ray has an actor {job.name} already, which has not ended yet.") from None

    def look(self, names: Sequence[str]) -> list[JobState]:
        """One list of all actors, then one question to each of ours, all at the same time."""
        ray = self._cluster()
        there = {
            actor["name"]
            for actor in ray.util.list_named_actors(all_namespaces=True)
            if actor["namespace"] == NAMESPACE
        }
        ours = [name for name in names if name in there]
        for name in ours:
            if name not in self._asked:
                try:
                    self._asked[name] = ray.get_actor(name, NAMESPACE).state.remote()
                except ValueError:
                    continue  # It has left in this moment.
        owed = [self._asked[name] for name in ours if name in self._asked]
        if owed:
            ray.wait(owed, num_returns=len(owed), timeout=SECONDS_TO_ANSWER)
        found = [state for name in ours if (state := self._state(ray, name)) is not None]
        found += self._release({*names}, {state.name for state in found if state.state != "ended"})
        return found

    def _state(self, ray: Any, name: str) -> JobState | None:
        """What its actor has answered; None if it has left."""
        answer = self._asked.get(name)
        if answer is None:
            return None
        if not ray.wait([answer], timeout=0)[0]:
            return JobState(name, "queued", why="no node is free for it")
        del self._asked[name]
        try:
            node, code = ray.get(answer)
        except ray.exceptions.RayError as error:
            # Lost with its node, or never begun: Ray's own reason is all that there is.
            return JobState(name, "ended", why=" ".join(str(error).split())[:300])
        if code is None:
            return JobState(name, "running", node)
        if code == 0:
            self._went_well.add(name)
        self._kill(name)
        return JobState(name, "ended", node, code)

    def _release(self, names: set[str], alive: set[str]) -> list[JobState]:
        """Submit held jobs whose turn has come; those that come after a lost job are forgotten, and submitted again some day."""
        found = []
        for name, job in [item for item in self._held.items() if item[0] in names]:
            if self._went_well >= {*job.after}:
                del self._held[name]
                self.submit(job)
                found.append(JobState(name, "queued"))
            elif all(other in alive or other in self._went_well or other not in names for other in job.after):
                found.append(JobState(name, "queued", why=f"after {', '.join(job.after)}"))
            else:
                del self._held[name]
        return found

    def stop(self, names: Sequence[str]) -> None:
        """Those that run are asked to save and end, those that wait are taken away."""
        ray = self._cluster()
        for state in self.look(names):
            if state.name in self._held:
                del self._held[state.name]
            elif state.state == "running":
                ray.get_actor(state.name, NAMESPACE).stop.remote()
            elif state.state == "queued":
                self._kill(state.name)

    def close(self) -> None:
        """Leave the cluster; one of our own ends, and its jobs save and end with it."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def _kill(self, name: str) -> None:
        try:
            self._ray.kill(self._ray.get_actor(name, NAMESPACE))
        except ValueError:
            return  # It has left already.

    def _cluster(self) -> Any:
        """Ray, joined on first use."""
        if self._ray is None:
            import ray

            local = {} if self.options.address else {"include_dashboard": False}
            try:
                _knock(self.options.address)
                ray.init(
                    address=self.options.address or "local", namespace=NAMESPACE, log_to_driver=False,
                    logging_level=logging.ERROR, **local,
                )  # fmt: skip
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
                raise ConfigError(
                    f"--launch address={self.options.address}: no Ray cluster answers there ({reason}). "
                    "Start one with `ray start --head`, or leave out address for one on this machine."
                ) from None
            self._ray = ray
        return self._ray


def _knock(address: str | None) -> None:
    """OSError if nobody listens at host:port, which Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()
