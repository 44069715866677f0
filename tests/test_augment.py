"""Random affine maps: images and labels move together, and right stays right."""

import math

import pytest
import torch
from pydantic import ValidationError

from attent_kit.data.prepared.augment import Augmentation, random_affine, random_bend, warp
from attent_kit.objectives import IGNORE

NONE = Augmentation(rotation=0, scale=0, shift=0)
FAR = Augmentation(rotation=180, scale=0.5, shift=0.3)
"""More than anybody wants."""


def maps(batch=1, options=NONE, seed=0):
    return random_affine(batch, options, torch.Generator().manual_seed(seed))


def affine(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def square(row, column, size=32, side=6, label=1):
    """An image and its labels, 1 in a square with that upper left corner."""
    y = torch.zeros(1, size, size, dtype=torch.int64)
    y[:, row : row + side, column : column + side] = label
    return (y[:, None] > 0).float(), y


def centroid(weights):
    """(row, column) of a map [H, W], in pixels."""
    weights = weights.double()
    rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in weights.shape), indexing="ij")
    return [(rows * weights).sum() / weights.sum(), (columns * weights).sum() / weights.sum()]


def test_limits_of_0_change_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, 64, 64, generator=generator) * 2 - 1
    y = torch.randint(5, (3, 64, 64), generator=generator)
    assert torch.equal(maps(3), affine([1, 0, 0], [0, 1, 0]).expand(3, 2, 3))
    moved, labels = warp(x, y, maps(3))
    torch.testing.assert_close(moved, x, atol=1e-5, rtol=0)
    assert torch.equal(labels, y)


def test_types_and_shapes_are_kept():
    moved, labels = warp(torch.zeros(2, 3, 16, 24), torch.zeros(2, 16, 24, dtype=torch.int64), maps(2, FAR))
    assert (moved.shape, moved.dtype) == ((2, 3, 16, 24), torch.float32)
    assert (labels.shape, labels.dtype) == ((2, 16, 24), torch.int64)


def test_an_image_without_labels_moves_just_so():
    x, y = square(5, 9)
    alone, none = warp(x, None, maps(1, FAR))
    assert none is None
    assert torch.equal(alone, warp(x, y, maps(1, FAR))[0])


def test_a_landmark_is_shifted_by_whole_pixels():
    # 32 pixels are 2 in the coordinates of the map: 3 pixels right and 5 down are read from 3 left and 5 up.
    x, y = square(10, 10, side=1)
    moved, labels = warp(x, y, affine([1, 0, -3 / 16], [0, 1, -5 / 16]))
    assert labels.nonzero().tolist() == [[0, 15, 13]]
    assert moved[0, 0].argmax() == 15 * 32 + 13
    assert moved[0, 0, 15, 13].item() == pytest.approx(1, abs=1e-4)


