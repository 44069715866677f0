"""Random grey values of what a segmentor sees in training."""

import pytest
import torch
from pydantic import ValidationError

from attent_kit.interfaces import Task
from attentkit_builtin.networks.jitter import GreyJitter
from attentkit_builtin.segmentors.smp import SmpSegmentor

SMALL = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": (8, 8, 8)}


def images(batch=6, channels=1, size=32):
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_outside_of_training_and_at_strength_0_nothing_changes_and_nothing_is_drawn():
    x = images()
    before = torch.get_rng_state()
    assert torch.equal(GreyJitter(1.0).eval()(x), x)
    assert torch.equal(GreyJitter(0.0).train()(x), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_image_changes_on_its_own_and_stays_in_range():
    torch.manual_seed(0)
    x = images(1).repeat(6, 1, 1, 1)
    y = GreyJitter(1.0).train()(x)
    assert y.shape == x.shape and y.min() >= -1 and y.max() <= 1
    changes = (y - x).abs().flatten(1).mean(1)
    assert changes.min() > 0.02 and (y[0] - y[1]).abs().mean() > 0.01


def test_the_stronger_the_further():
    def change(strength):
        torch.manual_seed(1)
        return (GreyJitter(strength).train()(images(64)) - images(64)).abs().mean()

    assert 0 < change(0.25) < change(0.5) < change(1.0)


def test_air_stays_dark_and_organs_keep_their_order():
    """Each image may be brighter or darker, blurred and noisy, but what was darker on the whole is darker still."""
    torch.manual_seed(2)
    x = torch.full((100, 1, 32, 32), -1.0)
    x[:, :, :, 12:22], x[:, :, :, 22:] = -0.2, 0.4
    y = GreyJitter(1.0).train()(x)
    air, dark, bright = (
        y[:, 0, :, columns].flatten(1).mean(1) for columns in (slice(0, 10), slice(14, 20), slice(24, 32))
    )
    assert air.max() < -0.9
    assert (dark > air + 0.2).all() and (bright > dark).float().mean() > 0.95


def test_gradients_reach_black_pixels_too():
    torch.manual_seed(3)
    x = torch.full((4, 1, 32, 32), -1.0, requires_grad=True)
    GreyJitter(1.0).train()(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_channels_of_an_image_share_its_curve():
    torch.manual_seed(4)
    jitter = GreyJitter(1.0).train()
    x = images(8).repeat(1, 3, 1, 1)
    y = jitter(x)
    assert (y[:, 0] - y[:, 2]).abs().max() < 0.4 < (y - x).abs().max()


def test_a_segmentor_answers_differently_in_training_and_alike_afterwards():
    network = SmpSegmentor(SmpSegmentor.Config(**SMALL, jitter=1.0), Task())
    x = images(2)
    network.eval()
    assert torch.equal(network(x).logits, network(x).logits)
    network.jitter.train()
    assert not torch.equal(network(x).logits, network(x).logits)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_beyond_its_range_is_refused(strength):
    with pytest.raises(ValidationError):
        SmpSegmentor.Config(jitter=strength)
