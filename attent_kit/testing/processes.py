"""Methods in two processes and in one: `python -m attent_kit.testing.processes JOB.json RANK`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attent_kit.config import dump
from attent_kit.registry import Component, Registry
from attent_kit.testing.subject import Skipped, Subject
from attent_kit.testing.volumes import with_volumes

SECONDS = 240.0
STEPS = 2
TOLERANCE = 1e-6
"""How far a weight may lie from that of one process, as a fraction of the farthest that a weight of its network went. All is
computed in float64: in float32 Adam makes whole steps of what rounding leaves of a gradient that is zero."""


def two_processes(subject: Subject) -> None:
    """With `--devices-per-run 2` each of two processes computes its share of what a network is asked, and both must end in the
    weights of one. Let networks, as direct attributes, treat each slice by itself (BatchNorm and dropout may stay), call them
    through `forward`, and draw other random numbers in the step, not in a network."""
    of_volumes = with_volumes(subject)
    found = apart_in_two([each for each in (subject, of_volumes) if each is not None])
    for apart, what in zip(found, ("", " with patches of volumes"), strict=False):
        assert not apart, f"in two processes{what}, {apart}."


def apart_in_two(subjects: Sequence[Subject]) -> list[str]:
    """Of each alignment what differs after a few steps of every stage, empty if nothing does: one pair of processes for all."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise Skipped("PyTorch was built without gloo")
    if sys.platform == "win32":
        raise Skipped("two processes are not started on Windows")
    with tempfile.TemporaryDirectory() as folder:
        jobs = [_job(subject) for subject in subjects]
        Path(folder, "job.json").write_text(json.dumps({"folder": folder, "jobs": jobs}), encoding="utf-8")
        _run(Path(folder), SECONDS * len(subjects))
        found: list[str] = json.loads(Path(folder, "apart.json").read_text(encoding="utf-8"))
    return found


def _job(subject: Subject) -> dict[str, Any]:
    """What the processes have to know of one alignment."""
    components = [[c.kind, c.name, _reference(c.target), c.plugin] for c in subject.registry if c.kind != "suites"]
    component = _reference(subject.component)
    if not component:
        raise Skipped("it is not at the top of an importable module")
    known = [c for c in components if c[2]]
    return {"name": subject.called, "component": component, "options": dump(subject.config), "components": known}


def _run(folder: Path, seconds: float) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    logs = [folder / f"{rank}.log" for rank in (0, 1)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, "-m", "attent_kit.testing.processes", str(folder / "job.json"), str(rank)]
            with open(log, "w", encoding="utf-8") as file:
                processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=folder))
        for process in processes:
            process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(
            f"two processes were not done after {seconds:.0f} s: one is waiting for the other."
        ) from None
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, log in zip(processes, logs, strict=True):
        if process.returncode != 0:
            lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
            raise AssertionError(f"it fails in two processes: {lines[-1] if lines else process.returncode}")


def _reference(target: Any) -> str:
    """ "module:Class" of a class that another process can import, or nothing."""
    if isinstance(target, str):
        return target
    if target.__module__ == "__main__" or "." in target.__qualname__:
        return ""
    return f"{target.__module__}:{target.__qualname__}"


def train_beside_another(job: dict[str, Any], rank: int) -> None:
    """A few steps of every stage of every alignment, in two processes and then in the first alone, which writes what differs."""
    import torch
    import torch.distributed as dist

    from attent_kit.engine.run.device import launch, launch_one_of
    from attent_kit.engine.run.ranks import Seat, ranks_of
    from attent_kit.plugins import load

    load()  # the files of --plugin
    torch.set_default_dtype(torch.float64)
    store = dist.FileStore(str(Path(job["folder"], "rendezvous")), 2)
    two = launch_one_of("cpu+cpu", "64-true", Seat(rank, 2, rank, 2, "127.0.0.1", 0, "attentkit"))
    ranks = ranks_of(two)
    ranks.meet(store)
    apart = []
    with ranks.together():
        for one in job["jobs"]:
            shared = trained(one, two)
            apart.append("" if rank else differing_weight(shared, trained(one, launch("cpu", "64-true"))))
    if rank == 0:
        Path(job["folder"], "apart.json").write_text(json.dumps(apart), encoding="utf-8")


def trained(job: dict[str, Any], fabric: Any) -> tuple[Any, dict[str, Any]]:
    """An alignment after a few steps of every stage, and its weights before."""
    from attent_kit.build import Builder, configure
    from attent_kit.engine.run.assemble import patch_of, setup, train_only
    from attent_kit.engine.run.labelled import labelled
    from attent_kit.engine.run.ranks import ranks_of
    from attent_kit.engine.train.fit import seed_step
    from attent_kit.engine.train.update import FabricUpdate
    from attent_kit.testing.exact import Exact
    from attent_kit.testing.subject import FOUR_ORGANS, deep, random_batch

    registry = Registry()
    for kind, name, target, plugin in job["components"]:
        registry.add(Component(kind, name, target, plugin, plugin, ""))
    component: Any = Component("alignments", "examined", job["component"], "", "", "").load()
    alignment = component(
        configure(component, job["options"], registry), Builder(registry, FOUR_ORGANS, seed=0), FOUR_ORGANS
    )
    optimizers = setup(alignment, fabric)
    before = {name: value.detach().clone() for name, value in alignment.named_parameters()}
    update = FabricUpdate(fabric, optimizers)
    for stage in alignment.stages():
        for step in range(STEPS):
            seed_step(0, step)
            batch = random_batch(2, FOUR_ORGANS, 64, alignment.uses_target_labels)
            if (patch := patch_of(alignment)) is not None:
                batch = deep(batch, patch.size[0])
            with ranks_of(fabric).dealing(), Exact():
                batch = labelled(alignment, stage, batch)
                train_only(alignment, optimizers, stage)
                stage.step(batch, update)
    return alignment, before


def differing_weight(two: tuple[Any, dict[str, Any]], one: tuple[Any, dict[str, Any]]) -> str:
    """The weight, running statistic or image pool that is farthest from that of one process, in words; empty if none is far."""
    alignment, before = one
    same = {**dict(two[0].named_parameters()), **dict(two[0].named_buffers())}
    ways: dict[str, float] = {}
    for name, value in alignment.named_parameters():
        network = name.partition(".")[0]
        ways[network] = max(ways.get(network, 0.0), float((value.detach() - before[name]).abs().max()))
    worst, found = TOLERANCE, ""
    for name, value in (*alignment.named_parameters(), *alignment.named_buffers()):
        other = same[name].detach()
        if other.shape != value.shape:
            return f"{name} has another shape"
        if not value.numel():
            continue
        way = ways.get(name.partition(".")[0], 0.0) if name in before else 0.0
        # What no optimizer moves, such as running statistics, by its own size.
        scale = way or max(1.0, float(value.detach().abs().max()))
        plain = name.replace("_forward_module.", "")  # Fabric's wrapper
        far = float((other.double() - value.detach().double()).abs().max()) / scale
        if not far <= worst:
            worst, found = (
                far,
                f"after {STEPS} steps of each stage {plain} is not that of one (by {far:.2g} of its way)",
            )
    return found


if __name__ == "__main__":
    train_beside_another(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), int(sys.argv[2]))
