"""Claims about DeepLabV2: it is torchvision's ResNet with five changes, and two heads that learn ten times as fast."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from attent_kit.build import configure
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from attent_kit.registry import Registry
from attent_kit.testing import check_segmentor
from attentkit_builtin.segmentors.deeplabv2 import DeepLabV2Segmentor, DilatedHead

TINY = {"width": 4, "blocks": [1, 1, 1, 1]}


def build(channels: int = 1, organs: int = 4, **options: object) -> DeepLabV2Segmentor:
    torch.manual_seed(0)
    task = Task(channels, tuple(f"organ {n}" for n in range(organs)))
    return DeepLabV2Segmentor(configure(DeepLabV2Segmentor, options, Registry()), task)


def published(channels: int = 3, **options: object) -> DeepLabV2Segmentor:
    """The network of the papers, shapes without values."""
    with torch.device("meta"):
        return build(channels, **options)


def count(parameters: object) -> int:
    return sum(p.numel() for p in parameters)


def trainable(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


@pytest.mark.parametrize("head", ["four-dilations", "adaptsegnet"])
def test_it_keeps_the_contract(head: str) -> None:
    check_segmentor(DeepLabV2Segmentor, {**TINY, "head": head})
    check_segmentor(DeepLabV2Segmentor, {**TINY, "head": head}, Task(3, ("liver",)))


def convolutions(inputs: int, width: int, blocks: int) -> int:
    """1 x 1, 3 x 3, 1 x 1 of each bottleneck, and the shortcut of the first."""
    first = inputs * width + 9 * width * width + width * 4 * width + inputs * 4 * width
    other = 4 * width * width + 9 * width * width + width * 4 * width
    return first + (blocks - 1) * other


def norms(width: int, blocks: int) -> int:
    """Scale and shift after each convolution of the bottlenecks, and after the shortcut."""
    return blocks * 2 * (width + width + 4 * width) + 2 * 4 * width


CONVOLUTIONS = (
    7 * 7 * 3 * 64
    + convolutions(64, 64, 3)
    + convolutions(256, 128, 4)
    + convolutions(512, 256, 23)
    + convolutions(1024, 512, 3)
)
NORMS = 2 * 64 + norms(64, 3) + norms(128, 4) + norms(256, 23) + norms(512, 3)


def test_it_has_43_million_parameters_of_which_the_norms_are_frozen() -> None:
    # ResNet-101 is known to have 44 549 160 parameters, the last layer's among them.
    assert CONVOLUTIONS + NORMS == 44_549_160 - (2048 * 1000 + 1000)
    heads = 4 * (9 * 1024 * 5 + 5) + 4 * (9 * 2048 * 5 + 5)
    network = published()
    assert count(network.parameters()) == CONVOLUTIONS + NORMS + heads == 43_053_160
    assert count(trainable(network)) == CONVOLUTIONS + heads
    assert count(published(1).parameters()) == 43_053_160 - 2 * 49 * 64
    assert count(published(head="adaptsegnet").parameters()) == 43_053_160 - heads // 2


@pytest.mark.parametrize(("pixels", "positions"), [(256, 33), (321, 41), (32, 5), (33, 5), (38, 5), (39, 6)])
def test_the_pooling_that_rounds_up_makes_33_positions_of_256_pixels(pixels: int, positions: int) -> None:
    # 256 -> 128 by the convolution -> 65 by the pooling that rounds up -> 33; 321 -> 161 -> 81 -> 41.
    answer = published()(torch.empty(1, 3, pixels, pixels, device="meta"))
    assert answer.features.shape == (1, 2048, positions, positions)
    assert answer.logits.shape == answer.auxiliary.shape == (1, 5, pixels, pixels)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (2, 3, 33, 57), (1, 1, 45, 70)])
def test_one_image_of_any_size_trains_in_bfloat16_and_every_parameter_learns(shape: tuple[int, ...]) -> None:
    for head in ("four-dilations", "adaptsegnet"):
        segmentor = build(shape[1], head=head, **TINY)
        with torch.autocast("cpu", torch.bfloat16):
            answer = segmentor(torch.randn(shape))
        assert answer.logits.shape == answer.auxiliary.shape == (shape[0], 5, *shape[2:])
        assert answer.features.shape[1] == segmentor.feature_channels == 32 * 4
        assert answer.logits.isfinite().all() and answer.auxiliary.isfinite().all()
        (answer.logits.float().square().sum() + answer.auxiliary.float().square().sum()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable(segmentor))


def as_published(resnet: nn.Module) -> nn.Module:
    """torchvision's ResNet with the five changes of the authors of DeepLab."""
    resnet.maxpool.ceil_mode = True
    first = resnet.layer2[0]
    first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    for layer, dilation in ((resnet.layer3, 2), (resnet.layer4, 4)):
        layer[0].downsample[0].stride = (1, 1)
        for block in layer:
            block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (dilation,) * 2, (dilation,) * 2
    return resnet


