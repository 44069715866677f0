"""A pool that takes another way through memory answers what torch's answers, to the bit."""

import pytest
import torch
from torch import nn

from attent_kit.build import configure
from attent_kit.interfaces import Task
from attent_kit.plugins import load
from attentkit_builtin.networks.pool import MaxPool2d, with_fast_pools


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{"stride": 2, "padding": 1}, {"stride": 2, "padding": 1, "ceil_mode": True}, {"stride": 1}]
)
def test_values_and_gradients_are_torchs_to_the_bit(dtype, options):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 13, 18).relu().to(dtype)  # zeros, so that windows have several largest values
    answers = []
    for kind in (nn.MaxPool2d, MaxPool2d):
        given = x.clone().requires_grad_()
        y = kind(3, **options)(given)
        torch.manual_seed(1)
        y.backward(torch.randn(y.shape).to(dtype))
        answers.append((y.detach(), given.grad))
        assert y.is_contiguous()
    (y, gradient), (ours, our_gradient) = answers
    assert torch.equal(ours, y) and torch.equal(our_gradient, gradient) and gradient.abs().sum() > 0


def test_images_that_have_their_channels_together_stay_so():
    x = torch.randn(2, 5, 12, 12).contiguous(memory_format=torch.channels_last)
    assert MaxPool2d(3, 2, 1)(x).is_contiguous(memory_format=torch.channels_last)


def test_every_pool_of_a_network_is_exchanged_and_keeps_its_sizes():
    inner = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.ReLU())
    found = with_fast_pools(nn.Sequential(inner, nn.MaxPool2d(2, ceil_mode=True)))
    x = torch.randn(1, 3, 17, 17)
    pools = [module for module in found.modules() if isinstance(module, nn.MaxPool2d)]
    assert [type(pool) for pool in pools] == [MaxPool2d, MaxPool2d]
    assert torch.equal(found(x), nn.MaxPool2d(2, ceil_mode=True)(nn.MaxPool2d(3, 2, 1)(x).relu()))


def test_the_segmentors_of_smp_have_it():
    registry = load().registry
    kind = registry.segmentor("smp")
    options = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    network = kind(configure(kind, options, registry), Task())
    assert [type(m) for m in network.modules() if isinstance(m, nn.MaxPool2d)] == [MaxPool2d]
