"""Losses and maps by hand, mostly on two pixels of two classes: p = (3/4, 1/4) and p = (1/2, 1/2)."""

import math

import pytest
import torch

from attent_kit.objectives import (
    IGNORE,
    balanced_cross_entropy,
    cross_entropy,
    dice_loss,
    entropy_map,
    fake,
    l1,
    real,
    self_information,
)


def pixels(*probabilities, dtype=torch.float64):
    """Logits [1, K, 1, W] whose softmax are these probabilities of each pixel."""
    return torch.tensor(probabilities, dtype=dtype).log().T[None, :, None]


def labels(*classes):
    return torch.tensor(classes)[None, None]


def at(x):
    """The values of class k at pixel w as a nested list [k][w]."""
    return x[0, :, 0].tolist()


TWO = pixels((3 / 4, 1 / 4), (1 / 2, 1 / 2))


# Segmentation


def test_cross_entropy_is_the_mean_of_minus_log_p():
    assert cross_entropy(TWO, labels(0, 1)).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert cross_entropy(TWO, labels(1, 0)).item() == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_dice_squares_the_probabilities_below():
    # class 0: 2 * 3/4 / (9/16 + 1/4 + 1) = 24/29; class 1: 2 * 1/2 / (1/16 + 1/4 + 1) = 16/21
    assert dice_loss(TWO, labels(0, 1)).item() == pytest.approx(1 - (24 / 29 + 16 / 21) / 2, abs=1e-6)


def test_dice_is_summed_over_the_batch_before_it_is_divided():
    apart = torch.cat([TWO[..., :1], TWO[..., 1:]])
    both = dice_loss(apart, torch.tensor([[[0]], [[1]]]))
    torch.testing.assert_close(both, dice_loss(TWO, labels(0, 1)))


def test_dice_is_0_for_the_truth_and_1_for_its_opposite():
    sure = pixels((1 - 1e-12, 1e-12), (1e-12, 1 - 1e-12))
    assert dice_loss(sure, labels(0, 1)).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(sure, labels(1, 0)).item() == pytest.approx(1, abs=1e-6)


def test_a_class_that_is_neither_there_nor_predicted_costs_no_dice():
    sure = pixels((1 - 2e-12, 1e-12, 1e-12), (1e-12, 1 - 2e-12, 1e-12))
    assert dice_loss(sure, labels(0, 1)).item() == pytest.approx(0, abs=1e-6)


def test_a_weight_of_a_class_weighs_its_pixels_and_the_mean_is_over_all_pixels():
    weight = torch.tensor([3.0, 0.0], dtype=torch.float64)
    assert cross_entropy(TWO, labels(0, 1), weight).item() == pytest.approx(3 * math.log(4 / 3) / 2)


def test_balanced_cross_entropy_weighs_a_class_by_the_part_of_the_batch_that_it_does_not_cover():
    # three pixels of class 0 weigh 1/4 each, the one of class 1 weighs 3/4
    four = pixels((3 / 4, 1 / 4), (3 / 4, 1 / 4), (1 / 2, 1 / 2), (1 / 2, 1 / 2))
    expected = (2 * math.log(4 / 3) / 4 + math.log(2) / 4 + 3 * math.log(2) / 4) / 4
    assert balanced_cross_entropy(four, labels(0, 0, 0, 1)).item() == pytest.approx(expected)
    assert balanced_cross_entropy(four, labels(0, 0, 0, 0)).item() == 0


def test_balanced_cross_entropy_takes_no_probability_for_less_than_a_two_hundredth():
    sure = pixels((1 - 1e-9, 1e-9), (1 / 2, 1 / 2)).requires_grad_()
    value = balanced_cross_entropy(sure, labels(1, 0))
    assert value.item() == pytest.approx((math.log(200) / 2 + math.log(2) / 2) / 2)
    (gradient,) = torch.autograd.grad(value, sure)
    assert gradient[..., 0].count_nonzero() == 0


@pytest.mark.parametrize("loss", [cross_entropy, balanced_cross_entropy, dice_loss])
def test_an_ignored_pixel_counts_nowhere(loss):
    three = pixels((3 / 4, 1 / 4), (1 / 8, 7 / 8), (1 / 2, 1 / 2)).requires_grad_()
    value = loss(three, labels(0, IGNORE, 1))
    torch.testing.assert_close(value, loss(TWO, labels(0, 1)), check_dtype=False)
    (gradient,) = torch.autograd.grad(value, three)
    assert gradient[..., 1].count_nonzero() == 0
    assert gradient[..., 0].count_nonzero() == 2


@pytest.mark.parametrize("loss", [cross_entropy, balanced_cross_entropy, dice_loss])
def test_labels_that_are_all_ignored_teach_nothing(loss):
    logits = TWO.clone().requires_grad_()
    value = loss(logits, labels(IGNORE, IGNORE))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert gradient.count_nonzero() == 0


def test_l1_is_the_mean_absolute_difference():
    assert l1(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.0])).item() == 2


