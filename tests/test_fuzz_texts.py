"""Texts that are read back, spoilt in what they say: each command answers, or says in one sentence what is wrong.

ATTENTKIT_FUZZ=20000 tries so many, other ones each time; `make fuzz` does that.
"""

import csv
import io
import json
import os
import shutil
import tomllib

import h5py
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attent_kit.cli import run
from attent_kit.config import to_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.hdf5 import put_text
from attent_kit.errors import AttentKitError, DataError
from attent_kit.reading import MOST_BYTES, Unreadable, csv_in, json_in, text_of, toml_in
from support.commands import train_words
from support.comparison_folder import draw_nothing, write_plan

NIGHTLY = int(os.environ.get("ATTENTKIT_FUZZ", 0))
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
ODD = st.sampled_from(
    [None, True, 0, -1, 10**40, 1e308, float("nan"), float("inf"), "", "x", "../../x", "/", "\0", "\x1b[2J", "é" * 300]
    + ["9" * 5000, [], {}, [[]], [None], {"a": 1}, [1, "2", None], {"name": 3}]
)


def test_what_cannot_be_read_is_said_in_words(tmp_path):
    deep, wide = "[" * 100_000 + "]" * 100_000, "[" * 80 + "]" * 80
    for text in (deep, wide, "{", "", "[1,]", '{"a": NaN', "9" * 5000, b"\xff{}"):
        with pytest.raises(Unreadable):
            json_in(text)
    for text in (f"a = {deep}", f"a = {wide}", "a = ", "a = 1\na = 2", "[a", "a = " + "9" * 5000, "\0"):
        with pytest.raises(Unreadable):
            toml_in(text)
    for text in ("NaN", "[Infinity]", '{"a": 1e400}'):
        assert json_in(text) is not None
        with pytest.raises(Unreadable):
            json_in(text, strict=True)
    with pytest.raises(Unreadable):
        csv_in("a," + "b" * 200_000)
    assert json_in(b'\xef\xbb\xbf{"a": [1.5]}', strict=True) == {"a": [1.5]} and toml_in("a = [1]") == {"a": [1]}
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", MOST_BYTES + 1)
    with pytest.raises(Unreadable, match="larger than"):
        text_of(tmp_path / "large")


# The folder of a comparison


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """A comparison of one real run, with all that a process leaves that died in it."""
    out = tmp_path_factory.mktemp("whole")
    folder = out / "mr2ct" / "w-o" / "seed0"
    shutil.copytree(trained, folder)
    write_plan(out, {"W/o": "source_only"}, runs=["mr2ct/w-o/seed0"])
    cells = [{"row": "W/o", "direction": "mr2ct", "seed": 0, "folder": "mr2ct/w-o/seed0"}]
    (out / "grid.json").write_text(json.dumps({"cells": cells}))
    progress = {
        "stage": "segment", "step": 1, "steps": 3, "updated": "2026-01-01T00:00:00+00:00", "pid": 1, "host": "h",
        "device": "cpu", "steps_per_second": 1.0, "seconds_left": 2.0, "losses": {"L_seg": 1.0},
    }  # fmt: skip
    (folder / "progress.json").write_text(json.dumps(progress))
    (folder / "failed.json").write_text(json.dumps({"error": "it broke", "time": "2026-01-01T00:00:00+00:00"}))
    return out


def texts(out):
    return sorted(path for path in out.rglob("*") if path.suffix in (".json", ".jsonl", ".toml", ".csv"))


