"""`--select` and `attentkit select`: another choice trains nothing again, and labels of the target only grade."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from safetensors.torch import load_file

from attent_kit.cli import run
from attent_kit.engine.run.folder import RunFolder
from attent_kit.report.scores import read_scores
from attent_kit.report.selection import Scored, read_grades, read_selection, write_selection
from support.cases import contents
from support.commands import prepare_words, train_words

FAST = ("--set=segment_steps=6", "--set=snapshots=3", "--set=learning_rate=0.02")


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """source_only with snapshots after 2, 4 and 6 steps; by `entropy` the first, by `im` the second, by the others the last."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert run(train_words(prepared, folder, *FAST)) == 0
    wanted = {("entropy", 2): 0.1, ("im", 4): 0.9}
    rows = [
        row._replace(value=wanted.get((row.selector, row.step), 0.5)) if row.selector in ("entropy", "im") else row
        for row in read_selection(folder / "selection.csv")
    ]
    write_selection(folder / "selection.csv", rows)
    return folder


@pytest.fixture
def again(finished, prepared, tmp_path):
    """A copy that a test may spoil, and the words that made it."""
    folder = shutil.copytree(finished, tmp_path / "run")
    return folder, train_words(prepared, folder, *FAST)


def forbid(monkeypatch, place, what):
    def refuse(*_, **__):
        raise AssertionError(f"{what} once more")

    monkeypatch.setattr(place, refuse)


def snapshot(folder, step):
    import torch

    return torch.load(folder / f"snapshots/step{step:07d}.ckpt", weights_only=True)["networks"]["S"]


@pytest.mark.parametrize(("select", "step"), [("entropy", 2), ("im", 4)])
def test_another_selection_of_a_finished_run_trains_nothing_and_answers_in_a_folder_of_its_own(
    attentkit, again, monkeypatch, select, step
):
    folder, words = again
    before = contents(folder)
    forbid(monkeypatch, "attent_kit.engine.train.fit._step", "trained")
    outcome = attentkit(*words, "--select", select)
    assert outcome.code == 0, outcome.err
    assert f"selected by {select}" in outcome.out and f"selector '{select}' chose without target labels" in outcome.out
    after = contents(folder)
    assert all(after[name] == before[name] for name in before)
    place = RunFolder(folder).answers(select).path
    assert {name.partition("/selections/")[2] or name for name in after.keys() - before.keys()} == {
        f"selections/{select}/{name}"
        for name in (
            ".scores.csv.sha256",
            "scores.csv",
            "segmentor.safetensors",
            "selected.json",
            "slices.npz",
            "predictions/ct_3.nii.gz",
        )
    }
    assert json.loads((place / "selected.json").read_text()) == {"selection": select, "step": step, "label_free": True}
    exported, kept = load_file(place / "segmentor.safetensors"), snapshot(folder, step)
    assert exported.keys() == kept.keys() and all(exported[k].equal(kept[k]) for k in kept)
    assert {score.selection for score in read_scores(place / "scores.csv")} == {select}
    assert {score.selection for score in read_scores(folder / "scores.csv")} == {"last"}


def test_coming_back_to_a_selection_is_free(attentkit, again, monkeypatch):
    folder, words = again
    first = attentkit(*words, "--select", "im", "--json")
    assert first.code == 0
    before = contents(folder)
    forbid(monkeypatch, "attent_kit.engine.train.train.score_run", "predicted")
    second = attentkit(*words, "--select", "im", "--json")
    assert second.code == 0 and second.out == first.out and contents(folder) == before
    last = attentkit(*words, "--json")
    assert last.code == 0 and contents(folder) == before
    assert {score["selection"] for score in json.loads(last.out)} == {"last"}


@pytest.mark.parametrize("name", ["scores.csv", "segmentor.safetensors", "predictions/ct_3.nii.gz"])
def test_what_is_missing_of_an_answer_is_made_again(attentkit, again, name):
    folder, words = again
    before = contents(folder)
    (folder / name).unlink()
    assert attentkit(*words).code == 0
    assert contents(folder).keys() == before.keys() and contents(folder)["scores.csv"] == before["scores.csv"]


