"""Presets: published settings by one word, under whatever else is given."""

import json
from pathlib import Path

import pytest

from attent_kit.build import Builder, configure
from attent_kit.config import dump
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from attent_kit.plugins import load
from attent_kit.registry import Registry

REGISTRY = load().registry
GOLDEN = json.loads((Path(__file__).parent / "golden_presets.json").read_text())
"""Every option that each preset of the built-ins came to when it was checked against its paper: a change here is a change of
the published settings, and of nothing else."""
ALIGNMENTS = {c.name: c.load() for c in REGISTRY.of("alignments")}


def config(name, **options):
    return configure(ALIGNMENTS[name], options, REGISTRY)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_every_method_has_its_published_settings(name):
    assert "paper" in ALIGNMENTS[name].Config.presets


@pytest.mark.parametrize("name, preset", [(n, p) for n, a in ALIGNMENTS.items() for p in a.Config.presets])
def test_every_preset_is_valid_differs_from_the_default_and_is_written_out_in_full(name, preset):
    chosen = config(name, preset=preset)
    assert chosen != config(name)
    assert "preset" not in dump(chosen)
    assert configure(ALIGNMENTS[name], dump(chosen), REGISTRY) == chosen


@pytest.mark.parametrize("name, preset", [place.split() for place in GOLDEN])
def test_every_preset_comes_to_exactly_these_options(name, preset):
    assert dump(config(name, preset=preset)) == GOLDEN[f"{name} {preset}"]


def test_no_preset_of_the_built_ins_is_left_out_of_the_golden_ones():
    ours = {c.name for c in REGISTRY.of("alignments") if c.plugin == "builtin"}
    assert set(GOLDEN) == {f"{name} {preset}" for name in ours for preset in ALIGNMENTS[name].Config.presets}


@pytest.mark.parametrize("name", ["ada_output", "attent", "pixel", "entropy", "cycada", "sifa"])
def test_where_authors_and_paper_differ_both_are_presets(name):
    assert config(name, preset="paper") != config(name, preset="authors-code")


def test_what_is_given_lies_over_the_preset():
    chosen = config("attent", preset="authors-code", cycle=7.0, translator={"width": 8})
    assert (chosen.cycle, chosen.translator.options.width) == (7.0, 8)
    assert (chosen.identity, chosen.translator.options.gate_norm) == (5.0, "batch")


def test_another_component_drops_the_options_that_the_preset_had_for_its_own():
    chosen = config("attent", preset="paper", segmentor={"name": "smp", "encoder": "resnet34"})
    assert (chosen.segmentor.name, chosen.segmentor.options.encoder) == ("smp", "resnet34")


def test_slides_and_code_of_attent():
    slides, code = (config("attent", preset=p) for p in ("paper", "authors-code"))
    assert (slides.gan, slides.identity, slides.entropy) == ("bce", 0.0, "summed")
    assert (slides.translator.options.gate, slides.translator.options.gate_norm) == ("single", "none")
    assert (code.gan, code.identity, code.entropy) == ("lsgan", 5.0, "per-class")
    assert (code.translator.options.gate, code.translator.options.gate_norm) == ("doubled", "batch")
    assert code.image_discriminator.options.pooled and not slides.image_discriminator.options.pooled
    assert (code.learning_rate, code.betas, code.auxiliary, code.segment_batch_size) == (1e-5, (0.9, 0.99), 0.1, 1)
    assert (code.adversarial, code.auxiliary_adversarial, code.discriminator_learning_rate) == (1e-3, 2e-4, 1e-4)


@pytest.mark.parametrize("name, steps", [("ada_output", 150_000), ("entropy", 120_000)])
def test_adaptsegnet_and_advent_stop_a_poly_schedule_of_250_thousand_steps_early(name, steps):
    chosen = config(name, preset="paper")
    assert (chosen.optimizer, chosen.learning_rate, chosen.momentum, chosen.weight_decay) == ("sgd", 2.5e-4, 0.9, 5e-4)
    alignment = ALIGNMENTS[name](config(name, preset="paper", segmentor=SMALL), Builder(REGISTRY, TASK, 0), TASK)
    (stage,) = alignment.stages()
    assert stage.steps == steps
    assert stage.schedule(0.0) == 1.0
    assert stage.schedule(1.0) == pytest.approx((1 - steps / 250_000) ** 0.9)


def test_sifa_is_fed_another_rate_than_its_settings_say():
    assert config("sifa", preset="paper").learning_rate == 1e-3
    assert config("sifa", preset="authors-code").learning_rate == 2e-4
    v1 = config("sifa", preset="paper-v1")
    assert v1.version == "v1" and v1.segmentor.options.dropout == 0.25 and not v1.segmentor.options.auxiliary


def test_synsegnet_weighs_kidneys_tenfold_and_ends_its_segmentor_in_tanh():
    paper = config("synsegnet", preset="paper")
    assert paper.class_weights == (1, 1, 10, 10, 1) and paper.segmentor.options.tanh and paper.identity == 0
    assert not config("synsegnet", segmentor="resnet").segmentor.options.tanh
    with pytest.raises(ConfigError, match="5 weights for 3 classes"):
        ALIGNMENTS["synsegnet"](config("synsegnet", class_weights=[1] * 5), Builder(REGISTRY, TASK, 0), TASK)


TASK = Task(organs=("liver", "spleen"))
SMALL = {"name": "deeplabv2", "width": 4, "blocks": [1, 1, 1, 1]}


def test_a_preset_that_is_not_there_is_a_sentence_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"preset: there is no preset 'papper'. Did you mean 'paper'\? There are: paper, "
    ):
        config("attent", preset="papper")


def test_a_component_without_presets_has_no_such_option():
    with pytest.raises(ConfigError, match="segmentor.preset: no such option"):
        config("attent", segmentor={"preset": "paper"})


def test_a_preset_with_options_of_another_backbone_is_a_sentence():
    with pytest.raises(ConfigError, match=r"segmentor.encoder: no such option. Accepted here: .*head"):
        config("attent", preset="paper", segmentor={"encoder": "resnet34"})


def test_a_preset_with_a_backbone_that_the_method_cannot_take_is_refused_when_it_is_built():
    chosen = config("sifa", preset="paper", segmentor={"name": "smp"})
    with pytest.raises(ConfigError, match="SIFA v2 needs a low-level head and 'smp' has none as it is set"):
        ALIGNMENTS["sifa"](chosen, Builder(REGISTRY, TASK, 0), TASK)
    ALIGNMENTS["sifa"](config("sifa", version="v1", segmentor="smp"), Builder(REGISTRY, TASK, 0), TASK)


def test_show_prints_what_a_preset_sets(attentkit):
    outcome = attentkit("show", "attent")
    assert outcome.code == 0
    assert "preset paper" in outcome.out and "preset authors-code" in outcome.out and "gate=single" in outcome.out
    assert "backbones: any segmentor" in outcome.out


def test_a_component_of_networks_may_have_presets_too():
    from attent_kit.config import ComponentConfig, validate

    class Config(ComponentConfig):
        presets = {"small": {"width": 4}}
        width: int = 64
        """Channels."""

    assert validate(Config, {"preset": "small"}, Registry()).width == 4
    assert validate(Config, {"preset": "small", "width": 8}, Registry()).width == 8
