"""`attentkit doctor`: what it finds, and that it deletes what nobody needs and nothing else."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

import attent_kit as ak
from attent_kit.cli import doctor as command
from attent_kit.config import read_toml
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.study import upkeep as module
from attent_kit.engine.study.upkeep import clean, upkeep
from support.cases import contents
from support.commands import says
from test_digests import flip_a_weight


@pytest.fixture(scope="module")
def compared(suite, tmp_path_factory):
    """A comparison of one run, and beside it one of other options that it no longer shows."""
    out = tmp_path_factory.mktemp("compared") / "out"
    words = {"alignments": ["source_only"], "seeds": [0], "directions": ["mr2ct"], "devices": ["cpu"], "report": False}
    ak.compare(suite, out=out, set=["dice=1.0"], **words).check()
    ak.compare(suite, out=out, **words).check()
    return out


@pytest.fixture
def out(compared, tmp_path):
    return Path(shutil.copytree(compared, tmp_path / "out"))


def runs(out):
    """The run that is shown, and the other."""
    found = sorted(RunFolder.find(out), key=module.is_superseded)
    assert [module.is_superseded(run) for run in found] == [False, True]
    return found


def a_dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def left_by(pid, path, seconds=10_000):
    path = path.with_name(f".{path.name}.{pid}.part")
    path.write_bytes(b"x" * 1000)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_the_machine_is_described(attentkit, monkeypatch):
    found = ak.doctor()
    assert found.results is None and found.machine.auto in found.machine.devices and found.machine.computes
    assert found.machine.memory_free > 2**20 and found.machine.disk_free > 0 and found.machine.packages["torch"]
    assert found.machine.codecs[
        "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])"
    ]
    assert found.machine.extras["dicom"] == []
    outcome = attentkit("doctor")
    assert outcome.code == 0 and "torch" in outcome.out and found.machine.precision in outcome.out
    assert json.loads(attentkit("doctor", "--json").out)["results"] is None


def test_a_plugin_that_does_not_load_is_named_with_its_reason(attentkit, install, found):
    found(install("broken", "raise ValueError('no such thing')"))
    outcome = attentkit("doctor")
    assert outcome.code == 0 and "broken" in outcome.out and "no such thing" in outcome.out


def test_a_sound_comparison_has_one_thing_that_may_go_and_it_goes(attentkit, out):
    shown, other = runs(out)
    found = upkeep(out)
    assert not found.damaged and [each.path for each in found.removable] == [other.path]
    assert found.removable[0].bytes == sum(len(content) for content in contents(other.path).values())
    assert [state.state for state in found.states] == ["done"]
    before = {name: content for name, content in contents(out).items() if not name.startswith(f"{other.name}/")}
    assert says(attentkit("doctor", out, "--clean"), 2, "--yes")
    assert other.is_run
    outcome = attentkit("doctor", out, "--clean", "--yes")
    assert outcome.code == 0 and "1 thing" in outcome.out and "superseded" in outcome.out
    assert contents(out) == before and not other.path.exists() and shown.has_scores
    assert not upkeep(out).removable and attentkit("doctor", out, "--clean", "--yes").code == 0
    assert attentkit("report", out).code == 0


def test_it_asks_and_no_means_no(attentkit, out, monkeypatch):
    _, other = runs(out)
    monkeypatch.setattr(command.sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    asked = []

    def confirm(question, abort):
        asked.append(question)
        raise command.click.Abort

    monkeypatch.setattr(command.click, "confirm", confirm)
    assert attentkit("doctor", out, "--clean").code == 130
    assert "1 thing" in asked[0] and other.is_run


def test_what_is_held_or_not_ours_or_shown_by_now_stays(out):
    shown, other = runs(out)
    (other.path / "notes.txt").write_text("mine")
    found = upkeep(out)
    with FileLock(other.lock):
        assert not upkeep(out).removable
        cleaned = clean(found)
        assert not cleaned.removed and cleaned.kept[0][0] == other.path and other.has_scores
    text = (out / "comparison.toml").read_text()
    (out / "comparison.toml").write_text(text.replace(f'"{shown.name}"', f'"{other.name}"'))
    assert "shows it again" in clean(found).kept[0][1] and other.has_scores
    (out / "comparison.toml").write_text(text)
    cleaned = clean(found)
    assert [path.name for path, _ in cleaned.kept] == ["notes.txt"]
    assert [path.name for path in other.path.iterdir()] == ["notes.txt"]


def test_a_link_in_the_place_of_a_run_is_not_followed(out, tmp_path):
    _, other = runs(out)
    shutil.move(other.path, tmp_path / "elsewhere")
    other.path.symlink_to(tmp_path / "elsewhere")
    assert not upkeep(out).removable and clean(upkeep(out)) == ([], [])
    assert RunFolder(tmp_path / "elsewhere").has_scores


def test_leftovers_of_dead_processes_go_and_those_of_the_living_stay(out):
    shown, _ = runs(out)
    dead = a_dead_pid()
    (out / "shared").mkdir(exist_ok=True)
    old = [left_by(dead, place) for place in (out / "scores.csv", shown.checkpoint, out / "shared/x.ckpt")]
    young, living = left_by(dead, out / "table.md", 0), left_by(os.getpid(), out / "table.csv")
    mine = out / ".notes.part"
    mine.write_text("mine")
    os.utime(mine, (0, 0))
    for name, finished in (("mr.h5", True), ("ct.h5", False)):
        (out / f".{name}.unfinished").mkdir()
        (out / f".{name}.unfinished" / "a.npz").write_bytes(b"12345")
        if finished:
            shutil.copy(read_toml(shown.config)["data"]["source"], out / name)
    found = upkeep(out)
    paths = {each.path for each in found.removable}
    assert {*old, out / ".mr.h5.unfinished"} <= paths and not {young, living, mine, out / ".ct.h5.unfinished"} & paths
    clean(found)
    assert not any(path.exists() for path in old) and young.exists() and living.exists() and mine.exists()
    assert (out / ".ct.h5.unfinished/a.npz").exists() and not (out / ".mr.h5.unfinished").exists()


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("checkpoint.ckpt", flip_a_weight),
        ("segmentor.safetensors", flip_a_weight),
        ("scores.csv", lambda path: path.write_text(path.read_text()[:-30])),
        ("config.toml", lambda path: path.write_text("= [")),
        ("domain.json", lambda path: path.write_text("[" * 100_000)),
        ("env.json", lambda path: path.write_bytes(b"\0" * 50)),
        ("monitor.json", lambda path: path.write_text("{")),
        ("selection.csv", lambda path: path.write_text("step\n\0")),
        ("slices.npz", lambda path: path.write_bytes(path.read_bytes()[:-40])),
        ("predictions/ct_3.nii.gz", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_nothing_is_deleted(attentkit, out, name, spoil):
    shown, _ = runs(out)
    spoil(shown.path / name)
    before = contents(out)
    outcome = attentkit("doctor", out)
    assert outcome.code == 3 and f"Damaged: {shown.path / name}" in outcome.out, outcome
    assert name in json.loads(attentkit("doctor", out, "--json").out)["results"]["damaged"][0]["path"]
    assert contents(out) == before


def test_a_comparison_that_is_damaged_and_a_run_and_a_prepared_file(attentkit, out, prepared, tmp_path):
    shown, other = runs(out)
    assert attentkit("doctor", shown.path).code == 0
    assert attentkit("doctor", prepared / "mr.h5").code == 0
    content = bytearray((prepared / "mr.h5").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "mr.h5").write_bytes(content[: len(content) // 2])
    outcome = attentkit("doctor", tmp_path / "mr.h5")
    assert outcome.code == 3 and f"{tmp_path / 'mr.h5'}" in outcome.out
    (out / "comparison.toml").write_text("runs = 3")
    outcome = attentkit("doctor", out)
    assert outcome.code == 3 and "comparison.toml" in outcome.out and "May go" not in outcome.out
    assert says(attentkit("doctor", out, "--clean", "--json"), 2, "--yes")
    (tmp_path / "empty").mkdir()
    assert says(attentkit("doctor", tmp_path / "empty"), 2, f"{tmp_path / 'empty'} holds no results")
    assert says(attentkit("doctor", "--clean"), 2, "attentkit doctor")
    (tmp_path / "notes.txt").write_text("x")
    assert says(attentkit("doctor", tmp_path / "notes.txt"), 3, "neither")
