"""A run that starts from the weights of another: which networks it takes over, and that nobody takes it for another run."""

import json
import shutil

import pytest

import attent_kit as ak
from attent_kit.config import read_toml
from attent_kit.engine.compare.content import content_asked, content_there, differences
from attent_kit.engine.conduct.train import TrainRequest
from attent_kit.engine.conduct.train import train as conduct
from attent_kit.engine.run.checkpoint import read_weights
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from attent_kit.files import read_signed, write_signed
from support.commands import says, train_words
from support.small_runs import REGISTRY, SMALL, Killed, equal, settings, weights

SOURCE_ONLY = {"name": "source_only", "segmentor": SMALL["segmentor"], "segment_steps": 4, "segment_batch_size": 2}


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


@pytest.fixture(scope="module")
def first(domains, tmp_path_factory):
    """A finished run of source_only."""
    folder = tmp_path_factory.mktemp("first") / "run"
    train(settings(domains, SOURCE_ONLY), folder, REGISTRY, "cpu")
    return folder


def warm(domains, run, alignment=SMALL, **more):
    return settings(domains, alignment, warm_start={"run": str(run)}, **more)


def states_before_the_first_step(asked, folder, monkeypatch):
    """What the networks of a run hold when training begins."""
    import attent_kit.engine.train.train as module
    from attent_kit.engine.run.assemble import network_states

    found = {}

    def fit(alignment, *more):
        found.update({name: {k: v.clone() for k, v in s.items()} for name, s in network_states(alignment).items()})
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(module, "fit", fit)
        train(asked, folder, REGISTRY, "cpu")
    return found


def test_networks_that_both_have_start_from_the_other_and_the_rest_afresh(domains, first, tmp_path, monkeypatch):
    begun = states_before_the_first_step(warm(domains, first), tmp_path / "warm", monkeypatch)
    cold = states_before_the_first_step(settings(domains), tmp_path / "cold", monkeypatch)
    assert equal(begun["S"], weights(first)["networks"]["S"]) and not equal(begun["S"], cold["S"])
    assert len(begun) > 4 and all(equal(begun[name], cold[name]) for name in begun if name != "S")
    recorded = json.loads((tmp_path / "warm" / "env.json").read_text())["warm_start"]
    assert recorded["networks"] == ["S"] and recorded["run"] == str(first) and len(recorded["digest"]) == 64
    assert read_toml(tmp_path / "warm" / "config.toml")["warm_start"]["digest"] == recorded["digest"]


def test_the_command_says_what_it_took_over_and_goes_on_after_a_kill_without_the_other_run(
    attentkit, domains, prepared, first, tmp_path
):
    words = train_words(prepared, tmp_path / "warm", "--from", first, alignment="attent")
    small = "segmentor.decoder_channels=[8,8,8] translator.width=4 translator.blocks=1 pool=3 translate_steps=2"
    small += " image_discriminator.width=4 image_discriminator.layers=1 entropy_discriminator.width=4"
    words += [f"--set={option}" for option in small.split()]
    outcome = attentkit(*words)
    assert outcome.code == 0, outcome.err
    assert (
        f"S starts from the weights of {first}" in outcome.err
        and "G_st" in outcome.err
        and "start afresh" in outcome.err
    )
    assert attentkit(*words).code == 0
    assert "--from" in attentkit("train", "--help").out

    other = shutil.copytree(first, tmp_path / "other")
    asked = warm(domains, other, {**SOURCE_ONLY, "segment_steps": 6})
    train(asked, tmp_path / "undisturbed", REGISTRY, "cpu")

    def kill(progress):
        if progress.step == 4:
            raise Killed

    with pytest.raises(Killed):
        train(asked, tmp_path / "killed", REGISTRY, "cpu", watcher=TrainWatcher(stepped=kill))
    shutil.rmtree(other)
    conduct(TrainRequest(config=tmp_path / "killed/config.toml", out=tmp_path / "killed", device="cpu"), REGISTRY)
    assert equal(weights(tmp_path / "killed"), weights(tmp_path / "undisturbed"))
    assert json.loads((tmp_path / "killed/env.json").read_text())["warm_start"]["networks"] == ["S"]


