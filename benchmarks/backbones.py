"""Backbones side by side in one process: parameters, multiply-adds, and time as a ratio to resnet18.

    python benchmarks/backbones.py --write

Each round takes one training step and one prediction with every backbone in turn, so that other work on the machine slows
all of them alike; the ratio is the median over rounds of a backbone's time to resnet18's in the same round.
"""

import argparse
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path

import torch
from record import write
from torch.nn.functional import cross_entropy
from torch.optim import Adam

from attent_kit.build import Builder, configure
from attent_kit.engine.compare.costs import size_of
from attent_kit.engine.run.record import packages
from attent_kit.interfaces import Task
from attent_kit.plugins import load

RESULT = Path(__file__).parent / "results" / "backbones.md"
FIRST = ("unet", "resnet18")
BACKBONES = (
    FIRST, ("unet", "resnet34"), ("unet", "resnet50"), ("unet", "mobilenet_v2"), ("unet", "tu-mobilenetv3_large_100"),
    ("unet", "tu-efficientnet_b0"), ("unet", "mit_b0"), ("unet", "tu-convnext_atto"), ("unet", "tu-convnext_tiny"),
    ("unet", "tu-convnextv2_tiny"), ("segformer", "tu-convnextv2_tiny"), ("unet", "tu-swin_tiny_patch4_window7_224"),
    ("dpt", "tu-vit_tiny_patch16_224"),
)  # fmt: skip
COUNTED_AT, TIMED_AT, BATCH = 256, 128, 2


def main() -> None:
    """Print the result file, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name} among the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = report(options.rounds)
    if options.write:
        write(RESULT, text.split("\n"))
    print(text, end="")


def report(rounds: int) -> str:
    """Markdown."""
    seconds = timed(rounds)
    versions = packages()
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "timm", "segmentation-models-pytorch"))
    lines = [
        "# Backbones",
        "",
        f"`python benchmarks/backbones.py --write`, {date.today()}, {processor()}, one thread, Python "
        f"{platform.python_version()}, {used}.",
        "",
        f"Segmentor `smp` for one channel and four organs. Parameters are those of the whole segmentor, multiply-adds those "
        f"of predicting one slice of 1 x {COUNTED_AT} x {COUNTED_AT} in convolutions and products of matrices. Times are "
        f"processor time of {BATCH} slices of {TIMED_AT} x {TIMED_AT} in float32, as ratios to resnet18: median of {rounds} "
        f"rounds, smallest and largest in brackets. They hold for this processor; on a GPU the order may differ.",
        "",
        "| architecture | encoder | parameters, M | multiply-adds, G | training step, x resnet18 | prediction, x resnet18 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for backbone in BACKBONES:
        size = size_of(lambda backbone=backbone: alignment(*backbone), (1, COUNTED_AT, COUNTED_AT))
        ratios = [ratio(seconds[backbone][kind], seconds[FIRST][kind]) for kind in (0, 1)]
        cells = (*backbone, f"{size.parameters / 1e6:.2f}", f"{size.multiply_adds / 1e9:.2f}", *ratios)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def alignment(architecture: str, encoder: str):  # type: ignore[no-untyped-def]
    """W/o adaptation on that backbone."""
    registry = load().registry
    component = registry.alignment("source_only")
    chosen = {"segmentor": {"architecture": architecture, "encoder": encoder}}
    return component(configure(component, chosen, registry), Builder(registry, Task(), 0), Task())


def timed(rounds: int) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Seconds of a training step and of a prediction, round by round, the first of them left out."""
    networks = {backbone: alignment(*backbone).S for backbone in BACKBONES}
    optimizers = {backbone: Adam(network.parameters(), fused=True) for backbone, network in networks.items()}
    found: dict[tuple[str, str], tuple[list[float], list[float]]] = {backbone: ([], []) for backbone in BACKBONES}
    x, y = torch.rand(BATCH, 1, TIMED_AT, TIMED_AT) * 2 - 1, torch.randint(5, (BATCH, TIMED_AT, TIMED_AT))
    for number in range(rounds + 1):
        for backbone, network in networks.items():
            began = time.process_time()
            optimizers[backbone].zero_grad()
            cross_entropy(network.train()(x).logits, y).backward()
            optimizers[backbone].step()
            between = time.process_time()
            with torch.inference_mode():
                network.eval()(x)
            if number:
                found[backbone][0].append(between - began)
                found[backbone][1].append(time.process_time() - between)
    return found


def ratio(own: list[float], first: list[float]) -> str:
    """Median and range of the ratio in one round."""
    ratios = [a / b for a, b in zip(own, first, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def processor() -> str:
    """Its name, and how many cores this process may use."""
    with open("/proc/cpuinfo") as file:
        name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "cpu")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    main()
