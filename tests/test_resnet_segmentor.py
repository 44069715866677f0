"""Claims about SynSeg-Net's segmentor: CycleGAN's generator with classes for channels, with and without its tanh."""

import math

import pytest
import torch
from torch import nn

from attent_kit.interfaces import Task
from attent_kit.testing import check_segmentor
from attentkit_builtin.segmentors.resnet import ResNetSegmentor
from attentkit_builtin.translators.resnet import ResNetTranslator

SMALL = {"width": 4, "blocks": 1}
FIVE = Task()


def build(task: Task = FIVE, **options: object) -> ResNetSegmentor:
    torch.manual_seed(0)
    return ResNetSegmentor(ResNetSegmentor.Config(**options), task)


@pytest.mark.parametrize("options", [{"upsampling": "transposed"}, {"upsampling": "resize"}, {"tanh": True}])
def test_it_keeps_the_contract(options: dict) -> None:
    check_segmentor(ResNetSegmentor, {**SMALL, **options})


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (1, 3, 33, 57), (2, 1, 45, 70)])
def test_the_logits_have_the_size_of_the_image_and_the_features_a_quarter_of_it(shape: tuple[int, ...]) -> None:
    for upsampling in ("transposed", "resize"):
        segmentor = build(Task(shape[1], FIVE.organs), upsampling=upsampling, **SMALL)
        with torch.autocast("cpu", torch.bfloat16):
            answer = segmentor(torch.randn(shape))
        assert answer.logits.shape == (shape[0], 5, *shape[2:]) and answer.logits.isfinite().all()
        assert answer.features.shape == (shape[0], 16, *(math.ceil(side / 4) for side in shape[2:]))
        assert segmentor.feature_channels == 16 and answer.auxiliary is None and not segmentor.has_auxiliary
        answer.logits.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in segmentor.parameters())


def test_with_tanh_it_is_the_translator_of_as_many_channels_as_classes() -> None:
    torch.manual_seed(0)
    translator = ResNetTranslator(ResNetTranslator.Config(**SMALL), Task(3))
    segmentor = build(Task(3, ("liver", "spleen")), tanh=True, **SMALL)
    weights = {name.replace("to_image.0", "to_logits"): w for name, w in translator.state_dict().items()}
    segmentor.load_state_dict(weights)
    x = torch.randn(2, 3, 37, 40)
    assert torch.equal(segmentor(x).logits, translator(x))
    unbounded = build(Task(3, ("liver", "spleen")), **SMALL)
    unbounded.load_state_dict(weights)
    torch.testing.assert_close(unbounded(x).logits.tanh(), translator(x))


def test_the_published_network_has_11_384_million_parameters_for_five_classes_of_grey_images() -> None:
    by_hand = (
        (7 * 7 * 1 * 64 + 64)
        + (3 * 3 * 64 * 128 + 128)
        + (3 * 3 * 128 * 256 + 256)
        + 9 * 2 * (3 * 3 * 256 * 256 + 256)
        + (3 * 3 * 256 * 128 + 128)
        + (3 * 3 * 128 * 64 + 64)
        + (7 * 7 * 64 * 5 + 5)
    )
    # The translator of colour images has 11 378 179: two channels less come in, two more go out.
    assert by_hand == 11_378_179 - 2 * 49 * 64 + 2 * (49 * 64 + 1)
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == by_hand


@pytest.mark.parametrize("tanh", [True, False])
def test_with_tanh_no_class_of_five_is_more_certain_than_e_to_e_and_four_over_e(tanh: bool) -> None:
    segmentor = build(tanh=tanh, **SMALL)
    nn.init.zeros_(segmentor.to_logits.weight)
    with torch.no_grad():
        segmentor.to_logits.bias.copy_(torch.tensor([-50.0, -50.0, 50.0, -50.0, -50.0]))
        surest = segmentor(torch.randn(1, 1, 32, 32)).logits.softmax(1).max().item()
    # e = 2.71828, 4 / e = 1.47152.
    assert surest == pytest.approx(2.71828 / (2.71828 + 1.47152) if tanh else 1.0, abs=1e-5)
    assert not tanh or surest == pytest.approx(0.649, abs=5e-4)
