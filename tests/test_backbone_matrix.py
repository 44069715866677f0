"""Every architecture of smp on a backbone of each family: it trains and resumes, or is refused with what can be typed instead.

Families: a residual network, a mobile one, ConvNeXt, MiT, Swin (windowed, features only), a plain transformer, and HRNet and
VGG, whose stages are unusual. By default every architecture meets the small ones, the large ones meet two architectures,
and dpt meets what it is for and what it refuses; ATTENTKIT_WHOLE_MATRIX=1 runs all 96, which takes some minutes. Images are
40 x 56, weights random.
"""

import math
import os
import re
import warnings
from copy import deepcopy

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import Adam

from attent_kit.build import configure
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment
from attentkit_builtin.segmentors import smp_backbones
from attentkit_builtin.segmentors.smp import SmpSegmentor
from attentkit_builtin.segmentors.smp_networks import ARCHITECTURES

FAMILIES = {
    "residual": "resnet18",
    "mobile": "tu-mobilenetv3_small_050",
    "ConvNeXt": "tu-test_convnext",
    "MiT": "mit_b0",
    "Swin": "tu-swin_tiny_patch4_window7_224",
    "ViT": "tu-test_vit",
    "HRNet": "tu-hrnet_w18_small",
    "VGG": "tu-vgg11",
}
DILATED = {"deeplabv3": 8, "deeplabv3plus": 16, "pan": 16}
"""Architectures that want their deepest map finer, and at which stride; pspnet has three stages instead."""
REFUSED = {
    **{(a, f): "cannot be dilated" for a in DILATED for f in ("Swin", "HRNet", "VGG")},
    **{(a, "ViT"): "it answers one resolution" for a in ARCHITECTURES if a != "dpt"},
    **{(a, "MiT"): "mit_b0" for a in ("unetplusplus", "linknet")},
    **{("dpt", f): "takes encoders of timm alone" for f in ("residual", "MiT")},
}  # fmt: skip
"""What smp cannot do, and a part of the reason that is given."""
TASK = Task(organs=("liver",))
IMAGES = (2, 1, 40, 56)
REGISTRY = load().registry


def build(architecture, family, seed=0):
    torch.manual_seed(seed)
    options = {"architecture": architecture, "encoder": FAMILIES[family]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SmpSegmentor(configure(SmpSegmentor, options, REGISTRY), TASK)


def step(segmentor, optimizer, number):
    """One step on images that follow from its number; the loss."""
    torch.manual_seed(number)
    x, y = torch.rand(IMAGES) * 2 - 1, torch.randint(2, (IMAGES[0], *IMAGES[2:]))
    answer = segmentor.train()(x)
    loss = cross_entropy(answer.logits, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return answer, loss


WHOLE = bool(os.environ.get("ATTENTKIT_WHOLE_MATRIX"))
LARGE = ("Swin", "HRNet", "VGG")
COMBINATIONS = [
    (a, f)
    for a in ARCHITECTURES
    for f in FAMILIES
    if WHOLE or (a in ("segformer", "pan") if f in LARGE else a != "dpt" or f in ("residual", "MiT", "ViT"))
]


@pytest.mark.parametrize(("architecture", "family"), COMBINATIONS)
def test_a_combination_trains_and_resumes_to_the_same_bits_or_is_refused_with_one_that_works(architecture, family):
    if (architecture, family) in REFUSED:
        with pytest.raises(ConfigError) as error:
            build(architecture, family)
        sentence = str(error.value)
        assert REFUSED[architecture, family] in sentence and len(sentence) < 400
        check_what_is_proposed(sentence, architecture, FAMILIES[family])
        return
    segmentor = build(architecture, family)
    optimizer = Adam(segmentor.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in segmentor.parameters()]
    answer, loss = step(segmentor, optimizer, 0)
    assert answer.logits.shape == (2, 2, 40, 56) and loss.isfinite()
    assert any(not torch.equal(p, was) for p, was in zip(segmentor.parameters(), before, strict=True))

    padded = [max(math.ceil(side / segmentor.multiple) * segmentor.multiple, segmentor.smallest) for side in (40, 56)]
    stride = segmentor.feature_stride
    assert answer.features.shape == (2, segmentor.feature_channels, padded[0] // stride, padded[1] // stride)
    if family != "ViT" and architecture != "dpt":
        assert stride == DILATED.get(architecture, 8 if architecture == "pspnet" else 32)

    twin = build(architecture, family, seed=1)
    others = Adam(twin.parameters(), lr=1e-3)
    twin.load_state_dict(segmentor.state_dict())
    others.load_state_dict(deepcopy(optimizer.state_dict()))
    losses = [step(network, its, 1)[1] for network, its in ((segmentor, optimizer), (twin, others))]
    assert losses[0] == losses[1]
    state = twin.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in segmentor.state_dict().items())


def check_what_is_proposed(sentence, architecture, encoder):
    """Whatever the sentence tells to write can be built."""
    proposed = re.findall(r"(architecture|encoder) = '([^']+)'", sentence.partition(" Write ")[2])
    assert proposed, sentence
    for option, value in proposed:
        options = {"architecture": architecture, "encoder": encoder, option: value}
        SmpSegmentor(configure(SmpSegmentor, options, REGISTRY), TASK)


@pytest.mark.parametrize("family", [f for f in FAMILIES if WHOLE or f not in LARGE])
def test_what_the_list_says_of_an_encoder_is_what_building_does(family):
    taken = {a for a in ARCHITECTURES if (a, family) not in REFUSED}
    fits = smp_backbones.describe(FAMILIES[family]).fits
    said = {fits} if fits in ARCHITECTURES else set(ARCHITECTURES) - set(fits.removeprefix("all but ").split(", "))
    # dpt, which is for plain transformers, happens to take some others, and is not proposed for them.
    assert said == (taken if family == "ViT" else taken - {"dpt"})


@pytest.mark.parametrize("alignment", [component.name for component in REGISTRY.of("alignments")])
def test_every_alignment_takes_segformer_on_an_encoder_without_a_finest_map(alignment):
    component = REGISTRY.alignment(alignment)
    small = {
        "segmentor": {"name": "smp", "architecture": "segformer", "encoder": "tu-test_convnext", "auxiliary": 3},
        "translator": {"width": 4, "blocks": 1},
        "image_discriminator": {"width": 4},
        "entropy_discriminator": {"width": 4},
        "output_discriminator": {"width": 4},
        "feature_discriminator": {"hidden": [8]},
        "decoder_width": 4,
    }
    if alignment == "sifa":
        del small["translator"]["blocks"]
    options = {name: value for name, value in small.items() if name in component.Config.model_fields}
    check_alignment(component, options, TASK)
