"""Methods that never read the source: structurally; from runs and from foreign weights; and what cannot be started."""

import json
import shutil
import tomllib

import h5py
import pytest
import torch
from safetensors.torch import save_file

import attent_kit as ak
import attent_kit.engine.train.train as engine
from attent_kit.config import read_toml
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.unread import is_read, unread
from attent_kit.engine.apply.trained import load_run, open_run
from attent_kit.engine.conduct.train import TrainRequest
from attent_kit.engine.conduct.train import train as conduct
from attent_kit.engine.run.assemble import unwrapped
from attent_kit.engine.run.checkpoint import read_weights, write_weights
from attent_kit.engine.run.foreign import named_as_here
from attent_kit.engine.snapshots.look import Viewer
from attent_kit.engine.study.shift import ShiftOptions, measure_shift
from attent_kit.engine.train.train import TrainWatcher, train
from attent_kit.files import read_signed, write_signed
from support.adapting_methods import SEGMENTOR, AtTestTime, SourceFree
from support.messages import quotes
from support.small_runs import REGISTRY, Killed, equal, settings, weights, with_components

CPU = torch.device("cpu")
THEIRS = with_components(REGISTRY, ("alignments", "free", SourceFree), ("alignments", "at_test_time", AtTestTime))
FREE = {"name": "free", "segmentor": SEGMENTOR}


@pytest.fixture(scope="module")
def first(prepared, tmp_path_factory):
    """A finished run of source_only, MR to CT."""
    folder = tmp_path_factory.mktemp("first") / "run"
    options = {"name": "source_only", "segmentor": SEGMENTOR, "segment_steps": 3, "segment_batch_size": 2}
    train(settings((prepared / "mr.h5", prepared / "ct.h5"), options), folder, REGISTRY, "cpu")
    return folder


def asked(prepared, run, alignment=FREE, **start):
    data = {"unread": "mr", "target": str(prepared / "ct.h5")}
    return settings((1, 2), alignment, registry=THEIRS, data=data, warm_start={"run": str(run), **start})


def request(prepared, out, **more):
    return TrainRequest("free", **{"target": prepared / "ct.h5", "out": out, "device": "cpu", **more})


def refused(asked, *words):
    with pytest.raises(ak.ConfigError) as error:
        conduct(asked, THEIRS)
    assert all(word in str(error.value) for word in words), error.value
    return str(error.value)


def test_the_source_is_never_opened_whatever_names_it(prepared, first, tmp_path, monkeypatch):
    opened = []
    for module, name in ((h5py, "File"), (Prepared, "open")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, *more, real=real: opened.append(str(path)) or real(path, *more))
    result = conduct(request(prepared, tmp_path / "run", source=prepared / "mr.h5", from_run=first), THEIRS)
    assert {prepared / "ct.h5"} == {*map(type(prepared), opened)} and len(result.scores) > 0
    config = read_toml(tmp_path / "run" / "config.toml")
    assert config["data"].keys() == {"unread", "target", "target_hash"} and config["data"]["unread"] == "mr"


