"""Class mixing, masking and jitter in plain numbers."""

import torch

from attent_kit.mixing import blocks, half_of_the_classes, jittered


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
