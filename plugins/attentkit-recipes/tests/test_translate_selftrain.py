"""Filter and ramp in plain numbers, and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_recipes.translate_selftrain import TranslateSelfTraining

from attent_kit.build import Builder, configure
from attent_kit.interfaces import IGNORE, Batch, Segmentation, Task
from attent_kit.plugins import load
from attent_kit.teacher import rise
from attent_kit.testing import check_alignment

SMALL = {
    "segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "segment_batch_size": 2,
    "translator": {"width": 8, "blocks": 1},
    "image_discriminator": {"width": 8},
}


def built(**options):
    registry = load().registry
    config = configure(TranslateSelfTraining, {**SMALL, **options}, registry)
    return TranslateSelfTraining(config, Builder(registry, Task(), 0), Task())


def segmented(method):
    """Losses of one step in eval mode, nothing updated; and what was to be updated."""
    torch.manual_seed(0)
    batch = Batch(torch.rand(2, 1, 32, 32), torch.ones(2, 32, 32, dtype=torch.int64), torch.rand(2, 1, 32, 32))
    method.eval()
    wanted = []
    losses = method.segment(batch, lambda name, loss, when=None: wanted.append((name, loss)))
    ((name, loss),) = wanted
    assert name == "S"
    return losses, loss


@pytest.mark.parametrize("options", [{}, {"painted": 4, "contrast": 1.0}])
def test_it_keeps_the_contract(options):
    check_alignment(TranslateSelfTraining, {**SMALL, **options})


def test_the_teacher_labels_what_it_is_certain_about_and_nothing_else():
    method = built(certain=0.5, jitter=0.0)
    logits = torch.zeros(1, 5, 1, 3)
    logits[0, 3, 0, 0] = 20.0  # certain: 3
    logits[0, 1, 0, 1] = 1.0  # entropy .95 of log 5: not certain
    method.T.forward = lambda x: Segmentation(logits, x)
    assert method.label(torch.zeros(1, 1, 1, 3)).tolist() == [[[3, IGNORE, IGNORE]]]


def test_nothing_is_learnt_from_a_teacher_that_is_never_certain():
    losses, _ = segmented(built(certain=0.0))
    assert losses["L_msk"] == 0 and losses["certain"] == 0 and losses["L_mix"] > 0


def test_the_ramp_begins_at_exp_minus_5_and_ends_at_1():
    assert rise(torch.tensor(0.0)).item() == pytest.approx(math.exp(-5))
    assert rise(torch.tensor([1.0, 7.0])).tolist() == [1.0, 1.0]
    method = built(segment_steps=10, ramp=0.5)
    losses, loss = segmented(method)  # `step` is 1 of 5 after the teacher has followed
    r = math.exp(-5 * 0.8**2)
    assert loss.item() == pytest.approx((losses["L_seg"] + r * (losses["L_mix"] + losses["L_msk"])).item(), rel=1e-5)


def test_without_translation_there_is_one_stage_and_no_translator():
    method = built(translated=False)
    assert [stage.name for stage in method.stages()] == ["segment"] and not hasattr(method, "G_st")
    x = torch.rand(1, 1, 32, 32)
    assert method.as_source(x) is None and torch.equal(method.as_seen(x), x) and method.discriminator_losses() == {}


def test_its_first_stage_is_that_of_cyclegan():
    registry = load().registry
    cyclegan = registry.alignment("cyclegan")
    theirs = cyclegan(configure(cyclegan, SMALL, registry), Builder(registry, Task(), 0), Task())
    mine = built()
    assert mine.stages()[0].recipe == theirs.stages()[0].recipe
    batch = Batch(torch.rand(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64), torch.rand(2, 1, 32, 32))
    for method in (mine, theirs):
        method.eval()
    asked = [
        {name: loss.item() for name, loss in method.translate(batch, lambda *given, when=None: None).items()}
        for method in (mine, theirs)
    ]
    assert asked[0] == asked[1]
