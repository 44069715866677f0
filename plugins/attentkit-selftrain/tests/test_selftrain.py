"""Teacher and weights in plain numbers, and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_selftrain.selftrain import SelfTraining, weighted_cross_entropy

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}


def built(**options):
    registry = load().registry
    config = configure(SelfTraining, {**SMALL, **options}, registry)
    return SelfTraining(config, Builder(registry, Task(), 0), Task())


@pytest.mark.parametrize("layers", [0, 4])
def test_it_keeps_the_contract(layers):
    check_alignment(SelfTraining, {**SMALL, "painted": layers})


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


def test_painting_changes_what_the_source_teaches_and_nothing_else():
    batch = Batch(torch.rand(2, 1, 32, 32), torch.ones(2, 32, 32, dtype=torch.int64), torch.rand(2, 1, 32, 32))
    plain, painted = built(mixed=0.0), built(mixed=0.0, painted=4)
    asked = []
    for method in (plain, painted):
        method.eval()
        seen = []
        method.S.register_forward_pre_hook(lambda network, given, seen=seen: seen.append(given[0]))
        torch.manual_seed(0)
        method.segment(batch, lambda name, loss, when=None: None)
        asked.append(seen)
    assert torch.equal(asked[0][0], batch.x_s) and not torch.allclose(asked[1][0], batch.x_s, atol=1e-2)
    assert torch.equal(asked[0][1], asked[1][1])
