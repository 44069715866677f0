"""What a CUDA graph could not repeat is found on a CPU, with the line; what it could is not mistaken for that."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from attent_kit.engine.train.steady import Watch


class Method(nn.Module):
    """One layer, a buffer and a number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.number = 0


def found(step, steps=3, optimizer=SGD):
    """What is said of `step(method, x)`, taken on other numbers each time, after one step that does not count."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    method = Method()
    optimizers = {"S": optimizer(method.parameters(), lr=0.1)}
    x = torch.randn(steps + 1, 2, 4) + torch.arange(steps + 1).view(-1, 1, 1)
    x = [image.clone() for image in x]

    def take(n):
        loss = step(method, x[n])
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            loss.backward(inputs=list(method.parameters()))
            optimizers["S"].step()
            optimizers["S"].zero_grad()

    take(steps)
    watch = Watch(method, optimizers)
    for n in range(steps):
        watch(lambda n=n: take(n), [x[n]])
    return watch.end()


def counts(method, x):
    method.number += 1


def replaces(method, x):
    method.mean = method.mean + 1


def crops(method, x):
    return method.layer(x).sum() + x[: random.randint(1, 2)].sum()


def branches_by_a_coin(method, x):
    return method.layer(x.abs() if random.random() < 0.5 else x.neg()).sum()


def multiplies_by_a_coin(method, x):
    return (random.random() * method.layer(x)).sum()


def from_numpy(method, x):
    return (method.layer(x) * torch.from_numpy(np.random.rand(4)).float()).sum()


def of_a_number(method, x):
    return (method.layer(x) * torch.tensor(random.random())).sum()


def more_often(method, x):
    method.layer(x)
    for _ in range(random.randint(0, 9)):
        x = x + 1


@pytest.mark.parametrize(
    "step, words",
    [
        (lambda m, x: m.layer(x).sum() if x.sum() > 0 else None, "reads a value back (Tensor.__bool__)"),
        (lambda m, x: f"{x.sum()}", "reads a value back (Tensor.__format__)"),
        (lambda m, x: torch.equal(x, x), "reads a value back (equal)"),
        (lambda m, x: torch.where(x > 0), "makes a shape of values (where)"),
        (lambda m, x: x[x > 0].sum(), "makes a shape of values (Tensor.__getitem__)"),
        (lambda m, x: x * torch.rand(()), "draws on the host (rand without a device)"),
        (counts, "self.number is another tensor or number"),
        (replaces, "self.mean is another tensor or number"),
        (crops, "something else from step to step"),
        (branches_by_a_coin, "asks for another operation from step to step (neg, then abs)"),
        (multiplies_by_a_coin, "gives mul something else from step to step (0."),
        (from_numpy, "gives lift_fresh something else from step to step:"),
        (of_a_number, "gives lift_fresh something else from step to step:"),
        (more_often, "in some steps alone"),
    ],
)
def test_what_a_graph_would_freeze_is_found_with_its_line(step, words):
    said = found(step)
    assert said is not None and words in said, said
    if not said.startswith("self."):
        assert said.startswith("test_steady.py:")
    assert any(mend in said for mend in ("torch.where", "device=x.device", "on the device", "in place"))


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_what_a_graph_repeats_is_steady(optimizer):
    def step(method, x):
        method.mean.lerp_(x.detach().mean(0), 0.1)
        noise = torch.rand_like(x) + torch.randn(x.shape, device=x.device)
        gate = torch.rand((), device=x.device) < 0.5
        y = torch.where(gate, x, -x) + noise * method.mean
        return method.layer(y * torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.ones(4)).square().mean()

    assert found(step, optimizer=optimizer) is None


def test_the_line_of_the_method_is_named_for_what_happens_in_the_backward_pass():
    class Coin(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g.abs() if random.random() < 0.5 else g.neg()

    said = found(lambda m, x: Coin.apply(m.layer(x)).sum(), steps=8)
    assert said.startswith("test_steady.py:") and "another operation" in said