# Adversaries: real and source are 1, fake and target 0


def test_least_squares_pull_real_to_1_and_fake_to_0():
    d = torch.tensor([3.0, -1.0])
    assert real(d, "lsgan").item() == 4  # (2^2 + 2^2) / 2
    assert fake(d, "lsgan").item() == 5  # (3^2 + 1^2) / 2
    assert real(torch.ones(3), "lsgan").item() == fake(torch.zeros(3), "lsgan").item() == 0


def test_cross_entropy_of_a_logit_of_log_3_which_is_three_quarters_sure():
    d = torch.tensor([math.log(3)])
    assert real(d, "bce").item() == pytest.approx(math.log(4 / 3))
    assert fake(d, "bce").item() == pytest.approx(math.log(4))
    assert real(d).item() == real(d, "bce").item()


def test_both_domains_cost_the_same_if_their_names_are_swapped():
    d = torch.tensor([0.3, -2.0, 5.0])
    torch.testing.assert_close(real(d, "bce"), fake(-d, "bce"))
    torch.testing.assert_close(real(d, "lsgan"), fake(1 - d, "lsgan"))


# Entropy


def test_self_information_of_three_quarters_and_one_quarter():
    # in bits: -3/4 log2 3/4 = 2 * 3/4 - 3/4 log2 3, and -1/4 log2 1/4 = 1/2
    big = 1.5 - 0.75 * math.log2(3)
    assert at(self_information(TWO))[0] == pytest.approx([big, 0.5])
    assert at(self_information(TWO))[1] == pytest.approx([0.5, 0.5])


def test_the_entropy_map_is_self_information_summed_over_classes():
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    assert entropy_map(logits).shape == (2, 1, 3, 4)
    torch.testing.assert_close(entropy_map(logits)[:, 0], self_information(logits).sum(dim=1))
    assert at(entropy_map(TWO))[0] == pytest.approx([2 - 0.75 * math.log2(3), 1])


@pytest.mark.parametrize("classes", [2, 3, 5, 14])
def test_entropy_is_0_for_one_hot_and_1_for_uniform(classes):
    one_hot = torch.zeros(1, classes, 1, 1)
    one_hot[:, 1] = 1000
    assert entropy_map(one_hot).item() == 0
    assert entropy_map(torch.full((1, classes, 1, 1), -7.0)).item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.01, 1, 30])
def test_entropy_lies_between_0_and_1(scale):
    logits = scale * torch.randn(4, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    assert entropy_map(logits).min() >= 0
    assert entropy_map(logits).max() <= 1 + 1e-6


@pytest.mark.parametrize("classes", [3, 5])
def test_self_information_peaks_where_p_is_1_over_e(classes):
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    rest = ((1 - p) / (classes - 1)).expand(classes - 1, -1)
    found = self_information(torch.stack([p, *rest]).log()[None, :, None])[0, 0, 0]
    assert p[found.argmax()].item() == pytest.approx(1 / math.e, abs=0.0005)
    assert found.max().item() == pytest.approx(1 / (math.e * math.log(classes)), abs=1e-6)


def test_five_classes_leave_self_information_below_0_229():
    p = [1 / math.e] + [(1 - 1 / math.e) / 4] * 4
    assert at(self_information(pixels(p)))[0][0] == pytest.approx(0.2286, abs=5e-5)


def test_renaming_the_classes_renames_self_information_and_leaves_entropy():
    logits = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    order = [2, 0, 3, 1]
    torch.testing.assert_close(self_information(logits[:, order]), self_information(logits)[:, order])
    torch.testing.assert_close(entropy_map(logits[:, order]), entropy_map(logits))


# Numbers at the edge

OF_LOGITS = {
    "cross_entropy": lambda x: cross_entropy(x, labels(0, 1, 2)),
    "balanced_cross_entropy": lambda x: balanced_cross_entropy(x, labels(0, 1, 2)),
    "dice_loss": lambda x: dice_loss(x, labels(0, 1, 2)),
    "self_information": lambda x: self_information(x).square().sum(),
    "entropy_map": lambda x: entropy_map(x).mean(),
    "real bce": lambda x: real(x, "bce"),
    "fake bce": lambda x: fake(x, "bce"),
    "real lsgan": lambda x: real(x, "lsgan"),
    "fake lsgan": lambda x: fake(x, "lsgan"),
}


@pytest.mark.parametrize("name", OF_LOGITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_gradients_stay_finite_at_extreme_logits(name, dtype, size):
    logits = torch.tensor([[size, -size, 0], [0, size, 0], [-size, 0, size]], dtype=dtype).T[None, :, None]
    logits.requires_grad_()
    value = OF_LOGITS[name](logits)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", OF_LOGITS)
def test_bfloat16_gives_the_same_loss_to_two_digits(name):
    logits = torch.randn(1, 3, 1, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = OF_LOGITS[name](logits.double()).item()
    assert OF_LOGITS[name](logits).item() == pytest.approx(expected, rel=0.02)
