"""A small look at what a method makes of the target while it trains."""

from collections.abc import Callable

import numpy as np
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.predict import entropy
from attent_kit.engine.run.probe import Probe, probe
from attent_kit.engine.train.health import Glance
from attent_kit.interfaces import Alignment

SLICES_LOOKED_AT = 64
"""Enough that an organ in a tenth of the slices is in some of them: it is missed by all with a chance of 0.9^64 = 0.1 %."""


def looks_at(alignment: Alignment, target: Prepared, device: torch.device) -> Callable[[int, str], Glance]:
    """`look(step, stage)` at the same slices of the target's training cases each time, evenly spaced among all."""
    index = target.index(target.ids("train"))
    rows = np.unique(np.linspace(0, len(index) - 1, min(SLICES_LOOKED_AT, len(index))).round().astype(int))
    images = np.stack([target.image_row(*index[row]) for row in rows])

    def look(step: int, stage: str) -> Glance:
        parts = probe(alignment, images, device, _seen)
        assert parts is not None
        probabilities = torch.cat([p for p, _ in parts]).movedim(1, 0).numpy()
        translations = [y for _, y in parts if y is not None]
        translated = torch.cat(translations).numpy() if translations else None
        finite = bool(np.isfinite(probabilities).all() and (translated is None or np.isfinite(translated).all()))
        answers = np.bincount(probabilities.argmax(0).ravel(), minlength=len(probabilities))
        return Glance(
            step,
            stage,
            len(images),
            finite,
            tuple((answers / answers.sum()).tolist()),
            _rounded(float(entropy(probabilities).mean(dtype=np.float64))) if finite else 0.0,
            _rounded(correlation(images, translated)) if finite and translated is not None else None,
        )

    return look


def _seen(p: Probe) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Probabilities and translations of a batch."""
    return p.probabilities, None if p.translation is None else p.translation.float().cpu()


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Median over slices of Pearson's correlation of their grey values, slices of one value left out; 0 if none is left.

    Twice [Z, C, H, W] -> [-1, 1].
    """
    found = []
    for a, b in zip(x, y, strict=True):
        a, b = (v.astype(np.float64).ravel() - v.astype(np.float64).mean() for v in (a, b))
        if (scale := np.sqrt((a @ a) * (b @ b))) > 0:
            found.append(a @ b / scale)
    return float(np.median(found)) if found else 0.0


def class_shares(source: Prepared) -> tuple[float, ...]:
    """Part of the pixels of each class, background first, in the labels of the source's validation cases; where these lack a
    class, of its training cases too."""
    held_out = source.ids("val")
    counts = source.class_counts(held_out)
    if not counts.all():
        counts = source.class_counts(list(dict.fromkeys([*held_out, *source.ids("train")])))
    return tuple((counts / counts.sum()).tolist()) if counts.any() else (1.0, *[0.0] * len(source.organs))


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
