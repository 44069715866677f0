"""CUT's loss of patches in plain numbers, and as the translation of methods that have CycleGAN's."""

import math

import pytest
import torch

from attent_kit.build import Builder, configure
from attent_kit.contrast import PatchHeads, patch_loss, patch_nce
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Batch, Task, Translator
from attent_kit.plugins import load
from attent_kit.testing import check_alignment
from attent_kit.testing.networks import shown

REGISTRY = load().registry
METHODS = ["cyclegan", "pixel", "attent"]
SMALL = {
    "segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "segment_batch_size": 2,
    "translator": {"width": 8, "blocks": 2},
    "image_discriminator": {"width": 8},
}


def built(name, **options):
    method = REGISTRY.alignment(name)
    return method(configure(method, {**SMALL, **options}, REGISTRY), Builder(REGISTRY, Task(), 0), Task())


def a_batch():
    torch.manual_seed(5)
    return Batch(torch.rand(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64), torch.rand(2, 1, 32, 32))


def test_places_that_look_alike_cost_log_p_and_places_that_do_not_cost_nothing():
    same = torch.ones(2, 7, 4) / 2
    assert patch_nce(same, same).item() == pytest.approx(math.log(7))
    apart = torch.eye(4).expand(3, 4, 4)
    assert patch_nce(apart, apart).item() == pytest.approx(math.log(1 + 3 * math.exp(-1 / 0.07)), abs=1e-6)
    assert patch_nce(apart, apart, 1.0).item() == pytest.approx(math.log(1 + 3 / math.e))
    swapped = apart[:, [1, 0, 2, 3]]
    assert patch_nce(swapped, apart, 1.0).item() == pytest.approx(math.log(1 + 3 / math.e) + 0.5)


def test_other_images_of_the_batch_are_no_negatives_and_keys_get_no_gradient():
    torch.manual_seed(0)
    q, k = torch.randn(2, 5, 3, requires_grad=True), torch.randn(2, 5, 3, requires_grad=True)
    both = patch_nce(q, k)
    assert both.item() == pytest.approx(((patch_nce(q[:1], k[:1]) + patch_nce(q[1:], k[1:])) / 2).item())
    both.backward()
    assert k.grad is None and q.grad.abs().sum() > 0


def test_heads_answer_unit_vectors_of_the_places_asked_for():
    torch.manual_seed(0)
    heads = PatchHeads([1, 3], width=6)
    maps = [torch.rand(2, 1, 4, 4), torch.rand(2, 3, 2, 2)]
    answers = heads(maps, [torch.tensor([0, 5, 15]), torch.tensor([3])])
    assert [a.shape for a in answers] == [(2, 3, 6), (2, 1, 6)]
    assert torch.allclose(answers[0].norm(dim=2), torch.ones(2, 3))
    assert torch.allclose(answers[1][:, 0], torch.nn.functional.normalize(heads.heads[1](maps[1][..., 1, 1]), dim=1))


class Moved(Translator):
    """An image, moved down by half of its height."""

    encoder_channels = (1,)

    def __init__(self):
        super().__init__(None, Task())

    def forward(self, x):
        return x.roll(x.shape[2] // 2, dims=2)

    def encode(self, x):
        return (x,)


def test_a_translation_that_moves_what_it_sees_costs_more_than_one_that_does_not():
    torch.manual_seed(0)
    G, H, x = Moved(), PatchHeads([1]), torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        for head in H.heads[0][::2]:
            torch.nn.init.normal_(head.bias)
            torch.nn.init.normal_(head.weight)
    assert patch_loss(G, H, x, G(x)) > patch_loss(G, H, x, x) + 0.3


@pytest.mark.parametrize("name", METHODS)
def test_without_it_there_are_no_heads_and_the_recipe_is_as_it_was(name):
    method = built(name)
    assert method.H_st is None and method.H_ts is None
    recipe = method.stages()[0].recipe
    assert not any("contrast" in part for part in recipe if isinstance(part, tuple))
    assert built(name, contrast=1.0).stages()[0].recipe == (*recipe, ("contrast", "1.0"))


def test_methods_share_its_stage_to_the_bit():
    options = {"contrast": 2.0, "translator": {"name": "resnet", "width": 8, "blocks": 2}}
    losses, recipes = [], set()
    for name in METHODS:
        method, wanted = built(name, **options), {}
        recipes.add(method.stages()[0].recipe)
        batch = a_batch()
        L = method.translate(batch, lambda name, loss, when=None, wanted=wanted: wanted.update({name: loss}))
        assert list(wanted) == ["D", "G"]
        assert wanted["G"].item() == pytest.approx((L["L_gan"] + 2 * (L["L_nce"] + L["L_nce_idt"])).item())
        losses.append([value.item() for value in L.values()])
    assert len(recipes) == 1 and losses[0] == losses[1] == losses[2]


def test_attent_keeps_the_contract_with_it():
    check_alignment(REGISTRY.alignment("attent"), {**SMALL, "contrast": 1.0})


def test_a_translator_that_hides_its_encoder_is_refused_in_a_sentence(monkeypatch):
    hidden = REGISTRY.translator("resnet")
    monkeypatch.setattr(hidden, "__init__", lambda self, config, task: Translator.__init__(self, config, task))
    with pytest.raises(ConfigError, match=r"'resnet' shows no maps .* --set translator="):
        built("cyclegan", contrast=1.0)


@pytest.mark.parametrize(
    "name, blocks, maps", [("resnet", 9, 5), ("attention", 9, 5), ("sifa", 9, 5), ("resnet", 1, 4), ("resnet", 0, 3)]
)
def test_translators_show_image_halvings_and_the_first_and_the_middle_block(name, blocks, maps):
    method = REGISTRY.translator(name)
    torch.manual_seed(0)
    G = method(configure(method, {"width": 4, "blocks": blocks}, REGISTRY), Task())
    x = torch.rand(1, 1, 37, 45)
    shown = G.encode(x)
    assert tuple(m.shape[1] for m in shown) == G.encoder_channels and len(shown) == maps and torch.equal(shown[0], x)
    assert [m.shape[2:] for m in shown[1:3]] == [(19, 23), (10, 12)]
    if blocks == 9:
        assert torch.equal(shown[4], G.trunk[:5](shown[2])) and torch.equal(shown[3], G.trunk[0](shown[2]))


def test_an_encoder_that_is_not_as_declared_fails_its_check():
    G, x = Moved(), torch.rand(2, 1, 8, 8, requires_grad=True)
    shown(G, x, G.encode(x))
    with pytest.raises(AssertionError, match="no gradient"):
        shown(G, torch.rand(2, 1, 8, 8, requires_grad=True), G.encode(x))
    G.encoder_channels = (2,)
    with pytest.raises(AssertionError, match=r"maps of \(1,\) channels, encoder_channels says \(2,\)"):
        shown(G, x, G.encode(x))
