"""Whole steps worked out in plain numbers: constant images, networks that add or scale, critics that answer what they see.

After each update the networks that it owns are moved, so that a value from before or after it shows; and a history of
images adds a mark, so that a fake that did not pass through it shows too.
"""

from math import exp, log

import pytest
import torch
from torch import nn

from attent_kit.interfaces import Batch, Segmentation
from attent_kit.objectives import balanced_cross_entropy, cross_entropy, dice_loss
from support.small_methods import made

X_S, X_T = 0.1, 0.5
"""Grey value of the source and of the target image."""
MARK = 0.01
"""What a history adds."""
MOVE = 0.1
"""What an update adds to the offset of each network that it owns."""


class Offset(nn.Module):
    """A network with one number, which an update moves."""

    def __init__(self, b):
        super().__init__()
        self.b = nn.Parameter(torch.tensor(b))


class Add(Offset):
    """x + b: a translator, or a critic that answers the grey value."""

    def forward(self, x):
        return x.mean(1, keepdim=True) + self.b


class Seg(Offset):
    """Logits (x + b, 0, 0), those of the second head (x - b, 0, 0), features 2 x + b."""

    has_auxiliary = True

    def forward(self, x):
        zero = torch.zeros_like(x)
        logits, auxiliary = torch.cat([x + self.b, zero, zero], 1), torch.cat([x - self.b, zero, zero], 1)
        return Segmentation(logits, 2 * x + self.b, auxiliary)


class Decode(Offset):
    """image + latent / 10 + b."""

    def forward(self, latent, image):
        return image + latent / 10 + self.b


class TwoAnswers(Offset):
    """x + b, and half of that."""

    def forward(self, x):
        return torch.cat([x + self.b, (x + self.b) / 2], 1)


class Marks(nn.Module):
    """A history that gives each image back, marked."""

    def forward(self, x):
        return x.detach() + MARK


def one_batch():
    x_s, x_t = (torch.full((1, 1, 32, 32), value) for value in (X_S, X_T))
    return Batch(x_s, torch.zeros(1, 32, 32, dtype=torch.int64), x_t)


def recorded(step, owners):
    """The loss of each update in order; after each, its networks are moved."""
    asked = []

    def update(name, loss, when=None):
        asked.append((name, loss.item()))
        with torch.no_grad():
            for network in owners[name]:
                network.b += MOVE

    step(one_batch(), update)
    return asked


def close(asked, expected):
    assert [name for name, _ in asked] == [name for name, _ in expected]
    for (name, found), (_, wanted) in zip(asked, expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-4), name


def logits(value):
    """(value, 0, 0) at one pixel."""
    return torch.tensor([[[[value]], [[0.0]], [[0.0]]]])


LABEL = torch.zeros(1, 1, 1, dtype=torch.int64)


def softplus(x):
    return log(1 + exp(x))


def translators(alignment):
    """G_st and G_ts of offsets 0.02 and 0.03, critics that answer the grey value, histories that mark."""
    alignment.G_st, alignment.G_ts = Add(0.02), Add(0.03)
    alignment.D_s, alignment.D_t = Add(0.0), Add(0.0)
    alignment.pool_s, alignment.pool_t = Marks(), Marks()
    return 0.02, 0.03


def translation(a, b, cycle=10.0, identity=5.0):
    """L_gan + 10 L_cyc + 5 L_idt, and the loss of both critics, for offsets a of G_st and b of G_ts."""
    x_st, x_ts = X_S + a, X_T + b
    L_gan = (x_st - 1) ** 2 + (x_ts - 1) ** 2
    L_cyc = abs(x_st + b - X_S) + abs(x_ts + a - X_T)
    L_D_s = ((X_S - 1) ** 2 + (x_ts + MARK) ** 2) / 2
    L_D_t = ((X_T - 1) ** 2 + (x_st + MARK) ** 2) / 2
    return L_gan + cycle * L_cyc + identity * (a + b), L_D_s + L_D_t


