"""Who moves and who must not in SynSeg-Net, CyCADA and SIFA, and the weights and gates of their papers."""

import pytest
import torch
from torch import nn

from attent_kit.build import Builder, configure
from attent_kit.engine.run.assemble import network_states, train_only
from attent_kit.interfaces import Task
from support.small_methods import REGISTRY, SMALL_SEGMENTOR, TWO_HEADS, batch, made, options

ONE_HEAD = {"name": "smp", **SMALL_SEGMENTOR}


def watched(alignment, optimizers, update, step):
    """Networks that moved in each update of a step, in the order of the updates."""
    moved = []

    def parameters():
        return {name: [p.detach().clone() for p in child.parameters()] for name, child in alignment.named_children()}

    def watching(optimizer, loss, when=None):
        before = parameters()
        update(optimizer, loss)
        after = parameters()
        changed = {n for n in before if any(not torch.equal(a, b) for a, b in zip(before[n], after[n], strict=True))}
        moved.append((optimizer, changed))

    step(batch(), watching)
    return moved


# SynSeg-Net


def test_the_segmentation_loss_of_synsegnet_reaches_its_translator():
    alignment, _, _ = made("synsegnet", cycle=0.0, identity=0.0)
    asked = {}
    losses = alignment.joint(batch(), lambda name, loss: asked.setdefault(name, loss))
    parameters = list(alignment.G_st.parameters())
    from_segmentation = torch.autograd.grad(losses["L_seg"], parameters, retain_graph=True)
    assert all(g.abs().sum() > 0 for g in from_segmentation if g.numel() > 64)
    parameters = list(alignment.G_ts.parameters())
    assert all(
        g is None for g in torch.autograd.grad(losses["L_seg"], parameters, allow_unused=True, retain_graph=True)
    )
    assert asked["G+S"].item() == pytest.approx((losses["L_gan"] + losses["L_seg"]).item(), rel=1e-5)


def test_one_optimizer_moves_both_translators_and_the_segmentor_of_synsegnet_and_another_the_critics():
    alignment, optimizers, update = made("synsegnet")
    assert [(o, m) for o, m in watched(alignment, optimizers, update, alignment.joint)] == [
        ("G+S", {"G_st", "G_ts", "S"}),
        ("D", {"D_s", "D_t"}),
    ]
    rates = [group["lr"] for group in optimizers["G+S"].param_groups]
    assert rates == [alignment.config.translate_learning_rate, alignment.config.learning_rate]


def test_class_weights_of_synsegnet_weigh_the_pixels_of_a_class():
    alignment, _, _ = made("synsegnet", class_weights=[0.0, 0.0, 2.0])
    one = batch()
    losses = alignment.joint(one, lambda name, loss: None)
    alignment.class_weights.copy_(torch.tensor([0.0, 0.0, 1.0]))
    half = alignment.joint(one, lambda name, loss: None)
    assert losses["L_seg"].item() == pytest.approx(2 * half["L_seg"].item(), rel=0.05)
    alignment.class_weights.zero_()
    assert alignment.joint(one, lambda name, loss: None)["L_seg"].item() == 0


# CyCADA


@pytest.mark.parametrize(
    "more, stages",
    [
        ({}, ["source", "translate", "segment", "adapt"]),
        ({"semantic": 0.0}, ["translate", "segment", "adapt"]),
        ({"adversary": "none"}, ["source", "translate", "segment"]),
        ({"adversary": "none", "semantic": 0.0}, ["translate", "segment"]),
    ],
)
def test_the_semantic_and_the_feature_terms_of_cycada_are_switched_off_each_by_itself(more, stages):
    alignment, optimizers, _ = made("cycada", **more)
    assert [stage.name for stage in alignment.stages()] == stages
    assert ("F" in optimizers) == ("source" in stages) and ("D_F" in optimizers) == ("adapt" in stages)


def test_cycada_without_its_two_terms_shares_its_translation_with_cyclegan():
    bare, plain = made("cycada", semantic=0.0)[0], made("cyclegan")[0]
    assert bare.stages()[0].recipe == plain.stages()[0].recipe is not None
    assert all(stage.recipe is None for stage in made("cycada")[0].stages())


def test_the_source_network_of_cycada_stays_as_it_is_while_the_translators_learn_to_keep_what_it_sees():
    alignment, optimizers, update = made("cycada")
    train_only(alignment, optimizers, alignment.stages()[1])
    assert not alignment.F.training
    before = {n: v.clone() for n, v in network_states(alignment)["F"].items()}
    moved = watched(alignment, optimizers, update, alignment.translate)
    assert moved == [("G", {"G_st", "G_ts"}), ("D", {"D_s", "D_t"})]
    assert all(torch.equal(before[n], v) for n, v in network_states(alignment)["F"].items())


