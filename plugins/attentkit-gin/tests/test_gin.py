"""Agreement of two answers, and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_gin.gin import GIN, divergence

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}


@pytest.mark.parametrize("points", [0, 4])
def test_it_keeps_the_contract(points):
    check_alignment(GIN, {**SMALL, "control_points": points})


def test_answers_that_agree_diverge_by_0_and_certain_opposites_by_log_2():
    a = torch.zeros(1, 2, 1, 1)
    b = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1)
    assert divergence(a, a).item() == pytest.approx(0, abs=1e-7)
    # p = (1/2, 1/2), KL(p || certain) is large, so take (1, 0) against uniform: p = (3/4, 1/4).
    log = math.log
    expected = 0.75 * log(0.75) + 0.25 * log(0.25) - 0.75 * log(0.5) - 0.25 * log(0.5)
    other = 0.75 * log(0.75) + 0.25 * log(0.25) + 0.25 * 100
    assert divergence(a, b).item() == pytest.approx((expected + other) / 2, rel=1e-5)


def test_no_pixel_of_the_target_is_looked_at():
    registry = load().registry
    method = GIN(configure(GIN, SMALL, registry), Builder(registry, Task(), 0), Task())
    nothing = torch.full((2, 1, 32, 32), float("nan"))
    batch = Batch(torch.rand(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64), nothing)
    losses = method.segment(batch, lambda name, loss, when=None: None)
    assert all(torch.isfinite(loss) for loss in losses.values())
