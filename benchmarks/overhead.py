"""What a step of a run costs beside its arithmetic: our loop and a bare one with the same networks, in turn in one process.

    python benchmarks/overhead.py [--methods source_only,attent] [--steps 400] [--write]

Networks are tiny, images of 32 pixels and random, two a batch, one thread, float32. Ours is the loop of `attentkit train`: it
draws and warps the batch, seeds, sets rates, calls networks and optimizers through Fabric, logs, beats, and has its watchers
see each step. The bare loop calls the same steps on one batch with plain PyTorch. Every 20 steps of a stage the other loop takes
as many. Times are of the processor, so that other work on the machine counts little; the overhead is the median of the
differences, with their quartiles.
"""

import argparse
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch

from attent_kit.build import Builder, configure
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import Batches, ResidentSlices
from attent_kit.engine.run.assemble import owned, train_only
from attent_kit.engine.run.device import in_words, launch
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.heartbeat import Heartbeat
from attent_kit.engine.run.record import Run
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.fit import Progress, StepWatcher, fit
from attent_kit.engine.train.health import DiscriminatorWatch, Span
from attent_kit.engine.train.monitor import Monitor
from attent_kit.interfaces import Alignment, Task
from attent_kit.plugins import load

RESULT = Path(__file__).parent / "results" / "overhead.md"
REGISTRY = load().registry
TURN = 20
"""Steps of one loop before it is the other's turn."""
TINY = {
    "segmentor": {"name": "smp", "encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]},
    "translator": {"name": "resnet", "width": 4, "blocks": 1},
    "image_discriminator": {"width": 4, "layers": 1},
    "entropy_discriminator": {"width": 4},
}


def main() -> None:
    """Print a Markdown table, and write the result file if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", default="source_only,attent")
    parser.add_argument("--steps", type=int, default=400, help="of each stage, and as many of the bare loop")
    parser.add_argument("--write", action="store_true", help=f"leave the table in {RESULT.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# What a step costs beside its arithmetic",
        "",
        f"`python benchmarks/overhead.py --methods {options.methods} --steps {options.steps}`, {in_words(torch.device('cpu'))}, "
        f"{date.today()}, torch {torch.__version__}, one thread. Milliseconds of the processor for a step; the goal is at most "
        "1.5.",
        "",
        "| method | stage | our loop | bare loop | overhead (quartiles) |",
        "|---|---|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.methods.split(","):
        for line in measured(name, options.steps):
            lines.append(line)
            print(line, flush=True)
    if options.write:
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def built(name: str, steps: int) -> Alignment:
    """A method with tiny networks."""
    method = REGISTRY.alignment(name)
    chosen = {key: value for key, value in TINY.items() if key in method.Config.model_fields}
    for stage in ("translate", "segment"):
        if f"{stage}_steps" in method.Config.model_fields:
            chosen |= {f"{stage}_steps": steps, f"{stage}_batch_size": 2}
    return method(configure(method, chosen, REGISTRY), Builder(REGISTRY, Task(), 0), Task())


def random_batches(method: Alignment) -> Batches:
    """Forty slices of each domain."""
    rng = np.random.default_rng(0)

    def slices(with_labels: bool) -> ResidentSlices:
        images = rng.uniform(-1, 1, (40, 32, 32)).astype(np.float16)
        labels = rng.integers(0, 5, (40, 32, 32)).astype(np.uint8) if with_labels else None
        return ResidentSlices(images, np.arange(40)[:, None], labels, torch.device("cpu"))

    return Batches(slices(True), slices(method.uses_target_labels), Augmentation(), 0, torch.device("cpu"))


class Turns:
    """A watcher in whose turns the bare loop steps."""

    def __init__(self, bare: Alignment, batches: Batches) -> None:
        self.bare, self.batch = bare, batches.batch(0, 2)
        self.optimizers = bare.optimizers()
        self.stages = {stage.name: stage for stage in bare.stages()}
        self.ours: dict[str, list[float]] = {name: [] for name in self.stages}
        self.others: dict[str, list[float]] = {name: [] for name in self.stages}
        self.began, self.stage = 0.0, ""

    def update(self, name: str, loss: torch.Tensor, when: torch.Tensor | None = None) -> None:
        """What FabricUpdate does, without Fabric and gates."""
        loss.backward(inputs=owned(self.optimizers[name]))
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()

    def begin(self, step: int) -> None:
        """Nothing is measured yet."""

    def see(self, progress: Progress) -> None:
        """After TURN steps of a stage the bare loop takes as many."""
        if progress.stage == self.stage and progress.step % TURN:
            return
        now = time.process_time()
        stage = self.stages[progress.stage]
        if progress.stage == self.stage:
            self.ours[stage.name].append((now - self.began) / TURN)
        train_only(self.bare, self.optimizers, stage)
        now = time.process_time()
        for _ in range(TURN):
            stage.step(self.batch, self.update)
        if progress.stage == self.stage:
            self.others[stage.name].append((time.process_time() - now) / TURN)
        self.stage, self.began = progress.stage if not progress.step % TURN else "", time.process_time()


class Beats:
    """The heartbeat of a run."""

    def __init__(self, folder: RunFolder) -> None:
        self.beat = Heartbeat(folder, "cpu")

    def begin(self, step: int) -> None:
        """As in `train`."""

    def see(self, progress: Progress) -> None:
        """Of every step."""
        self.beat(progress.stage, progress.step, progress.steps, progress.losses)


def measured(name: str, steps: int) -> list[str]:
    """The lines of one method."""
    ours, bare = built(name, steps), built(name, steps)
    batches = random_batches(ours)
    turns = Turns(bare, batches)
    with tempfile.TemporaryDirectory() as place:
        files = RunFolder(Path(place) / "run")
        choice = {"name": name, **ours.config.model_dump(mode="json", exclude={"preset"})}
        data = {"source": "source.h5", "target": "target.h5"}
        run = Run(files, run_settings({"alignment": choice, "data": data, "snapshots": 0}, REGISTRY))
        spans, done = [], 0
        for stage in ours.stages():
            spans.append(Span(stage.name, done, done + stage.steps))
            done += stage.steps
        watch = DiscriminatorWatch(ours.discriminator_losses(), spans, run.settings.log_steps)
        monitor = Monitor(files, watch, nothing_seen, (0.2,) * 5, Task().organs, lambda sentence: None)
        watchers: list[StepWatcher] = [Beats(files), monitor, turns]
        fit(ours, batches, run, launch("cpu", "32-true"), watchers)
    lines = []
    for stage in turns.stages:
        pairs = list(zip(turns.ours[stage], turns.others[stage], strict=True))[1:]
        apart = statistics.quantiles([1e3 * (a - b) for a, b in pairs], n=4)
        a, b = (1e3 * statistics.median(each) for each in zip(*pairs, strict=True))
        lines.append(f"| {name} | {stage} | {a:.2f} | {b:.2f} | {apart[1]:.2f} ({apart[0]:.2f} to {apart[2]:.2f}) |")
    return lines


def nothing_seen(step: int, stage: str) -> None:
    """Looks at predictions belong to snapshots, of which there are none here."""
    raise AssertionError("no snapshot is taken")


if __name__ == "__main__":
    main()
