"""Random networks: what they keep, what they change; and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_gin.gin import GIN, divergence, mixing_map, painted

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}


@pytest.mark.parametrize("points", [0, 4])
def test_it_keeps_the_contract(points):
    check_alignment(GIN, {**SMALL, "control_points": points})


def test_a_painted_slice_has_its_own_norm_and_a_network_of_its_own():
    torch.manual_seed(0)
    x = torch.rand(1, 2, 24, 24).repeat(3, 1, 1, 1) * 2 - 1
    y = painted(x, 4, 2)
    assert y.shape == x.shape and torch.allclose(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-4)
    assert not torch.allclose(y[0], y[1], atol=1e-2) and not torch.allclose(y[0], x[0], atol=1e-2)


def test_pixels_of_one_grey_value_inside_a_region_stay_of_one_grey_value():
    """Four layers three wide reach four pixels: further inside a region nothing of its border is seen."""
    torch.manual_seed(1)
    x = torch.full((4, 1, 32, 32), -1.0)
    x[:, :, 8:24, 8:24] = 0.5
    y = painted(x, 4, 2)
    assert y[:, :, 12:20, 12:20].flatten(1).std(1).max() < 1e-4


def test_a_mixing_map_is_smooth_and_lies_between_0_and_1():
    torch.manual_seed(0)
    m = mixing_map(torch.zeros(8, 1, 64, 64), 4)
    assert m.shape == (8, 1, 64, 64) and m.min() >= 0 and m.max() <= 1 and m.std() > 0.1
    assert m.diff(dim=-1).abs().max() < 0.2


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
