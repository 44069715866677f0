"""Claims about the critics: counts, receptive fields, map sizes."""

import pytest
import torch
from torch import nn

from attent_kit.errors import ConfigError
from attentkit_builtin.discriminators.fcn import FCNDiscriminator
from attentkit_builtin.discriminators.patch import PatchDiscriminator
from attentkit_builtin.discriminators.pixel import PixelDiscriminator

EVERY = (PatchDiscriminator, FCNDiscriminator, PixelDiscriminator)


def build(discriminator: type, channels: int = 1, heads: int = 1, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return discriminator(discriminator.Config(**options), channels, heads)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def receptive_field(network: nn.Module, size: int) -> int:
    """Rows of the input that the middle logit depends on."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, nn.GroupNorm):
            module.forward = nn.Identity().forward  # its statistics see the whole image
    x = torch.ones(1, 1, size, size, dtype=torch.double, requires_grad=True)
    logits = network.double()(x)
    middle = logits.shape[2] // 2
    logits[0, 0, middle, middle].backward()
    rows, columns = x.grad[0, 0].nonzero().T
    assert rows.max() - rows.min() == columns.max() - columns.min()
    return int(rows.max() - rows.min() + 1)


@pytest.mark.parametrize("discriminator", EVERY)
def test_a_discriminator_answers_one_map_a_head_for_any_batch_size_and_channels(discriminator: type) -> None:
    for batch, channels, heads, height, width in ((1, 1, 1, 32, 32), (2, 3, 2, 45, 71), (2, 8, 1, 33, 40)):
        network = build(discriminator, channels, heads)
        logits = network(torch.randn(batch, channels, height, width))
        assert logits.shape[:2] == (batch, heads)
        logits.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("discriminator", EVERY)
def test_a_discriminator_is_finite_in_bfloat16(discriminator: type) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert build(discriminator)(torch.randn(2, 1, 64, 48)).isfinite().all()


@pytest.mark.parametrize(("channels", "total"), [(1, 2_762_689), (3, 2_764_737)])
def test_patchgan_has_2_76_million_parameters(channels: int, total: int) -> None:
    by_hand = (
        (16 * channels * 64 + 64)
        + (16 * 64 * 128 + 128)
        + (16 * 128 * 256 + 256)
        + (16 * 256 * 512 + 512)
        + (16 * 512 * 1 + 1)
    )
    assert count(build(PatchDiscriminator, channels)) == by_hand == total


def test_the_fcn_critic_of_five_classes_has_2_77_million_parameters() -> None:
    by_hand = (
        (16 * 5 * 64 + 64) + (16 * 64 * 128 + 128) + (16 * 128 * 256 + 256) + (16 * 256 * 512 + 512) + (16 * 512 + 1)
    )
    assert count(build(FCNDiscriminator, 5)) == by_hand == 2_766_785


def test_the_pixel_critic_of_five_channels_is_three_matrices() -> None:
    by_hand = (5 * 512 + 512) + (512 * 256 + 256) + (256 + 1)
    assert count(build(PixelDiscriminator, 5)) == by_hand == 134_657


def test_one_logit_of_patchgan_sees_70_pixels() -> None:
    # From the logit back: 1, 4, 7 at stride 1, then 2 n + 2 for each of three convolutions of stride 2.
    assert [7 * 2 + 2, 16 * 2 + 2, 34 * 2 + 2] == [16, 34, 70]
    assert receptive_field(build(PatchDiscriminator, width=1), 128) == 70
    assert receptive_field(build(PatchDiscriminator, width=1, layers=2), 128) == 34
    assert receptive_field(build(PatchDiscriminator, width=1, padding=2), 160) == 70


def test_one_logit_of_the_fcn_critic_sees_94_pixels() -> None:
    # 4, 10, 22, 46, 94: twice as far and two more with each convolution.
    assert receptive_field(build(FCNDiscriminator, width=1), 256) == 94


def test_one_logit_of_the_pixel_critic_sees_one_position() -> None:
    assert receptive_field(build(PixelDiscriminator, hidden=(3, 2), dropout=0.0), 16) == 1


def test_the_maps_have_the_published_sizes_at_256_pixels() -> None:
    x = torch.randn(1, 1, 256, 256)
    # 256, 128, 64, 32, then two 4 x 4 convolutions of stride 1 and padding 1 that each lose one: 31, 30.
    assert build(PatchDiscriminator, width=2)(x).shape == (1, 1, 30, 30)
    # With padding 2: 129, 65, 33, and each of the last two gains one: 34, 35.
    assert build(PatchDiscriminator, width=2, padding=2)(x).shape == (1, 1, 35, 35)
    assert build(FCNDiscriminator, width=2)(x).shape == (1, 1, 8, 8)
    assert build(PixelDiscriminator, hidden=(2,))(x).shape == (1, 1, 256, 256)


def test_a_pooled_patchgan_answers_the_mean_of_its_map() -> None:
    x = torch.randn(2, 1, 64, 64)
    patches, pooled = build(PatchDiscriminator, width=4), build(PatchDiscriminator, width=4, pooled=True)
    assert pooled(x).shape == (2, 1, 1, 1)
    torch.testing.assert_close(pooled(x), patches(x).mean((2, 3), keepdim=True))


def test_the_smallest_images_are_taken_and_smaller_ones_named() -> None:
    patch, fcn = build(PatchDiscriminator), build(FCNDiscriminator)
    assert patch(torch.randn(1, 1, 24, 24)).shape == (1, 1, 1, 1)
    assert fcn(torch.randn(1, 1, 32, 32)).shape == (1, 1, 1, 1)
    with pytest.raises(ConfigError, match="'fcn' .*32 x 32 .*31 x 64"):
        fcn(torch.randn(1, 1, 31, 64))
    with pytest.raises(ConfigError, match="'patch' .*24 x 24 .*24 x 23"):
        patch(torch.randn(1, 1, 24, 23))


def test_the_pixel_critic_is_the_same_at_every_position() -> None:
    network = build(PixelDiscriminator, 4).eval()
    x = torch.randn(1, 4, 3, 5)
    torch.testing.assert_close(network(x.flip(3)), network(x).flip(3))
