"""MONAI's networks keep the contract of a segmentor and go through an alignment."""

import pickle

import pytest
import torch
from attentkit_monai.segmentors import (
    MonaiBasicUNet,
    MonaiBasicUNet3D,
    MonaiSegResNet,
    MonaiSegResNet3D,
    MonaiSwinUNETR,
)

from attent_kit.build import configure
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment, check_segmentor

ALL = [
    (MonaiBasicUNet, {"features": [8, 8, 16, 16, 32, 8]}),
    (MonaiSegResNet, {"init_filters": 8}),
    (MonaiSwinUNETR, {"feature_size": 12}),
]


OF_VOLUMES = [
    (MonaiBasicUNet3D, {"features": [4, 4, 4, 4, 8, 4], "patch": [4, 32, 32]}),
    (MonaiSegResNet3D, {"init_filters": 8, "blocks_down": [1, 1], "patch": [4, 32, 32]}),
]


@pytest.mark.parametrize(("segmentor", "options"), OF_VOLUMES)
def test_one_of_volumes_keeps_the_contract_for_any_depth_and_says_its_patch(segmentor, options):
    check_segmentor(segmentor, options)
    network = segmentor(configure(segmentor, options, load().registry), Task()).eval()
    assert segmentor.dims == 3 and network.patch.size == (4, 32, 32) and network.patch.foreground == 1 / 3
    for depth in (1, 3, 9):
        with torch.no_grad():
            assert network(torch.rand(1, 1, depth, 40, 33)).logits.shape == (1, 5, depth, 40, 33)
    whole = segmentor(configure(segmentor, {}, load().registry), Task())
    assert whole.patch.size == (32, 128, 128)


@pytest.mark.parametrize(("segmentor", "options"), ALL)
@pytest.mark.parametrize("task", [Task(), Task(channels=3, organs=("liver",))])
def test_it_keeps_the_contract(segmentor, options, task):
    check_segmentor(segmentor, options, task)


@pytest.mark.parametrize(("segmentor", "options"), ALL)
def test_what_is_added_to_a_slice_is_cut_off_again(segmentor, options):
    torch.manual_seed(0)
    network = segmentor(configure(segmentor, options, load().registry), Task()).eval()
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        whole = network(x)
        padded = network(x[..., :50, :64])
    assert whole.logits.shape == (1, 5, 64, 64) and padded.logits.shape == (1, 5, 50, 64)
    side = max(64 // network.feature_stride, 2)
    assert whole.features.shape == (1, network.feature_channels, side, side)


@pytest.mark.parametrize(("segmentor", "options"), ALL)
def test_a_copy_by_pickle_answers_the_same_with_features_of_its_own(segmentor, options):
    network = segmentor(configure(segmentor, options, load().registry), Task()).eval()
    copy = pickle.loads(pickle.dumps(network))
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        one, other = network(x), copy(x)
    assert torch.equal(one.logits, other.logits) and torch.equal(one.features, other.features)


@pytest.mark.skipif(
    not any(component.name == "monai_segresnet" for component in load().registry.of("segmentors")),
    reason="needs the plugin to be installed: pip install plugins/attentkit-monai",
)
def test_the_whole_of_attent_takes_one():
    attent = load().registry.alignment("attent")
    options = {"segmentor": {"name": "monai_segresnet", "init_filters": 8}, "translator": {"width": 8, "blocks": 1}}
    check_alignment(attent, options)


def test_a_feature_size_that_its_heads_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="multiple of 12"):
        configure(MonaiSwinUNETR, {"feature_size": 20}, load().registry)