def test_a_damaged_scores_file_is_made_again(attentkit, again):
    folder, words = again
    before = (folder / "scores.csv").read_bytes()
    (folder / "scores.csv").write_bytes(before[:-40])
    assert attentkit(*words).code == 0 and (folder / "scores.csv").read_bytes() == before


def test_a_run_may_be_scored_with_a_selection_at_once(attentkit, prepared, tmp_path):
    outcome = attentkit(*train_words(prepared, tmp_path / "run", *FAST, "--select", "source-dice"))
    assert outcome.code == 0
    assert not (tmp_path / "run/scores.csv").exists() and (tmp_path / "run/selections/source-dice/scores.csv").exists()


def test_the_oracle_takes_the_snapshot_with_the_highest_dice_and_carries_a_dagger(attentkit, again):
    folder, words = again
    outcome = attentkit(*words, "--select", "target-oracle")
    assert outcome.code == 0 and "target-oracle †" in outcome.out and "an upper bound" in " ".join(outcome.out.split())
    dice = {}
    for grade in read_grades(folder / "grades.csv"):
        dice.setdefault(grade.step, []).append(grade.dice)
    best = max(dice, key=lambda step: (np.nanmean(dice[step]), step))
    chosen = json.loads((folder / "selections/target-oracle/selected.json").read_text())
    assert chosen == {"selection": "target-oracle", "step": best, "label_free": False}


def test_grades_are_the_dice_that_scores_csv_has(attentkit, again):
    """Those of the last snapshot, and of another once it is the one that is scored."""
    folder, words = again
    assert attentkit("select", folder, "-d", "cpu").code == 0
    assert attentkit(*words, "--select", "entropy").code == 0
    for step, place in ((6, folder), (2, folder / "selections/entropy")):
        scored = {(s.case, s.organ): s.value for s in read_scores(place / "scores.csv") if s.metric == "dice"}
        graded = {(g.case, g.organ): g.dice for g in read_grades(folder / "grades.csv") if g.step == step}
        assert scored.keys() == graded.keys()
        assert np.array_equal(list(scored.values()), [graded[key] for key in scored], equal_nan=True)


def test_select_shows_each_choice_with_its_regret_and_says_what_labels_are_used_for(attentkit, again, monkeypatch):
    folder, _ = again
    outcome = attentkit("select", folder, "-d", "cpu", "--json")
    assert outcome.code == 0
    answer = json.loads(outcome.out, parse_constant=pytest.fail)
    (graded,) = answer["runs"]
    assert (graded["row"], graded["direction"], graded["seed"]) == ("source_only", "mr2ct", 0)
    by_name = {selector["selector"]: selector for selector in graded["selectors"]}
    assert list(by_name)[0] == "last" and list(by_name)[-1] == "target-oracle"
    assert (by_name["last"]["step"], by_name["entropy"]["step"], by_name["im"]["step"]) == (6, 2, 4)
    assert "cycle" not in by_name, "the method does not translate"
    for selector in by_name.values():
        assert selector["regret"] == pytest.approx(selector["oracle"] - selector["dice"]) and selector["regret"] >= 0
    assert "labels of the target's test cases" in answer["note"] and "saw none" in answer["note"].replace("\n", " ")
    # The second time nothing is segmented, and the table says the same.
    forbid(monkeypatch, "attent_kit.engine.snapshots.selection.segment_case", "segmented")
    forbid(monkeypatch, "attent_kit.engine.compare.grade.load_run", "loaded")
    outcome = attentkit("select", folder)
    assert outcome.code == 0
    lines = [line for line in outcome.out.splitlines() if line.startswith("│ entropy")]
    assert len(lines) == 1 and lines[0].split("│")[2:4] == [" lower  ", " 2    "]
    assert "They grade the selectors here" in outcome.out


