"""A method in two processes with gloo: `python -m attent_kit.testing.processes JOB.json RANK`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from attent_kit.config import dump
from attent_kit.registry import Component, Registry
from attent_kit.testing.subject import Skipped, Subject

SECONDS = 240.0
STEPS = 2


def two_processes(subject: Subject) -> None:
    """Several devices train by averaging gradients when a network is called. Networks must be direct attributes and be called
    through `forward` alone: anything that bypasses it is trained by each process on its own, and the weights drift apart."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise Skipped("PyTorch was built without gloo")
    if sys.platform == "win32":
        raise Skipped("two processes are not started on Windows")
    components = [[c.kind, c.name, _reference(c.target), c.plugin] for c in subject.registry if c.kind != "suites"]
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "component": _reference(subject.component),
            "options": dump(subject.config),
            "components": [c for c in components if c[2]],
            "folder": folder,
        }
        if not job["component"]:
            raise Skipped("it is not at the top of an importable module")
        Path(folder, "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run(Path(folder), subject.called)


def _run(folder: Path, name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    logs = [folder / f"{rank}.log" for rank in (0, 1)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, "-m", "attent_kit.testing.processes", str(folder / "job.json"), str(rank)]
            with open(log, "w", encoding="utf-8") as file:
                processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=folder))
        for process in processes:
            process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        raise AssertionError(
            f"two processes of {name} were not done after {SECONDS:.0f} s: one is waiting for the other."
        ) from None
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, log in zip(processes, logs, strict=True):
        if process.returncode != 0:
            lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
            raise AssertionError(f"{name} fails in two processes: {lines[-1] if lines else process.returncode}")
    apart = json.loads((folder / "apart.json").read_text(encoding="utf-8"))
    assert not apart, f"after {STEPS} steps of each stage {apart[0]} differs between the two processes."


def _reference(target: Any) -> str:
    """ "module:Class" of a class that another process can import, or nothing."""
    if isinstance(target, str):
        return target
    if target.__module__ == "__main__" or "." in target.__qualname__:
        return ""
    return f"{target.__module__}:{target.__qualname__}"


def train_beside_another(job: dict[str, Any], rank: int) -> None:
    """A few steps of every stage, on different images in each process; the first writes which weights differ."""
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment
    from lightning_fabric.strategies import DDPStrategy

    from attent_kit.build import Builder, configure
    from attent_kit.engine.run.assemble import setup, train_only
    from attent_kit.engine.train.fit import seed_step
    from attent_kit.engine.train.update import FabricUpdate
    from attent_kit.plugins import load
    from attent_kit.testing.subject import FOUR_ORGANS, random_batch

    load()  # the files of --plugin
    registry = Registry()
    for kind, name, target, plugin in job["components"]:
        registry.add(Component(kind, name, target, plugin, plugin, ""))
    component: Any = Component("alignments", "examined", job["component"], "", "", "").load()
    store = Path(job["folder"], "rendezvous").as_uri()
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)

    class Strategy(DDPStrategy):
        """Leaves a network that never learns, such as a teacher, as it is: DDP rejects it, and there is nothing to average."""

        def setup_module(self, module: torch.nn.Module) -> Any:
            return super().setup_module(module) if any(p.requires_grad for p in module.parameters()) else module

    strategy = Strategy(process_group_backend="gloo", find_unused_parameters=True)
    alone = LightningEnvironment()  # whatever Slurm or MPI this machine has
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy, precision="32-true", plugins=alone)
    fabric.launch()
    config = configure(component, job["options"], registry)
    alignment = component(config, Builder(registry, FOUR_ORGANS, seed=0), FOUR_ORGANS)
    optimizers = setup(alignment, fabric)
    update = FabricUpdate(fabric, optimizers)
    for stage in alignment.stages():
        train_only(alignment, optimizers, stage)
        for step in range(STEPS):
            seed_step(rank, step)
            stage.step(random_batch(2, FOUR_ORGANS, 64, alignment.uses_target_labels), update)
    apart = []
    for name, parameter in alignment.named_parameters():
        both = [torch.empty_like(parameter.detach()) for _ in range(2)]
        torch.distributed.all_gather(both, parameter.detach().contiguous())
        if not torch.equal(*both):
            apart.append(name)
    if rank == 0:
        Path(job["folder"], "apart.json").write_text(json.dumps(apart), encoding="utf-8")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    # What Fabric asks the environment of a process that somebody else has started.
    os.environ.update(RANK=sys.argv[2], LOCAL_RANK=sys.argv[2], WORLD_SIZE="2", NODE_RANK="0")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")  # not used: the processes meet in a file
    train_beside_another(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), int(sys.argv[2]))
