"""Claims about the generators: sizes, counts, receptive field, and what the attention gate computes."""

import pytest
import torch
from torch import Tensor, nn

from attent_kit.interfaces import Task
from attentkit_builtin.networks.norm import instance_norm
from attentkit_builtin.networks.resnet import Up, resize
from attentkit_builtin.translators.attention import AttentionGate, AttentionTranslator
from attentkit_builtin.translators.resnet import ResNetTranslator

SMALL = {"width": 8, "blocks": 1}
EVERY = [
    (ResNetTranslator, {"upsampling": "transposed"}),
    (ResNetTranslator, {"upsampling": "resize"}),
    *(
        (AttentionTranslator, {"upsampling": upsampling, "gate": gate, "gate_norm": norm})
        for upsampling in ("resize", "transposed")
        for gate, norm in (("doubled", "instance"), ("doubled", "batch"), ("single", "none"), ("none", "none"))
    ),
]


def build(translator: type, channels: int = 1, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return translator(translator.Config(**options), Task(channels))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("translator", "options"), EVERY)
def test_the_answer_has_the_size_of_the_image_whatever_that_size(translator: type, options: dict) -> None:
    for shape in ((2, 1, 32, 32), (1, 1, 33, 35), (1, 1, 45, 62), (2, 3, 34, 47)):
        answer = build(translator, shape[1], **SMALL, **options)(torch.randn(shape))
        assert answer.shape == shape
        assert answer.abs().max() <= 1


@pytest.mark.parametrize(("translator", "options"), EVERY)
def test_every_parameter_learns_from_the_answer(translator: type, options: dict) -> None:
    network = build(translator, **SMALL, **options)
    network(torch.randn(1, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("translator", "options"), EVERY)
def test_the_answer_is_finite_in_bfloat16_and_on_a_blank_image(translator: type, options: dict) -> None:
    network = build(translator, **SMALL, **options)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(2, 1, 33, 40)).isfinite().all()
    assert network(torch.full((1, 1, 32, 32), -1.0)).isfinite().all()


TRUNK = (
    (7 * 7 * 3 * 64 + 64)  # stem
    + (3 * 3 * 64 * 128 + 128)
    + (3 * 3 * 128 * 256 + 256)
    + 9 * 2 * (3 * 3 * 256 * 256 + 256)
)


def gate_count(width: int) -> int:
    inner = width // 2
    projections = 2 * (width * inner + inner) + (inner + 1)
    norms = 2 * 2 * inner + 2 * 1
    return projections + norms


def test_the_cyclegan_generator_has_11_378_million_parameters() -> None:
    by_hand = TRUNK + (9 * 256 * 128 + 128) + (9 * 128 * 64 + 64) + (49 * 64 * 3 + 3)
    assert count(build(ResNetTranslator, 3)) == by_hand == 11_378_179


def test_the_attent_generator_has_11_188_million_parameters() -> None:
    gates = gate_count(256) + gate_count(128) + gate_count(64)
    by_hand = TRUNK + gates + (512 * 128 + 128) + (256 * 64 + 64) + (49 * 128 * 3 + 3)
    assert count(build(AttentionTranslator, 3)) == by_hand == 11_188_460
    assert count(build(AttentionTranslator, 3, gate_norm="batch")) == by_hand


def test_the_attent_generator_with_transposed_convolutions_has_11_844_million_parameters() -> None:
    gates = gate_count(256) + gate_count(128) + gate_count(64)
    by_hand = TRUNK + gates + (9 * 512 * 128 + 128) + (9 * 256 * 64 + 64) + (49 * 128 * 3 + 3)
    assert count(build(AttentionTranslator, 3, upsampling="transposed")) == by_hand == 11_843_820


def test_one_position_of_the_trunk_sees_157_by_157_pixels() -> None:
    # 7, then 2 more at stride 1 and 4 more at stride 2, then 18 convolutions that each add 2 at stride 4.
    assert 7 + 2 + 4 + 18 * 2 * 4 == 157
    network = build(ResNetTranslator, width=1).double()
    path = nn.Sequential(network.stem, network.down1, network.down2, network.trunk)
    for module in path.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, nn.GroupNorm):
            module.forward = nn.Identity().forward  # its statistics see the whole image
    x = torch.ones(1, 1, 200, 200, dtype=torch.double, requires_grad=True)
    path(x)[0, 0, 25, 25].backward()
    rows, columns = x.grad[0, 0].nonzero().T
    assert rows.max() - rows.min() + 1 == 157
    assert columns.max() - columns.min() + 1 == 157


def gate(norm: str = "none", factor: float = 2.0) -> AttentionGate:
    torch.manual_seed(0)
    return AttentionGate(4, norm, factor)


