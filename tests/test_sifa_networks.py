"""Claims about the networks of SIFA: counts, sizes, receptive fields, what is added and what is dropped."""

import math

import pytest
import torch
from torch import Tensor, nn

from attent_kit.build import configure
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from attent_kit.registry import Registry
from attent_kit.testing import check_segmentor, check_translator
from attentkit_builtin.discriminators.patch import PatchDiscriminator
from attentkit_builtin.networks.sifa import Block, SifaDecoder, SifaUp, conv
from attentkit_builtin.segmentors.sifa import SifaSegmentor, batch_norm
from attentkit_builtin.translators.sifa import SifaTranslator

SIZES = [(1, 1, 32, 32), (1, 1, 33, 35), (2, 3, 34, 47), (2, 1, 61, 40)]


def translator(channels: int = 1, **options: object) -> SifaTranslator:
    torch.manual_seed(0)
    return SifaTranslator(configure(SifaTranslator, options, Registry()), Task(channels))


def segmentor(channels: int = 1, **options: object) -> SifaSegmentor:
    torch.manual_seed(0)
    return SifaSegmentor(configure(SifaSegmentor, options, Registry()), Task(channels))


def decoder(features: int = 12, channels: int = 1, width: int = 4, **options: float) -> SifaDecoder:
    torch.manual_seed(0)
    return SifaDecoder(features, channels, width, **options)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def every_parameter_learns(network: nn.Module) -> bool:
    return all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# Contracts and sizes


def test_the_translator_and_the_segmentor_keep_the_contract() -> None:
    check_translator(SifaTranslator, {"width": 4, "blocks": 1})
    for stride in (2, 4, 8):
        check_segmentor(SifaSegmentor, {"width": 2, "stride": stride, "auxiliary": stride == 8})


@pytest.mark.parametrize("shape", SIZES)
def test_translator_and_decoder_answer_an_image_of_the_same_size(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape) * 2 - 1
    for answer in (
        translator(shape[1], width=4, blocks=1)(x),
        *(decoder(channels=shape[1], doublings=n)(torch.rand(shape[0], 12, 5, 6), x) for n in (1, 2, 3, 4)),
    ):
        assert answer.shape == shape
        assert answer.abs().max() <= 1


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_features_are_coarser_by_the_stride_and_the_logits_are_not(shape: tuple[int, ...], stride: int) -> None:
    network = segmentor(shape[1], width=2, stride=stride)
    assert network.feature_stride == stride
    for mode in (True, False):
        answer = network.train(mode)(torch.randn(shape))
        assert answer.features.shape == (shape[0], 64, *(math.ceil(size / stride) for size in shape[2:]))
        assert answer.logits.shape == answer.auxiliary.shape == (shape[0], 5, *shape[2:])


def test_an_image_of_256_pixels_has_features_of_32_by_32_with_512_channels() -> None:
    with torch.device("meta"):
        network = segmentor()
        answer = network(torch.empty(1, 1, 256, 256))
    assert answer.features.shape == (1, 512, 32, 32)
    assert answer.logits.shape == answer.auxiliary.shape == (1, 5, 256, 256)
    assert network.feature_channels == 512


def test_the_features_are_not_negative() -> None:
    assert segmentor(width=2)(torch.randn(1, 1, 32, 32)).features.min() == 0


def test_all_are_finite_in_bfloat16_and_every_parameter_learns_from_one_small_image() -> None:
    g_A, e_B, de_B = translator(width=4, blocks=1), segmentor(width=2), decoder(64)
    x = torch.rand(1, 1, 32, 37) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        answer = e_B(g_A(x))
        x_ts = de_B(answer.features, x)
    loss = answer.logits.float().square().mean() + answer.auxiliary.float().square().mean() + x_ts.square().mean()
    loss.backward()
    assert all(map(every_parameter_learns, (g_A, e_B, de_B)))


