"""Teacher, mixing and masking in plain numbers, and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_selftrain.selftrain import (
    SelfTraining,
    blocks,
    half_of_the_classes,
    jittered,
    weighted_cross_entropy,
)

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}


def built(**options):
    registry = load().registry
    config = configure(SelfTraining, {**SMALL, **options}, registry)
    return SelfTraining(config, Builder(registry, Task(), 0), Task())


def test_it_keeps_the_contract():
    check_alignment(SelfTraining, SMALL)


def test_half_of_the_classes_that_are_there_is_pasted_whole():
    torch.manual_seed(0)
    labels = torch.tensor([[[0, 0, 2], [4, 4, 2]], [[1, 1, 1], [1, 1, 1]]])
    seen = set()
    for _ in range(40):
        paste = half_of_the_classes(labels, 5)
        chosen = {int(value) for value in labels[0][paste[0]]}
        assert len(chosen) == 2 and torch.equal(paste[0], torch.isin(labels[0], torch.tensor(sorted(chosen))))
        assert paste[1].all()
        seen.add(tuple(sorted(chosen)))
    assert seen == {(0, 2), (0, 4), (2, 4)}


def test_pixels_without_a_label_are_never_pasted():
    labels = torch.tensor([[[255, 1], [255, 1]]])
    assert half_of_the_classes(labels, 5).tolist() == [[[False, True], [False, True]]]


def test_blocks_are_blanked_whole_and_to_their_share():
    torch.manual_seed(0)
    mask = blocks(torch.zeros(20, 1, 70, 40), 10, 0.7)
    assert mask.shape == (20, 1, 70, 40) and abs(mask.float().mean() - 0.7) < 0.05
    tiles = mask.unfold(2, 10, 10).unfold(3, 10, 10).flatten(-2)
    assert (tiles.all(-1) | ~tiles.any(-1)).all()
    assert not blocks(torch.zeros(1, 1, 9, 9), 4, 0.0).any() and blocks(torch.zeros(1, 1, 9, 9), 4, 1.0).all()


def test_jitter_of_0_changes_nothing_and_every_slice_has_its_own():
    x = torch.rand(4, 1, 8, 8) - 0.5
    assert torch.equal(jittered(x, 0.0), x)
    torch.manual_seed(0)
    y = jittered(x, 0.2)
    assert len({round(float(v), 4) for v in (y - x).mean((1, 2, 3))}) == 4 and (y - x).abs().max() <= 0.31


def test_an_unsure_answer_weighs_log_k_times_the_trust_in_its_label():
    logits = torch.zeros(1, 5, 1, 2)
    labels = torch.tensor([[[3, 255]]])
    weight = torch.tensor([[[0.5, 1.0]]])
    assert weighted_cross_entropy(logits, labels, weight).item() == pytest.approx(0.5 * math.log(5) / 2)


def test_a_teacher_that_is_never_certain_teaches_through_the_pasted_pixels_alone():
    method = built(threshold=1.0)
    batch = Batch(torch.rand(2, 1, 32, 32), torch.ones(2, 32, 32, dtype=torch.int64), torch.rand(2, 1, 32, 32))
    method.eval()
    losses = method.segment(batch, lambda name, loss, when=None: None)
    assert losses["L_msk"] == 0 and losses["certain"] == 0 and losses["L_mix"] > 0
    assert all(p.grad is None and not p.requires_grad for p in method.T.parameters())