@pytest.mark.parametrize("name", ["cyclegan", "pixel", "attent"])
def test_the_translation_step(name):
    alignment, _, _ = made(name)
    a, b = translators(alignment)
    L_G, L_D = translation(a, b)
    owners = {"G": [alignment.G_st, alignment.G_ts], "D": [alignment.D_s, alignment.D_t]}
    close(recorded(alignment.translate, owners), [("G", L_G), ("D", L_D)])


def test_the_step_of_synsegnet():
    alignment, _, _ = made("synsegnet", segmentation=3.0, auxiliary=0.5)
    a, b = translators(alignment)
    alignment.S = Seg(0.04)
    L_G, L_D = translation(a, b)
    main, low = logits(X_S + a + 0.04), logits(X_S + a - 0.04)
    L_seg = cross_entropy(main, LABEL).item() + 0.5 * cross_entropy(low, LABEL).item()
    owners = {"G+S": [alignment.G_st, alignment.G_ts, alignment.S], "D": [alignment.D_s, alignment.D_t]}
    close(recorded(alignment.joint, owners), [("G+S", L_G + 3 * L_seg), ("D", L_D)])


class Doubts(Offset):
    """A source network: class 0 below 0.6, class 1 above."""

    def forward(self, x):
        return Segmentation(torch.cat([0.6 - x + self.b, torch.zeros_like(x), torch.zeros_like(x) - 9], 1), x)


def test_the_translation_step_of_cycada():
    """F gives x_t = 0.5 the class 0, and x_ts = 0.73 the class 1: which of them labels x_ts shows."""
    alignment, _, _ = made("cycada", semantic=2.0, semantic_gate=5.0)
    translators(alignment)
    alignment.G_ts = Add(0.23)
    alignment.F = Doubts(0.0)
    L_G, L_D = translation(0.02, 0.23)

    def minus_log_p0(x):
        return log(exp(0.6 - x) + 1 + exp(-9)) - (0.6 - x)

    L_sem = minus_log_p0(X_S + 0.02) + minus_log_p0(X_T + 0.23)
    owners = {"G": [alignment.G_st, alignment.G_ts], "D": [alignment.D_s, alignment.D_t]}
    close(recorded(alignment.translate, owners), [("G", L_G + 2 * L_sem), ("D", L_D)])