def test_a_blank_image_is_answered_with_finite_numbers() -> None:
    x = torch.full((1, 1, 32, 32), -1.0)
    answer = segmentor(width=2)(x)
    assert answer.logits.isfinite().all()
    assert translator(width=4, blocks=1)(x).isfinite().all()
    assert decoder(64)(answer.features, x).isfinite().all()


def test_logits_keep_their_place_when_they_are_enlarged() -> None:
    # At stride 2 pixels lie a quarter and three quarters of the way: 0 | 0 .25 .75 | 1; a fifth column is cut off.
    enlarged = segmentor(width=1, stride=2)._enlarge(torch.tensor([[[[0.0, 1.0, 1.0]]]]), torch.empty(1, 1, 2, 5))
    assert enlarged[0, 0, 0].tolist() == pytest.approx([0.0, 0.25, 0.75, 1.0, 1.0])


def test_the_auxiliary_head_reads_the_map_before_the_dilated_convolutions() -> None:
    network = segmentor(width=2)
    network(torch.randn(1, 1, 32, 32)).auxiliary.square().sum().backward()
    assert every_parameter_learns(network.to_low_level) and every_parameter_learns(network.auxiliary_head)
    assert all(p.grad is None for layers in (network.to_features, network.head) for p in layers.parameters())


def test_a_stride_that_is_not_offered_is_refused() -> None:
    with pytest.raises(ConfigError, match="stride: .*2, 4 or 8"):
        segmentor(stride=16)
    with pytest.raises(ConfigError, match="dropout: "):
        segmentor(dropout=1.0)


# Counts


def test_the_translator_has_2_850_million_parameters() -> None:
    # A convolution has a bias, an instance norm a scale and a shift: 3 more a channel. The last has no norm.
    by_hand = (
        (49 * 1 * 32 + 3 * 32)
        + (9 * 32 * 64 + 3 * 64)
        + (9 * 64 * 128 + 3 * 128)
        + 9 * 2 * (9 * 128 * 128 + 3 * 128)
        + (9 * 128 * 64 + 3 * 64)
        + (9 * 64 * 32 + 3 * 32)
        + (49 * 32 * 1 + 1)
    )
    assert count(translator()) == by_hand == 2_849_537


def residual_count(inputs: int, outputs: int) -> int:
    """Two 3 x 3 convolutions without bias, each with the scale and shift of its norm; the shortcut has no weight."""
    return (9 * inputs * outputs + 2 * outputs) + (9 * outputs * outputs + 2 * outputs)


def test_the_encoder_has_27_517_million_parameters_and_each_head_2560() -> None:
    low_level = (
        (49 * 1 * 16 + 2 * 16)
        + residual_count(16, 16)
        + residual_count(16, 32)
        + (residual_count(32, 64) + residual_count(64, 64))
        + (residual_count(64, 128) + residual_count(128, 128))
        + (residual_count(128, 256) + 3 * residual_count(256, 256))
        + (residual_count(256, 512) + residual_count(512, 512))
    )
    deeper = 2 * residual_count(512, 512) + 2 * (9 * 512 * 512 + 2 * 512)
    assert low_level + deeper == 27_517_424
    with torch.device("meta"):
        assert count(segmentor()) == low_level + deeper + 2 * 5 * 512
        assert count(segmentor(auxiliary=False)) == low_level + deeper + 5 * 512
        assert count(segmentor(stride=2)) == count(segmentor())


def test_the_decoder_has_1_903_million_parameters() -> None:
    # Only the transposed convolutions have a bias.
    by_hand = (
        (9 * 512 * 128 + 2 * 128)
        + 4 * residual_count(128, 128)
        + (9 * 128 * 64 + 3 * 64)
        + (9 * 64 * 64 + 3 * 64)
        + (9 * 64 * 32 + 3 * 32)
        + 49 * 32 * 1
    )
    assert count(SifaDecoder(512, 1)) == by_hand == 1_902_848


