"""`attentkit compare`: the grid, what it leaves behind, and that nothing is run twice."""

import json
import shutil

import pytest

from attent_kit.cli import run
from attent_kit.config import read_toml
from attent_kit.report.scores import read_scores
from support.cases import contents
from support.messages import quotes


def grid(attentkit, *words):
    """The cells of a dry run as (row, direction, seed)."""
    outcome = attentkit("compare", *words, "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    return [(cell["row"], cell["direction"], cell["seed"]) for cell in json.loads(outcome.out)]


@pytest.fixture(scope="module")
def compared(suite, tmp_path_factory):
    """Both rows from MR to CT with seed 0."""
    folder = tmp_path_factory.mktemp("compared")
    assert run(["compare", str(suite), "--seeds=0", "--directions=mr2ct", "-d", "cpu", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def again(compared, suite, tmp_path):
    """A copy of `compared` that a test may spoil, and the words that made it."""
    out = shutil.copytree(compared, tmp_path / "compared")
    return out, ["compare", suite, "--seeds=0", "--directions=mr2ct", "-d", "cpu", "--out", out]


def test_the_grid_is_every_row_in_every_direction_with_every_seed(attentkit, suite):
    cells = grid(attentkit, suite)
    assert cells == [(r, d, s) for r in ("W/o adaptation", "AttENT") for d in ("mr2ct", "ct2mr") for s in (0, 1)]


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["--seeds", "7"], [(r, d, 7) for r in ("W/o adaptation", "AttENT") for d in ("mr2ct", "ct2mr")]),
        (["--directions=ct2mr"], [(r, "ct2mr", s) for r in ("W/o adaptation", "AttENT") for s in (0, 1)]),
        (["-m", "attent"], [("AttENT", d, s) for d in ("mr2ct", "ct2mr") for s in (0, 1)]),
        (["-m", "pixel,attent", "--seeds=5"], [(r, d, 5) for r in ("pixel", "AttENT") for d in ("mr2ct", "ct2mr")]),
    ],
)  # fmt: skip
def test_options_narrow_the_grid(attentkit, suite, words, cells):
    assert grid(attentkit, suite, *words) == cells