def test_with_its_weights_the_trunk_is_torchvisions_resnet_with_the_published_changes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    resnet = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 2, 1])
    for name, buffer in resnet.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pth")
    segmentor = build(3, blocks=[1, 1, 2, 1], weights=str(tmp_path / "resnet.pth")).eval()
    x = torch.randn(1, 3, 64, 47)
    theirs = as_published(resnet).eval()
    y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    layer3 = theirs.layer3(theirs.layer2(theirs.layer1(y)))
    with torch.no_grad():
        shallower, features = segmentor.trunk(x)
        torch.testing.assert_close(shallower, layer3)
        torch.testing.assert_close(features, theirs.layer4(layer3))
        assert torch.equal(segmentor(x).features, features)


def test_every_weight_of_torchvisions_resnet_101_but_the_last_layer_has_its_place() -> None:
    with torch.device("meta"):
        given = torchvision.models.resnet101().state_dict()
    own = published().trunk.state_dict()
    assert {name: w.shape for name, w in own.items()} == {
        name: w.shape for name, w in given.items() if not name.startswith("fc.")
    }


def test_colour_weights_of_another_prefix_become_grey_and_the_last_layer_is_ignored(tmp_path: Path) -> None:
    given = {f"Scale.{name}": torch.randn(w.shape) for name, w in build(3, **TINY).trunk.state_dict().items()}
    given |= {"fc.weight": torch.randn(1000, 128), "fc.bias": torch.randn(1000)}
    old = {name: w for name, w in given.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "resnet.pth")
    trunk = build(1, **TINY, weights=str(tmp_path / "resnet.pth")).trunk
    torch.testing.assert_close(trunk.conv1.weight, given["Scale.conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(trunk.layer4[0].downsample[0].weight, given["Scale.layer4.0.downsample.0.weight"])
    assert torch.equal(trunk.layer3[0].bn2.running_var, given["Scale.layer3.0.bn2.running_var"])
    assert not trunk.bn1.weight.requires_grad and torch.equal(trunk.bn1.weight, given["Scale.bn1.weight"])


def test_weights_that_do_not_fit_are_one_sentence_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'imagenet'.*'none'"):
        configure(DeepLabV2Segmentor, {"weights": "imagenet"}, Registry())
    with pytest.raises(ConfigError, match=r"no such file.*weights = 'none'"):
        build(**TINY, weights=str(tmp_path / "resnet.pth"))
    torch.save(build(**TINY).trunk.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ConfigError, match=r"missing.*'layer1\.1\.conv1\.weight'.*weights = 'none'"):
        build(width=4, blocks=[2, 1, 1, 1], weights=str(tmp_path / "resnet.pth"))
    with pytest.raises(ConfigError, match=r"'conv1\.weight' .*4 x 1 x 7 x 7 .*8 x 1 x 7 x 7"):
        build(width=8, blocks=[1, 1, 1, 1], weights=str(tmp_path / "resnet.pth"))


def test_a_checkpoint_is_loaded_without_asking_for_the_weights_again() -> None:
    config = configure(DeepLabV2Segmentor, {**TINY, "weights": "gone.pth"}, Registry())
    assert config.without_weights().weights == "none" and config.without_weights().width == 4
    DeepLabV2Segmentor(config.without_weights(), Task())


def test_one_position_of_the_features_sees_as_far_as_its_dilations_reach() -> None:
    # 7, and 4 by the pooling. A 3 x 3 convolution adds twice its dilation times the pixels between two positions:
    # layer1 2 * 4, layer2 2 * 8, two of layer3 2 * 2 * 8 each, two of layer4 2 * 4 * 8 each.
    assert 7 + 4 + 8 + 16 + 2 * 32 + 2 * 64 == 227
    trunk = build(width=1, blocks=[1, 1, 2, 2]).trunk.double()
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, nn.BatchNorm2d):
            module.forward = nn.Identity().forward  # its statistics see the whole image
    trunk.maxpool = nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True)  # of equal values only one has a gradient
    x = torch.ones(1, 1, 320, 320, dtype=torch.double, requires_grad=True)
    trunk(x)[1][0, 0, 20, 20].backward()
    rows, columns = x.grad[0, 0].nonzero().T
    # Position 20 is centred on pixel 8 * 20.
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (160 - 113, 160 + 113)