def test_a_quarter_turn_brings_the_top_to_the_side():
    # Out (column, row) = (c, r) about the centre is read from (-r, c): the top centre goes to the right centre.
    x, y = square(2, 13)
    moved, labels = warp(x, y, affine([0, 1, 0], [-1, 0, 0]))
    row, column = (float(v) for v in centroid(labels[0]))
    assert (row, column) == (pytest.approx(15.5), pytest.approx(31 - 4.5))
    torch.testing.assert_close(moved[0, 0], x[0, 0].rot90(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_labels_move_with_their_image(seed):
    x, y = square(8, 18, size=64, side=14, label=3)
    moved, labels = warp(x, y, maps(1, Augmentation(rotation=30, scale=0.2, shift=0.1), seed))
    assert set(labels.unique().tolist()) == {0, 3}
    by_image, by_labels = centroid(moved[0, 0]), centroid(labels[0])
    assert math.dist(by_image, by_labels) < 0.5
    assert math.dist(by_labels, centroid(y[0])) > 1
    # Nearest and linear interpolation differ along the edge only.
    assert ((moved[0, 0] > 0.5) == (labels[0] == 3)).float().mean() > 0.99


def test_labels_are_never_mixed():
    y = torch.zeros(1, 32, 32, dtype=torch.int64)
    y[:, :, 8:] = 4
    y[:, :, 24:] = IGNORE
    _, labels = warp(torch.zeros(1, 1, 32, 32), y, maps(1, FAR))
    assert set(labels.unique().tolist()) <= {0, 4, IGNORE}


def test_outside_lies_the_edge_of_the_slice():
    x = torch.full((1, 1, 16, 16), -1.0)
    torch.testing.assert_close(warp(x, None, maps(1, FAR))[0], x, atol=1e-6, rtol=0)


def test_right_stays_right():
    # A reflection has a negative determinant, and no rotation and no scale make up for it.
    assert torch.linalg.det(maps(2000, FAR)[:, :, :2].double()).min() > 0
    assert torch.linalg.det(maps(2000, Augmentation())[:, :, :2].double()).min() > 0.8


def test_three_landmarks_keep_their_turning_sense():
    # Kidney right, kidney left, spine below: seen counter-clockwise they stay so.
    y = torch.zeros(1, 64, 64, dtype=torch.int64)
    for label, (row, column) in {1: (24, 20), 2: (24, 40), 3: (44, 30)}.items():
        y[:, row - 3 : row + 4, column - 3 : column + 4] = label

    def turn(labels):
        a, b, c = (centroid(labels == n) for n in (1, 2, 3))
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    batch = y.expand(50, -1, -1)
    _, moved = warp(batch[:, None].float(), batch, maps(50, Augmentation(rotation=180, scale=0.3, shift=0.05)))
    assert turn(y[0]) < 0
    assert all(turn(labels) < 0 for labels in moved)


def test_maps_stay_within_their_limits_and_reach_them():
    found = maps(4000, Augmentation(rotation=10, scale=0.1, shift=0.05)).double()
    angle = torch.atan2(-found[:, 0, 1], found[:, 0, 0]).rad2deg()
    scale = found[:, :, :2].norm(dim=2)
    shift = found[:, :, 2]
    assert 9.9 < angle.abs().max() <= 10.0001
    assert 0.9 <= scale.min() + 1e-6 < 0.901 and 1.099 < scale.max() <= 1.1 + 1e-6
    # A twentieth of the field of view is a tenth in coordinates that go from -1 to 1.
    assert 0.099 < shift.abs().max() <= 0.1 + 1e-6


def test_maps_are_drawn_from_the_given_generator_alone():
    torch.manual_seed(1)
    first = maps(3, FAR, seed=5)
    torch.manual_seed(2)
    assert torch.equal(maps(3, FAR, seed=5), first)
    assert not torch.equal(maps(3, FAR, seed=6), first)


def bends(batch=1, elastic=0.03, seed=0):
    return random_bend(batch, Augmentation(elastic=elastic), torch.Generator().manual_seed(seed))


def test_without_elastic_nothing_bends_and_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert random_bend(3, Augmentation(), generator) is None
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("seed", range(3))
def test_labels_bend_with_their_image(seed):
    x, y = square(20, 24, size=64, side=20, label=3)
    moved, labels = warp(x, y, maps(1), bends(seed=seed))
    assert set(labels.unique().tolist()) == {0, 3}
    assert ((moved[0, 0] > 0.5) == (labels[0] == 3)).float().mean() > 0.99
    assert (labels != y).any()


def test_a_bend_is_smooth_and_as_large_as_was_asked_for():
    found = bends(4000, elastic=0.03)
    # A part from 0 to 1 of 0.03 fields of view, which are 2 in coordinates: the mean square is a third of it.
    assert found.square().mean().sqrt().item() == pytest.approx(0.06 / 3**0.5, rel=0.05)
    x = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    moved, _ = warp(x.expand(50, -1, -1, -1), None, maps(50), bends(50))
    assert moved.diff(dim=-1).abs().max() < 0.15


@pytest.mark.parametrize(
    "option",
    [
        {"elastic": 0.06},
        {"elastic": -0.01},
        {"rotation": -1},
        {"rotation": 181},
        {"scale": 1},
        {"shift": 1},
        {"flip": True},
    ],
)
def test_what_would_lose_or_mirror_the_slice_is_refused(option):
    with pytest.raises(ValidationError):
        Augmentation(**option)