class Sure(nn.Module):
    """A source network that gives every pixel class 0 with logit `a`, the others 0."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, x):
        from attent_kit.interfaces import Segmentation

        logits = torch.zeros(x.shape[0], 3, *x.shape[2:])
        logits[:, 0] = self.a
        return Segmentation(logits + 0 * x, x)


@pytest.mark.parametrize("labelled, open_", [(0, True), (1, False)])
def test_the_semantic_term_counts_only_while_the_source_network_is_right(labelled, open_):
    """All pixels class 0 with logit 5: CE is ln(1 + 2 e^-5) = 0.013 where the label is 0, and 5.013 where it is 1."""
    alignment, _, _ = made("cycada")
    alignment.F = Sure(5.0)
    one = batch()._replace(y_s=torch.full((2, 64, 64), labelled))
    loss = alignment.semantic_loss(one, one.x_s, one.x_t)
    assert loss.item() == pytest.approx(2 * 0.013386 if open_ else 0.0, abs=1e-4)


def test_the_segmentor_waits_until_the_critic_tells_the_domains_apart():
    """D_F answers one value everywhere: source right and target wrong, so an accuracy of 1/2, below the gate of 0.6."""
    alignment, optimizers, update = made("cycada")
    train_only(alignment, optimizers, alignment.stages()[3])
    gates = {}
    losses = alignment.adapt(batch(), lambda name, loss, when=None: gates.setdefault(name, when))
    assert gates["D_F"] is None and gates["S"].dtype == torch.bool
    assert gates["S"].item() == (losses["accuracy"].item() > 0.6)

    class Constant(nn.Module):
        def forward(self, x):
            return 1 + 0 * x.mean(1, keepdim=True)

    alignment.D_F = Constant()
    alignment.accuracies.zero_(), alignment.judged.zero_()
    before = [p.clone() for p in alignment.S.parameters()]
    losses = alignment.adapt(batch(), lambda name, loss, when=None: name == "S" and update(name, loss, when))
    assert losses["accuracy"].item() == 0.5
    assert all(torch.equal(a, b) for a, b in zip(before, alignment.S.parameters(), strict=True))


def test_the_domain_accuracy_is_that_of_the_last_hundred_batches():
    alignment, _, _ = made("cycada")
    right, wrong = torch.ones(1, 1, 1, 1), -torch.ones(1, 1, 1, 1)
    seen = [alignment.domain_accuracy(right, wrong).item() for _ in range(100)]
    assert seen[0] == seen[-1] == 1.0
    assert alignment.domain_accuracy(wrong, right).item() == pytest.approx(0.99)
    for _ in range(99):
        last = alignment.domain_accuracy(right, right).item()  # source right, target wrong
    assert last == pytest.approx(0.495)


def test_the_last_stage_of_cycada_lowers_the_rate_of_the_segmentor_alone():
    alignment, _, _ = made("cycada", adapt_rate=0.01)
    schedule = alignment.stages()[-1].schedule
    assert schedule["S"](0.0) == schedule["S"](1.0) == 0.01 and schedule["D_F"](1.0) == 1.0


@pytest.mark.parametrize("adversary, channels", [("score", 3), ("features", 128)])
def test_cycada_aligns_scores_or_features(adversary, channels):
    alignment, _, _ = made("cycada", adversary=adversary)
    seen = []
    alignment.D_F.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    alignment.adapt(batch(), lambda name, loss, when=None: None)
    assert set(seen) == {channels}


# SIFA


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_updates_of_sifa_come_in_their_order_and_each_moves_its_own(version):
    alignment, optimizers, update = made("sifa", version=version)
    critics = {"D_s", "D_p"} | ({"D_ll"} if version == "v2" else set())
    assert watched(alignment, optimizers, update, alignment.joint) == [
        ("G", {"G"}), ("D_t", {"D_t"}), ("S", {"S"}), ("U", {"U"}), ("D", critics),
    ]  # fmt: skip


def test_the_shared_encoder_of_sifa_moves_in_the_segmentation_update_alone_and_its_losses_reach_it():
    alignment, optimizers, update = made("sifa")
    encoder = alignment.S.network.encoder.conv1.weight
    gradients = {}

    def watching(name, loss):
        (gradient,) = torch.autograd.grad(loss, encoder, retain_graph=True, allow_unused=True)
        gradients[name] = None if gradient is None else gradient.abs().sum().item()
        before = encoder.detach().clone()
        update(name, loss)
        assert torch.equal(before, encoder) == (name != "S")

    alignment.joint(batch(), watching)
    assert gradients["S"] > 0
    # Translator: through S, which is frozen there. Decoder and critics: latents are made without a graph.
    assert gradients["G"] > 0 and gradients["D_t"] is gradients["U"] is gradients["D"] is None


def test_critics_of_sifa_get_no_gradient_from_the_updates_of_the_others():
    alignment, _, update = made("sifa")

    def watching(name, loss):
        update(name, loss)
        critics = (alignment.D_t, alignment.D_s, alignment.D_p, alignment.D_ll)
        assert all(p.grad is None for D in critics for p in D.parameters())

    alignment.joint(batch(), watching)


def test_one_critic_of_sifa_has_two_answers_and_v1_has_no_low_level_critic():
    v2, v1 = made("sifa")[0], made("sifa", version="v1", segmentor=ONE_HEAD)[0]
    assert v2.D_s(batch().x_s).shape[1] == 2 and v2.D_p(torch.zeros(1, 3, 64, 64)).shape[1] == 1
    assert v2.D_ll is not None and v1.D_ll is None


class Answers(nn.Module):
    """A critic of fixed answers, one a head."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = answers

    def forward(self, x):
        return torch.stack([0 * x.mean(1) + a for a in self.answers], dim=1)


