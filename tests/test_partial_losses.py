"""Labels that leave out organs, in losses worked out by hand on four classes: background and three organs."""

import math

import pytest
import torch

from attent_kit.config import validate
from attent_kit.interfaces import Segmentation
from attent_kit.objectives import (
    IGNORE,
    balanced_cross_entropy,
    class_of,
    cross_entropy,
    cross_entropy_map,
    dice_loss,
    exclusion_loss,
    labels_where,
    may_be,
)
from attent_kit.options import SegmentOptions, labels_as_asked, supervised_loss
from attent_kit.plugins import load

P = ((0.4, 0.3, 0.2, 0.1), (0.1, 0.6, 0.2, 0.1), (0.25, 0.25, 0.25, 0.25), (0.7, 0.1, 0.1, 0.1))
"""Probabilities of four pixels."""
ORGAN_2_AND_3 = torch.tensor([[False, False, True, True]])
NONE = torch.zeros(1, 4, dtype=torch.bool)
WEIGHT = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64)


def logits():
    return torch.tensor(P, dtype=torch.float64).log().T[None, :, None].requires_grad_()


def labels(*classes):
    return torch.tensor(classes)[None, None]


def options(**given):
    return validate(SegmentOptions, given, load().registry)


PARTIAL = may_be(labels(0, 1, 0, IGNORE), ORGAN_2_AND_3)


def test_what_a_pixel_may_be_is_one_class_or_what_is_left_out_or_anything():
    assert PARTIAL[0, :, 0].T.tolist() == [
        [True, False, True, True], [False, True, False, False], [True, False, True, True], [True] * 4,
    ]  # fmt: skip
    assert class_of(PARTIAL).tolist() == [[[0, 1, 0, IGNORE]]]


def test_marginal_cross_entropy_is_of_the_sum_of_what_a_pixel_may_be():
    expected = -(math.log(0.4 + 0.2 + 0.1) + math.log(0.6) + math.log(0.75)) / 3
    assert cross_entropy(logits(), PARTIAL).item() == pytest.approx(expected)
    weighed = -(2 * math.log(0.7) + 3 * math.log(0.6) + 2 * math.log(0.75)) / 3
    assert cross_entropy(logits(), PARTIAL, WEIGHT).item() == pytest.approx(weighed)
    assert cross_entropy_map(logits(), PARTIAL)[0, 0].tolist() == pytest.approx(
        [-math.log(0.7), -math.log(0.6), -math.log(0.75), 0.0]
    )


def test_its_gradient_moves_nothing_between_the_classes_that_a_pixel_may_be():
    # d/dz_k of -log q is p_k - p_k / q for classes of the sum, and p_k for the others; the mean is over three pixels.
    z = logits()
    cross_entropy(z, PARTIAL).backward()
    found = z.grad[0, :, 0].T * 3
    for pixel, q in ((0, 0.7), (2, 0.75)):
        p = P[pixel]
        expected = [p[k] - (p[k] / q if k != 1 else 0) for k in range(4)]
        assert found[pixel].tolist() == pytest.approx(expected)
    assert found[1].tolist() == pytest.approx([0.1, -0.4, 0.2, 0.1])
    assert found[3].tolist() == [0, 0, 0, 0]


def test_labels_of_one_class_each_cost_the_same_in_both_forms():
    complete = labels(0, 1, 3, IGNORE)
    both = complete, may_be(complete, NONE)
    for loss in (cross_entropy, balanced_cross_entropy, dice_loss, lambda z, y: cross_entropy(z, y, WEIGHT)):
        one, other = loss(logits(), both[0]), loss(logits(), both[1])
        assert one.item() == pytest.approx(other.item())
    assert exclusion_loss(logits(), both[0]) == exclusion_loss(logits(), both[1]) == 0


def test_balanced_cross_entropy_weighs_what_may_be_an_organ_as_background():
    # two of three pixels are background or more, which weighs 1/3; the organ covers 1/3 and weighs 2/3
    expected = -(math.log(0.7) / 3 + 2 * math.log(0.6) / 3 + math.log(0.75) / 3) / 3
    assert balanced_cross_entropy(logits(), PARTIAL).item() == pytest.approx(expected)


