"""A run predicts from what it has exported: every network that its method's `predict` calls, and no other."""

import json
import pickle
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attent_kit.build import build_alignment
from attent_kit.cli import run as main
from attent_kit.engine.apply.pack import WEIGHTS, read_pack
from attent_kit.engine.run.assemble import unwrapped
from attent_kit.engine.run.checkpoint import read_weights, write_weights
from attent_kit.engine.run.exported import export_networks, load_exported, read_networks
from attent_kit.errors import ConfigError, RunError
from attent_kit.testing import check_alignment
from support.cases import contents
from support.commands import says, train_words
from support.small_methods import ALIGNMENTS, REGISTRY, VARIANTS, batch, made
from support.stand_in import facts_of, greys, predict, save, stand_in_run

TRANSLATE_FIRST = {"pixel", "attent"}
THREE = ("config.toml", "domain.json", "segmentor.safetensors")
SMALL = [
    "--set=translate_steps=1", "--set=translator.width=4", "--set=translator.blocks=1", "--set=image_discriminator.width=4",
    "--set=image_discriminator.layers=1",
]  # fmt: skip


def test_all_methods_but_those_that_translate_first_predict_with_their_segmentor():
    claims = {name: REGISTRY.alignment(name).predicts_with for name in ALIGNMENTS}
    assert {name for name, network in claims.items() if not network} == TRANSLATE_FIRST
    assert set(claims.values()) == {"", "S"}


@pytest.mark.parametrize("name, more", VARIANTS)
def test_predict_is_what_that_network_answers_whatever_the_others_are(name, more):
    alignment, _, _ = made(name, **more)
    alignment.eval()
    x = batch().x_t
    with torch.no_grad():
        alone, before = alignment.S(x).logits, alignment.predict(x)
        for child, network in alignment.named_children():
            if child != "S":
                for parameter in network.parameters():
                    parameter.add_(0.1)
        after = alignment.predict(x)
    assert torch.equal(before, alone) == torch.equal(after, before) == (name not in TRANSLATE_FIRST)


def test_a_false_claim_is_told_by_the_contract_and_a_senseless_one_before_training(prepared, monkeypatch):
    attent = REGISTRY.alignment("attent")
    monkeypatch.setattr(attent, "predicts_with", "S")
    small = {"segmentor": {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}, "translator": {"width": 4, "blocks": 1}}
    with pytest.raises(AssertionError, match="predicts_with says 'S'"):
        check_alignment(attent, small)
    monkeypatch.setattr(attent, "predicts_with", "G_ts")
    with pytest.raises(ConfigError, match="'G_ts'"):
        choice = made("attent")[0]
        build_alignment(type("Choice", (), {"name": "attent", "options": choice.config}), REGISTRY, choice.task, 0)


CPU = torch.device("cpu")


def export(path, alignment):
    export_networks(path, alignment, 64, CPU, {"steps": 4})
    return load_file(path)


def test_of_the_two_segmentors_of_cycada_the_one_that_predicts_is_exported(tmp_path):
    alignment, _, _ = made("cycada")
    with torch.no_grad():
        for parameter in alignment.F.parameters():
            parameter.fill_(9.0)
    # As if the source network had been built first.
    alignment._modules = {"F": alignment.F, **{name: m for name, m in alignment.named_children() if name != "F"}}
    weights = export(tmp_path / "s.safetensors", alignment)
    own = unwrapped(alignment.S).state_dict()
    assert weights.keys() == own.keys() and all(torch.equal(weights[key], own[key]) for key in own)
    twin, _, _ = made("cycada")
    facts, found = load_exported(tmp_path / "s.safetensors", twin, 64, CPU)
    assert (facts, found) == ({"network": "S", "networks": ["S"], "steps": 4}, {"S"})
    assert all(torch.equal(value, unwrapped(twin.S).state_dict()[key]) for key, value in own.items())


