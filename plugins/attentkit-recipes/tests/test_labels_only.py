"""Tissues, grey values and the absence of every image, and the contract of an alignment."""

import torch
from attentkit_recipes.labels_only import LabelsOnly, blurred, tissues

from attent_kit.build import Builder, configure
from attent_kit.interfaces import IGNORE, Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}


def built(task=None, **options):
    registry, task = load().registry, task or Task()
    return LabelsOnly(configure(LabelsOnly, {**SMALL, **options}, registry), Builder(registry, task, 0), task)


def a_map():
    y = torch.zeros(3, 64, 64, dtype=torch.int64)
    y[:, 20:30, 20:30], y[:, 36:44, 36:44], y[:, :8, :8] = 1, 4, IGNORE
    return y


def test_it_keeps_the_contract():
    check_alignment(LabelsOnly, SMALL)


def test_organs_keep_their_places_and_the_rest_is_air_and_made_up_regions():
    torch.manual_seed(0)
    y = a_map()
    z = tissues(y, 4, 6, 8)
    for organ in (1, 4):
        assert torch.equal(z == organ, y == organ)
    assert set(z.unique().tolist()) <= {0, 1, 4, *range(5, 11)}
    assert len(z.unique()) > 6 and not torch.equal(z[0], z[1])
    assert (z[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all(), "corners are air"


def test_a_tissue_has_one_grey_value_where_there_is_neither_texture_nor_blur_nor_bias():
    torch.manual_seed(0)
    method = built(texture=[0.0, 0.0], blur=0.0, bias=0.0, gamma=0.0)
    y = a_map()
    x = method.paint(y)
    inside = x[:, 0][(y == 1)].view(3, -1)
    assert inside.std(1).max() < 1e-3 and len({round(v, 3) for v in inside[:, 0].tolist()}) == 3
    low, high = 2 * 0.1 - 1, 2 * 0.88 - 1
    assert low <= inside.min() + 1e-5 and inside.max() <= high + 1e-5
    assert (x[:, 0, 0, -1] == -1).all()


def test_paintings_lie_in_range_have_all_channels_and_differ_in_contrast():
    torch.manual_seed(0)
    method = built(Task(channels=3))
    y = a_map()
    x = method.paint(y)
    assert x.shape == (3, 3, 64, 64) and x.min() >= -1 and x.max() <= 1 and torch.isfinite(x).all()
    liver, spleen = (torch.stack([x[b][:, y[b] == k].mean() for b in range(3)]) for k in (1, 4))
    signs = set()
    for _ in range(10):
        x = method.paint(y)
        signs |= {bool(x[b][:, y[b] == 1].mean() > x[b][:, y[b] == 4].mean()) for b in range(3)}
    assert signs == {True, False} and not torch.allclose(liver, spleen)


def test_blur_keeps_the_mean_and_flattens_noise_more_the_wider_it_is():
    torch.manual_seed(0)
    x = torch.rand(2, 2, 32, 32)
    assert torch.allclose(blurred(x, 0.0), x, atol=1e-5)
    y = blurred(x, 3.0)
    assert torch.allclose(y.mean((2, 3)), x.mean((2, 3)), atol=0.03) and (y.std((2, 3)) < x.std((2, 3))).all()


def test_no_image_is_looked_at():
    method = built()
    nothing = torch.full((2, 1, 32, 32), float("nan"))
    batch = Batch(nothing, torch.ones(2, 32, 32, dtype=torch.int64), nothing)
    losses = method.segment(batch, lambda name, loss, when=None: None)
    assert torch.isfinite(losses["L_seg"]) and method.as_seen(nothing) is None
