"""One look at the networks as they stand: a forward of every kind on fixed slices, shared by all selectors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.predict import in_batches
from attent_kit.interfaces import Alignment, Segmentation
from attent_kit.selectors import Look, sample

SLICES = 16
"""Slices of each domain in a look."""
POSITIONS = 1024
"""Positions of the feature maps of each domain that are kept."""


class Viewer:
    """The slices that all snapshots of a run are looked at with, drawn by the run's seed.

    Target: training slices. Source: labelled validation cases that are not trained on; without any such test cases, whose
    labels are the source's and so are known; without any, training cases, whose labels are then not in the look.
    """

    def __init__(self, source: Prepared, target: Prepared, seed: int, device: torch.device) -> None:
        generator = np.random.default_rng((seed, 3))
        cases, held_out = _source_cases(source)
        self.device = device
        self.x_t = _images(target, _drawn(target.index(target.ids("train")), generator))
        rows = _drawn(source.index(cases), generator)
        self.x_s = _images(source, rows)
        labels = np.stack([source.label_row(*row) for row in rows])
        self.y_s = torch.from_numpy(labels).long() if held_out else None
        self.source_ratios = class_ratios(source)

    @torch.no_grad()
    def look(self, alignment: Alignment) -> Look:
        """What the networks answer now. Leaves them in eval mode, and everything else as it was. RunError as `in_batches`."""
        alignment.eval()
        seen_by = None

        def on_target(x_t: Tensor) -> tuple[Tensor, Tensor | None]:
            nonlocal seen_by
            with overhear(alignment) as heard:
                p = probabilities(alignment.predict(x_t))
            answers = [(name, answer) for name, answer in heard if isinstance(answer, Segmentation)]
            seen_by = answers[-1][0] if answers else None
            return p, answers[-1][1].features.float().cpu() if answers else None

        def on_source(x_s: Tensor) -> tuple[Tensor, Tensor] | None:
            seen = alignment.as_seen(x_s)
            if seen is None or seen_by is None:
                return None
            answer = getattr(alignment, seen_by)(seen)
            return probabilities(answer.logits), answer.features.float().cpu()

        def round_trip(x_t: Tensor) -> Tensor | None:
            x_ts = alignment.as_source(x_t)
            x_tst = None if x_ts is None else alignment.as_target(x_ts)
            return None if x_tst is None else probabilities(alignment.predict(x_tst))

        target = in_batches(on_target, self.x_t, self.device)
        source = in_batches(on_source, self.x_s, self.device)
        cycle = in_batches(round_trip, self.x_t, self.device)
        assert target is not None
        return Look(
            p_t=torch.cat([p for p, _ in target]),
            source_ratios=self.source_ratios,
            p_cycle=None if cycle is None else torch.cat(cycle),
            p_s=None if source is None else torch.cat([p for p, _ in source]),
            y_s=None if source is None else self.y_s,
            f_s=None if source is None else _positions([f for _, f in source]),
            f_t=_positions([f for _, f in target if f is not None]),
        )


@contextmanager
def overhear(alignment: Alignment) -> Iterator[list[tuple[str, Any]]]:
    """What the networks answer within the block, with their names, in the order in which they are called."""
    heard: list[tuple[str, Any]] = []
    handles = [
        child.register_forward_hook(lambda module, inputs, answer, name=name: heard.append((name, answer)))  # type: ignore[misc]
        for name, child in alignment.named_children()
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def networks_of_predict(alignment: Alignment, size: int, device: torch.device) -> list[str]:
    """Names of the networks that `predict` calls, seen at a blank image of `size` pixels a side."""
    alignment.eval()
    with overhear(alignment) as heard:
        alignment.predict(torch.zeros(1, alignment.task.channels, size, size, device=device))
    return list(dict.fromkeys(name for name, _ in heard))


def probabilities(logits: Tensor) -> Tensor:
    """[B, K, H, W] -> the same, float32, on the CPU."""
    return logits.float().softmax(1).cpu()


def class_ratios(source: Prepared) -> Tensor:
    """Share of each class in the labelled pixels of all training slices: [K], float32."""
    counts = source.class_counts(source.ids("train"))
    return torch.from_numpy(counts / max(counts.sum(), 1)).float()


def _source_cases(source: Prepared) -> tuple[list[str], bool]:
    """The source cases of a look, and whether they are kept from training."""
    trained = set(source.ids("train"))
    for split in ("val", "test"):
        cases = [case.id for case in source.cases_in(split) if case.has_labels and case.id not in trained]
        if any(source.index(cases)):
            return cases, True
    return list(source.ids("train")), False


def _drawn(rows: Sequence[tuple[str, int]], generator: np.random.Generator) -> list[tuple[str, int]]:
    chosen = generator.permutation(len(rows))[:SLICES]
    return [rows[row] for row in sorted(chosen)]


def _images(prepared: Prepared, rows: Sequence[tuple[str, int]]) -> np.ndarray:
    return np.stack([prepared.image_row(case, z) for case, z in rows])


def _positions(features: Sequence[Tensor]) -> Tensor | None:
    """[B, F, h, w] each -> [P, F]."""
    return sample(torch.cat([f.movedim(1, -1).flatten(0, 2) for f in features]), POSITIONS) if features else None