@pytest.mark.parametrize("name", ["attent", "pixel"])
def test_a_translator_that_predicts_lies_beside_the_segmentor_and_nothing_else_does(tmp_path, name):
    alignment, _, _ = made(name)
    weights = export(tmp_path / "s.safetensors", alignment)
    own, translator = (unwrapped(network).state_dict() for network in (alignment.S, alignment.G_ts))
    assert weights.keys() == own.keys() | {f"G_ts/{key}" for key in translator}
    assert not any(key.startswith("network.") for key in weights.keys() - own.keys())
    twin, _, _ = made(name)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    facts, found = load_exported(tmp_path / "s.safetensors", twin, 64, CPU)
    assert found == {"S", "G_ts"} == {*facts["networks"]} and facts["network"] == "S"
    for each in (alignment, twin):
        each.eval()
    with torch.no_grad():
        assert torch.equal(alignment.predict(batch().x_t), twin.predict(batch().x_t))


def test_buffers_of_the_method_itself_are_kept_where_predict_may_use_them(tmp_path):
    alignment, _, _ = made("pixel")
    alignment.register_buffer("step", torch.tensor(7))
    export(tmp_path / "s.safetensors", alignment)
    alignment.step.zero_()
    assert "" in read_networks(tmp_path / "s.safetensors")[0]
    load_exported(tmp_path / "s.safetensors", alignment, 64, CPU)
    assert int(alignment.step) == 7