def test_the_later_steps_of_cycada():
    alignment, _, _ = made("cycada", adversarial=0.25, auxiliary=0.5)
    a, _ = translators(alignment)
    alignment.S, alignment.D_F = Seg(0.04), Add(0.2)
    alignment.F = Seg(0.07)

    def L_seg(x, s):
        return cross_entropy(logits(x + s), LABEL).item() + 0.5 * cross_entropy(logits(x - s), LABEL).item()

    close(recorded(alignment.source, {"F": []}), [("F", L_seg(X_S, 0.07))])
    close(recorded(alignment.segment, {"S": []}), [("S", L_seg(X_S + a, 0.04))])
    # The critic sees the mean of the logits, (x + s) / 3, and moves before the segmentor is asked to deceive it.
    d_s, d_t = (X_S + a + 0.04) / 3 + 0.2, (X_T + 0.04) / 3 + 0.2
    expected = [
        ("D_F", (softplus(-d_s) + softplus(d_t)) / 2),
        ("S", 0.25 * softplus(-(d_t + MOVE))),
        ("S", L_seg(X_S + a, 0.04 + MOVE)),
    ]
    close(recorded(alignment.adapt, {"D_F": [alignment.D_F], "S": [alignment.S]}), expected)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_step_of_sifa(version):
    alignment, _, _ = made("sifa", version=version, steps=20, auxiliary=0.3)
    g, s, u = 0.02, 0.04, 0.03
    alignment.G, alignment.S, alignment.U = Add(g), Seg(s), Decode(u)
    alignment.D_t, alignment.D_s, alignment.D_p = Add(0.0), TwoAnswers(0.0), Add(0.0)
    two = version == "v2"
    if two:
        alignment.D_ll = Add(1.0)
    alignment.pool_t, alignment.pool_s = Marks(), Marks()
    alignment.done.fill_(5)  # epoch 5 of 20: a third of D_p's weight in v1
    owners = {
        "G": [alignment.G], "D_t": [alignment.D_t], "S": [alignment.S], "U": [alignment.U], "D": [],
    }  # fmt: skip

    def decoded(x, s, u):
        return x + (2 * x + s) / 10 + u

    def cycle(g, s, u):
        return abs(decoded(X_S + g, s, u) - X_S) + abs(decoded(X_T, s, u) + g - X_T)

    def one_head(value):
        return balanced_cross_entropy(logits(value), LABEL).item() + dice_loss(logits(value), LABEL).item()

    expected = [("G", (X_S + g - 1) ** 2 + 10 * cycle(g, s, u))]
    expected += [("D_t", ((X_T - 1) ** 2 + (X_S + g + MARK) ** 2) / 2)]
    g += MOVE
    x_ts = decoded(X_T, s, u)
    L_seg = one_head(X_S + g + s) + (0.3 * one_head(X_S + g - s) if two else 0)
    L_S = L_seg + 0.1 * ((x_ts - 1) ** 2 + 10 * cycle(g, s, u)) + 0.1 * (x_ts / 2 - 1) ** 2
    L_S += 0.1 * (1 if two else 1 / 3) * ((X_T + s) / 3 - 1) ** 2
    L_S += 0.01 * ((X_T - s) / 3 + 1 - 1) ** 2 if two else 0
    expected += [("S", L_S)]
    s += MOVE
    x_ts = decoded(X_T, s, u)
    expected += [("U", (x_ts - 1) ** 2 + 10 * cycle(g, s, u))]
    u += MOVE
    old, x_sts = x_ts + MARK, decoded(X_S + g, s, u)
    L_D = ((X_S - 1) ** 2 + old**2) / 2 + ((x_sts / 2 - 1) ** 2 + (old / 2) ** 2) / 2
    L_D += (((X_S + g + s) / 3 - 1) ** 2 + ((X_T + s) / 3) ** 2) / 2
    L_D += (((X_S + g - s) / 3 + 1 - 1) ** 2 + ((X_T - s) / 3 + 1) ** 2) / 2 if two else 0
    expected += [("D", L_D)]
    close(recorded(alignment.joint, owners), expected)
    assert alignment.done.item() == 6


def test_minent_is_a_mean_over_pixels():
    """Logits (0.5, 0, 0) everywhere: the entropy of one such pixel, however many there are."""
    alignment, _, _ = made("entropy", objective="minimize", adversarial=2.0, auxiliary_adversarial=3.0, auxiliary=0.0)
    alignment.S = Seg(0.0)

    def entropy(a):
        p = [exp(a) / (exp(a) + 2), 1 / (exp(a) + 2), 1 / (exp(a) + 2)]
        return -sum(q * log(q) for q in p) / log(3)

    L_seg = cross_entropy(logits(X_S), LABEL).item()
    close(recorded(alignment.minimize, {"S": []}), [("S", L_seg + 5 * entropy(X_T))])


@pytest.mark.parametrize(
    "name, expected",
    [
        ("sifa", {"G": (0.5, 0.999), "D_t": (0.5, 0.999), "S": (0.9, 0.999), "U": (0.5, 0.999), "D": (0.5, 0.999)}),
        ("synsegnet", {"G+S": (0.5, 0.999), "D": (0.5, 0.999)}),
        ("cycada", dict.fromkeys("GD", (0.5, 0.999)) | dict.fromkeys(("S", "F", "D_F"), (0.9, 0.99))),
    ],
)
def test_the_averages_of_adam_decay_as_published(name, expected):
    _, optimizers, _ = made(name)
    assert {n: o.param_groups[0]["betas"] for n, o in optimizers.items()} == expected


# One stage: a critic on outputs, entropy maps or features


def softmax(a):
    """Of (a, 0, 0)."""
    return [exp(a) / (exp(a) + 2), 1 / (exp(a) + 2), 1 / (exp(a) + 2)]