def test_marginal_dice_adds_what_is_left_out_to_the_background():
    # background: q = 0.7, 0.4, 0.75 with g = 1, 0, 1; organ 1: p = 0.3, 0.6, 0.25 with g = 0, 1, 0; organs 2 and 3 do not count
    background = 2 * (0.7 + 0.75) / (0.7**2 + 0.4**2 + 0.75**2 + 2)
    organ = 2 * 0.6 / (0.3**2 + 0.6**2 + 0.25**2 + 1)
    expected = 1 - (background + organ + 1 + 1) / 4
    assert dice_loss(logits(), PARTIAL).item() == pytest.approx(expected, abs=1e-6)
    z = logits()
    dice_loss(z, PARTIAL).backward()
    torch.autograd.gradcheck(lambda z: dice_loss(z, PARTIAL), logits())
    assert z.grad[0, :, 0, 3].tolist() == [0, 0, 0, 0]


def test_a_complete_slice_beside_a_partial_one_counts_every_organ():
    z = torch.cat([logits(), logits()])
    whole = may_be(labels(2, 2, 0, 0), NONE)
    both = dice_loss(z, torch.cat([PARTIAL, whole]))
    second = 2 * (0.2 + 0.2) / (0.2**2 + 0.2**2 + 0.25**2 + 0.1**2 + 2)
    third = 0.0
    first = 2 * 0.6 / (0.3**2 + 0.6**2 + 0.25**2 + 1 + 0.3**2 + 0.6**2 + 0.25**2 + 0.1**2)
    squares = 0.7**2 + 0.4**2 + 0.75**2 + 0.4**2 + 0.1**2 + 0.25**2 + 0.7**2
    background = 2 * (0.7 + 0.75 + 0.25 + 0.7) / (squares + 2 + 2)
    assert both.item() == pytest.approx(1 - (background + first + second + third) / 4, abs=1e-6)


def test_exclusion_is_the_overlap_of_unknown_organs_with_labelled_ones():
    # organs 2 and 3 on three pixels that count; the labelled organ is on the second
    second = 2 * 0.2 / (0.2**2 + 0.2**2 + 0.25**2 + 1)
    third = 2 * 0.1 / (0.1**2 + 0.1**2 + 0.25**2 + 1)
    assert exclusion_loss(logits(), PARTIAL).item() == pytest.approx((second + third) / 2, abs=1e-6)
    torch.autograd.gradcheck(lambda z: exclusion_loss(z, PARTIAL), logits())
    beside_a_complete_slice = torch.cat([PARTIAL, may_be(labels(2, 2, 0, 0), NONE)])
    both = exclusion_loss(torch.cat([logits(), logits()]), beside_a_complete_slice)
    assert both.item() == pytest.approx((second + third) / 2, abs=1e-6)


def test_nothing_is_nan_where_nothing_is_known_or_all_is_background():
    for y in (may_be(labels(*[IGNORE] * 4), ORGAN_2_AND_3), may_be(labels(0, 0, 0, 0), ORGAN_2_AND_3)):
        for loss in (cross_entropy, balanced_cross_entropy, dice_loss, exclusion_loss):
            z = logits()
            value = loss(z, y)
            assert math.isfinite(value.item()), loss
            if value.requires_grad:
                value.backward()
                assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize(
    ("partial", "expected"),
    [
        ("marginal", -(math.log(0.7) + math.log(0.6) + math.log(0.75)) / 3),
        ("ignore", -math.log(0.6)),
        ("background", -(math.log(0.4) + math.log(0.6) + math.log(0.25)) / 3),
    ],
)
def test_the_option_says_what_the_background_of_a_partial_case_is(partial, expected):
    config = options(partial=partial, exclusion=0.0 if partial == "marginal" else 1.0)
    output = Segmentation(logits(), torch.zeros(1))
    assert supervised_loss(output, PARTIAL, config).item() == pytest.approx(expected)
    complete = labels(0, 1, 2, IGNORE)
    assert labels_as_asked(complete, config) is complete


def test_the_auxiliary_head_and_the_exclusion_are_weighed():
    config = options(exclusion=0.5, dice=2.0, auxiliary=0.1)
    output = Segmentation(logits(), torch.zeros(1), logits())
    one = cross_entropy(logits(), PARTIAL) + 2 * dice_loss(logits(), PARTIAL) + 0.5 * exclusion_loss(logits(), PARTIAL)
    assert supervised_loss(output, PARTIAL, config).item() == pytest.approx(1.1 * one.item())


def test_labels_are_mixed_in_either_form():
    mask = torch.tensor([[[True, True, False, False]]])
    other = labels(3, 3, 3, 0)
    assert labels_where(mask, labels(0, 1, 0, 0), other).tolist() == [[[0, 1, 3, 0]]]
    mixed = labels_where(mask, PARTIAL, other)
    assert torch.equal(mixed[..., :2], PARTIAL[..., :2]) and class_of(mixed).tolist() == [[[0, 1, 3, 0]]]
    assert mixed[0, :, 0, 2].tolist() == [False, False, False, True]