def test_a_doubled_gate_at_one_half_is_identity_and_a_single_one_halves() -> None:
    f, g = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    for factor, expected in ((2.0, f), (1.0, f / 2)):
        closed = gate(factor=factor)
        nn.init.zeros_(closed.to_map[1].weight)
        nn.init.zeros_(closed.to_map[1].bias)
        assert torch.equal(closed(f, g), expected)


def test_the_gate_of_the_slides_is_their_equation() -> None:
    # Two channels, one pixel: W_f = [1, 0], W_g = [0, 1], b_f = 1, b_g = -2, W_th = 3, b_th = -5.
    slides = AttentionGate(2, "none", 1.0)
    with torch.no_grad():
        slides.of_feature[0].weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        slides.of_feature[0].bias.fill_(1.0)
        slides.of_signal[0].weight.copy_(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
        slides.of_signal[0].bias.fill_(-2.0)
        slides.to_map[1].weight.fill_(3.0)
        slides.to_map[1].bias.fill_(-5.0)

    def pixel(a: float, b: float) -> Tensor:
        return torch.tensor([a, b]).view(1, 2, 1, 1)

    # (4 + 1) + (-1 - 2) = 2, 3 * 2 - 5 = 1, sigmoid(1) = 0.7310586.
    gated = slides(pixel(4.0, 9.0), pixel(7.0, -1.0))
    assert gated.flatten().tolist() == pytest.approx([4 * 0.7310586, 9 * 0.7310586])
    # (0 + 1) + (-1 - 2) = -2 is cut to 0, sigmoid(-5) = 0.0066929.
    gated = slides(pixel(0.0, 9.0), pixel(7.0, -1.0))
    assert gated.flatten().tolist() == pytest.approx([0.0, 9 * 0.0066929], abs=1e-5)


def test_the_instance_norm_gate_is_the_authors_batch_norm_gate_as_trained_on_one_image() -> None:
    ours, authors = gate("instance"), gate("batch")
    authors.load_state_dict(ours.state_dict(), strict=False)
    f, g = torch.randn(1, 4, 9, 9), torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(ours.train()(f, g), authors.train()(f, g))
    assert torch.equal(ours.train()(f, g), ours.eval()(f, g))
    assert (authors.train()(f, g) - authors.eval()(f, g)).abs().max() > 0.1


def test_the_default_translator_answers_alike_in_training_and_at_predict_and_in_any_batch() -> None:
    network = build(AttentionTranslator, **SMALL)
    x = torch.randn(2, 1, 32, 32)
    trained = network.train()(x)
    network.eval()
    assert torch.equal(network(x), trained)
    torch.testing.assert_close(network(x[:1]), trained[:1])


def test_the_gate_maps_are_one_channel_at_a_quarter_a_half_and_full_size() -> None:
    network = build(AttentionTranslator, **SMALL)
    maps = []
    for gate in (network.gate3, network.gate2, network.gate1):
        gate.to_map.register_forward_hook(lambda _, __, answer: maps.append(answer))
    network(torch.randn(2, 1, 34, 40))
    assert [tuple(m.shape) for m in maps] == [(2, 1, 9, 10), (2, 1, 17, 20), (2, 1, 34, 40)]
    assert all(m.min() >= 0 and m.max() <= 1 for m in maps)
    assert not hasattr(build(AttentionTranslator, **SMALL, gate="none"), "gate1")


def test_a_one_by_one_convolution_may_go_before_the_resize() -> None:
    torch.manual_seed(0)
    up = Up(6, 3, "resize", kernel=1)
    x = torch.randn(2, 6, 7, 5)
    torch.testing.assert_close(up(x, (13, 10)), up.after(up.conv(resize(x, (13, 10)))))


def test_resizing_keeps_the_corner_pixels_in_place() -> None:
    x = torch.tensor([[0.0, 3.0]]).view(1, 1, 1, 2)
    assert resize(x, (1, 4)).flatten().tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_the_norm_is_instance_norm_and_keeps_the_memory_layout() -> None:
    # One image, two channels: (1, 3) has mean 2 and deviation 1, (0, 20) has mean 10 and deviation 10.
    x = torch.tensor([[1.0, 3.0], [0.0, 20.0]]).view(1, 2, 1, 2)
    assert instance_norm(2)(x).flatten().tolist() == pytest.approx([-1, 1, -1, 1], abs=1e-4)
    x = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last)
    torch.testing.assert_close(instance_norm(4)(x), nn.InstanceNorm2d(4)(x))
    assert instance_norm(4)(x).is_contiguous(memory_format=torch.channels_last)


def test_the_weights_start_from_a_normal_of_0_02_and_the_biases_from_zero() -> None:
    for translator in (ResNetTranslator, AttentionTranslator):
        for name, parameter in build(translator).named_parameters():
            if name.endswith("bias"):
                assert parameter.count_nonzero() == 0
            elif parameter.numel() > 10_000:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.05)
                assert parameter.mean().item() == pytest.approx(0.0, abs=0.001)
