"""Our steps of AttENT beside a loop written as the papers' code is, in turn in one process: how many times faster.

    python benchmarks/throughput.py [--device cpu|cuda] [--sizes 64,128,256] [--batches 1,2,8] [--seconds 20] [--write]

Both have the networks of `preset = "authors-code"` (their FLOPs are equal), the same random images and the same losses. The
other loop computes in float32, switches `requires_grad` of the discriminators on and off, updates each discriminator by
itself, keeps its history of images in a list, and reads every loss with `.item()` each step. The ratio is of the two
medians; the spread is the range of the ratio from pass to pass. "Of the peak" is the arithmetic of our step, counted by
torch, over what a large matrix product reaches here. On a CPU a step's time is that of the processor, which other work
beside it hardly changes, and the memory is that of the whole process so far.
"""

import argparse
import gc
import itertools
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attent_kit.build import Builder, configure
from attent_kit.engine.run.assemble import setup, train_only
from attent_kit.engine.run.device import in_words, launch, precision_of
from attent_kit.engine.train.fit import seed_step
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.interfaces import Alignment, Batch, Task
from attent_kit.objectives import fake, l1, real, self_information
from attent_kit.options import supervised_loss
from attent_kit.plugins import load

RESULT = Path(__file__).parent / "results" / "throughput.md"
OPTIONS = {"preset": "authors-code"}
Step = Callable[[int], None]


def main() -> None:
    """Print a Markdown table, and write the result file if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", default="64,128,256")
    parser.add_argument("--batches", default="1,2,8")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="at most for each line of the table, beside warming up"
    )
    parser.add_argument("--write", action="store_true", help=f"leave the table in {RESULT.name}, below what is there")
    options = parser.parse_args()
    if options.device in ("auto", "cpu") and not torch.cuda.is_available():
        torch.set_num_threads(1)
    fabric = launch(options.device)
    precision = precision_of(fabric)
    peak = matmul_peak(fabric.device, torch.bfloat16 if "bf16" in precision else torch.float32)
    lines = [
        f"## {in_words(fabric.device)}",
        "",
        f"`python benchmarks/throughput.py --device {fabric.device.type} --sizes {options.sizes} --batches {options.batches} "
        f"--seconds {options.seconds:g}`, "
        f"{date.today()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s); ours in {precision}, theirs "
        f"in float32; a large matrix product reaches {peak / 1e12:.3g} TFLOP/s here.",
        "",
        "| stage | pixels | batch | ours, ms | theirs, ms | ratio (spread) | images a second | of the peak | memory, ours, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    before = (
        RESULT.read_text(encoding="utf-8") if RESULT.exists() else "# Steps beside a loop as the papers' code has it\n"
    )
    sizes, batches = ([int(word) for word in words.split(",")] for words in (options.sizes, options.batches))
    for stage, size, batch in itertools.product(("translate", "segment"), sizes, batches):
        lines.append(measured(stage, size, batch, options.device, peak, options.seconds).line())
        print(lines[-1], flush=True)
        # Line by line, since `make gpu` may have no time for the last of them.
        if options.write:
            RESULT.write_text(before.rstrip() + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    stage: str
    size: int
    batch: int
    ours: list[float]
    theirs: list[float]
    """Seconds of each step, pass by pass."""
    of_peak: float
    memory: int

    def line(self) -> str:
        """As Markdown."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        ratios = sorted(b / a for a, b in zip(self.ours, self.theirs, strict=True))
        return (
            f"| {self.stage} | {self.size} | {self.batch} | {1e3 * ours:.4g} | {1e3 * theirs:.4g} "
            f"| {theirs / ours:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {self.batch / ours:.3g} | {100 * self.of_peak:.0f} % "
            f"| {self.memory / 2**20:.0f} |"
        )


def measured(stage: str, size: int, batch: int, device: str, peak: float, seconds: float) -> Measured:
    """Both loops in turn, a step each, until the time is over; the first do not count, five on a GPU and one on a CPU."""
    gc.collect()
    fabric = launch(device)
    torch.manual_seed(0)
    shape = (batch, 1, size, size)
    x_s, x_t = (torch.rand(shape, device=fabric.device) * 2 - 1 for _ in range(2))
    y_s = torch.randint(5, (batch, size, size), device=fabric.device)
    given = Batch(x_s, y_s, x_t)
    ours, theirs = ours_of(stage, given, device), theirs_of(stage, given, fabric.device)
    with FlopCounterMode(display=False) as counted:
        ours(0)
    for step in range(1, 5 if fabric.device.type == "cuda" else 2):
        ours(step)
        theirs(step)
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        ours(5)
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    times: dict[Step, list[float]] = {ours: [], theirs: []}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times[theirs]) < 3:
        for run in (ours, theirs):
            times[run].append(timed(run, len(times[run]), fabric.device))
    of_peak = counted.get_total_flops() / statistics.median(times[ours]) / peak
    return Measured(stage, size, batch, times[ours], times[theirs], of_peak, memory)


