"""Every built-in alignment keeps the contract; and what the papers say of each is so."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attent_kit.build import Builder, configure
from attent_kit.engine.run.assemble import segmentor_of, train_only
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.train import train
from attent_kit.interfaces import Batch, Discriminator, Task
from attent_kit.testing import check_alignment, check_discriminator, check_segmentor, check_translator
from support.small_methods import (
    ALIGNMENTS,
    REGISTRY,
    SMALL,
    SMALL_SEGMENTOR,
    SMALL_SEGMENTORS,
    TASK,
    TWO_HEADS,
    VARIANTS,
    batch,
    made,
    options,
)


@pytest.mark.parametrize("name, more", VARIANTS)
def test_every_alignment_keeps_the_contract(name, more):
    check_alignment(REGISTRY.alignment(name), options(name, **more))


@pytest.mark.parametrize("name, more", VARIANTS)
def test_every_alignment_keeps_the_contract_in_bfloat16_with_one_odd_image_of_three_channels_and_two_classes(
    name, more
):
    task = Task(channels=3, organs=("liver",))
    component = REGISTRY.alignment(name)
    check_alignment(component, options(name, **more), task, size=61, precision="bf16-mixed", batch_size=1)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_every_alignment_keeps_the_contract_with_one_odd_image_and_eight_classes(name):
    task = Task(organs=tuple("abcdefg"))
    check_alignment(REGISTRY.alignment(name), options(name), task, size=45, batch_size=1)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_every_alignment_keeps_the_contract_in_bfloat16_with_two_images_and_eight_classes_of_three_channels(name):
    task = Task(channels=3, organs=tuple("abcdefg"))
    check_alignment(REGISTRY.alignment(name), options(name), task, precision="bf16-mixed")


@pytest.mark.parametrize("name", ["ada_output", "entropy", "attent"])
def test_multi_level_methods_use_the_auxiliary_head(name):
    assert made(name, segmentor=TWO_HEADS)[0].D_aux is not None and made(name)[0].D_aux is None


@pytest.mark.parametrize("kind", ["translators", "segmentors", "discriminators"])
def test_every_network_keeps_the_contract(kind):
    checks = {"translators": check_translator, "segmentors": check_segmentor, "discriminators": check_discriminator}
    small = {"width": 4, "blocks": 1} if kind == "translators" else {}
    for component in REGISTRY.of(kind):
        checks[kind](component.load(), SMALL_SEGMENTORS.get(component.name, {}) if kind == "segmentors" else small)
    check_segmentor(REGISTRY.segmentor("smp"), {**SMALL_SEGMENTOR, "auxiliary": 2})


@pytest.mark.parametrize("name", [n for n in ALIGNMENTS if n != "supervised"])
def test_an_adaptation_method_declares_no_use_of_target_labels(name):
    assert not REGISTRY.alignment(name).uses_target_labels


@pytest.mark.parametrize("name", ["cyclegan", "pixel", "attent"])
def test_the_critics_get_no_gradient_from_the_update_of_the_translators(name):
    alignment, optimizers, update = made(name)
    seen = []

    def watching(optimizer, loss):
        update(optimizer, loss)
        seen.extend(p.grad for D in (alignment.D_s, alignment.D_t) for p in D.parameters())

    alignment.translate(batch(), watching)
    assert seen and all(grad is None for grad in seen)


def test_the_segmentation_loss_of_cyclegan_does_not_reach_its_translator():
    alignment, optimizers, update = made("cyclegan")
    before = {n: p.clone() for n, p in alignment.named_parameters() if n.startswith("G_")}
    train_only(alignment, optimizers, alignment.stages()[1])
    alignment.segment(batch(), update)
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in alignment.named_parameters() if n in before)


@pytest.mark.parametrize("name", ["cyclegan", "pixel", "attent"])
def test_the_translator_is_in_eval_mode_while_the_segmentor_is_trained(name):
    alignment, optimizers, _ = made(name)
    train_only(alignment, optimizers, alignment.stages()[1])
    assert not alignment.G_ts.training and not alignment.D_s.training and alignment.S.training


@pytest.mark.parametrize("name", ["pixel", "attent"])
def test_target_images_are_translated_to_source_style_at_test_time(name):
    alignment, _, _ = made(name)
    alignment.eval()
    x = batch().x_t
    with torch.no_grad():
        assert torch.equal(alignment.predict(x), alignment.S(alignment.G_ts(x)).logits)
        assert torch.equal(alignment.as_source(x), alignment.G_ts(x))


def test_cyclegan_segments_raw_target_images():
    alignment, _, _ = made("cyclegan")
    alignment.eval()
    x = batch().x_t
    with torch.no_grad():
        assert torch.equal(alignment.predict(x), alignment.S(x).logits)


def test_cyclegan_losses_of_translators_that_change_nothing_are_those_of_the_paper():
    """With G = identity: no cycle and no identity loss, and L_gan is the mean squared distance of D's answer to 1."""
    alignment, _, _ = made("cyclegan")

    class Same(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x + 0 * self.unused

    class Answers(torch.nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return torch.full((2, 1, 2, 2), self.answer) + 0 * self.unused

    alignment.G_st, alignment.G_ts = Same(), Same()
    alignment.D_s, alignment.D_t = Answers(0.5), Answers(0.25)
    asked = {}
    losses = alignment.translate(batch(), lambda name, loss: asked.update({name: loss.item()}))
    assert losses["L_cyc"].item() == 0 and losses["L_idt"].item() == 0
    # (D_t - 1)^2 + (D_s - 1)^2 = .75^2 + .5^2
    assert losses["L_gan"].item() == pytest.approx(0.5625 + 0.25)
    # ((.5 - 1)^2 + .5^2) / 2 + ((.25 - 1)^2 + .25^2) / 2
    assert asked["D"] == pytest.approx(0.25 + (0.5625 + 0.0625) / 2)


def test_the_generator_loss_weighs_cycle_by_ten_and_identity_by_five():
    alignment, _, _ = made("attent")
    asked = {}
    losses = alignment.translate(batch(), lambda name, loss: asked.setdefault(name, loss.item()))
    expected = losses["L_gan"] + 10 * losses["L_cyc"] + 5 * losses["L_idt"]
    assert asked["G"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("form, channels", [("per-class", 3), ("summed", 1)])
def test_the_entropy_discriminator_of_attent_sees_the_chosen_map(form, channels):
    alignment, _, _ = made("attent", entropy=form)
    uniform = torch.zeros(1, 3, 4, 4)
    E = alignment.E(uniform)
    assert E.shape == (1, channels, 4, 4)
    assert torch.allclose(E, torch.full_like(E, 1 / channels))
    seen = []
    alignment.D_E.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    alignment.segment(batch(), lambda name, loss: None)
    assert set(seen) == {channels}


@pytest.mark.parametrize(
    "name, critic", [("attent", "D_E"), ("entropy", "D_E"), ("ada_output", "D"), ("feature", "D_F")]
)
def test_an_undecided_critic_costs_ln_2_and_the_adversarial_term_weighs_a_thousandth(name, critic):
    """A critic that answers 0 everywhere: BCE is ln 2 for real and for fake, so L_adv = L_dis = ln 2."""
    alignment, _, _ = made(name)

    class Undecided(torch.nn.Module):
        def forward(self, x):
            return 0 * x.mean(1, keepdim=True)

    setattr(alignment, critic, Undecided())
    asked = {}
    losses = alignment.segment(batch(), lambda optimizer, loss: asked.setdefault(optimizer, loss.item()))
    assert losses["L_adv"].item() == pytest.approx(math.log(2), rel=1e-5)
    assert losses["L_dis"].item() == pytest.approx(math.log(2), rel=1e-5)
    assert asked["S"] == pytest.approx(losses["L_seg"].item() + 1e-3 * math.log(2), rel=1e-4)


@pytest.mark.parametrize("name", ["attent", "entropy", "ada_output"])
def test_at_two_levels_the_losses_of_the_second_have_names_of_their_own_and_its_critic_is_watched(name):
    """An undecided second critic costs ln 2 each way, and weighs 2e-4 in the update of the segmentor."""
    alignment, _, _ = made(name, segmentor=TWO_HEADS, adversarial=0.0)

    class Undecided(torch.nn.Module):
        def forward(self, x):
            return 0 * x.mean(1, keepdim=True)

    alignment.D_aux = Undecided()
    asked = {}
    losses = alignment.segment(batch(), lambda optimizer, loss: asked.setdefault(optimizer, loss.item()))
    assert losses["L_adv_aux"].item() == losses["L_dis_aux"].item() == pytest.approx(math.log(2), rel=1e-5)
    assert asked["S"] == pytest.approx(losses["L_seg"].item() + 2e-4 * math.log(2), rel=1e-5)
    assert asked.keys() - {"S"} and [loss for name, loss in asked.items() if name != "S"] == pytest.approx(
        [losses["L_dis"].item() + math.log(2)], rel=1e-5
    )
    assert alignment.discriminator_losses()["L_dis_aux"] == "bce"
    assert "L_dis_aux" not in made(name)[0].discriminator_losses()


def test_the_low_level_critic_of_sifa_and_the_second_entropy_of_minent_are_logged():
    sifa, _, update = made("sifa")
    losses = sifa.joint(batch(), update)
    assert {"L_ll", "L_D_ll"} <= losses.keys() and sifa.discriminator_losses()["L_D_ll"] == "lsgan"
    v1 = made("sifa", version="v1", segmentor={"name": "smp", **SMALL_SEGMENTOR})[0]
    assert "L_D_ll" not in v1.discriminator_losses()
    minent, _, update = made("entropy", objective="minimize", segmentor=TWO_HEADS)
    assert "L_ent_aux" in minent.minimize(batch(), update) and minent.discriminator_losses() == {}


@pytest.mark.parametrize("name", ["attent", "entropy", "ada_output", "feature"])
def test_without_an_adversarial_weight_the_segmentor_learns_from_the_source_alone(name):
    """One SGD-like check: the segmentor's update is the same as that of the plain supervised loss."""
    with_critic, _, update = made(name, adversarial=0.0)
    plain, _, plain_update = made("source_only")
    plain.S.load_state_dict(with_critic.S.state_dict())
    one = batch()
    with_critic.train(), plain.train()
    with_critic.segment(one, update)
    plain.segment(one, plain_update)
    for (n, p), q in zip(with_critic.S.named_parameters(), plain.S.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6), n


def test_methods_with_the_same_translation_stage_declare_the_same_recipe_and_others_do_not():
    attention = {"translator": {"name": "attention", "width": 4, "blocks": 1}}
    recipe = {name: made(name, **attention)[0].stages()[0].recipe for name in ("cyclegan", "pixel", "attent")}
    assert recipe["cyclegan"] == recipe["pixel"] == recipe["attent"]
    assert made("attent", **attention, cycle=9.0)[0].stages()[0].recipe != recipe["attent"]
    assert made("cyclegan")[0].stages()[0].recipe != recipe["cyclegan"]


def test_without_adaptation_is_as_good_as_supervised_where_both_domains_are_the_same(prepared, tmp_path):
    """The gap that adaptation closes is one between domains, and nothing else separates the two rows."""
    small = {"segment_steps": 120, "learning_rate": 5e-3, "segmentor": {**SMALL_SEGMENTOR, "encoder": "tu-test_resnet"}}
    dice = {}
    for name in ("source_only", "supervised"):
        data = {"source": str(prepared / "ct.h5"), "target": str(prepared / "ct.h5")}
        settings = run_settings({"alignment": {"name": name, "dice": 1.0, **small}, "data": data}, REGISTRY)
        scores = train(settings, tmp_path / name, REGISTRY, "cpu")
        dice[name] = sum(s.value for s in scores if s.metric == "dice") / 4
    assert min(dice.values()) > 0.8 and abs(dice["source_only"] - dice["supervised"]) < 0.1


def test_the_translation_step_is_the_same_in_every_method_that_shares_it():
    """Sharing a first stage relies on it: one step with the same translator moves all networks to the same bits."""
    attention = {"translator": {"name": "attention", "width": 4, "blocks": 1}}
    moved = {}
    for name in ("cyclegan", "pixel", "attent"):
        alignment, optimizers, update = made(name, **attention)
        train_only(alignment, optimizers, alignment.stages()[0])
        torch.manual_seed(0)
        for _ in range(2):
            alignment.translate(batch(), update)
        moved[name] = [p.clone() for n in ("G_st", "G_ts", "D_s", "D_t") for p in getattr(alignment, n).parameters()]
    for name in ("pixel", "attent"):
        assert all(torch.equal(a, b) for a, b in zip(moved["cyclegan"], moved[name], strict=True)), name


class NobodyWaits(TorchDispatchMode):
    """Refuses to hand a tensor's value to Python, which is where a step would wait for the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a step waits for the device"
        return function(*args, **(kwargs or {}))


def test_a_step_that_asked_would_be_noticed():
    with pytest.raises(AssertionError, match="waits"), NobodyWaits():
        bool(torch.ones(2).sum() > 1)


@pytest.mark.parametrize("name, more", [v for v in VARIANTS if "dice" not in v[1]])
def test_no_step_asks_a_tensor_for_its_value(name, more):
    """Dice and balanced cross-entropy are left out: PyTorch itself looks at the labels there, on a CPU alone."""
    plain = {"dice": 0.0, "cross_entropy": "plain"}
    alignment, optimizers, _ = made(name, **more, **plain)
    one = batch(labelled=name == "supervised")
    for stage in alignment.stages():
        train_only(alignment, optimizers, stage)
        with NobodyWaits():
            stage.step(one, lambda optimizer, loss, when=None: None)


def test_the_segmentor_of_every_method_starts_from_the_same_weights():
    first = {name: next(made(name)[0].S.parameters()) for name in ALIGNMENTS}
    assert all(torch.equal(weights, first["source_only"]) for weights in first.values())
    other = Builder(REGISTRY, TASK, 1)(made("source_only")[0].config.segmentor)
    assert not torch.equal(next(other.parameters()), first["source_only"])


@pytest.mark.parametrize("name", [n for n in ALIGNMENTS if n != "supervised"])
def test_the_segmentor_learns_from_source_images_as_the_method_says(name):
    alignment, _, _ = made(name)
    given, seen = batch(), []
    alignment.eval()
    with torch.no_grad():
        expected = alignment.as_seen(given.x_s)
        segmentor = getattr(alignment, segmentor_of(alignment))
        segmentor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        alignment.stages()[-1].step(given, lambda *args, **more: None)
    assert (expected is not given.x_s) == (name in ("cyclegan", "cycada", "synsegnet", "sifa"))
    assert any(torch.equal(x, expected) for x in seen)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_who_says_to_use_no_target_images_is_deaf_to_them(name):
    alignment, _, _ = made(name)
    nowhere = batch(labelled=name == "supervised")
    nowhere = nowhere._replace(x_t=torch.full_like(nowhere.x_t, math.nan))
    alignment.eval()
    losses = [stage.step(nowhere, lambda *args, **more: None) for stage in alignment.stages()]
    deaf = all(torch.isfinite(loss).all() for own in losses for loss in own.values())
    assert deaf == (not alignment.uses_target_images)
    assert alignment.uses_target_images == (name != "source_only")


@pytest.mark.parametrize("name, more", VARIANTS)
def test_a_discriminator_that_cannot_tell_has_the_loss_that_the_monitor_waits_for(name, more):
    """Every discriminator answers "perhaps": logit 0 by cross-entropy, 1/2 by least squares."""
    config = configure(REGISTRY.alignment(name), options(name, **more), REGISTRY)
    alignment = REGISTRY.alignment(name)(config, Builder(REGISTRY, TASK, seed=0), TASK)
    declared = alignment.discriminator_losses()
    perhaps = {"lsgan": 0.5, "bce": 0.0}
    critics = [child for child in alignment.children() if isinstance(child, Discriminator)]
    assert bool(critics) == bool(declared)
    found = {}
    for kind in set(declared.values()):
        for critic in critics:
            critic.register_forward_hook(lambda module, given, answer, perhaps=perhaps[kind]: answer * 0 + perhaps)
        for stage in alignment.stages():
            x, y = torch.rand(2, 1, 64, 64), torch.randint(3, (2, 64, 64))
            losses = stage.step(Batch(x, y, x, y), lambda optimizer, loss, when=None: None)
            found |= {n: loss.item() for n, loss in losses.items() if declared.get(n) == kind}
    assert found == pytest.approx({n: math.log(2) if kind == "bce" else 0.25 for n, kind in declared.items()})


def test_a_loss_that_no_step_returns_cannot_be_declared_a_discriminators():
    class Wrong(REGISTRY.alignment("source_only")):
        """Declares what it has not."""

        def discriminator_losses(self):
            return {"L_D": "bce"}

    with pytest.raises(AssertionError, match="discriminator_losses names L_D, which no step returns"):
        check_alignment(Wrong, {"segmentor": SMALL["segmentor"]})