@st.composite
def changed(draw, value):
    """The same with something in it replaced, taken out or put in."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(ODD)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    kind = draw(st.sampled_from(["inside", "inside", "inside", "gone", "more"]))
    copy = dict(value) if isinstance(value, dict) else [*value]
    if kind == "gone":
        del copy[key]
    elif kind == "more" and isinstance(copy, dict):
        copy[draw(st.sampled_from(["name", "x", "../x", "\x1b"]))] = draw(ODD)
    else:
        copy[key] = draw(changed(copy[key]))
    return copy


def spoilt(draw, path, text):
    """Another text for the file."""
    kind = draw(st.sampled_from(["said", "said", "said", "cut", "bytes", "deep"]))
    if kind == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if kind == "deep":
        return text.replace(b"[", b"[" * 2000).replace(b"{", b'{"a":' * 2000)
    if kind == "bytes":
        made = bytearray(text)
        for _ in range(draw(st.integers(1, 5))):
            made[draw(st.integers(0, len(made) - 1))] = draw(st.integers(0, 255))
        return bytes(made)
    if path.suffix == ".csv":
        rows = [*csv.reader(io.StringIO(text.decode()))]
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = str(draw(ODD))
        made = io.StringIO()
        csv.writer(made, lineterminator="\n").writerows(rows)
        return made.getvalue().encode()
    if path.suffix == ".toml":
        try:
            return to_toml(draw(changed(tomllib.loads(text.decode())))).encode()
        except (TypeError, ValueError, AttributeError):  # what TOML cannot say
            return b"= nothing"
    if path.suffix == ".jsonl":
        lines = text.splitlines()
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = json.dumps(draw(changed(json.loads(lines[at])))).encode()
        return b"\n".join(lines) + b"\n"
    return json.dumps(draw(changed(json.loads(text)))).encode()


@settings(
    max_examples=NIGHTLY or 40, derandomize=not NIGHTLY, deadline=None, database=None, suppress_health_check=QUIET
)
@given(data=st.data())
def test_a_comparison_whose_files_say_something_else_is_told_in_sentences(
    whole, prepared, volumes, monkeypatch, capsys, tmp_path, data
):
    draw_nothing(monkeypatch)
    folder = whole / "mr2ct" / "w-o" / "seed0"
    path = data.draw(st.sampled_from(texts(whole)))
    image = volumes / "ct" / "images" / "ct_1.nii.gz"
    segment = ["predict", folder, image, tmp_path / "p.nii.gz", "-d", "cpu"]
    reading = [["status", whole], ["status", whole, "--json"], ["report", whole], ["select", whole]]
    using = [["pack", folder, tmp_path / "p.zip"], segment, [*segment, "--select", "im"], train_words(prepared, folder)]
    words = data.draw(st.sampled_from(reading + using))
    kept = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    outside = {*whole.parent.iterdir()}
    if words[0] == "status" and data.draw(st.booleans()):
        (folder / "scores.csv").unlink()  # so that it counts how far the run is
    path.write_bytes(spoilt(data.draw, path, kept[path]))
    try:
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        assert code in (0, 1, 2, 3) and "Traceback" not in said.err and "\x1b" not in said.out + said.err
        assert code == 0 or "rror: " in said.err
        assert {*whole.parent.iterdir()} == outside
    finally:
        for file in [file for file in whole.rglob("*") if file.is_file() and file not in kept]:
            file.unlink()
        for file, content in kept.items():
            if not file.is_file() or file.read_bytes() != content:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)


# Manifests of prepared files


@settings(
    max_examples=NIGHTLY or 150, derandomize=not NIGHTLY, deadline=None, database=None, suppress_health_check=QUIET
)
@given(data=st.data())
def test_a_prepared_file_whose_manifest_says_something_else_is_read_or_is_one_sentence(prepared, tmp_path, data):
    path = tmp_path / "mr.h5"
    path.write_bytes((prepared / "mr.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        manifest = json.loads(file["manifest"][()])
        put_text(file, "manifest", json.dumps(data.draw(changed(manifest))))
    try:
        found = Prepared.open(path)
        for case in found.ids("train"):
            found.grid(case)
        found.images(found.ids("train"))
        found.labels(found.ids("train"))
        found.content_hash()
    except DataError as error:
        assert str(path) in str(error)
    assert run(["check", str(path)]) in (0, 3)


@pytest.mark.parametrize("name", ["version", "format", "domain", "cases", "splits"])
def test_a_manifest_without_a_fact_is_one_sentence(prepared, tmp_path, name):
    path = tmp_path / "mr.h5"
    path.write_bytes((prepared / "mr.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        manifest = {key: value for key, value in json.loads(file["manifest"][()]).items() if key != name}
        put_text(file, "manifest", json.dumps(manifest))
    with pytest.raises(AttentKitError, match="mr.h5"):
        Prepared.open(path)
