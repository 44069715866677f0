"""MIND, views and agreement in plain numbers, and the contract of an alignment."""

import pytest
import torch
from attentkit_recipes.dg_tta import DGTTA, affine_maps, agreement, mind, warped

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {
    "segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "segment_batch_size": 2,
    "test_steps": 2,
}


def built(**options):
    registry = load().registry
    config = configure(DGTTA, {**SMALL, **options}, registry)
    torch.manual_seed(0)
    return DGTTA(config, Builder(registry, Task(), 0), Task()).eval()


def picture():
    torch.manual_seed(3)
    coarse = torch.rand(2, 1, 8, 8)
    return torch.nn.functional.interpolate(coarse, (48, 48), mode="bilinear") * 2 - 1


@pytest.mark.parametrize("descriptor", [True, False])
def test_it_keeps_the_contract(descriptor):
    check_alignment(DGTTA, {**SMALL, "descriptor": descriptor})


def test_mind_is_the_same_of_other_grey_values_and_of_inverted_ones():
    x = picture()
    plain = mind(x, 2)
    assert plain.shape == (2, 4, 48, 48) and plain.min() > 0 and plain.max() == 1
    assert torch.equal(plain.amax(1), torch.ones(2, 48, 48))
    for other in (0.3 * x + 0.5, -x):
        assert torch.allclose(mind(other, 2), plain, atol=1e-3)
    assert (mind(picture().flip(-1), 2) - plain).abs().max() > 0.1


def test_mind_tells_a_horizontal_edge_from_a_vertical_one_and_is_1_on_air():
    x = torch.full((1, 1, 32, 32), -1.0)
    assert torch.equal(mind(x, 2), torch.ones(1, 4, 32, 32))
    x[..., 16:, :] = 1.0
    y = x.transpose(-1, -2)
    # Pairs (up, right), (right, down), (down, left), (left, up): mirrored about the diagonal, the first and third change places.
    assert torch.allclose(mind(y, 2), mind(x, 2).transpose(-1, -2)[:, [2, 1, 0, 3]], atol=1e-6)


def test_there_and_back_is_where_it_began():
    torch.manual_seed(0)
    there, back = affine_maps(2, 0.05, torch.device("cpu"))
    x = picture()
    again = warped(warped(x, there), back)
    seen = warped(warped(torch.ones_like(x), there), back) > 0.99
    assert seen.float().mean() > 0.6 and (again - x)[seen].abs().mean() < 0.02


def test_answers_that_agree_have_dice_1_and_others_0():
    certain = torch.eye(3)[torch.arange(3)].T.reshape(1, 3, 1, 3)
    one = torch.ones(1, 1, 1, 3)
    assert agreement(certain, certain, one).item() == pytest.approx(1)
    assert agreement(certain, certain.roll(1, dims=-1), one).item() == pytest.approx(0)


def test_views_agree_better_after_adaptation():
    volume = picture().repeat(2, 1, 1, 1)
    found = {}
    for steps in (0, 30):
        method = built(test_steps=steps, test_learning_rate=1e-3)
        method.adapt_to(volume)
        torch.manual_seed(9)
        with torch.no_grad():
            (p_1, m_1), (p_2, m_2) = method.through_a_view(volume), method.through_a_view(volume)
            found[steps] = agreement(p_1, p_2, m_1 * m_2).item()
    assert found[30] > found[0]


def test_no_pixel_of_the_target_is_looked_at_in_training():
    nothing = torch.full((2, 1, 32, 32), float("nan"))
    batch = Batch(torch.rand(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64), nothing)
    assert torch.isfinite(built().segment(batch, lambda name, loss, when=None: None)["L_seg"])