def test_select_over_a_folder_takes_the_means_of_all_runs_below_it(attentkit, finished, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(finished, tmp_path / "all" / name)
    shutil.copytree(finished, tmp_path / "all" / "c", ignore=shutil.ignore_patterns("selection.csv"))
    outcome = attentkit("select", tmp_path / "all", "-d", "cpu", "--out", tmp_path / "graded.csv", "--json")
    assert outcome.code == 0 and "1 runs without snapshots" in outcome.err
    answer = json.loads(outcome.out)
    assert len(answer["runs"]) == 2
    means = {mean["selector"]: mean for mean in answer["selectors"]}
    one = {s["selector"]: s for s in answer["runs"][0]["selectors"]}
    assert means["entropy"]["runs"] == 2 and means["entropy"]["regret"] == pytest.approx(one["entropy"]["regret"])
    lines = (tmp_path / "graded.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(one)
    table = attentkit("select", tmp_path / "all").out
    assert "Means over 2 runs" in table and "better than last" in table


def test_runs_that_see_target_labels_are_not_in_the_means(attentkit, finished, prepared, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(finished, tmp_path / "all" / name)
    words = train_words(prepared, tmp_path / "all/bound", *FAST, alignment="supervised")
    assert attentkit(*words).code == 0
    outcome = attentkit("select", tmp_path / "all", "-d", "cpu")
    assert "Means over 2 runs" in outcome.out and "1 runs whose training saw target labels" in outcome.out


def test_a_run_that_cannot_be_graded_is_left_out_of_many_and_an_error_alone(attentkit, finished, tmp_path):
    for name in ("a", "b", "broken"):
        shutil.copytree(finished, tmp_path / "all" / name)
    (tmp_path / "all/broken/snapshots/step0000002.ckpt").write_bytes(b"half of it")
    before = contents(tmp_path / "all/broken")
    outcome = attentkit("select", tmp_path / "all", "-d", "cpu")
    assert outcome.code == 0 and "Means over 2 runs" in outcome.out
    assert "Left out" in outcome.err and "step0000002.ckpt is missing or damaged" in outcome.err
    outcome = attentkit("select", tmp_path / "all/broken", "-d", "cpu")
    assert outcome.code == 1 and "step0000002.ckpt is missing or damaged" in outcome.err
    assert contents(tmp_path / "all/broken") == before


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--select=entrpy"], 2, "no such selector. Did you mean 'entropy'? There are: last, entropy, im,"),
        (["--select=cycle"], 3, "'cycle' has scored no snapshot of this run"),
    ],
)
def test_a_selection_that_cannot_be_made_is_one_sentence_and_changes_nothing(attentkit, again, words, code, sentence):
    folder, train = again
    before = contents(folder)
    outcome = attentkit(*train, *words)
    assert outcome.code == code and sentence in outcome.err and "Traceback" not in outcome.err
    assert contents(folder) == before


def test_without_snapshots_nothing_can_be_selected_and_nothing_is_trained(attentkit, prepared, trained, tmp_path):
    words = train_words(prepared, tmp_path / "run", "--set=snapshots=0", "--select=im")
    outcome = attentkit(*words)
    assert outcome.code == 2 and "keeps no snapshots" in outcome.err and not (tmp_path / "run").exists()
    old = shutil.copytree(trained, tmp_path / "old", ignore=shutil.ignore_patterns("selection.csv", "snapshots"))
    outcome = attentkit(*train_words(prepared, old), "--select=im")
    assert outcome.code == 2 and "train into another --out" in outcome.err
    assert attentkit("select", old).code == 2


def test_a_missing_snapshot_is_a_sentence(attentkit, again):
    folder, words = again
    (folder / "snapshots/step0000002.ckpt").unlink()
    outcome = attentkit(*words, "--select=entropy")
    assert outcome.code == 1 and "choose another --select" in outcome.err
    assert not (folder / "selections").exists()


def test_the_oracle_needs_labelled_test_cases(attentkit, volumes, prepared, tmp_path):
    words = prepare_words(volumes / "ct", tmp_path / "bare.h5", "ct")
    words[2:4] = ["--allow-unlabelled"]
    assert attentkit(*words).code == 0
    train = ["-t", tmp_path / "bare.h5"]
    outcome = attentkit(*train_words(prepared, tmp_path / "run", *train, "--select", "target-oracle"))
    assert outcome.code == 3 and "needs labelled test cases" in outcome.err and not (tmp_path / "run").exists()
    assert attentkit(*train_words(prepared, tmp_path / "run", *train, "--select", "im")).code == 0
    outcome = attentkit("select", tmp_path / "run", "-d", "cpu")
    assert outcome.code == 3 and "no labelled test case" in outcome.err


def test_select_of_what_is_no_run_is_a_sentence(attentkit, tmp_path):
    outcome = attentkit("select", tmp_path)
    assert outcome.code == 2 and "no run here keeps snapshots" in outcome.err
    outcome = attentkit("select", tmp_path / "nowhere")
    assert outcome.code == 2 and "is not a folder" in outcome.err


def test_selectors_are_listed_and_shown(attentkit):
    listed = json.loads(attentkit("list", "selectors", "--json").out)
    assert {each["name"] for each in listed} >= {"entropy", "im", "snd", "cycle"}
    outcome = attentkit("show", "snd")
    assert outcome.code == 0 and "chosen with: --select snd" in outcome.out and "better: higher" in outcome.out


# Prediction


def test_predict_uses_the_snapshot_that_is_selected_and_its_card_says_so(attentkit, again, volumes, tmp_path):
    folder, words = again
    image = volumes / "ct/images/ct_3.nii.gz"
    assert attentkit(*words, "--select", "entropy").code == 0
    assert attentkit("predict", folder, image, tmp_path / "a.nii.gz", "--select", "entropy", "-d", "cpu").code == 0
    expected = nib.load(folder / "selections/entropy/predictions/ct_3.nii.gz").get_fdata()
    assert np.array_equal(nib.load(tmp_path / "a.nii.gz").get_fdata(), expected)
    made_by = json.loads((tmp_path / "a.json").read_text())["run"]
    assert (made_by["selection"], made_by["steps"], made_by["snapshot"]["name"]) == ("entropy", 2, "step0000002.ckpt")
    outcome = attentkit("predict", folder, image, tmp_path / "b.nii.gz", "--select", "target-oracle", "-d", "cpu")
    assert outcome.code == 2 and f"type `attentkit select {folder}` first" in outcome.err
    assert attentkit("select", folder, "-d", "cpu").code == 0
    assert (
        attentkit("predict", folder, image, tmp_path / "b.nii.gz", "--select", "target-oracle", "-d", "cpu").code == 0
    )


# Comparisons


@pytest.fixture(scope="module")
def compared(suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    words = ["compare", suite, "--seeds=0", "--directions=mr2ct", "-d", "cpu", "--out", out, "--set=snapshots=2"]
    assert run([str(word) for word in words]) == 0
    return out, words


def test_a_comparison_with_another_selection_trains_nothing_again_and_its_table_says_how_it_was_made(
    attentkit, compared, tmp_path, monkeypatch
):
    out, words = compared
    out = shutil.copytree(out, tmp_path / "out")
    words = [word if word != compared[0] else out for word in words]
    assert "label-free" in (out / "table.md").read_text()
    forbid(monkeypatch, "attent_kit.engine.train.fit._step", "trained")
    outcome = attentkit(*words, "--select=im")
    assert outcome.code == 0, outcome.err
    assert {score.selection for score in read_scores(out / "scores.csv")} == {"im"}
    assert "selected by im" in (out / "table.md").read_text() and "'im' chose" in outcome.out
    outcome = attentkit(*words, "--select=target-oracle", "--reference=AttENT")
    assert outcome.code == 0, outcome.err
    text = (out / "table.md").read_text()
    assert "| AttENT † |" in text and "| AttENT |" not in text and "comparisons with AttENT †" in text
    assert "| AttENT │" not in outcome.out and "AttENT †" in outcome.out
    # Both are done by now, and so is the first: nothing is predicted again.
    forbid(monkeypatch, "attent_kit.engine.compare.cells.train", "run")
    for select in ("im", "last", "target-oracle"):
        assert attentkit(*words, f"--select={select}").code == 0
        assert {score.selection for score in read_scores(out / "scores.csv")} == {select}
    grid = json.loads(attentkit(*words, "--select=entropy", "--dry-run", "--json").out)
    assert [cell["done"] for cell in grid] == [False, False]


def test_rows_without_the_selection_are_left_out_and_said_to_be(attentkit, compared, tmp_path):
    out, words = compared
    out = shutil.copytree(out, tmp_path / "out")
    words = [word if word != compared[0] else out for word in words]
    outcome = attentkit(*words, "--select=im", "-m", "attent")
    assert outcome.code == 0, outcome.err
    assert {score.alignment for score in read_scores(out / "scores.csv")} == {"AttENT"}
    assert "Left out, since not run with --select im: W/o adaptation." in outcome.err


def test_the_shift_of_a_comparison_with_a_selection_is_measured(attentkit, compared, tmp_path):
    out = shutil.copytree(compared[0], tmp_path / "out")
    words = [word if word != compared[0] else out for word in compared[1]]
    for file in out.glob("mr2ct/*/seed0/scores.csv"):
        file.unlink()
    outcome = attentkit(*words, "--select=im", "--shift")
    assert outcome.code == 0, outcome.err
    assert "Note: measured at the end of training; the table shows the snapshots that im chose." in outcome.out
    assert "W/o adaptation" in (out / "shift.csv").read_text() and "AttENT" in (out / "shift.csv").read_text()
    assert (out / "mr2ct/attent/seed0/translation_audit.csv").exists() and (out / "report.html").exists()


def test_a_shift_that_cannot_be_measured_does_not_cost_the_report(attentkit, compared, tmp_path):
    out = shutil.copytree(compared[0], tmp_path / "out", ignore=shutil.ignore_patterns("report.html"))
    words = [word if word != compared[0] else out for word in compared[1]]
    spoilt = out / "mr2ct/attent/seed0/checkpoint.ckpt"
    spoilt.write_bytes(b"spoilt")
    outcome = attentkit(*words, "--shift")
    assert (out / "report.html").exists() and str(out / "report.html") in outcome.out
    assert outcome.code == 1 and outcome.err.count(f"RunError: {spoilt}") == 1
    assert str(out / "shift-mr2ct-w-o-adaptation.png") in outcome.out


def test_too_little_memory_for_a_shift_does_not_cost_the_report_either(attentkit, compared, tmp_path, monkeypatch):
    def measure(*_):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("attent_kit.engine.conduct.compare.shift_of_comparison", measure)
    out = shutil.copytree(compared[0], tmp_path / "out", ignore=shutil.ignore_patterns("report.html"))
    outcome = attentkit(*[word if word != compared[0] else out for word in compared[1]], "--shift")
    assert (out / "report.html").exists() and outcome.code == 1 and "too little memory" in outcome.err


def test_earlier_runs_of_a_row_are_in_no_mean_of_a_comparison_and_are_graded_by_name(attentkit, compared, tmp_path):
    out = shutil.copytree(compared[0], tmp_path / "out")
    row = out / "mr2ct" / "attent"
    shutil.copytree(row / "seed0", row / "seed0-1234abcd")
    plan = (out / "comparison.toml").read_text()
    (out / "comparison.toml").write_text(plan.replace("mr2ct/attent/seed0", "mr2ct/attent/seed0-1234abcd"))
    shown = [str(row / "seed0-1234abcd"), str(out / "mr2ct/w-o-adaptation/seed0")]
    for place, expected in ((out, shown), (out / "mr2ct", shown), (row / "seed0", [str(row / "seed0")])):
        outcome = attentkit("select", place, "-d", "cpu", "--json")
        assert [graded["run"] for graded in json.loads(outcome.out)["runs"]] == expected


def test_a_selection_that_a_comparison_cannot_make_is_met_before_anything_runs(attentkit, suite, tmp_path):
    for words, sentence in (
        (["--select=imm"], "Did you mean 'im'?"),
        (["--select=im", "--set=snapshots=0"], "no snapshots"),
    ):
        outcome = attentkit("compare", suite, "-d", "cpu", "--out", tmp_path / "out", *words)
        assert outcome.code == 2 and sentence in outcome.err
        assert not list((tmp_path / "out").rglob("checkpoint.ckpt"))


def test_the_rows_of_selection_csv_are_snapshot_by_snapshot(finished):
    rows = read_selection(finished / "selection.csv")
    assert [row.step for row in rows] == sorted(row.step for row in rows) and {row.step for row in rows} == {2, 4, 6}
    assert all(isinstance(row, Scored) and row.better in ("higher", "lower") for row in rows)
