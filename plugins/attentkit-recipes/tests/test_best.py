"""Both styles in plain numbers, and the contract of an alignment."""

import math

import pytest
import torch
from attentkit_recipes.best import BothStyles, halves

from attent_kit.build import Builder, configure
from attent_kit.interfaces import IGNORE, Batch, Segmentation, Task
from attent_kit.objectives import certain_labels
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {
    "segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "segment_batch_size": 2,
    "translator": {"width": 8, "blocks": 1},
    "image_discriminator": {"width": 8},
}


def built(**options):
    registry = load().registry
    config = configure(BothStyles, {**SMALL, **options}, registry)
    return BothStyles(config, Builder(registry, Task(), 0), Task())


def marked(method):
    """`method` with translators that can be told: G_st adds 10 to a slice, G_ts takes 100 away."""
    method.G_st.forward = lambda x: x + 10
    method.G_ts.forward = lambda x: x - 100
    return method


def segmented(method, x_s=None, x_t=None):
    """Losses of one step, the loss that was to be minimised, and the batch that S saw."""
    torch.manual_seed(0)
    x_s = torch.rand(2, 1, 32, 32) if x_s is None else x_s
    x_t = torch.rand(2, 1, 32, 32) if x_t is None else x_t
    batch = Batch(x_s, torch.ones(len(x_s), 32, 32, dtype=torch.int64), x_t)
    method.eval()
    seen, wanted = [], []
    method.S.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    losses = method.segment(batch, lambda name, loss, when=None: wanted.append((name, loss)))
    (((name, loss),), (x,)) = wanted, seen
    assert name == "S"
    return losses, loss, x


@pytest.mark.parametrize("options", [{}, {"source_style": 0.0, "consistency": 0.0}, {"contrast": 1.0}])
def test_it_keeps_the_contract(options):
    check_alignment(BothStyles, {**SMALL, **options})


def test_a_coin_for_each_slice_decides_its_style():
    method = marked(built(jitter=0.0))
    *_, x = segmented(method, torch.zeros(64, 1, 32, 32), torch.zeros(64, 1, 32, 32))
    # Of the source as it is or in target style, of the target in source style; `jittered` cuts at -1 and 1.
    source, target = x[:64, 0, 0, 0].tolist(), x[64:, 0, 0, 0].tolist()
    assert set(source) == {0.0, 1.0} and set(target) == {0.0, -1.0}
    assert 16 < source.count(0.0) < 48 and 16 < target.count(0.0) < 48
    *_, x = segmented(marked(built(jitter=0.0, source_style=0.0)), torch.zeros(4, 1, 32, 32), torch.zeros(4, 1, 32, 32))
    assert x[:, 0, 0, 0].tolist() == [1.0] * 4 + [0.0] * 4  # target style alone


def test_the_answer_is_the_mean_of_both_styles():
    method = marked(built())
    as_it_is, as_source = torch.randn(1, 5, 2, 2), torch.randn(1, 5, 2, 2)
    method.T.forward = lambda x: Segmentation(as_source if x.mean() < -50 else as_it_is, x)
    expected = (as_it_is.softmax(1) + as_source.softmax(1)) / 2
    x_t = torch.zeros(1, 1, 2, 2)
    torch.testing.assert_close(method.predict(x_t).softmax(1), expected)
    only = marked(built(source_style=0.0))
    only.T.forward = method.T.forward
    torch.testing.assert_close(only.predict(x_t).softmax(1), as_it_is.softmax(1))


def test_styles_that_disagree_are_not_certain():
    method = built()
    one, other = torch.zeros(1, 5, 1, 2), torch.zeros(1, 5, 1, 2)
    one[0, 3], other[0, 3] = 20.0, 20.0
    other[0, 3, 0, 1], other[0, 1, 0, 1] = (
        0.0,
        20.0,
    )  # the second pixel: 3 in one style, 1 in the other; entropy .43 of log 5
    method.T.forward = lambda x: Segmentation(one if x.mean() == 0 else other, x)
    p_t = method.p(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert certain_labels(p_t, 0.3).tolist() == [[[3, IGNORE]]]


def test_the_weight_of_the_target_grows_over_the_whole_stage():
    method = built(segment_steps=10, certain=1.0)
    for step in (1, 2):
        losses, loss, _ = segmented(method)
        r = math.exp(-5 * (1 - step / 10) ** 2)
        assert loss.item() == pytest.approx((losses["L_seg"] + r * losses["L_con"]).item(), rel=1e-5)
    assert losses["certain"] == 1 and losses["L_con"] > 0


def test_halves_of_an_answer():
    logits, features = torch.arange(4.0).view(4, 1, 1, 1), torch.arange(4.0).view(4, 1, 1, 1) + 10
    first, second = halves(Segmentation(logits, features))
    assert first.logits.flatten().tolist() == [0, 1] and second.features.flatten().tolist() == [12, 13]
    assert first.auxiliary is None
    _, second = halves(Segmentation(logits, features, features + 10))
    assert second.auxiliary.flatten().tolist() == [22, 23]


def test_its_first_stage_is_that_of_attent():
    registry = load().registry
    attent = registry.alignment("attent")
    theirs = attent(configure(attent, SMALL, registry), Builder(registry, Task(), 0), Task())
    assert built().stages()[0].recipe == theirs.stages()[0].recipe
