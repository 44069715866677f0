"""Slices as vectors: of the images that a segmentor is given, and of what it makes of them.

    pixels     mean and standard deviation in each field of an 8 x 8 grid, of the middle channel       128 numbers
    features   mean over the deepest map                                                              F
    outputs    softmax probabilities, averaged in each field                                           64 K
    entropy    normalized entropy, averaged in each field                                              64

A target slice is seen as the method sees it: what reaches its segmentor within `predict`, translated or not, and the answer of
`predict`. A source slice is seen as the segmentor learned from it: in target style where `as_seen` says so.
"""

from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.assemble import segmentor_of
from attent_kit.engine.run.probe import Probe, in_batches, in_the_middle, probe
from attent_kit.errors import RunError
from attent_kit.interfaces import Alignment
from attent_kit.metrics.shift import Sample
from attent_kit.objectives import entropy_map
from attent_kit.report.shift import SPACES

FIELDS = 8
"""Fields along a side of a slice."""


class Slices(NamedTuple):
    """Some slices of every patient of a domain."""

    images: np.ndarray
    """[N, C, H, W] float16 in [-1, 1]."""
    patients: np.ndarray
    """[N] case ids."""


Vectors = dict[str, Sample]
"""The slices of one domain in each space."""


def sample(prepared: Prepared, of_each: int, seed: int) -> Slices:
    """At most `of_each` slices of every case, whatever its split, chosen at random from those that are not blank.

    No label is read. The choice of a case depends only on the seed, its id and its number of slices.
    """
    images, patients = [], []
    for case in prepared.cases:
        rng = np.random.default_rng((seed, crc32(case.id.encode())))
        chosen = np.sort(rng.permutation(np.asarray(case.kept, int))[:of_each])
        images += [prepared.image_row(case.id, int(z)) for z in chosen]
        patients += [case.id] * len(chosen)
    shape = (0, prepared.channels, prepared.size, prepared.size)
    return Slices(np.stack(images) if images else np.empty(shape, np.float16), np.array(patients))


def view_of_images(slices: Slices) -> Vectors:
    """The slices as they are, without a network: pixels alone."""
    parts = in_batches(_pixels, slices.images, torch.device("cpu"))
    assert parts is not None
    return {SPACES[0]: Sample(torch.cat(parts).numpy(), slices.patients)}


def view_through(alignment: Alignment, slices: Slices, of_source: bool, device: torch.device) -> Vectors | None:
    """The slices in all SPACES, through a trained method; None if its `predict` calls no segmentor that it names.

    RunError if the networks answer something that is not a number.
    """
    name = segmentor_of(alignment)
    if name is None:
        return None
    widths: list[int] = []

    def vectors(probed: Probe) -> Tensor | None:
        seen = _of_source(probed, name) if of_source else _of_target(probed, name)
        if seen is None:
            return None
        given, features, logits = (part.float() for part in seen)
        p = F.adaptive_avg_pool2d(logits.softmax(1), FIELDS).flatten(1)
        E = F.adaptive_avg_pool2d(entropy_map(logits), FIELDS).flatten(1)
        parts = (_pixels(given), features.mean((2, 3)), p, E)
        widths[:] = [part.shape[1] for part in parts]
        return torch.cat(parts, 1).cpu()

    found = probe(alignment, slices.images, device, vectors)
    if not found:
        return None
    together = torch.cat(found)
    if not together.isfinite().all():
        raise RunError(
            "the networks of a run answer numbers that are not finite: train it again with a lower learning rate."
        )
    parts = np.split(together.numpy(), np.cumsum(widths)[:-1], axis=1)
    return {space: Sample(part, slices.patients) for space, part in zip(SPACES, parts, strict=True)}


def _of_source(p: Probe, network: str) -> tuple[Tensor, Tensor, Tensor]:
    """What the segmentor is given [B, C, H, W], its features [B, F, h, w] and logits [B, K, H, W]."""
    given = p.x if p.as_seen is None else p.as_seen
    answer = p.through(network, given)
    return in_the_middle(given), answer.features, answer.logits


def _of_target(p: Probe, network: str) -> tuple[Tensor, Tensor, Tensor] | None:
    """The same of what the segmentor saw within `predict`, with the logits of that; None if it saw nothing."""
    seen = p.seen(network)
    return None if seen is None else (seen.given, seen.answer.features, p.logits)


def _pixels(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 128]."""
    middle = x[:, x.shape[1] // 2 :][:, :1].float()
    mean = F.adaptive_avg_pool2d(middle, FIELDS)
    variance = F.adaptive_avg_pool2d(middle**2, FIELDS) - mean**2
    return torch.cat([mean, variance.clamp(min=0).sqrt()], 1).flatten(1)
