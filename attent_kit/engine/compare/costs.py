"""What the rows of a comparison cost: counted on tensors without values, timed on the device that trained them.

A run's cost.json holds it, so that it is measured once and the table stays the same. Training speed is the run's own,
from speed.json.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from attent_kit.build import build_alignment
from attent_kit.data.workers import ReportDone
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.run.assemble import patch_of, setup
from attent_kit.engine.run.device import in_words, launch
from attent_kit.engine.run.domains import domains_seen, facts_in
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.predict import segment_slices
from attent_kit.engine.run.probe import SLICES_AT_ONCE
from attent_kit.engine.run.stages import parts_of
from attent_kit.engine.train.train import task_of
from attent_kit.files import read_json, write_text
from attent_kit.interfaces import Alignment
from attent_kit.registry import Registry
from attent_kit.report.costs import Cost

SECONDS = 1.0
"""No further batch is timed once this has passed."""
BATCHES = 5
"""Most batches that are timed, after one to warm up."""
_FIELDS = ("row", "parameters", "predicting", "multiply_adds", "image", "stage", "slices_per_second", "device")


class Size(NamedTuple):
    """Of an alignment."""

    parameters: int
    predicting: int
    multiply_adds: int


def measure_costs(cells: Sequence[Cell], registry: Registry, device: str, report: ReportDone) -> None:
    """Leave cost.json in one finished run of each row that has none. `report` is told the row, how many are done, of how many."""
    finished = {cell.row: cell for cell in reversed(cells) if cell.done}
    known = {cell.row for cell in cells if _read(cell.run)}
    wanted = [cell for row, cell in reversed(finished.items()) if row not in known]
    for done, cell in enumerate(wanted):
        report(cell.row, done, len(wanted))
        write_text(cell.run.cost, json.dumps(_measured(cell, registry, device), indent=2) + "\n")


def read_costs(out: Path, rows: Sequence[str]) -> list[Cost]:
    """The costs of those rows that were measured, in that order."""
    runs: dict[str, list[RunFolder]] = {}
    for run in RunFolder.find(out):
        if run.key:
            # In all directions.
            runs.setdefault(run.key.row, []).append(run)
    found: dict[str, Cost] = {}
    for own in runs.values():
        c = next((cost for run in own if (cost := _read(run)) is not None), None)
        if c is None or c["row"] not in rows:
            continue
        speeds = [speed for run in own if (speed := _steps_a_second(run, c["stage"])) is not None]
        found[c["row"]] = Cost(
            c["row"], c["parameters"], c["predicting"], c["multiply_adds"], tuple(c["image"]),
            median(speeds) if speeds else None, c["stage"], c["slices_per_second"], c["device"],
        )  # fmt: skip
    return [found[row] for row in rows if row in found]


def _read(run: RunFolder) -> dict[str, Any] | None:
    """What `_measured` wrote; None where it is missing or damaged, so that it is measured again."""
    cost = read_json(run.cost)
    return cost if cost is not None and {*_FIELDS} <= cost.keys() else None


def _steps_a_second(run: RunFolder, stage: str) -> float | None:
    try:
        return float((read_json(run.speed) or {})[stage]["steps_per_second"])
    except (ValueError, KeyError, TypeError):
        return None


def size_of(build: Callable[[], Alignment], image: tuple[int, ...]) -> Size:
    """Parameters, and multiply-adds of predicting one slice [C, H, W], or one of a patch [1, D, H, W]: products in convolutions
    and between matrices."""
    try:
        with torch.device("meta"):
            return _counted(build(), image)
    except Exception:
        # Some networks look at values when they are built; what else is wrong is met again.
        return _counted(build(), image)


def _counted(alignment: Alignment, image: tuple[int, ...]) -> Size:
    alignment.eval()
    called: dict[int, torch.Tensor] = {}
    for child in alignment.children():
        child.register_forward_pre_hook(lambda module, _: called.update({id(p): p for p in module.parameters()}))
    # The plain products of attention: its fused kernels are not all counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        alignment.predict(torch.zeros(1, *image))
    everything = sum(p.numel() for p in alignment.parameters())
    slices = image[1] if len(image) == 4 else 1
    return Size(everything, sum(p.numel() for p in called.values()), counter.get_total_flops() // 2 // slices)


def _measured(cell: Cell, registry: Registry, device: str) -> dict[str, Any]:
    settings = cell.settings
    source, target = domains_seen(settings.data, facts_in)
    task = task_of(source, target)
    image = (task.channels, target.size, target.size)

    def build() -> Alignment:
        return build_alignment(settings.alignment, registry, task, settings.seed, empty=True)

    fabric = launch(device, settings.precision)
    alignment = build()
    patch = patch_of(alignment)
    size = size_of(build, image if patch is None else (task.channels, *patch.size))
    stage = parts_of(alignment)[-1].stage.name
    setup(alignment, fabric)
    count = SLICES_AT_ONCE if patch is None else max(SLICES_AT_ONCE, patch.size[0])
    images = np.random.default_rng(0).uniform(-1, 1, (count, *image)).astype(np.float32)
    segment_slices(alignment, images, fabric.device)
    began, batches = time.perf_counter(), 0
    while batches < BATCHES and (batches == 0 or time.perf_counter() - began < SECONDS):
        segment_slices(alignment, images, fabric.device)
        batches += 1
    seconds = time.perf_counter() - began
    threads = f", torch threads: {torch.get_num_threads()}" if fabric.device.type == "cpu" else ""
    return {
        "row": cell.row,
        **size._asdict(),
        "image": image if patch is None else (task.channels, *patch.size[1:]),
        "stage": stage,
        "slices_per_second": round(batches * len(images) / seconds, 3),
        "device": in_words(fabric.device) + threads,
    }
