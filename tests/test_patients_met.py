"""Patients on both sides of a single run, and selectors where every patient is tested once."""

import csv
import json

import pytest

from attent_kit.engine.conduct.compare import compare
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.plugins import load
from attent_kit.report.scores import read_scores
from support.cases import write_case
from support.commands import SUITE, TINY, says

REGISTRY = load().registry


def prepared_of(attentkit, folder, cases, *words, modality="ct", seed=0):
    """FOLDER.h5 of small cases."""
    for n, case in enumerate(cases):
        write_case(folder, case, modality, seed=seed + n)
    given = ["prepare", folder / "images", "--labels", folder / "labels", "-o", folder.with_suffix(".h5")]
    assert attentkit(*given, "--modality", modality, "--size", 32, *words).code == 0
    return folder.with_suffix(".h5")


@pytest.fixture
def target(attentkit, tmp_path):
    """Four patients, of whom the file's own split tests the last."""
    cases = [f"ct_{n}" for n in range(1, 5)]
    return prepared_of(attentkit, tmp_path / "ct", cases, "--train=ct_1,ct_2,ct_3", "--test=ct_4")


def test_train_says_the_same_patients_in_two_domains_and_refuses_the_same_images(target, tmp_path, attentkit):
    words = ["-t", target, "-d", "cpu", *TINY, "--set=snapshots=0"]
    source = prepared_of(attentkit, tmp_path / "mr", ["ct_4", "other"], "--train=all", modality="mr", seed=50)
    outcome = attentkit("train", "source_only", "-s", source, *words, "-o", tmp_path / "run")
    assert outcome.code == 0 and "mr2ct: ct_4 is in the source's training" in outcome.err
    # The fourth case is written once more.
    same = prepared_of(attentkit, tmp_path / "same", ["one", "two"], "--train=all", seed=3)
    outcome = attentkit("train", "source_only", "-s", same, *words, "-o", tmp_path / "other")
    assert says(outcome, 3, "one of", "the same image") and not (tmp_path / "other").exists()
    outcome = attentkit("train", "source_only", "-s", target, *words, "-o", tmp_path / "itself")
    assert outcome.code == 0 and "same file" in outcome.err and "the same image" not in outcome.err


def test_selectors_are_graded_by_the_patients_of_each_fold_and_choose_in_each(target, tmp_path, attentkit):
    prepared_of(attentkit, tmp_path / "mr", ["mr_1", "mr_2"], "--train=all", modality="mr", seed=20)
    text = SUITE.format(prepared=tmp_path).replace('["mr2ct", "ct2mr"]', '["mr2ct"]').replace("[0, 1]", "[0]")
    suite, out = tmp_path / "suite.toml", tmp_path / "out"
    suite.write_text(text.replace("settings = {", "folds = 2\nsettings = { snapshots = 2,"))
    cells = compare(CompareRequest(suite, out=out, devices=["cpu"], report=False), REGISTRY).check().cells
    graded = json.loads(attentkit("select", out, "--json").out)
    runs = {(run["row"], run["fold"]) for run in graded["runs"]}
    assert runs == {(row, fold) for row in ("W/o adaptation", "AttENT") for fold in ("0/2", "1/2")}
    for cell in cells:
        with cell.run.grades.open(newline="") as file:
            assert {line["case"] for line in csv.DictReader(file)} == {s.case for s in read_scores(cell.answers.scores)}
    trained = {cell.folder: cell.run.checkpoint.stat().st_mtime_ns for cell in cells}
    assert attentkit("compare", suite, "-d", "cpu", "-o", out, "--select", "entropy", "--no-report").code == 0
    assert {cell.folder: cell.run.checkpoint.stat().st_mtime_ns for cell in cells} == trained
    chosen = read_scores(out / "scores.csv")
    assert {score.selection for score in chosen} == {"entropy"} and len({score.case for score in chosen}) == 4