def test_it_trains_and_predicts_where_there_is_no_source_file_any_more(prepared, first, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(prepared / "ct.h5", data)
    scores = conduct(request(data, tmp_path / "run", from_run=first), THEIRS).scores
    assert {(score.direction, score.alignment) for score in scores} == {("mr2ct", "free")}
    assert open_run(tmp_path / "run", THEIRS).domain.source == {"domain": "mr", "modality": "mr", "cases": 1}


def test_a_source_that_is_not_read_has_a_name_and_nothing_to_draw(prepared):
    target = Prepared.open(prepared / "ct.h5")
    source = unread("mr", target)
    assert not is_read(source) and is_read(target) and not source.path.exists() and source.domain == "mr"
    batches = [training_batches(s, target, Augmentation(), 0, CPU, False).batch(0, 2) for s in (source, source)]
    assert [tuple(x.shape) for x in batches[0][:3]] == [(0, 1, 32, 32), (0, 32, 32), (2, 1, 32, 32)]
    assert torch.equal(batches[0].x_t, batches[1].x_t) and batches[0].y_s.dtype == torch.int64
    viewer = Viewer(source, target, 0, CPU)
    assert viewer.x_s is None and viewer.y_s is None and viewer.source_ratios.tolist() == [0.0] * 5


def test_every_segmentor_starts_from_the_one_that_predicts_there(prepared, first, tmp_path, monkeypatch):
    """Whatever it is called there."""
    other = shutil.copytree(first, tmp_path / "other")
    (other / "checkpoint.ckpt").unlink()
    content, facts = read_weights(first / "segmentor.safetensors")
    write_weights(other / "segmentor.safetensors", content, {**facts, "network": "T"})
    begun = {}

    def fit(alignment, *more):
        begun.update(unwrapped(alignment.S).state_dict())
        raise Killed

    monkeypatch.setattr(engine, "fit", fit)
    with pytest.raises(Killed):
        train(asked(prepared, other), tmp_path / "run", THEIRS, "cpu")
    assert equal(begun, content)


def test_a_killed_run_ends_in_the_same_bits_without_its_start(prepared, first, tmp_path):
    start = shutil.copytree(first, tmp_path / "start")
    train(asked(prepared, start), tmp_path / "whole", THEIRS, "cpu")

    def kill(progress):
        if progress.step == 2:
            raise Killed

    with pytest.raises(Killed):
        train(asked(prepared, start), tmp_path / "killed", THEIRS, "cpu", watcher=TrainWatcher(stepped=kill))
    shutil.rmtree(start)
    conduct(TrainRequest(config=tmp_path / "killed/config.toml", out=tmp_path / "killed", device="cpu"), THEIRS)
    assert equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert read_signed(tmp_path / "killed/domain.json") == read_signed(tmp_path / "whole/domain.json")
    assert len([*(tmp_path / "whole/snapshots").iterdir()]) == 3


def test_the_segmentor_is_built_as_that_of_the_run_unless_told(prepared, first, tmp_path):
    result = conduct(request(prepared, tmp_path / "run", from_run=first, set=["steps=1"]), THEIRS)
    assert result.settings.alignment.options.segmentor.options.decoder_channels == (8, 8, 8)
    said = ["segmentor.decoder_channels=[16,8,8]"]
    refused(request(prepared, tmp_path / "no", from_run=first, set=said), "'S' is not built as here", "config.toml")


def test_a_method_without_a_stage_takes_no_more_steps(prepared, first, tmp_path):
    conduct(TrainRequest("at_test_time", target=prepared / "ct.h5", from_run=first, out=tmp_path / "run"), THEIRS)
    assert json.loads((tmp_path / "run/monitor.json").read_text())["looks"][0]["stage"] == "as it is"
    refused(TrainRequest(tmp_path / "run", more_steps=2, out=tmp_path / "more"), "'AtTestTime' trains nothing")


def test_a_selector_has_one_step_to_choose_from_where_nothing_is_trained(prepared, first, tmp_path):
    asked = TrainRequest("at_test_time", target=prepared / "ct.h5", from_run=first, out=tmp_path / "run", select="im")
    result = conduct(asked, THEIRS)
    assert {score.selection for score in result.scores} == {"im"}
    assert json.loads((tmp_path / "run/selections/im/selected.json").read_text())["step"] == 0
    loaded = load_run(open_run(tmp_path / "run", THEIRS), THEIRS, "cpu", "im")
    assert loaded.selection == "im" and loaded.steps == 0


def test_the_shift_to_a_source_that_was_never_read_is_refused_and_to_one_that_is_named_is_measured(
    prepared, first, tmp_path
):
    run = tmp_path / "mr2ct" / "free" / "seed0"
    conduct(request(prepared, run, from_run=first, set=["steps=1"]), THEIRS)

    def measured(*places, **more):
        return measure_shift(
            ShiftOptions(places, slices=4, device="cpu", **more), THEIRS, lambda what, done, total: None
        )

    with pytest.raises(ak.ConfigError) as error:
        measured(run)
    assert quotes(str(error.value), str(run), "never read a source", str(prepared / "ct.h5"), f"--run {run}")
    assert not (run / "shift.csv").exists()
    found = measured(prepared / "mr.h5", prepared / "ct.h5", run=run)
    assert {row.space for row in found.rows if row.when == "after"} >= {"pixels", "features", "outputs"}
    # In a comparison it stops nobody and is no failure.
    shutil.copytree(first, tmp_path / "mr2ct" / "first" / "seed0")
    found = measured(tmp_path)
    assert found.rows and found.failed == [] and [note for note in found.notes if str(run) in note]


def test_what_cannot_be_started_is_one_sentence_and_writes_nothing(prepared, first, tmp_path):
    out = tmp_path / "run"
    said = refused(
        request(prepared, out, set=["segmentor.encoder=tu-test_resnet"]), "'free' is source-free", "--from RUN"
    )
    assert "\n" not in said
    refused(request(prepared, out, from_run=first, target=None), "--target FILE.h5")
    refused(request(prepared, out, from_run=tmp_path), f"--from {tmp_path}", "does not hold a trained run")
    run = shutil.copytree(first, tmp_path / "spoilt")
    said = read_signed(run / "domain.json")
    for name, value, shown in (("organs", ["liver", "spleen"], "liver, spleen"), ("size", 48, "48")):
        write_signed(run / "domain.json", {**said, name: value})
        refused(request(prepared, out, from_run=run), f"trained with {name} {shown}")
    plain = settings((1, 2), {"name": "source_only"}, data={"target": str(prepared / "ct.h5")})
    with pytest.raises(ak.ConfigError, match="'source_only' learns from a source.*--source"):
        train(plain, out, REGISTRY, "cpu")
    named = {"source": str(prepared / "mr.h5"), "target": str(prepared / "ct.h5")}
    with pytest.raises(ak.ConfigError, match="never opens"):
        train(settings((1, 2), FREE, registry=THEIRS, data=named, warm_start={"run": str(first)}), out, THEIRS, "cpu")
    assert not (out / "config.toml").exists()


# Weights of other programs


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_foreign_weights_are_a_start_under_their_own_names(prepared, first, tmp_path, ending):
    content, _ = read_weights(first / "segmentor.safetensors")
    file = tmp_path / f"theirs.{ending}"
    if ending == "pt":
        torch.save({"epoch": 3, "state_dict": content}, file)
    else:
        save_file(content, file)
    options = [f"segmentor.{name}={value!r}".replace("'", '"') for name, value in SEGMENTOR.items()]
    result = conduct(request(prepared, tmp_path / "run", from_run=file, set=[*options, "steps=1"]), THEIRS)
    assert len(result.settings.warm_start.digest or "") == 64 or read_toml(result.run.config)["warm_start"]["digest"]
    source = open_run(tmp_path / "run", THEIRS).domain.source
    assert source["domain"] == "elsewhere" and source["cases"] is None


def test_foreign_weights_with_other_names_say_what_to_type(prepared, first, tmp_path):
    content, _ = read_weights(first / "segmentor.safetensors")
    file, out = tmp_path / "theirs.pt", tmp_path / "run"
    torch.save({f"module.{name.removeprefix('network.')}": value for name, value in content.items()}, file)
    options = [f"segmentor.{name}={value!r}".replace("'", '"') for name, value in SEGMENTOR.items()]
    said = refused(
        request(prepared, out, from_run=file, set=options), "other names", "'module.", "--set 'warm_start.names="
    )
    typed = said.partition("--set '")[2].partition("'.")[0]
    conduct(request(prepared, out, from_run=file, set=[*options, typed, "steps=1"]), THEIRS)
    assert read_toml(out / "config.toml")["warm_start"]["names"] == {"module.": "network."}


def test_names_that_begin_otherwise_in_several_ways_are_all_mapped_by_what_is_said_to_type(prepared, first, tmp_path):
    content, _ = read_weights(first / "segmentor.safetensors")
    here = {name: value.clone() for name, value in content.items()}
    parts = {"network.encoder.": "backbone.", "network.decoder.": "neck.up.", "network.": ""}

    def other(name):
        begin = next(begin for begin in parts if name.startswith(begin))
        return parts[begin] + name.removeprefix(begin)

    there = {other(name): value for name, value in here.items()}
    with pytest.raises(ak.ConfigError) as error:
        named_as_here(there, here, {}, tmp_path)
    typed = str(error.value).partition("--set 'warm_start.names=")[2].partition("'.")[0]
    names = tomllib.loads(f"names = {typed}")["names"]
    assert equal(named_as_here(there, here, names, tmp_path), here)
    # Another network is not made to fit, weight by weight.
    strange = {f"layer{n}.weight": value for n, value in enumerate(here.values())}
    with pytest.raises(ak.ConfigError, match="it is another network"):
        named_as_here(strange, here, {}, tmp_path)


def test_weights_of_another_network_are_refused_with_the_first_that_is_missing(prepared, first, tmp_path):
    content, _ = read_weights(first / "segmentor.safetensors")
    options = [f"segmentor.{name}={value!r}".replace("'", '"') for name, value in SEGMENTOR.items()]
    lacking = dict(content)
    name = next(name for name in content if name.endswith("weight"))
    del lacking[name]
    out = tmp_path / "run"
    for number, (saved, words) in enumerate(
        [
            (lacking, ("1 of the segmentor's", f"'{name}'")),
            ({}, ("holds no weights",)),
            ({**content, name: torch.zeros(3)}, ("not built as",)),
        ]
    ):
        file = tmp_path / f"{number}.pt"
        torch.save(saved, file)
        refused(request(prepared, out, from_run=file, set=options), f"--from {file}", *words)
    (tmp_path / "text.pt").write_text("no weights")
    said = refused(request(prepared, out, from_run=tmp_path / "text.pt", set=options), "cannot be read as weights")
    assert "weights_only" not in said and "\n" not in said
    refused(request(prepared, out, from_run=tmp_path / "nix.pt", set=options), "there is no such file")
    assert not (out / "config.toml").exists()
