"""Class mixing, masking, jitter and random networks in plain numbers."""

import torch

from attent_kit.mixing import blocks, half_of_the_classes, jittered, mixing_map, painted


def test_half_of_the_classes_that_are_there_is_pasted_whole():
    torch.manual_seed(0)
    labels = torch.tensor([[[0, 0, 2], [4, 4, 2]], [[1, 1, 1], [1, 1, 1]]])
    seen = set()
    for _ in range(40):
        paste = half_of_the_classes(labels, 5)
        chosen = {int(value) for value in labels[0][paste[0]]}
        assert len(chosen) == 2 and torch.equal(paste[0], torch.isin(labels[0], torch.tensor(sorted(chosen))))
        assert paste[1].all()
        seen.add(tuple(sorted(chosen)))
    assert seen == {(0, 2), (0, 4), (2, 4)}


def test_pixels_without_a_label_are_never_pasted():
    labels = torch.tensor([[[255, 1], [255, 1]]])
    assert half_of_the_classes(labels, 5).tolist() == [[[False, True], [False, True]]]


def test_blocks_are_blanked_whole_and_to_their_share():
    torch.manual_seed(0)
    mask = blocks(torch.zeros(20, 1, 70, 40), 10, 0.7)
    assert mask.shape == (20, 1, 70, 40) and abs(mask.float().mean() - 0.7) < 0.05
    tiles = mask.unfold(2, 10, 10).unfold(3, 10, 10).flatten(-2)
    assert (tiles.all(-1) | ~tiles.any(-1)).all()
    assert not blocks(torch.zeros(1, 1, 9, 9), 4, 0.0).any() and blocks(torch.zeros(1, 1, 9, 9), 4, 1.0).all()


def test_jitter_of_0_changes_nothing_and_every_slice_has_its_own():
    x = torch.rand(4, 1, 8, 8) - 0.5
    assert torch.equal(jittered(x, 0.0), x)
    torch.manual_seed(0)
    y = jittered(x, 0.2)
    assert len({round(float(v), 4) for v in (y - x).mean((1, 2, 3))}) == 4 and (y - x).abs().max() <= 0.31


def test_a_painted_slice_has_its_own_norm_and_a_network_of_its_own():
    torch.manual_seed(0)
    x = torch.rand(1, 2, 24, 24).repeat(3, 1, 1, 1) * 2 - 1
    y = painted(x, 4, 2)
    assert y.shape == x.shape and torch.allclose(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-4)
    assert not torch.allclose(y[0], y[1], atol=1e-2) and not torch.allclose(y[0], x[0], atol=1e-2)


def test_pixels_of_one_grey_value_inside_a_region_stay_of_one_grey_value():
    """Four layers three wide reach four pixels: further inside a region nothing of its border is seen."""
    torch.manual_seed(1)
    x = torch.full((4, 1, 32, 32), -1.0)
    x[:, :, 8:24, 8:24] = 0.5
    y = painted(x, 4, 2)
    assert y[:, :, 12:20, 12:20].flatten(1).std(1).max() < 1e-4


def test_a_mixing_map_is_smooth_and_lies_between_0_and_1():
    torch.manual_seed(0)
    m = mixing_map(torch.zeros(8, 1, 64, 64), 4)
    assert m.shape == (8, 1, 64, 64) and m.min() >= 0 and m.max() <= 1 and m.std() > 0.1
    assert m.diff(dim=-1).abs().max() < 0.2