def test_the_exported_file_says_which_network_it_is_and_how_long_it_was_trained(trained):
    with safe_open(trained / "segmentor.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["attent_kit"])
    assert (facts["network"], facts["steps"], len(facts["config"])) == ("S", 3, 64)


@pytest.fixture
def shared(trained, tmp_path):
    """What a person gives to others: three files of `trained`."""
    (tmp_path / "shared").mkdir()
    for name in THREE:
        shutil.copy(trained / name, tmp_path / "shared" / name)
    return tmp_path / "shared"


def test_three_files_of_a_run_predict_as_the_whole_run_does(attentkit, trained, shared, volumes, tmp_path):
    image = volumes / "ct" / "images" / "ct_3.nii.gz"
    for run, name in ((trained, "whole"), (shared, "three")):
        (tmp_path / name).mkdir()
        assert attentkit("predict", run, image, tmp_path / name, "-d", "cpu", "--probabilities").code == 0
    for name in ("ct_3.nii.gz", "ct_3_probabilities.nii.gz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "three" / name).read_bytes(), name
    assert np.asarray(nib.load(tmp_path / "three" / "ct_3.nii.gz").dataobj).any()


def test_a_run_whose_checkpoint_is_gone_still_predicts(attentkit, own_run, volumes, tmp_path):
    (own_run / "checkpoint.ckpt").unlink()
    assert attentkit("predict", own_run, volumes / "ct/images/ct_3.nii.gz", tmp_path, "-d", "cpu").code == 0
    found, before = (nib.load(folder / "ct_3.nii.gz").dataobj for folder in (tmp_path, own_run / "predictions"))
    assert np.array_equal(found, before)


@pytest.fixture(scope="module")
def pixel(prepared, tmp_path_factory):
    """A finished run of a method that translates before it segments."""
    folder = tmp_path_factory.mktemp("pixel") / "run"
    assert main(train_words(prepared, folder, *SMALL, alignment="pixel")) == 0
    return folder


def test_a_method_that_translates_first_predicts_packs_and_starts_without_its_checkpoint(
    attentkit, pixel, prepared, volumes, tmp_path
):
    run, image = shutil.copytree(pixel, tmp_path / "run"), volumes / "ct/images/ct_3.nii.gz"
    (run / "checkpoint.ckpt").unlink()
    for folder, name in ((pixel, "whole"), (run, "exported")):
        where = (tmp_path / f"{name}.nii.gz", "-d", "cpu", "--translation", "--probabilities")
        assert attentkit("predict", folder, image, *where).code == 0
        assert attentkit("pack", folder, tmp_path / f"{name}.zip").code == 0
    for end in (".nii.gz", "_translation.nii.gz", "_probabilities.nii.gz"):
        assert (tmp_path / f"whole{end}").read_bytes() == (tmp_path / f"exported{end}").read_bytes()
    assert read_pack(tmp_path / "whole.zip").files[WEIGHTS] == read_pack(tmp_path / "exported.zip").files[WEIGHTS]
    outcome = attentkit(*train_words(prepared, tmp_path / "warm", *SMALL, "--from", run, alignment="pixel"))
    assert outcome.code == 0 and "G_ts, S start from" in " ".join((outcome.out + outcome.err).split())


def test_the_file_of_an_earlier_attent_kit_predicts_beside_its_checkpoint_and_asks_for_it_alone(
    attentkit, pixel, volumes, tmp_path
):
    run, image = shutil.copytree(pixel, tmp_path / "run"), volumes / "ct/images/ct_3.nii.gz"
    weights, facts = read_weights(run / "segmentor.safetensors")
    del facts["networks"]
    segmentor = {key: value for key, value in weights.items() if not key.startswith("G_ts/")}
    write_weights(run / "segmentor.safetensors", segmentor, facts)
    assert attentkit("predict", run, image, tmp_path / "a.nii.gz", "-d", "cpu").code == 0
    (run / "checkpoint.ckpt").unlink()
    outcome = attentkit("predict", run, image, tmp_path / "b.nii.gz", "-d", "cpu")
    assert says(outcome, 2, "'S' ... 'G_ts' ... copy checkpoint")
    assert not (tmp_path / "b.nii.gz").exists()


def test_a_run_folder_without_weights_is_none(attentkit, shared, volumes, tmp_path):
    (shared / "segmentor.safetensors").unlink()
    outcome = attentkit("predict", shared, volumes / "ct/images/ct_3.nii.gz", tmp_path / "p.nii.gz", "-d", "cpu")
    assert says(outcome, 2, f"{shared} ... run")


def test_training_into_a_folder_with_weights_of_another_configuration_is_refused(attentkit, shared, prepared):
    before = contents(shared)
    outcome = attentkit(*train_words(prepared, shared, "--set", "dice=1.0"))
    assert says(outcome, 2, "holds a run of another configuration")
    assert contents(shared) == before


def damaged(path):
    path.write_bytes(path.read_bytes()[:-100])


def a_pickle(path):
    path.write_bytes(pickle.dumps({"S": 1}))


def of_another_shape(path):
    weights = load_file(path)
    weights[next(iter(weights))] = torch.zeros(3, 3)
    write_weights(path, weights, facts_of(path.parent))


def a_weight_less(path):
    weights = load_file(path)
    weights.popitem()
    write_weights(path, weights, facts_of(path.parent))


def of_other_options(path):
    write_weights(path, load_file(path), facts_of(path.parent, config="0"))


def of_another_network(path):
    write_weights(path, load_file(path), facts_of(path.parent, network="F"))


def without_a_digest(path):
    save_file(load_file(path), path, {"attent_kit": '{"network": "S"}'})


@pytest.mark.parametrize(
    "spoil, code, sentence",
    [
        (damaged, 1, "is not a readable safetensors file"),
        (a_pickle, 1, "is not a readable safetensors file"),
        (of_another_shape, 1, "does not fit ... config.toml"),
        (a_weight_less, 1, "does not fit ... config.toml"),
        (of_other_options, 2, "other options ... config.toml"),
        (of_another_network, 1, "'F' ... 'S'"),
        (without_a_digest, 1, "carries no digest"),
    ],
)
def test_weights_that_are_not_those_of_the_run_end_in_a_sentence(
    attentkit, shared, volumes, tmp_path, spoil, code, sentence
):
    spoil(shared / "segmentor.safetensors")
    outcome = attentkit("predict", shared, volumes / "ct/images/ct_3.nii.gz", tmp_path / "p.nii.gz", "-d", "cpu")
    assert says(outcome, code, f"{shared / 'segmentor.safetensors'} ... {sentence}")
    assert not (tmp_path / "p.nii.gz").exists()


def test_a_checkpoint_that_is_there_is_what_counts(tmp_path):
    path = save(tmp_path / "image.nii.gz", greys(), np.eye(4))
    run = stand_in_run(tmp_path / "run", 12)
    (run / "checkpoint.ckpt").write_bytes(b"junk")
    with pytest.raises(RunError, match="is not a readable checkpoint"):
        predict(run, path, tmp_path / "l.nii.gz")