class First(Offset):
    """A critic that answers the first channel."""

    def forward(self, x):
        return x[:, :1] + self.b


@pytest.mark.parametrize(
    "name, critic, seen, translated",
    [
        ("ada_output", "D", lambda a: softmax(a)[0], False),
        ("entropy", "D_E", lambda a: -softmax(a)[0] * log(softmax(a)[0]) / log(3), False),
        ("attent", "D_E", lambda a: -softmax(a)[0] * log(softmax(a)[0]) / log(3), True),
    ],
)
def test_the_step_against_two_critics(name, critic, seen, translated):
    """L_seg + 0.25 L_adv + 0.125 L_adv of the low-level head; then both critics, source real and target fake."""
    two_heads = {"name": "smp", "encoder_depth": 3, "decoder_channels": [8, 8, 8], "auxiliary": 2}
    more = {"adversarial": 0.25, "auxiliary_adversarial": 0.125, "auxiliary": 0.5, "segmentor": two_heads}
    alignment, _, _ = made(name, **more)
    alignment.S = Seg(0.04)
    setattr(alignment, critic, First(0.2))
    alignment.D_aux = First(0.6)
    x = X_T
    if translated:
        alignment.G_ts = Add(0.3)
        x = X_T + 0.3
    main_s, main_t, low_s, low_t = X_S + 0.04, x + 0.04, X_S - 0.04, x - 0.04
    L_seg = cross_entropy(logits(main_s), LABEL).item() + 0.5 * cross_entropy(logits(low_s), LABEL).item()
    L_S = L_seg + 0.25 * softplus(-(seen(main_t) + 0.2)) + 0.125 * softplus(-(seen(low_t) + 0.6))
    L_D = (softplus(-(seen(main_s) + 0.2)) + softplus(seen(main_t) + 0.2)) / 2
    L_D += (softplus(-(seen(low_s) + 0.6)) + softplus(seen(low_t) + 0.6)) / 2
    close(recorded(alignment.segment, {"S": [alignment.S], critic: []}), [("S", L_S), (critic, L_D)])


def test_the_step_against_a_critic_of_features():
    """Features 2 x + b: a critic that answers them."""
    alignment, _, _ = made("feature", adversarial=0.25, auxiliary=0.5)
    alignment.S, alignment.D_F = Seg(0.04), First(-0.5)
    L_seg = cross_entropy(logits(X_S + 0.04), LABEL).item() + 0.5 * cross_entropy(logits(X_S - 0.04), LABEL).item()
    d_s, d_t = 2 * X_S + 0.04 - 0.5, 2 * X_T + 0.04 - 0.5
    expected = [("S", L_seg + 0.25 * softplus(-d_t)), ("D_F", (softplus(-d_s) + softplus(d_t)) / 2)]
    close(recorded(alignment.segment, {"S": [alignment.S], "D_F": []}), expected)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_heads_of_deeplab_learn_ten_times_as_fast_under_either_optimizer(optimizer):
    deeplab = {"name": "deeplabv2", "width": 4, "blocks": [1, 1, 1, 1]}
    _, optimizers, _ = made("ada_output", segmentor=deeplab, optimizer=optimizer, learning_rate=0.02)
    assert [group["lr"] for group in optimizers["S"].param_groups] == pytest.approx([0.02, 0.2])


def test_each_optimizer_of_a_stage_follows_its_own_schedule():
    from attent_kit.engine.train.fit import _set_learning_rates
    from attent_kit.schedules import constant, poly

    alignment, optimizers, _ = made("cycada")
    stage = alignment.stages()[-1]._replace(schedule={"S": poly(1.0), "D_F": constant})
    base = {name: [group["lr"] for group in o.param_groups] for name, o in optimizers.items()}
    _set_learning_rates(optimizers, base, stage, 0.75)
    rates = {name: o.param_groups[0]["lr"] / base[name][0] for name, o in optimizers.items()}
    assert rates == pytest.approx({"G": 1, "D": 1, "S": 0.25, "F": 1, "D_F": 1})