def test_without_a_suite_the_phantom_is_compared_from_mr_to_ct(attentkit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = grid(attentkit)
    assert len(cells) == 5
    assert {(direction, seed) for _, direction, seed in cells} == {("mr2ct", 0)}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_dry_run_writes_nothing(attentkit, suite, tmp_path, monkeypatch, as_json):
    monkeypatch.chdir(tmp_path)
    outcome = attentkit("compare", suite, "--dry-run", *as_json)
    assert outcome.code == 0
    assert outcome.out.count("W/o adaptation") == 4
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_leaves_table_scores_and_figure(compared):
    assert {p.name for p in compared.iterdir() if p.is_file()} == {
        "table.md", "table.csv", "scores.csv", "comparisons.csv", "figure-mr2ct.png", "figure-mr2ct.svg",
        "comparison.toml", "grid.json", "report.html", "table.tex", "pairs.csv", "gaps.csv",
    }  # fmt: skip
    scores = read_scores(compared / "scores.csv")
    assert {s.alignment for s in scores} == {"W/o adaptation", "AttENT"}
    assert {(s.direction, s.seed, s.case) for s in scores} == {("mr2ct", 0, "ct_3")}
    table = (compared / "table.md").read_text(encoding="utf-8")
    assert "W/o adaptation" in table and "AttENT" in table and "Boxes and noise." in table


def test_a_comparison_remembers_what_it_was_asked_for_with_every_call(attentkit, again):
    out, words = again
    assert attentkit(*words, "-m", "source_only", "--seeds=0,3", "--no-report", "--reference", "AttENT").code == 0
    plan = read_toml(out / "comparison.toml")
    assert (plan["title"], plan["note"], plan["reference"]) == ("Tiny", "Boxes and noise.", "AttENT")
    assert plan["rows"] == {"W/o adaptation": "source_only", "AttENT": "attent"}
    assert plan["directions"] == {"mr2ct": "MR to CT"}
    assert plan["runs"] == ["mr2ct/attent/seed0", "mr2ct/w-o-adaptation/seed0", "mr2ct/w-o-adaptation/seed3"]


def test_published_numbers_that_are_not_there_are_met_before_anything_is_trained(attentkit, suite, tmp_path):
    file = tmp_path / "suite.toml"
    file.write_text('published = "nowhere.toml"\n' + suite.read_text(encoding="utf-8"), encoding="utf-8")
    outcome = attentkit("compare", file, "-d", "cpu", "--out", tmp_path / "out")
    assert outcome.code == 2 and "nowhere.toml: there is no such file" in outcome.err
    assert not list((tmp_path / "out").glob("*/*/seed*"))


def test_the_report_can_be_left_out_and_made_later_to_the_same_bytes(attentkit, again):
    out, words = again
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert attentkit(*words, "--no-report").code == 0 and not (out / "report.html").exists()
    outcome = attentkit("report", out)
    assert outcome.code == 0 and f"{out}/report.html" in outcome.out
    assert (out / "report.html").read_bytes() == before
    text = before.decode()
    assert "AttENT" in text and "in source style, by AttENT" in text and "and back, by AttENT" in text


def test_comparing_twice_runs_nothing_the_second_time(attentkit, again, monkeypatch):
    out, words = again
    before = contents(out)

    def refuse(*_, **__):
        raise AssertionError("a run that has scores was run again")

    monkeypatch.setattr("attent_kit.engine.train.train.fit", refuse)
    outcome = attentkit(*words, "--json")
    assert outcome.code == 0
    assert contents(out) == before
    rows = json.loads(outcome.out, parse_constant=pytest.fail)
    assert len(rows) == len(read_scores(out / "scores.csv"))
    done = json.loads(attentkit(*words, "--dry-run", "--json").out)
    assert [cell["done"] for cell in done] == [True, True]


def test_only_what_is_missing_is_run(attentkit, again):
    out, words = again
    before = contents(out)
    shutil.rmtree(out / "mr2ct" / "attent")
    outcome = attentkit(*words)
    assert outcome.code == 0
    assert quotes(outcome.err, "1 of 1 ... AttENT, mr2ct, seed 0")
    kept = "mr2ct/w-o-adaptation/seed0/"
    after = contents(out)
    assert any(name.startswith(kept) for name in before)
    assert all(after[name] == bytes_ for name, bytes_ in before.items() if name.startswith(kept))
    assert after["scores.csv"] == before["scores.csv"]


def test_any_row_can_be_the_reference_and_the_slides_test_is_added_if_asked_for(attentkit, again):
    out, words = again
    table = out / "table.md"
    assert "## MR to CT: comparisons with W/o adaptation" in table.read_text(encoding="utf-8")
    outcome = attentkit(*words, "--reference", "AttENT", "--slide-test")
    assert outcome.code == 0
    assert quotes(outcome.out, "table.md ... One case ")
    text = table.read_text(encoding="utf-8")
    assert "## MR to CT: comparisons with AttENT" in text and "### The slides' test" in text
    before = contents(out)
    outcome = attentkit(*words, "--reference", "AtENT")
    assert (outcome.code, contents(out)) == (2, before)
    assert quotes(outcome.err, "--reference AtENT: ... 'AttENT'?")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--reference=atent"], "--reference atent: ... W/o adaptation, AttENT"),
        (["--seeds=0,x"], "--seeds 0,x: ... 0,1,2"),
        (["--seeds=0,0"], "the seed 0 occurs twice"),
        (["--directions=mr2pet"], "'mr2pet' ... (mr, ct)"),
        (["--alignments=atent"], "'atent' ... 'attent'?"),
        (["--set", "segmnt_steps=1"], "segmnt_steps ... 'segment_steps'?"),
        (["--set", "segment_steps=many"], "row 'W/o adaptation': alignment.segment_steps:"),
        (["--set", "segmentor.encodr=a"], "alignment.segmentor.encodr: ... 'encoder'?"),
        (["--device=nonsense"], "--device nonsense: ... auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_grid_that_cannot_be_run_is_one_sentence(attentkit, suite, tmp_path, words, sentence):
    outcome = attentkit("compare", suite, "--out", tmp_path / "out", *words)
    assert outcome.code == 2
    assert quotes(outcome.err, sentence)
    assert "Traceback" not in outcome.err and "Value error" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_suite_whose_data_are_missing_says_which_file(attentkit, suite, prepared, tmp_path):
    moved = tmp_path / "tiny.toml"
    moved.write_text(suite.read_text().replace(str(prepared), "data"))
    outcome = attentkit("compare", moved, "-d", "cpu", "--out", tmp_path / "out")
    assert outcome.code == 3
    assert f"{tmp_path / 'data' / 'mr.h5'} does not exist" in outcome.err
    assert not list((tmp_path / "out").rglob("config.toml"))