def test_it_is_never_taken_for_a_run_of_its_own_start_nor_for_one_of_other_weights(domains, first, tmp_path):
    plain = settings(domains, SOURCE_ONLY)
    train(warm(domains, first, SOURCE_ONLY), tmp_path / "warm", REGISTRY, "cpu")
    moved = shutil.copytree(first, tmp_path / "moved")
    hashes = [read_toml(first / "config.toml")["data"][f"{name}_hash"] for name in ("source", "target")]
    there = content_there(RunFolder(tmp_path / "warm"))
    assert differences(there, content_asked(plain, hashes, REGISTRY)) == ["warm_start.digest"]
    conduct(
        TrainRequest(config=tmp_path / "warm/config.toml", from_run=moved, out=tmp_path / "warm", device="cpu"),
        REGISTRY,
    )
    train(settings(domains, SOURCE_ONLY, **{"seed": 6}), tmp_path / "seed6", REGISTRY, "cpu")
    with pytest.raises(ak.ConfigError, match="another configuration"):
        train(warm(domains, tmp_path / "seed6", SOURCE_ONLY), tmp_path / "warm", REGISTRY, "cpu")
    again = TrainRequest(config=tmp_path / "warm/config.toml", out=tmp_path / "new", device="cpu")
    first.rename(first.parent / "hidden")
    shutil.copytree(tmp_path / "seed6", first)
    try:
        with pytest.raises(ak.ConfigError, match="no longer holds the weights"):
            conduct(again, REGISTRY)
    finally:
        shutil.rmtree(first)
        (first.parent / "hidden").rename(first)
    assert not (tmp_path / "new").exists()


def test_a_shared_stage_is_that_of_its_own_start(domains, first, tmp_path):
    """Were its name the same, a row that starts afresh would take over what began elsewhere."""
    shared = TrainOptions(shared=tmp_path / "shared")
    train(settings(domains), tmp_path / "cold", REGISTRY, "cpu", shared)
    train(warm(domains, first), tmp_path / "warm", REGISTRY, "cpu", shared)
    assert len([*(tmp_path / "shared").glob("*.ckpt")]) == 2


def test_the_exported_segmentor_alone_is_enough(domains, first, tmp_path, monkeypatch):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("config.toml", "domain.json", "segmentor.safetensors"):
        shutil.copy(first / name, alone / name)
    begun = states_before_the_first_step(warm(domains, alone), tmp_path / "warm", monkeypatch)
    assert equal(begun["S"], read_weights(first / "segmentor.safetensors")[0])


def test_what_does_not_fit_is_one_sentence_before_anything_is_written(attentkit, prepared, first, tmp_path):
    words = train_words(prepared, tmp_path / "new")
    narrow = [*words, "--set", "segmentor.decoder_channels=[8,8,8]"]
    assert says(
        attentkit(*words, "--from", first), 2, f"--from {first}", "'S'", "there and", str(first / "config.toml")
    )
    assert says(attentkit(*narrow, "--from", tmp_path), 2, f"--from {tmp_path}", "does not hold a trained run")
    run = shutil.copytree(first, tmp_path / "run")
    said = read_signed(run / "domain.json")
    for name, value, shown in (
        ("organs", ["liver", "spleen"], "liver, spleen"),
        ("size", 48, "48"),
        ("channels", 3, "3"),
    ):
        write_signed(run / "domain.json", {**said, name: value})
        assert says(attentkit(*narrow, "--from", run), 2, f"trained with {name} {shown}")
    (run / "domain.json").write_text("[")
    assert says(attentkit(*narrow, "--from", run), 1, f"{run / 'domain.json'} is missing or damaged")
    assert not (tmp_path / "new" / "config.toml").exists()


def test_a_comparison_may_start_from_a_run_and_its_cells_are_others(attentkit, suite, prepared, first, tmp_path):
    words = ["compare", suite, "-o", tmp_path / "out", "-d", "cpu", "--seeds", "0", "--directions", "mr2ct", "--no-report",
             "--alignments", "source_only"]  # fmt: skip
    narrow = ["--set", "segmentor.decoder_channels=[8,8,8]"]
    assert attentkit(*words, *narrow).code == 0
    assert says(attentkit(*words, "--set", f"warm_start.run={first}"), 2, "row 'W/o adaptation'", f"--from {first}")
    assert attentkit(*words, *narrow, "--set", f"warm_start.run={first}").code == 0
    folders = sorted(path.parent for path in (tmp_path / "out").glob("*/*/seed0*/checkpoint.ckpt"))
    assert len(folders) == 2
    assert [("warm_start" in read_toml(folder / "config.toml")) for folder in folders] == [False, True]


def test_the_door_has_both(domains, first, tmp_path):
    longer = ak.train(first, more_steps=2, out=tmp_path / "longer", device="cpu")
    assert longer.settings.more_steps == (2,) and weights(tmp_path / "longer")["step"] == 6
    config = first / "config.toml"
    started = ak.train(config=config, from_run=first, out=tmp_path / "warm", device="cpu")
    assert started.settings.warm_start.run == first and not equal(weights(tmp_path / "warm"), weights(first))
