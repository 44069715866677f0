"""Both distances on samples that can be worked out by hand, and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_mmd.mmd import BANDWIDTHS, MMD, coral, drawn, mmd

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}


@pytest.mark.parametrize("distance", ["mmd", "coral"])
def test_it_keeps_the_contract(distance):
    check_alignment(MMD, {**SMALL, "distance": distance})


def test_mmd_of_two_points_and_the_same_two_points():
    """Squared distances: 1 within each set, 0 1 1 0 between; their mean over 12 ordered pairs is 8 / 12."""
    a = torch.tensor([[0.0], [1.0]])
    k = sum(math.exp(-1 / (g * 8 / 12)) for g in BANDWIDTHS) / 5
    assert mmd(a, a.clone()).item() == pytest.approx(k + k - 2 * (1 + 1 + k + k) / 4, abs=1e-6)


def test_mmd_grows_with_the_distance_and_is_about_0_between_halves_of_one_sample():
    torch.manual_seed(0)
    a, b = torch.randn(400, 3), torch.randn(400, 3)
    near, far = mmd(a, b + 0.5).item(), mmd(a, b + 3).item()
    assert abs(mmd(a, b).item()) < 0.005 < near < far


def test_mmd_does_not_mind_the_scale_of_the_features():
    torch.manual_seed(0)
    a, b = torch.randn(50, 3), torch.randn(50, 3) + 1
    assert mmd(1000 * a, 1000 * b).item() == pytest.approx(mmd(a, b).item(), rel=1e-4)


def test_coral_of_covariances_worked_out_by_hand():
    """diag(2, 0) and diag(0, 8): (4 + 64) / (4 * 2^2)."""
    a, b = torch.tensor([[0.0, 0], [2, 0]]), torch.tensor([[5.0, 0], [5, 4]])
    assert coral(a, b).item() == pytest.approx(4.25) and coral(a, a + 7).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("distance", [mmd, coral])
def test_half_precision_leaves_the_distance_as_it_is(distance):
    torch.manual_seed(0)
    a, b = torch.randn(200, 16), 1.02 * torch.randn(200, 16)
    with torch.autocast("cpu", torch.bfloat16):
        half = distance(a, b).item()
    assert half == pytest.approx(distance(a, b).item(), rel=1e-6)


def test_positions_are_drawn_without_repetition():
    features = torch.arange(2 * 3 * 4.0).view(2, 1, 3, 4)
    assert sorted(drawn(features, 99).flatten().tolist()) == list(range(24))
    assert len(set(drawn(features, 10).flatten().tolist())) == 10


def test_a_step_that_only_weighs_the_distance_lowers_it():

    registry = load().registry
    config = configure(MMD, {**SMALL, "weight": 1000.0, "learning_rate": 1e-4}, registry)
    torch.manual_seed(0)
    method = MMD(config, Builder(registry, Task(), 0), Task())
    optimizer = method.optimizers()["S"]
    batch = Batch(torch.rand(2, 1, 64, 64) - 1, torch.zeros(2, 64, 64, dtype=torch.int64), torch.rand(2, 1, 64, 64))

    def update(name, loss, when=None):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    losses = [method.segment(batch, update)["L_mmd"].item() for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
