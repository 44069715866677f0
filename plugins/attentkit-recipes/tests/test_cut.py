"""One step of CUT, what its gradients reach, and the contract of an alignment."""

import pytest
import torch
from attentkit_recipes.cut import CUT

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {
    "segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "segment_batch_size": 2,
    "translator": {"width": 8, "blocks": 1},
    "image_discriminator": {"width": 8},
    "patches": 32,
}


def built(**options):
    registry = load().registry
    return CUT(configure(CUT, {**SMALL, **options}, registry), Builder(registry, Task(), 0), Task())


def test_it_keeps_the_contract():
    check_alignment(CUT, SMALL)


def test_the_translator_lowers_all_three_terms_at_their_weights():
    torch.manual_seed(0)
    method, wanted = built(contrast=3.0, contrast_identity=0.5), {}
    batch = Batch(torch.rand(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64), torch.rand(2, 1, 32, 32))
    L = method.translate(batch, lambda name, loss, when=None: wanted.update({name: loss}))
    assert list(wanted) == ["D", "G"] and wanted["D"] == L["L_D"]
    assert wanted["G"].item() == pytest.approx((L["L_gan"] + 3 * L["L_nce"] + 0.5 * L["L_nce_idt"]).item())
    assert L["L_nce"] > 0 and L["L_nce_idt"] > 0
    wanted["G"].backward()
    assert all(p.grad is not None for network in (method.G, method.H) for p in network.parameters())


def test_fastcut_has_no_identity_and_falls_in_the_last_quarter():
    registry = load().registry
    fast = configure(CUT, {"preset": "fast"}, registry)
    assert (fast.contrast, fast.contrast_identity, fast.pool) == (10.0, 0.0, 0)
    (translate, _) = CUT(
        configure(CUT, {**SMALL, "constant_part": 0.75}, registry), Builder(registry, Task(), 0), Task()
    ).stages()
    assert [translate.schedule(part) for part in (0.5, 0.75, 1.0)] == pytest.approx([1, 1, 0])


def test_its_translation_is_shared_by_rows_that_differ_in_the_segmentor_alone():
    assert built().stages()[0].recipe == built(learning_rate=1.0).stages()[0].recipe
    assert built().stages()[0].recipe != built(temperature=0.1).stages()[0].recipe
