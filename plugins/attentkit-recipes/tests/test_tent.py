"""What Tent moves and what it leaves, and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_recipes.tent import Tent, affine, entropy
from torch import nn

from attent_kit.build import Builder, configure
from attent_kit.engine.run.adapt import unchanged
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attent_kit.plugins import load
from attent_kit.registry import Component
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "test_steps": 2}


class Bare(Segmentor):
    """A segmentor without norm layers."""

    feature_channels, feature_stride = 4, 1

    def __init__(self, config, task):
        super().__init__(config, task)
        self.layer = nn.Conv2d(task.channels, 4, 1)
        self.head = nn.Conv2d(4, task.classes, 1)

    def forward(self, x):
        features = self.layer(x)
        return Segmentation(self.head(features), features)


def built(**options):
    registry = load().registry
    config = configure(Tent, {**SMALL, **options}, registry)
    torch.manual_seed(0)
    return Tent(config, Builder(registry, Task(), 0), Task()).eval()


def adapted_once(method, volume):
    """Parameters before and after, by name; and what predicts then."""
    before = {name: p.detach().clone() for name, p in method.S.named_parameters()}
    predict = method.adapt_to(volume)
    return before, dict(method.S.named_parameters()), predict


def test_it_keeps_the_contract():
    check_alignment(Tent, SMALL)


def test_scales_and_shifts_of_norms_move_and_nothing_else():
    method = built()
    own = {id(p) for p in affine(method.S)}
    before, after, _ = adapted_once(method, torch.rand(4, 1, 64, 64) * 2 - 1)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    # The encoder has deeper layers than the three that are asked.
    assert len(moved) > 10 and moved <= {name for name, p in after.items() if id(p) in own}


def test_the_entropy_of_its_answers_falls():
    volume = torch.rand(6, 1, 64, 64) * 2 - 1
    found = {}
    for steps in (0, 20):
        method = built(test_steps=steps, test_batch_size=6, test_learning_rate=1e-2)
        predict = method.adapt_to(volume)
        with torch.no_grad():
            found[steps] = entropy(predict(volume)).item()
    assert found[20] < 0.95 * found[0]


def test_the_statistics_of_its_answer_are_those_of_the_volume():
    method = built(test_steps=0, test_batch_size=3)
    volume = torch.rand(6, 1, 64, 64) + 0.5
    norm = next(m for m in method.S.modules() if isinstance(m, nn.BatchNorm2d))
    seen = []
    with unchanged(method), norm.register_forward_pre_hook(lambda module, given: seen.append(given[0])):
        method.adapt_to(volume)
        means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        assert len(seen) == 2 and torch.allclose(norm.running_mean, means, atol=1e-5)
        assert norm.momentum == 0.1 and method.eval() is method
    assert norm.running_mean.abs().max() == 0


def test_without_statistics_those_of_training_stay():
    method = built(statistics=False)
    before = {name: b.clone() for name, b in method.S.named_buffers()}
    method.adapt_to(torch.rand(3, 1, 64, 64))
    assert all(torch.equal(b, before[name]) for name, b in method.S.named_buffers())


def test_the_entropy_of_an_even_answer_is_log_k():
    assert entropy(torch.zeros(2, 5, 3, 3)).item() == pytest.approx(math.log(5))


def test_a_segmentor_without_norms_is_refused_in_a_sentence():
    registry = load().registry
    registry.add(Component("segmentors", "bare", Bare, "test", "test", "0"))
    with pytest.raises(ConfigError, match=r"'bare' has none .*--set segmentor"):
        Tent(configure(Tent, {"segmentor": "bare"}, registry), Builder(registry, Task(), 0), Task())
