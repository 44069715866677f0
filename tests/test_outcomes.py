"""Runs that collapsed are counted in every table, and are in its means."""

import csv
import io
import json

import pytest

from attent_kit.report.outcomes import Outcome, failed_checks, footnotes
from attent_kit.report.table import csv_text, markdown, tables
from support.failing_suite import SUITE, compare
from support.messages import quotes
from support.score_rows import METHODS, ONE, TITLES, rows


def outcome(seed, *collapsed, row="W/o", scored=True):
    return Outcome(row, "mr2ct", seed, collapsed, scored)


def monitor(folder, collapsed, *warnings):
    state = {"collapsed": collapsed, "warnings": [{"step": step, "check": check} for step, check in warnings]}
    (folder / "monitor.json").write_text(json.dumps(state))
    return failed_checks(folder / "monitor.json")


def test_what_a_run_failed_at_is_what_was_wrong_at_its_end(tmp_path):
    ends = [(40, "inversion"), (90, "discriminator-won"), (90, "organ-vanished"), (90, "organ-vanished")]
    assert monitor(tmp_path, True, *ends) == ("organ-vanished",)
    assert monitor(tmp_path, False, (90, "discriminator-won")) == ()
    assert monitor(tmp_path, False) == ()


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"collapsed": true}', '{"collapsed": true, "warnings": [1]}'])
def test_a_run_without_a_readable_monitor_has_no_verdict(tmp_path, text):
    if text is not None:
        (tmp_path / "monitor.json").write_text(text)
    assert failed_checks(tmp_path / "monitor.json") is None


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        (
            [outcome(0), outcome(1, "organ-vanished", "inversion"), outcome(2)],
            ("1 of 3 runs", "(seed 1: organ-vanished, inversion)", "it is in the means"),
        ),
        (
            [outcome(0), outcome(1, "not-finite", scored=False)],
            ("1 of 2 runs", "(seed 1: not-finite)", "it has no scores", "others"),
        ),
        (
            [outcome(0, "inversion"), outcome(1, "not-finite", scored=False), outcome(2)],
            ("2 of 3 runs", "(seed 0: inversion; seed 1: not-finite)", "1 of them without scores", "others"),
        ),
        (
            [outcome(0, "inversion"), outcome(1, "inversion")],
            ("2 of 2 runs", "(seed 0: inversion; seed 1: inversion)", "they are in the means"),
        ),
        (
            [outcome(0, "not-finite", scored=False)],
            ("1 of 1 run ", "(seed 0: not-finite)", "no scores"),
        ),
    ],
)
def test_a_footnote_counts_the_runs_of_a_row_and_says_whether_its_means_have_them(outcomes, words):
    (line,) = footnotes(outcomes, ["W/o", "A|B"], "mr2ct")
    assert line.startswith("W/o: ") and quotes(line, *words)
    assert "others" not in line or any(o.scored for o in outcomes)
    assert footnotes(outcomes, ["W/o"], "ct2mr") == [] and footnotes(outcomes, ["A|B"], "mr2ct") == []


def test_a_collapsed_run_changes_no_mean_and_no_best():
    scores = ONE + rows({"W/o": (0.0, 0.1)}, seed=1)
    plain, counted = (tables(scores, METHODS, TITLES, o) for o in ((), [outcome(0), outcome(1, "organ-vanished")]))
    assert [t.rows for t in plain] == [t.rows for t in counted] and [t.best for t in plain] == [t.best for t in counted]
    assert counted[0].rows[0][1][0].mean == pytest.approx(0.25), "of 0.5 and 0"
    assert all(quotes(t.footnotes[0], "W/o: 1 of 2 runs") for t in counted)


def test_markdown_and_csv_have_the_counts():
    made = tables(ONE, METHODS, TITLES, [outcome(0, "inversion"), Outcome("A|B", "mr2ct", 0, (), True)])
    assert markdown("T", "N", made, [], TITLES).count("- W/o: 1 of 1 run ") == 2
    lines = list(csv.DictReader(io.StringIO(csv_text(made, []))))
    counts = {(line["method"], line["runs"], line["collapsed"]) for line in lines}
    assert counts == {("W/o", "1", "1"), ("A|B", "1", "0"), ("Supervised", "", "")}
    assert len(lines) == 3 * 3 * 2


def test_a_row_whose_every_run_is_lost_is_in_the_csv_all_the_same():
    scores = [score for score in ONE if score.alignment != "W/o"]
    made = tables(scores, METHODS, TITLES, [outcome(0, "not-finite", scored=False)])
    lines = [line for line in csv.DictReader(io.StringIO(csv_text(made, []))) if line["method"] == "W/o"]
    found = [(line["organ"], line["metric"], line["mean"], line["runs"], line["collapsed"]) for line in lines]
    assert found == [("average", "dice", "", "1", "1"), ("average", "assd", "", "1", "1")]


def test_a_comparison_counts_the_run_that_met_nan_and_says_so_while_it_runs(attentkit, prepared, tmp_path):
    suite, out = tmp_path / "mine.toml", tmp_path / "out"
    suite.write_text(SUITE.format(source=prepared / "mr.h5", target=prepared / "ct.h5"))
    more = ("--set", "segment_steps=20", "--set", "learning_rate=1000.0")
    printed = compare(attentkit, suite, out, *more)
    assert printed.code == 1 and quotes(printed.err, "Warning: W/o, red2blue, seed 0, step 20: ")
    assert "has vanished" in printed.err
    for text in (printed.out, (out / "table.md").read_text()):
        assert quotes(text, "Broken: 1 of 1 run ", "seed 0: not-finite", "no scores")
    lines = [
        line for line in csv.DictReader((out / "table.csv").read_text().splitlines()) if line["method"] == "Broken"
    ]
    assert {(line["mean"], line["runs"], line["collapsed"]) for line in lines} == {("", "1", "1")}
    again = compare(attentkit, suite, out, *more, "-m", "supervised")
    assert again.code == 0 and "Supervised" in again.out