def test_a_decoder_of_finer_features_doubles_less_often_and_keeps_the_last_widths() -> None:
    for doublings, widths in ((1, [8]), (2, [16, 8]), (3, [16, 16, 8])):
        ups = decoder(width=8, doublings=doublings).ups
        assert [up.conv.out_channels for up in ups] == widths


@pytest.mark.parametrize(("doublings", "grid"), [(1, (20, 17)), (2, (10, 9)), (3, (5, 5))])
def test_a_decoder_works_on_the_grid_of_its_features(doublings: int, grid: tuple[int, int]) -> None:
    # 40 x 34 pixels halved once, twice, three times: 20 x 17, 10 x 9, 5 x 5.
    network = decoder(doublings=doublings)
    seen: list[Tensor] = []
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x, fitting, coarse = torch.rand(1, 1, 40, 34), torch.rand(1, 12, *grid), torch.rand(1, 12, 2, 3)
    network(fitting, x)
    network(coarse, x)
    assert seen[0] is fitting
    assert seen[1].shape == fitting.shape


# Receptive fields


def with_open_paths(layers: nn.Module) -> nn.Module:
    """The same layers with every path of an image's pixel to a position in use, and none through statistics.

    A maximum passes its gradient to one of its four pixels; a mean of the same four passes it to all.
    """
    for name, module in list(layers.named_modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, nn.BatchNorm2d):
            layers.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.MaxPool2d):
            assert module.kernel_size == module.stride == 2
            layers.set_submodule(name, nn.AvgPool2d(2, ceil_mode=True))
    return layers.double()


def pixels_seen(layers: nn.Module, size: int) -> int:
    """Rows of the image that the middle position depends on."""
    x = torch.ones(1, 1, size, size, dtype=torch.double, requires_grad=True)
    answer = layers(x)
    middle = answer.shape[2] // 2
    answer[0, :, middle, middle].sum().backward()
    rows, columns = x.grad[0, 0].nonzero().T
    assert rows.max() - rows.min() == columns.max() - columns.min()
    return int(rows.max() - rows.min() + 1)


@pytest.mark.parametrize(("stride", "low", "features"), [(8, 314, 474), (4, 182, 262), (2, 100, 140)])
def test_a_feature_sees_as_many_pixels_as_its_convolutions_and_poolings_reach(
    stride: int, low: int, features: int
) -> None:
    # 7; a block adds 4 steps, of as many pixels as poolings have made of one; a pooling adds one step.
    steps = {8: (1, 2, 4, 8), 4: (1, 2, 4, 4), 2: (1, 2, 2, 2)}[stride]
    poolings = {8: 1 + 2 + 4, 4: 1 + 2, 2: 1}[stride]
    blocks = (1, 1, 2, 8)  # before the poolings, between them, and after them, up to the low-level map
    assert 7 + poolings + sum(4 * n * step for n, step in zip(blocks, steps, strict=True)) == low
    # Two blocks of dilation 2 add 8 steps each, two convolutions 2 each.
    assert low + (2 * 8 + 2 * 2) * stride == features

    network = with_open_paths(segmentor(width=1, stride=stride))
    to_low_level, to_features = network.to_low_level, nn.Sequential(network.to_low_level, network.to_features)
    assert pixels_seen(to_low_level, features + 38) == low
    assert pixels_seen(to_features, features + 38) == features


# What is computed


def test_where_the_residual_is_zero_the_answer_is_tanh_of_the_image() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0]).repeat(11)[:32].expand(1, 1, 32, 32)
    g_A, de_B = translator(width=4, blocks=1), decoder()
    for network in (g_A, de_B):
        nn.init.zeros_(network.residual.weight)
    for answer in (g_A(x), de_B(torch.rand(1, 12, 4, 4), x)):
        # tanh 1 = (e^2 - 1) / (e^2 + 1) = 0.7615942
        assert answer[0, 0, 0, :3].tolist() == pytest.approx([-0.7615942, 0.0, 0.7615942])