@pytest.mark.parametrize(
    ("head", "dilations"), [("four-dilations", (6, 12, 18, 24)), ("adaptsegnet", (6, 12))], ids=["four", "two"]
)
def test_a_head_adds_one_convolution_for_each_dilation(head: str, dilations: tuple[int, ...]) -> None:
    sums = build(head=head, **TINY).head
    for conv in sums.convs:
        nn.init.ones_(conv.weight)
        nn.init.ones_(conv.bias)
    dot = torch.zeros(1, 128, 49, 49)
    dot[0, 0, 24, 24] = 1.0
    # Each kernel has a tap on the dot from its eight neighbours at distance d, and all have one from the dot itself.
    expected = torch.zeros(49, 49)
    expected[24, 24] = len(dilations)
    for d in dilations:
        for row, column in ((-d, -d), (-d, 0), (-d, d), (0, -d), (0, d), (d, -d), (d, 0), (d, d)):
            expected[24 + row, 24 + column] = 1.0
    answer = sums(dot)
    assert answer.shape == (1, 5, 49, 49)
    assert torch.equal(answer, (expected + len(dilations)).expand(1, 5, 49, 49))


def test_the_heads_start_from_a_normal_of_0_01_and_the_trunk_from_he_over_the_fan_out() -> None:
    torch.manual_seed(0)
    for conv in DilatedHead(512, 5, (6, 12)).convs:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    trunk = build(width=32, blocks=[1, 1, 1, 1]).trunk
    # Fan out is 9 * 128 in the 3 x 3 convolution of layer3, which has 128 channels.
    assert trunk.layer3[0].conv2.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.05)


def test_the_auxiliary_head_reads_layer3_and_the_other_layer4() -> None:
    segmentor = build(**TINY)
    segmentor(torch.randn(1, 1, 64, 64)).auxiliary.sum().backward()
    learning = {name.split(".")[0] for name, p in segmentor.trunk.named_parameters() if p.grad is not None}
    assert learning == {"conv1", "layer1", "layer2", "layer3"}
    assert segmentor.head.convs[0].weight.grad is None


def test_the_logits_are_resized_with_the_corner_pixels_in_place() -> None:
    segmentor = build(**TINY).eval()
    answer = segmentor(torch.randn(1, 1, 40, 64))
    coarse = segmentor.head(answer.features)
    for row in (0, -1):
        for column in (0, -1):
            torch.testing.assert_close(answer.logits[..., row, column], coarse[..., row, column])


def test_in_training_the_statistics_of_the_norms_move_and_their_scales_and_shifts_do_not() -> None:
    segmentor = build(**TINY)
    norms = [module for module in segmentor.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 4 * (3 + 1)
    optimizer = torch.optim.SGD(segmentor.parameters(), lr=0.1, weight_decay=0.1)
    answer = segmentor(torch.randn(2, 1, 32, 32))
    (answer.logits.sum() + answer.auxiliary.sum()).backward()
    optimizer.step()
    for norm in norms:
        assert torch.equal(norm.weight, torch.ones_like(norm.weight)) and norm.bias.count_nonzero() == 0
        assert norm.running_mean.abs().min() > 0
    before = [norm.running_mean.clone() for norm in norms]
    segmentor.eval()(torch.randn(2, 1, 32, 32))
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


@pytest.mark.parametrize(("options", "factor"), [({}, 10.0), ({"head_learning_rate": 1.0}, 1.0)])
def test_the_heads_want_ten_times_the_learning_rate_and_each_trainable_parameter_is_in_one_group(
    options: dict, factor: float
) -> None:
    segmentor = build(**TINY, **options)
    groups = segmentor.learning_rate_factors()
    assert [wanted for wanted, _ in groups] == [1.0, factor]
    heads = {id(p) for name, p in segmentor.named_parameters() if name.startswith(("head.", "auxiliary_head."))}
    assert {id(p) for p in groups[1][1]} == heads
    grouped = [id(p) for _, group in groups for p in group]
    assert sorted(grouped) == sorted(id(p) for p in trainable(segmentor))