def timed(run: Step, step: int, device: torch.device) -> float:
    """Seconds of one step, to the end of what it started."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    run(step)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def built(device: torch.device | None = None) -> Alignment:
    """AttENT with the networks of its authors' code, at their first weights."""
    registry = load().registry
    method = registry.alignment("attent")
    alignment = method(configure(method, OPTIONS, registry), Builder(registry, Task(), 0), Task())
    return alignment if device is None else alignment.to(device)


def ours_of(name: str, batch: Batch, device: str) -> Step:
    """A step as the engine takes it: precision, memory format and optimizers are its own."""
    alignment, fabric = built(), launch(device)
    optimizers = setup(alignment, fabric)
    update = FabricUpdate(fabric, optimizers)
    (stage,) = (stage for stage in alignment.stages() if stage.name == name)
    train_only(alignment, optimizers, stage)

    def run(step: int) -> None:
        seed_step(0, step)
        stage.step(batch, update)

    return run


def theirs_of(name: str, batch: Batch, device: torch.device) -> Step:
    """A step as the papers' code takes it, on networks of the same classes."""
    method = built(device).train()
    steps = translating(method, batch) if name == "translate" else segmenting(method, batch)
    return lambda step: next(steps)


def translating(method: Alignment, batch: Batch) -> Iterator[None]:
    """CycleGAN's loop: both translators, then one discriminator after the other."""
    c, x_s, x_t = method.config, batch.x_s, batch.x_t
    both, critics = (method.G_st, method.G_ts), (method.D_s, method.D_t)
    opt_G = torch.optim.Adam(itertools.chain(*(network.parameters() for network in both)), 2e-4, (0.5, 0.999))
    opt_D = torch.optim.Adam(itertools.chain(*(network.parameters() for network in critics)), 2e-4, (0.5, 0.999))
    history_s, history_t = History(), History()
    while True:
        need_gradient(critics, False)
        opt_G.zero_grad()
        x_st, x_ts = method.G_st(x_s), method.G_ts(x_t)
        L_gan = real(method.D_t(x_st), c.gan) + real(method.D_s(x_ts), c.gan)
        L_cyc = l1(method.G_ts(x_st), x_s) + l1(method.G_st(x_ts), x_t)
        L_idt = l1(method.G_ts(x_s), x_s) + l1(method.G_st(x_t), x_t)
        (L_gan + c.cycle * L_cyc + c.identity * L_idt).backward()
        opt_G.step()
        need_gradient(critics, True)
        opt_D.zero_grad()
        losses = [L_gan, L_cyc, L_idt]
        for D, x, made in ((method.D_s, x_s, history_s(x_ts.detach())), (method.D_t, x_t, history_t(x_st.detach()))):
            losses.append((real(D(x), c.gan) + fake(D(made), c.gan)) / 2)
            losses[-1].backward()
        opt_D.step()
        [loss.item() for loss in losses]
        yield


def segmenting(method: Alignment, batch: Batch) -> Iterator[None]:
    """ADVENT's loop: source, target, then the discriminator on each."""
    c = method.config
    opt_S = torch.optim.Adam(method.S.parameters(), c.learning_rate, c.betas)
    opt_D = torch.optim.Adam(method.D_E.parameters(), c.discriminator_learning_rate, (0.9, 0.99))
    method.G_ts.eval()
    while True:
        opt_S.zero_grad()
        opt_D.zero_grad()
        need_gradient([method.D_E], False)
        s = method.S(batch.x_s)
        L_seg = supervised_loss(s, batch.y_s, c)
        L_seg.backward()
        with torch.no_grad():
            x_ts = method.G_ts(batch.x_t)
        t = method.S(x_ts)
        L_adv = real(method.D_E(self_information(t.logits)))
        (c.adversarial * L_adv).backward()
        need_gradient([method.D_E], True)
        losses = [L_seg, L_adv]
        for answer, loss in ((s, real), (t, fake)):
            losses.append(loss(method.D_E(self_information(answer.logits.detach()))) / 2)
            losses[-1].backward()
        opt_S.step()
        opt_D.step()
        [value.item() for value in losses]
        yield


class History:
    """The last 50 images, as a list."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Images, some of them exchanged for older ones."""
        given = []
        for image in x.unsqueeze(1):
            if len(self.images) < 50:
                self.images.append(image)
                given.append(image)
            elif random.random() > 0.5:
                n = random.randrange(50)
                given.append(self.images[n].clone())
                self.images[n] = image
            else:
                given.append(image)
        return torch.cat(given)


def need_gradient(networks: Sequence[nn.Module], wanted: bool) -> None:
    """Switch it for every parameter."""
    for network in networks:
        for parameter in network.parameters():
            parameter.requires_grad = wanted


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of the best of ten products of two large square matrices."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = [timed(lambda step: torch.mm(a, b).sum(), 0, device) for _ in range(10)]
    return 2 * n**3 / min(seconds)


if __name__ == "__main__":
    main()