def test_the_segmentation_update_of_sifa_weighs_its_terms_as_published():
    """Critics that answer d cost (d - 1)^2: D_s .5 and .25, D_p 0, D_ll 3, so .25, .5625, 1 and 4."""
    alignment, _, _ = made("sifa")
    alignment.D_s, alignment.D_p, alignment.D_ll = Answers(0.5, 0.25), Answers(0.0), Answers(3.0)
    asked = {}
    losses = alignment.joint(batch(), lambda name, loss: asked.setdefault(name, loss.item()))
    adversaries = 0.1 * (0.25 + 10 * losses["L_cyc"].item()) + 0.1 * 1 + 0.1 * 0.5625 + 0.01 * 4
    assert asked["S"] == pytest.approx(losses["L_seg"].item() + adversaries, rel=1e-4)
    assert asked["U"] == pytest.approx(0.25 + 10 * losses["L_cyc"].item(), rel=0.05)
    # D: ((.5 - 1)^2 + .5^2) / 2 + ((.25 - 1)^2 + .25^2) / 2 + ((0 - 1)^2 + 0) / 2 + ((3 - 1)^2 + 3^2) / 2
    assert asked["D"] == pytest.approx(0.25 + 0.3125 + 0.5 + 6.5, rel=1e-5)


def test_the_output_critic_of_v1_counts_from_the_fifth_of_twenty_epochs_on():
    alignment, _, _ = made("sifa", version="v1", segmentor=ONE_HEAD, steps=200)
    seen = {}
    for step in (0, 49, 50, 59, 60, 70, 199):
        alignment.done.fill_(step)
        seen[step] = round(3 * alignment.ramp().item(), 4)
    assert seen == {0: 0, 49: 0, 50: 1, 59: 1, 60: 2, 70: 3, 199: 3}
    v2 = made("sifa")[0]
    assert v2.ramp().item() == 1


def test_the_rates_of_sifa_as_published_and_by_default():
    v1 = made("sifa", version="v1", segmentor=ONE_HEAD, schedule="published")[0].stages()[0].schedule
    assert [v1["S"](f) for f in (0.0, 0.09, 0.1, 0.95)] == pytest.approx([1, 1, 0.9, 0.9**9])
    assert v1["G"](1.0) == v1["D"](1.0) == 1.0
    v2 = made("sifa", schedule="published")[0].stages()[0].schedule
    assert all(rate(1.0) == 1.0 for rate in v2.values())
    by_default = made("sifa")[0].stages()[0].schedule
    assert all((rate(0.5), rate(1.0)) == (1.0, 0.0) for rate in by_default.values())


def test_sifa_decays_its_segmentor_by_the_gradient_of_half_its_square():
    _, optimizers, _ = made("sifa")
    decays = {name: {group["weight_decay"] for group in o.param_groups} for name, o in optimizers.items()}
    assert decays == {"G": {0}, "D_t": {0}, "S": {1e-4}, "U": {0}, "D": {0}}


@pytest.mark.parametrize(
    "segmentor",
    [
        TWO_HEADS,
        {"name": "sifa", "width": 2},
        {"name": "sifa", "width": 2, "stride": 2},
        {"name": "resnet", "width": 4},
    ],
    ids=["smp", "sifa", "sifa at half the resolution", "resnet"],
)
def test_any_segmentor_is_the_shared_encoder_of_sifa(segmentor):
    version = "v1" if segmentor["name"] == "resnet" else "v2"
    component = REGISTRY.alignment("sifa")
    config = configure(component, options("sifa", segmentor=segmentor, version=version), REGISTRY)
    alignment = component(config, Builder(REGISTRY, Task(), 0), Task()).eval()
    x = torch.rand(1, 1, 61, 47)
    with torch.no_grad():
        assert alignment.as_source(x).shape == x.shape
        assert torch.equal(alignment.predict(x), alignment.S(x).logits)