def test_what_is_added_to_the_image_may_be_any_number() -> None:
    g_A = translator(width=4, blocks=1)
    nn.init.zeros_(g_A.residual.weight)
    nn.init.constant_(g_A.residual.bias, -2.0)
    # tanh(1 - 2) = -0.7615942
    assert g_A(torch.ones(1, 1, 32, 32)).flatten()[0].item() == pytest.approx(-0.7615942)


def test_the_decoder_adds_to_the_image_what_it_makes_of_the_features_alone() -> None:
    network, x, latent = decoder(), torch.rand(1, 1, 32, 32), torch.rand(1, 12, 4, 4)
    answer = network(latent, x)
    assert (answer - network(latent.flip(2), x)).abs().max() > 1e-3
    torch.testing.assert_close(answer.atanh() - x, network(latent, 0 * x).atanh(), atol=1e-4, rtol=0)


def test_new_channels_of_a_shortcut_are_zeros_half_before_and_half_after() -> None:
    block = Block(2, 6, lambda _: nn.Identity())
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    # ReLU after the sum: -2 becomes 0.
    x = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    assert block(x).flatten().tolist() == [0, 0, 1, 0, 0, 0]
    assert block(-x).flatten().tolist() == [0, 0, 0, 2, 0, 0]


def test_a_block_is_relu_of_the_branch_plus_x() -> None:
    # One pixel, weights 3 and -2 in the middle of the kernels: 4 - 2 ReLU(3 * 4) = -20, cut to 0; -4 - 0 = -4, cut to 0;
    # with 3 and 2: 4 + 2 * 12 = 28.
    for second, x, expected in ((-2.0, 4.0, 0.0), (-2.0, -4.0, 0.0), (2.0, 4.0, 28.0)):
        block = Block(1, 1, lambda _: nn.Identity())
        for layer, weight in zip(block.branch, (3.0, second), strict=True):
            nn.init.zeros_(layer[0].weight)
            layer[0].weight.data[0, 0, 1, 1] = weight
        assert block(torch.full((1, 1, 1, 1), x)).item() == expected


def test_a_border_is_padded_with_zeros() -> None:
    # A 3 x 3 sum of ones: 4 pixels in the corner, 6 at the side, 9 inside; dilated by 2 on five pixels the same.
    for dilation, size in ((1, 3), (2, 5)):
        layer = conv(1, 1, lambda _: nn.Identity(), dilation=dilation)
        nn.init.ones_(layer[0].weight)
        answer = layer(torch.ones(1, 1, size, size))[0, 0]
        middle = size // 2
        assert (answer[0, 0], answer[0, middle], answer[middle, middle]) == (4, 6, 9)


def test_a_transposed_convolution_doubles_to_even_and_to_odd_sizes() -> None:
    up = SifaUp(3, 2)
    assert up(torch.rand(1, 3, 5, 4), (10, 8)).shape == (1, 2, 10, 8)
    assert up(torch.rand(1, 3, 5, 4), (9, 7)).shape == (1, 2, 9, 7)


def test_batch_norm_keeps_nine_tenths_of_its_running_statistics_and_adds_a_thousandth() -> None:
    norm = batch_norm(1)
    # 0 and 2: mean 1, variance 1 in the batch, 2 without bias; the running ones start at 0 and 1.
    answer = norm(torch.tensor([0.0, 2.0]).view(1, 1, 1, 2))
    assert answer.flatten().tolist() == pytest.approx([-1 / 1.001**0.5, 1 / 1.001**0.5])
    assert (norm.running_mean.item(), norm.running_var.item()) == pytest.approx((0.1, 0.9 + 0.2))


# Dropout


