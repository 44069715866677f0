"""A method asked about slices: every answer is what its networks say, computed once, and nothing about them is changed."""

import numpy as np
import pytest
import torch
from torch import nn

from attent_kit.engine.run.probe import answering, networks_of_predict, probe
from attent_kit.interfaces import Alignment, Segmentation, Task

CPU = torch.device("cpu")
IMAGES = np.linspace(-1, 1, 3 * 16, dtype=np.float32).reshape(3, 1, 4, 4)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.calls = nn.Parameter(torch.tensor(factor)), 0

    def forward(self, x):
        self.calls += 1
        return x * self.factor


class Segments(Times):
    def forward(self, x):
        given = super().forward(x)
        return Segmentation(torch.cat([given, -given], 1), given + 1)


class Method(Alignment):
    """Predicts with `S` after a translation, and asks `T`, a teacher, in between."""

    def __init__(self):
        nn.Module.__init__(self)
        self.task = Task()
        self.G, self.F, self.T, self.S = Times(2.0), Times(-1.0), Segments(5.0), Segments(3.0)

    def optimizers(self):
        return {}

    def stages(self):
        return []

    def predict(self, x_t):
        self.T(x_t)
        return self.S(self.G(x_t)).logits

    def as_source(self, x_t):
        return self.G(x_t)

    def as_target(self, x_s):
        return self.F(x_s)

    def as_seen(self, x_s):
        return x_s / 2


@pytest.fixture
def method():
    return Method()


def asked(method, keep):
    (answer,) = probe(method, IMAGES, CPU, keep)
    return answer


def test_each_answer_is_what_the_networks_say(method):
    x = torch.from_numpy(IMAGES)
    assert torch.equal(asked(method, lambda p: p.logits), torch.cat([6 * x, -6 * x], 1))
    assert torch.equal(asked(method, lambda p: p.probabilities), torch.cat([6 * x, -6 * x], 1).softmax(1))
    assert torch.equal(asked(method, lambda p: p.translation), 2 * x)
    assert torch.equal(asked(method, lambda p: p.way_back), -2 * x)
    assert torch.equal(asked(method, lambda p: p.as_seen), x / 2)
    assert torch.equal(asked(method, lambda p: p.through("S")).features, 3 * x + 1)


def test_a_segmentor_is_heard_with_what_it_was_given(method):
    x = torch.from_numpy(IMAGES)
    last, teacher = asked(method, lambda p: (p.seen(), p.seen("T")))
    assert (last.network, teacher.network) == ("S", "T")
    assert torch.equal(last.given, 2 * x) and torch.equal(last.answer.features, 6 * x + 1)
    assert torch.equal(teacher.given, x)
    assert asked(method, lambda p: (p.seen("F"),)) == (None,)
    assert networks_of_predict(method, 4, CPU) == ["T", "G", "S"]


def test_an_answer_is_computed_once_and_only_if_it_is_asked_for(method):
    asked(method, lambda p: (p.logits, p.probabilities, p.seen(), p.called))
    assert (method.S.calls, method.T.calls, method.G.calls, method.F.calls) == (1, 1, 1, 0)
    asked(method, lambda p: (p.translation, p.way_back, p.translation))
    assert (method.S.calls, method.G.calls, method.F.calls) == (1, 2, 1)


def test_modes_gradients_and_hooks_are_as_before_also_after_an_error(method):
    method.train()
    method.G.eval()
    modes = [module.training for module in method.modules()]

    def failing(p):
        assert not any(module.training for module in method.modules())
        assert not p.logits.requires_grad
        raise KeyError("asked too much")

    with pytest.raises(KeyError):
        probe(method, IMAGES, CPU, failing)
    assert modes == [module.training for module in method.modules()]
    assert torch.is_grad_enabled() and not any(module._forward_hooks for module in method.modules())
    with answering(method.eval()):
        method.G.train()
    assert not any(module.training for module in method.modules())


def test_nothing_made_of_the_first_batch_is_nothing_at_all(method):
    assert probe(method, IMAGES, CPU, lambda p: None) is None
