"""One optimizer step at a time: what it owns moves, what it does not own stays, and a closed gate leaves no trace."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from attent_kit.build import Builder, configure
from attent_kit.engine.run.assemble import setup
from attent_kit.engine.run.device import launch
from attent_kit.engine.train.update import FabricUpdate
from support.small_methods import REGISTRY, TASK, options

OPEN, CLOSED = torch.tensor(True), torch.tensor(False)
OPTIMIZERS = {
    "adam": lambda parameters: Adam(parameters, lr=0.1, fused=True),
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
}


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def update_of(own, optimizer):
    return FabricUpdate(launch("cpu", "32-true"), {"S": optimizer(own.parameters())})


def state(own, update):
    """Weights and everything the optimizer remembers of them, as copies."""
    memory = update._optimizers["S"].state
    remembered = [{n: v.clone() for n, v in memory[p].items()} for p in own.parameters() if p in memory]
    return [p.detach().clone() for p in own.parameters()], remembered


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_closed_gate_leaves_weights_and_the_optimizers_memory_as_they_were(optimizer):
    own = network()
    update = update_of(own, optimizer)
    update("S", own(torch.ones(1, 3)).sum())
    weights, remembered = state(own, update)
    update("S", 5 * own(torch.ones(1, 3)).sum(), when=CLOSED)
    after, still = state(own, update)
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    assert all(torch.equal(a[n], b[n]) for a, b in zip(remembered, still, strict=True) for n in a)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_after_closed_ones_is_the_first_step(optimizer):
    """The memory that a closed first step makes is that of no step at all."""
    kept_waiting, fresh = network(), network()
    update, update_fresh = update_of(kept_waiting, optimizer), update_of(fresh, optimizer)
    for _ in range(3):
        update("S", 7 * kept_waiting(torch.ones(1, 3)).square().sum(), when=CLOSED)
    for _ in range(2):
        update("S", kept_waiting(torch.ones(1, 3)).square().sum(), when=OPEN)
        update_fresh("S", fresh(torch.ones(1, 3)).square().sum())
    assert all(torch.equal(a, b) for a, b in zip(kept_waiting.parameters(), fresh.parameters(), strict=True))


def test_parameters_that_want_no_gradient_are_left_alone():
    own = network()
    own.bias.requires_grad_(False)
    before = own.bias.clone()
    update = update_of(own, OPTIMIZERS["adam"])
    update("S", own(torch.ones(1, 3)).sum())
    assert torch.equal(own.bias, before) and own.weight.grad is None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric_watches_over_backward_only_where_its_own_does_more_than_torchs(precision):
    """In float32 a loss may go either way, so that nothing hangs on the answers of a network."""
    method = REGISTRY.alignment("source_only")
    alignment = method(configure(method, options("source_only"), REGISTRY), Builder(REGISTRY, TASK, 0), TASK)
    fabric = launch("cpu", precision)
    setup(alignment, fabric)
    answer = alignment.S(torch.zeros(2, 1, 64, 64)).logits
    assert bool(answer._backward_hooks) == (precision == "bf16-mixed")
    fabric.backward(answer.sum())
    assert any(p.grad is not None for p in alignment.S.parameters())