def test_dropout_stands_between_each_convolution_of_the_segmentor_and_its_norm() -> None:
    network = segmentor(width=2, dropout=0.25)
    convolutions, norms = 0, 0
    for layers in network.modules():
        if isinstance(layers, nn.Sequential) and isinstance(layers[0], nn.Conv2d):
            assert isinstance(layers[1], nn.Dropout) and layers[1].p == 0.25
            convolutions += 1
            norms += len(layers) > 2 and isinstance(layers[2], nn.BatchNorm2d)
    # 7 x 7, two in each of 12 + 2 blocks, two 3 x 3, and a head at each level.
    assert norms == 1 + 2 * (12 + 2) + 2
    assert convolutions == norms + 2 == sum(isinstance(module, nn.Conv2d) for module in network.modules())


def test_what_is_kept_of_four_is_three_on_average_and_weighs_four_thirds() -> None:
    torch.manual_seed(0)
    layer = conv(1, 1, lambda _: nn.Identity(), kernel=1, dropout=0.25)
    nn.init.ones_(layer[0].weight)
    answer = layer(torch.ones(1, 1, 100, 100))
    assert answer.unique().tolist() == pytest.approx([0, 4 / 3])
    # 10 000 draws of 0.75: standard deviation 43.
    assert 7500 - 5 * 43 < answer.count_nonzero() < 7500 + 5 * 43


def test_v1_drops_in_training_only_and_v2_never() -> None:
    x = torch.rand(2, 1, 32, 32)
    for dropout in (0.0, 0.25):
        network = segmentor(width=2, dropout=dropout)
        assert torch.equal(network(x).logits, network(x).logits) == (dropout == 0)
        network.eval()
        assert torch.equal(network(x).logits, network(x).logits)


def test_the_decoder_drops_in_its_four_blocks_and_in_training_only() -> None:
    x, latent = torch.rand(1, 1, 32, 32), torch.rand(1, 12, 4, 4)
    network = decoder(dropout=0.25)
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert sorted(rates) == [0.0] + 8 * [0.25]
    assert not torch.equal(network(latent, x), network(latent, x))
    network.eval()
    assert torch.equal(network(latent, x), network(latent, x))
    assert torch.equal(decoder()(latent, x), decoder().eval()(latent, x))


# Initial weights


def weights(network: nn.Module) -> list[Tensor]:
    return [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def test_the_weights_start_from_a_normal_that_is_cut_off_at_two_deviations() -> None:
    # What a cut at 2 leaves of a unit normal: variance 1 - 4 phi(2) / (2 Phi(2) - 1) = 1 - 4 * 0.05399 / 0.9545.
    kept = (1 - 4 * 0.05399 / 0.9545) ** 0.5
    de_B = decoder(64, width=16)
    outer = [*weights(de_B.stem), *weights(de_B.ups), de_B.residual.weight]
    for drawn, std in (
        (weights(translator()), 0.02),
        (weights(segmentor(width=8)), 0.01),
        (weights(de_B.trunk), 0.01),
        (outer, 0.02),
    ):
        values = torch.cat([weight.detach().flatten() for weight in drawn])
        assert values.abs().max() <= 2 * std
        assert values.std().item() == pytest.approx(kept * std, rel=0.02)


def test_norms_start_as_norms_alone_and_biases_from_zero() -> None:
    for network in (translator(width=4), segmentor(width=2), decoder()):
        for module in network.modules():
            if isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                assert (module.weight == 1).all()
            if getattr(module, "bias", None) is not None:
                assert (module.bias == 0).all()


# The critics


def test_the_critic_of_decoded_images_is_patchgan_with_padding_2_and_two_answers() -> None:
    d_A = PatchDiscriminator(PatchDiscriminator.Config(padding=2), channels=1, heads=2)
    # n / 2 + 1 three times, then n + 1 twice: 256, 129, 65, 33, 34, 35.
    with torch.inference_mode():
        assert d_A(torch.randn(1, 1, 256, 256)).shape == (1, 2, 35, 35)
    by_hand = (
        (16 * 1 * 64 + 64)
        + (16 * 64 * 128 + 128)
        + (16 * 128 * 256 + 256)
        + (16 * 256 * 512 + 512)
        + (16 * 512 * 2 + 2)
    )
    assert count(d_A) == by_hand
