"""One look at the networks as they stand: a forward of every kind on fixed slices, shared by all selectors."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.unread import is_read
from attent_kit.engine.run.probe import Probe, probabilities, probe
from attent_kit.interfaces import Alignment
from attent_kit.selectors import Look, sample

SLICES = 16
"""Slices of each domain in a look."""
POSITIONS = 1024
"""Positions of the feature maps of each domain that are kept."""


class Viewer:
    """The slices on which all snapshots of a run are looked at, drawn by the run's seed.

    Target: training slices. Source: labelled validation cases that are not trained on; without any such test cases, whose
    labels are the source's and so are known; without any, training cases, whose labels are then not in the look. A case whose
    labels leave out an organ does not tell what is wrong about it, so it counts as unlabelled. A source that is not read shows
    nothing.
    """

    def __init__(self, source: Prepared, target: Prepared, seed: int, device: torch.device) -> None:
        generator = np.random.default_rng((seed, 3))
        self.device = device
        self.x_t = _images(target, _drawn(target.index(target.ids("train")), generator))
        self.x_s: np.ndarray | None = None
        self.y_s: Tensor | None = None
        self.source_ratios = class_ratios(source)
        if not is_read(source):
            return
        cases, held_out = _source_cases(source)
        rows = _drawn(source.index(cases), generator)
        self.x_s = _images(source, rows)
        labels = np.stack([source.label_row(*row) for row in rows])
        self.y_s = torch.from_numpy(labels).long() if held_out else None

    def look(self, alignment: Alignment) -> Look:
        """What the networks answer now. Leaves everything about them as it was. RunError as `probe`."""
        seen_by: str | None = None

        def on_target(p: Probe) -> tuple[Tensor, Tensor | None, Tensor | None]:
            nonlocal seen_by
            seen = p.seen()
            seen_by = None if seen is None else seen.network
            features = None if seen is None else seen.answer.features.float().cpu()
            cycle = None if p.way_back is None else probabilities(alignment.predict(p.way_back))
            return p.probabilities, features, cycle

        def on_source(p: Probe) -> tuple[Tensor, Tensor] | None:
            if p.as_seen is None or seen_by is None:
                return None
            answer = p.through(seen_by, p.as_seen)
            return probabilities(answer.logits), answer.features.float().cpu()

        target = probe(alignment, self.x_t, self.device, on_target)
        source = None if self.x_s is None else probe(alignment, self.x_s, self.device, on_source)
        assert target is not None
        cycle = [p for _, _, p in target if p is not None]
        return Look(
            p_t=torch.cat([p for p, _, _ in target]),
            source_ratios=self.source_ratios,
            p_cycle=torch.cat(cycle) if cycle else None,
            p_s=None if source is None else torch.cat([p for p, _ in source]),
            y_s=None if source is None else self.y_s,
            f_s=None if source is None else _positions([f for _, f in source]),
            f_t=_positions([f for _, f, _ in target if f is not None]),
        )


def lacking_in(source: Prepared) -> str | None:
    """Why a look has no labels of source slices, whatever the method; None if it has."""
    if not is_read(source):
        return "the source is not read"
    return None if _source_cases(source)[1] else f"{source.path} has no labelled case that is kept from training"


def look_at_noise(source: Prepared, classes: int) -> Look:
    """A look with the parts that a source allows, whatever the method: what has no score of it will have none of a snapshot."""
    generator, pixels = torch.Generator().manual_seed(0), 8

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    p_t, p_cycle, p_s = (noise(2, classes, pixels, pixels).softmax(1) for _ in range(3))
    y_s = torch.arange(2 * pixels**2).view(2, pixels, pixels) % classes
    whole = Look(p_t, noise(classes).softmax(0), p_cycle, p_s, y_s, noise(20, 6), noise(20, 6))
    if not is_read(source):
        return replace(whole, source_ratios=torch.zeros(classes), p_s=None, y_s=None, f_s=None)
    return whole if _source_cases(source)[1] else replace(whole, y_s=None)


def class_ratios(source: Prepared) -> Tensor:
    """Share of each class in the labelled pixels of all training slices: [K], float32."""
    counts = source.class_counts(source.ids("train"))
    return torch.from_numpy(counts / max(counts.sum(), 1)).float()


def _source_cases(source: Prepared) -> tuple[list[str], bool]:
    """The source cases of a look, and whether they are kept from training."""
    trained = set(source.ids("train"))
    for split in ("val", "test"):
        whole = [case.id for case in source.cases_in(split) if case.annotated == source.organs]
        cases = [case for case in whole if case not in trained]
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
