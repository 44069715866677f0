"""Every patient tested once: folds dealt by patient, cells that know their fold, and tables pooled over all of them."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest

from attent_kit.cli import run
from attent_kit.config import read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.folds import folds_of, in_fold, without_patients
from attent_kit.data.prepared.hdf5 import put_text
from attent_kit.data.sets.splits import Fold, deal, divide_into_folds
from attent_kit.engine.compare.suite import read_suite
from attent_kit.engine.conduct.compare import compare
from attent_kit.engine.conduct.grid import expanded
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.engine.run.domains import domains_seen
from attent_kit.engine.run.folder import RunFolder, RunKey
from attent_kit.errors import ConfigError, DataError
from attent_kit.plugins import load
from attent_kit.report.scores import read_scores
from support.cases import contents, write_case
from support.commands import SUITE, says
from support.messages import quotes

REGISTRY = load().registry


def prepared_of(folder, cases, *words, modality="ct", unlabelled=(), seed=0):
    """FOLDER.h5 of small cases; those of `unlabelled` have no labels."""
    for n, case in enumerate(cases):
        write_case(folder, case, modality, seed=seed + n)
    for case in unlabelled:
        (folder / "labels" / f"{case}.nii.gz").unlink()
    out = folder.with_suffix(".h5")
    given = [
        "prepare",
        folder / "images",
        "--labels",
        folder / "labels",
        "-o",
        out,
        "--modality",
        modality,
        "--size",
        32,
    ]
    assert run([str(word) for word in [*given, *(["--allow-unlabelled"] if unlabelled else []), *words]]) == 0
    return Prepared.open(out)


def suite_of(folder, source, target, more="folds = 2", rows="", name="suite.toml"):
    """A suite from `mr` to `ct` of those files, one seed."""
    text = SUITE.format(prepared=folder).replace('["mr2ct", "ct2mr"]', '["mr2ct"]').replace("[0, 1]", "[0]")
    text = text.replace(f"{folder}/mr.h5", str(source)).replace(f"{folder}/ct.h5", str(target))
    file = folder / name
    file.write_text(text.replace("settings =", f"{more}\nsettings =") + rows, encoding="utf-8")
    return file


# Dealing


def test_scans_of_a_patient_are_in_one_fold_and_folds_are_as_equal_as_that_allows():
    patients = {f"p{n}_{scan}": f"p{n}" for n in range(7) for scan in range(3 if n == 4 else 1)}
    folds = deal(patients, 3, seed=0)
    assert sorted(case for fold in folds for case in fold) == sorted(patients)
    assert sorted(map(len, folds)) == [3, 3, 3]
    whose = [{patients[case] for case in fold} for fold in folds]
    assert not whose[0] & whose[1] and not whose[0] & whose[2] and not whose[1] & whose[2]


def test_folds_follow_from_the_seed_and_not_from_the_order_of_cases():
    cases = [f"case_{n:02}" for n in range(20)]
    folds = deal(dict(zip(cases, cases, strict=True)), 5, seed=0)
    assert deal({case: case for case in reversed(cases)}, 5, seed=0) == folds
    assert deal({case: case for case in cases}, 5, seed=1) != folds
    assert [len(fold) for fold in folds] == [4] * 5
    # `prepare --fold` deals the same.
    assert divide_into_folds(cases, Fold(3, 5), 0)["test"] == folds[3]


def test_a_fold_has_its_cases_in_test_and_all_others_in_train_whatever_the_file_says(tmp_path):
    target = prepared_of(tmp_path / "ct", [f"c{n}" for n in range(6)], "--train=c0,c1", "--val=c2", "--test=c3,c4,c5")
    folds = folds_of(target, 2, seed=0)
    for number, fold in enumerate(folds):
        seen = in_fold(target, Fold(number, 2), 0)
        assert seen.ids("test") == fold and len(fold) == 3 and not seen.ids("val")
        assert sorted(seen.ids("train") + fold) == [f"c{n}" for n in range(6)]
        for case in fold:
            truth, _ = seen.truth(case)
            assert truth.shape == (32, 32, 4) and set(np.unique(truth)) == {0, 1, 2, 3, 4}
    hashes = {in_fold(target, Fold(n, 2), 0).content_hash() for n in (0, 1)} | {target.content_hash()}
    assert len(hashes) == 3


def test_what_a_fold_scores_is_part_of_what_it_is_known_by(tmp_path):
    target = prepared_of(tmp_path / "ct", ["a", "b"], "--train=all")
    before = in_fold(target, Fold(0, 2), 0).content_hash()
    for record in target.manifest["cases"]:
        record["truth"] = "another"
    assert in_fold(target, Fold(0, 2), 0).content_hash() != before
    # Of the file itself nobody sees the truth: its hash is that of versions which did not keep it.
    kept = target.content_hash()
    for record in target.manifest["cases"]:
        del record["truth"]
    assert target.content_hash() == kept


def test_unlabelled_cases_train_in_every_fold_but_not_where_their_patient_is_tested(tmp_path):
    folder = tmp_path / "ct"
    for n, case in enumerate(("a", "b", "c", "d", "a_again")):
        write_case(folder, case, seed=n)
    lines = ["image,labels,case,patient"]
    for case, patient in (("a", "anna"), ("b", ""), ("c", ""), ("d", ""), ("a_again", "anna")):
        labels = f"labels/{case}.nii.gz" if case in "abc" else ""
        lines.append(f"images/{case}.nii.gz,{labels},{case},{patient}")
    (folder / "list.csv").write_text("\n".join(lines))
    out = tmp_path / "ct.h5"
    words = ["prepare", folder / "list.csv", "-o", out, "--modality", "ct", "--size", 32, "--train", "all"]
    assert run([*map(str, words), "--allow-unlabelled"]) == 0
    target = Prepared.open(out)
    assert target.ids("train") == ("a", "a_again", "b", "c", "d") and target.ids("test") == ()
    for number in range(3):
        seen = in_fold(target, Fold(number, 3), 0)
        (tested,) = seen.ids("test")
        assert tested in "abc" and "d" in seen.ids("train")
        assert ("a_again" in seen.ids("train")) is (tested != "a")


def test_a_source_is_without_the_patients_that_a_fold_tests(tmp_path):
    target = prepared_of(tmp_path / "ct", ["p1", "p2", "p3", "p4"], "--train=all")
    source = prepared_of(tmp_path / "mr", ["p1", "p2", "q1", "q2"], "--train=p1,p2,q1", "--val=q2", modality="mr")
    seen = in_fold(target, Fold(0, 2), 0)
    away = {"p1", "p2"} & {*seen.ids("test")}
    assert {*without_patients(source, seen).ids("train")} == {"p1", "p2", "q1"} - away
    # Different people who are called alike stay.
    assert without_patients(source, seen, by_name=False) is source


def test_the_same_image_under_another_name_is_the_same_patient(tmp_path):
    target = prepared_of(tmp_path / "ct", ["a", "b", "c"], "--train=all")
    source = prepared_of(tmp_path / "again", ["x", "y", "z"], "--train=all")
    for number in range(3):
        seen = in_fold(target, Fold(number, 3), 0)
        (tested,) = seen.ids("test")
        expected = {"x", "y", "z"} - {dict(zip("abc", "xyz", strict=True))[tested]}
        assert {*without_patients(source, seen, by_name=False).ids("train")} == expected


# Cells


def test_a_run_of_a_fold_has_a_folder_of_its_own_and_one_without_has_its_old_one(tmp_path):
    keys = [RunKey("mr2ct", "attent", 3), RunKey("mr2ct", "attent", 3, Fold(1, 5))]
    assert [key.name for key in keys] == ["mr2ct/attent/seed3", "mr2ct/attent/seed3-fold1of5"]
    folders = [key.folder(tmp_path, content) for key in keys for content in ("", "0123abcd")]
    assert [RunFolder(folder.path).key for folder in folders] == [keys[0], keys[0], keys[1], keys[1]]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """mr.h5, whose cases all train, and ct.h5 of four patients, whose split knows one test case."""
    folder = tmp_path_factory.mktemp("folds")
    prepared_of(folder / "ct", ["ct_1", "ct_2", "ct_3", "ct_4"], "--train=ct_1,ct_2,ct_3", "--test=ct_4")
    prepared_of(folder / "mr", ["mr_1", "mr_2", "mr_3"], "--train=all", modality="mr", seed=20)
    return folder


PIXEL = '\n[[rows]]\nlabel = "Pixel"\nalignment = "pixel"\n'


@pytest.fixture(scope="module")
def suite(data):
    return suite_of(data, data / "mr.h5", data / "ct.h5", rows=PIXEL)


@pytest.fixture(scope="module")
def compared(suite, tmp_path_factory):
    """A suite in two halves, run to its end."""
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare(CompareRequest(suite, out=out, devices=["cpu"]), REGISTRY).check()


@pytest.fixture
def out(compared, tmp_path):
    """A copy of its folder that a test may spoil."""
    return shutil.copytree(compared.grid.out, tmp_path / "out")


def test_every_patient_is_tested_once_by_a_run_that_has_not_seen_them(compared):
    assert len(compared.cells) == 6
    for row in ("W/o adaptation", "AttENT", "Pixel"):
        tested = [s.case for s in compared.scores if (s.alignment, s.metric, s.organ) == (row, "dice", "liver")]
        assert sorted(tested) == ["ct_1", "ct_2", "ct_3", "ct_4"]
    for cell in compared.cells:
        own = {score.case for score in read_scores(cell.answers.scores)}
        source, target = domains_seen(cell.settings.data)
        assert own == {*target.ids("test")} and not own & {*target.ids("train")}
        assert source.ids("train") == ("mr_1", "mr_2", "mr_3")
        assert {path.name for path in cell.answers.predictions.iterdir()} == {f"{case}.nii.gz" for case in own}


def test_tables_and_tests_are_over_all_patients_at_once(compared):
    dice = compared.tables[0]
    assert dice.over == "mean ± SD over 4 cases" and dice.alike
    assert not [line for line in dice.footnotes if "cases so far" in line]
    averages = [c for c in compared.comparisons if (c.metric, c.organ) == ("dice", "average")]
    assert [(c.cases, c.left_out, c.seeds) for c in averages] == [(4, 0, 1), (4, 0, 1)]
    assert {r.ranking.cases for r in compared.compared.ranks} == {4}


def test_a_stage_is_shared_within_a_fold_and_never_between_two(compared):
    stages = {path.name for path in (compared.grid.out / "shared").glob("translate-*.ckpt")}
    assert len(stages) == 2
    folders = {cell.run.name for cell in compared.cells}
    assert folders == {f"mr2ct/{row}/seed0-fold{n}of2" for row in ("w-o-adaptation", "attent", "pixel") for n in (0, 1)}
    config = read_toml(compared.cells[1].run.config)
    assert config["data"]["fold"] == {"number": 1, "parts": 2, "seed": 0, "shared_patients": True}


def test_report_status_and_figures_name_the_fold(compared, attentkit, out):
    assert attentkit("report", out).code == 0
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "2 folds" in html and "fold 0/2, as a target" in html
    assert re.search(r"worst case, ct_\d", html) and "not the same cases" not in html
    states = json.loads(attentkit("status", out, "--json").out)
    assert {(state["fold"], state["state"]) for state in states} == {("0/2", "done"), ("1/2", "done")}
    assert (out / "figure-mr2ct.png").stat().st_size > 0


def test_nothing_is_run_twice_and_a_fold_that_is_gone_is_run_again(attentkit, suite, out):
    before = contents(out / "mr2ct")
    assert attentkit("compare", suite, "-d", "cpu", "-o", out, "--no-report").code == 0
    assert contents(out / "mr2ct") == before
    shutil.rmtree(out / "mr2ct" / "attent" / "seed0-fold1of2")
    outcome = attentkit("compare", suite, "-d", "cpu", "-o", out)
    assert re.findall(r"runs done: (.+)$", outcome.err, re.MULTILINE) == ["AttENT, mr2ct, seed 0, fold 1/2"]


def test_folds_that_are_not_finished_are_said_and_no_row_is_best(attentkit, suite, out):
    shutil.rmtree(out / "mr2ct" / "attent" / "seed0-fold1of2")
    outcome = attentkit("compare", suite, "-d", "cpu", "-o", out, "--folds", "0")
    assert outcome.code == 0 and "runs done" not in outcome.err
    assert "AttENT: 2 of 4 cases so far" in outcome.out and "none is marked best" in outcome.out
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "**" not in table.partition("comparisons with")[0].replace("**bold**", "")
    assert "2 cases left out" in table
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "none is best" in html and "not scored on the same cases" in html


def test_some_folds_can_be_run_first(suite, tmp_path, attentkit):
    grid = expanded(CompareRequest(suite, out=tmp_path / "out", folds=[1], seeds=[0, 4]), REGISTRY)
    assert {(str(cell.fold), cell.seed) for cell in grid.cells} == {("1/2", 0), ("1/2", 4)}
    plan = attentkit("compare", suite, "-o", tmp_path / "out", "--folds", "0", "--dry-run", "--json")
    assert {cell["fold"] for cell in json.loads(plan.out)} == {"0/2"}


def test_another_dealing_is_another_run_beside_the_first(suite, out, attentkit):
    text = suite.read_text(encoding="utf-8").replace("folds = 2", "folds = 2\nfold_seed = 3")
    other = suite.with_name("other.toml")
    other.write_text(text, encoding="utf-8")
    plan = json.loads(attentkit("compare", other, "-o", out, "--dry-run", "--json").out)
    assert not any(cell["done"] for cell in plan)
    assert all(re.fullmatch(r"seed0-fold\dof2-[0-9a-f]{8}", cell["folder"].rpartition("/")[2]) for cell in plan)


def test_a_plan_prices_a_shared_stage_once_a_fold(suite, tmp_path, attentkit):
    words = ["compare", suite, "-o", tmp_path / "out", "--plan", "--json", "-d", "cpu"]
    cells = json.loads(attentkit(*words).out)["cells"]
    shares = [(cell["fold"], cell["row"], cell["shares"]) for cell in cells if cell["shares"]]
    assert shares == [(f"{n}/2", "Pixel", "translate with AttENT") for n in (0, 1)]


def test_shift_and_audit_see_the_fold_of_a_run(attentkit, out):
    assert attentkit("shift", out, "-d", "cpu", "--slices", 2).code == 0
    lines = (out / "shift.csv").read_text().splitlines()
    assert lines[0].endswith(",fold") and {line.rpartition(",")[2] for line in lines[1:]} == {"0/2", "1/2"}
    assert attentkit("audit", out, "-d", "cpu").code == 0
    for number in (0, 1):
        folder = RunFolder(out / "mr2ct" / "attent" / f"seed0-fold{number}of2")
        cases = {line.partition(",")[0] for line in folder.audit.read_text().splitlines()[1:]}
        assert cases == {score.case for score in read_scores(folder.answers().scores)}


def test_cells_without_folds_are_as_they_were(data, tmp_path):
    plain = suite_of(data, data / "mr.h5", data / "ct.h5", more="", name="plain.toml")
    grid = expanded(CompareRequest(plain, out=tmp_path / "out"), REGISTRY)
    assert [cell.run.name for cell in grid.cells] == ["mr2ct/w-o-adaptation/seed0", "mr2ct/attent/seed0"]
    assert grid.cells[0].name == "W/o adaptation, mr2ct, seed 0" and grid.cells[0].to_be_scored[0] == ["ct_4"]
    assert grid.cells[0].settings.data.model_dump(exclude_none=True).keys() == {"source", "target"}


def test_a_phantom_can_be_dealt_into_folds(tmp_path):
    text = (
        'name = "p"\ndirections = ["mr2ct"]\nfolds = 24\n[phantom]\n[[rows]]\nlabel = "A"\nalignment = "source_only"\n'
    )
    file = tmp_path / "p.toml"
    file.write_text(text)
    assert len(expanded(CompareRequest(file, out=tmp_path / "out"), REGISTRY).cells) == 24
    file.write_text(text.replace("24", "25"))
    with pytest.raises(ConfigError, match="24 patients: 25 folds"):
        read_suite(file, REGISTRY)


# What cannot be


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("folds = 1", "1 is not"),
        ("folds = 5", "ct.h5 ... 4 patients ... 5 folds"),
        ('folds = 2\nsplit = "sifa-abdominal"', "leave out one of the two"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_anything_is_trained(data, tmp_path, attentkit, more, sentence):
    file = suite_of(data, data / "mr.h5", data / "ct.h5", more, name="bad.toml")
    outcome = attentkit("compare", file, "-o", tmp_path / "out")
    assert says(outcome, 2 if "ct.h5" not in sentence else 3, sentence) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("folds", "sentence"),
    [("2", "2 folds, 0 to 1"), ("-1", "2 folds, 0 to 1"), ("first", "whole numbers"), ("0.5", "whole numbers")],
)
def test_a_fold_that_there_is_not_is_refused(suite, tmp_path, attentkit, folds, sentence):
    assert says(attentkit("compare", suite, "-o", tmp_path / "out", f"--folds={folds}"), 2, "--folds", sentence)


def test_a_suite_without_folds_has_none_to_choose_from(data, tmp_path, attentkit):
    plain = suite_of(data, data / "mr.h5", data / "ct.h5", more="", name="plain.toml")
    assert says(attentkit("compare", plain, "-o", tmp_path / "out", "--folds=0"), 2, "write folds = 5 in it")


def test_a_target_with_one_labelled_case_has_no_folds(data, tmp_path, attentkit):
    prepared_of(tmp_path / "ct", ["a", "b", "c"], "--train=all", unlabelled=["b", "c"])
    outcome = attentkit("compare", suite_of(tmp_path, data / "mr.h5", tmp_path / "ct.h5"), "-o", tmp_path / "out")
    assert says(outcome, 3, "has 1 patient with labels", "leave them out")


def test_a_file_of_a_version_that_kept_no_truth_for_training_cases_is_to_be_prepared_again(data, tmp_path):
    old = shutil.copy(data / "ct.h5", tmp_path / "ct.h5")
    with h5py.File(old, "r+") as file:
        manifest = json.loads(file["manifest"][()])
        for record in manifest["cases"]:
            del record["truth"]
        put_text(file, "manifest", json.dumps(manifest))
    assert Prepared.open(old).content_hash() == Prepared.open(data / "ct.h5").content_hash()
    with pytest.raises(DataError, match="ct_1 .*`attentkit prepare` again"):
        folds_of(Prepared.open(old), 2, 0)


def test_a_source_that_a_fold_leaves_nothing_of_is_refused(data, tmp_path, attentkit):
    source = prepared_of(tmp_path / "mr", ["ct_1"], "--train=all", modality="mr")
    outcome = attentkit("compare", suite_of(tmp_path, source.path, data / "ct.h5"), "-o", tmp_path / "out")
    assert says(outcome, 3, "tests every patient", str(source.path))


def test_the_same_patients_in_two_domains_are_said_and_the_same_images_refused(data, tmp_path, attentkit):
    source = prepared_of(tmp_path / "mr", ["ct_1", "ct_4", "other"], "--train=all", modality="mr", seed=50)
    folded = suite_of(tmp_path, source.path, data / "ct.h5")
    outcome = attentkit("compare", folded, "-o", tmp_path / "out", "--dry-run")
    assert "ct_1, ct_4 are in both domains" in outcome.err and "shared_patients = false" in outcome.err
    apart = suite_of(tmp_path, source.path, data / "ct.h5", "folds = 2\nshared_patients = false")
    assert "both domains" not in attentkit("compare", apart, "-o", tmp_path / "out", "--dry-run").err
    plain = suite_of(tmp_path, source.path, data / "ct.h5", more="")
    outcome = attentkit("compare", plain, "-o", tmp_path / "out", "--dry-run")
    assert outcome.code == 0 and quotes(outcome.err, "ct_4 ... source ... target")
    # The fourth case is written once more.
    copy = prepared_of(tmp_path / "copy", ["one", "two"], "--train=all", seed=3)
    leaking = suite_of(tmp_path, copy.path, data / "ct.h5", more="")
    outcome = attentkit("compare", leaking, "-o", tmp_path / "out", "--dry-run")
    assert says(outcome, 3, "one of", "the same image")
