"""[search] of a suite: options found for every cell of its own by runs that know nothing of who is tested."""

import csv
import json
import shutil
import sys

import pytest

from attent_kit.config import read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.folds import in_fold, without_tests
from attent_kit.data.sets.splits import Fold
from attent_kit.engine.compare import cells as running
from attent_kit.engine.compare.space import Search, ask
from attent_kit.engine.compare.suite import read_suite
from attent_kit.engine.conduct.compare import compare
from attent_kit.engine.conduct.grid import expanded
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.status import cells_in, state_of
from attent_kit.errors import ConfigError
from attent_kit.plugins import load
from attent_kit.report.searched import read_searched
from support.commands import SUITE, says
from support.later import later_in

REGISTRY = load().registry
GRID = """
[search]
sampler = "grid"

[search.space]
learning_rate = [1e-3, 1e-2]
"""
TPE = """
[search]
trials = 3
objective = "im"

[search.space]
learning_rate = [1e-4, 1e-1, "log"]
"segmentor.decoder_channels" = [[16, 8, 8], [8, 8, 8]]
"""


def suite_of(folder, prepared, search=GRID, more="", rows="", snapshots=1):
    """W/o adaptation alone, MR to CT, one seed."""
    text = SUITE.format(prepared=prepared).replace('["mr2ct", "ct2mr"]', '["mr2ct"]').replace("[0, 1]", "[0]")
    text = "\n".join(
        line
        for line in text[: text.rindex("[[rows]]")].splitlines()
        if not line.startswith(("translat", "image_disc", "entropy_disc"))
    )
    text = text.replace("settings = {", f"{more}\nsettings = {{ snapshots = {snapshots},")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "suite.toml"
    file.write_text(text + rows + search, encoding="utf-8")
    return file


def request(suite, out, **more):
    return CompareRequest(suite, out=out, devices=["cpu"], report=False, **more)


def search_of(**words):
    return Search(**{"space": {"a": [1, 2]}, "sampler": "grid", **words})


def options_in(run):
    return read_toml(RunFolder(run).config)["alignment"]


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory):
    """A finished search over a grid of two; its suite and its folder."""
    folder = tmp_path_factory.mktemp("made")
    suite = suite_of(folder, prepared)
    compare(CompareRequest(suite, out=folder / "out", devices=["cpu"]), REGISTRY).check()
    return suite, folder / "out"


# What is asked


def test_a_grid_is_every_combination_in_order_and_a_range_of_it_has_points():
    search = search_of(space={"a": [1e-4, 1e-2, "log", 3], "b": ["x", "y"], "c": [1, 9, "linear", 3]})
    assert search.dimensions["a"].values == (1e-4, 1e-3, 1e-2) and search.dimensions["c"].values == (1, 5, 9)
    asked = [ask(search, search.dimensions, [({}, 0.0)] * n, True, 0) for n in range(search.count(search.dimensions))]
    assert len(asked) == 18 == len({tuple(each.values()) for each in asked})
    assert asked[0] == {"a": 1e-4, "b": "x", "c": 1}


def test_what_tpe_asks_follows_from_what_it_was_told_and_nothing_else():
    pytest.importorskip("optuna")
    search = search_of(
        space={"a": [1e-4, 1e-1, "log"], "b": [[1, 2], [3]], "c": [1, 8, "linear"]}, sampler="tpe", trials=9
    )
    dimensions, told = search.dimensions, []
    for n in range(9):
        asked = ask(search, dimensions, told, True, 7)
        assert asked == ask(search, dimensions, told, True, 7)
        assert 1e-4 <= asked["a"] <= 1e-1 and asked["b"] in ([1, 2], [3]) and asked["c"] in range(1, 9)
        told.append((asked, None if n == 3 else -abs(asked["c"] - 6)))
    assert len({each["a"] for each, _ in told}) > 5
    assert ask(search, dimensions, told, True, 7) != ask(search, dimensions, told, True, 8)


def test_tpe_comes_nearer_to_what_is_good():
    pytest.importorskip("optuna")
    search = search_of(space={"a": [0.0, 1.0, "linear"]}, sampler="tpe", trials=30)
    told = []
    for _ in range(30):
        asked = ask(search, search.dimensions, told, False, 1)
        told.append((asked, (asked["a"] - 0.8) ** 2))
    late = [abs(each["a"] - 0.8) for each, _ in told[-8:]]
    assert sum(late) / 8 < 0.15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"space": {}}, "space"),
        ({"space": {"a": []}}, "no value"),
        ({"space": {"a": [1, 1]}}, "twice"),
        ({"space": {"a": [2, 1, "log"]}}, "range"),
        ({"space": {"a": [0.0, 1.0, "log"]}}, "above 0"),
        ({"space": {"a": ["x", "y", "log"]}}, "range"),
        ({"space": {"a": [1e-4, 1e-2, "log"]}}, 'log", 3'),
        ({"space": {"a": [1e-4, 1e-2, "log", 1]}}, "2 or more"),
        ({"trials": 3}, "2 combinations"),
        ({"sampler": "tpe"}, "trials = 20"),
        ({"space": {str(n): [*range(40)] for n in range(3)}}, "64000"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(words, said):
    with pytest.raises(ValueError, match=said):
        search_of(**words)


# Nobody who is tested


def test_a_trial_trains_on_whom_its_cell_trains_on_and_knows_nobody_who_is_tested(prepared):
    target = Prepared.open(prepared / "ct.h5")
    for whole in (target, in_fold(target, Fold(1, 3), 0)):
        bare = without_tests(whole)
        assert bare.ids("train") == whole.ids("train") and bare.ids("val") == whole.ids("val")
        assert whole.ids("test") and not bare.ids("test")


def test_every_trial_is_a_run_that_has_scored_nobody_and_the_best_becomes_the_row(made):
    _, out = made
    trials = read_searched(out / "search.csv")
    assert [trial.trial for trial in trials] == [1, 2] and sum(trial.chosen for trial in trials) == 1
    best = max(trials, key=lambda trial: trial.value)
    assert best.chosen and {trial.objective for trial in trials} == {"source-dice"}
    for trial in trials:
        run = RunFolder(out / trial.folder)
        assert read_toml(run.config)["data"]["untested"] is True
        assert run.answers().read() == [] and not run.answers().predictions.exists()
    chosen = float(best.options["learning_rate"])
    assert options_in(out / "mr2ct" / "w-o-adaptation" / "seed0")["learning_rate"] == chosen
    assert options_in(out / best.folder)["learning_rate"] == chosen


def test_report_status_and_select_know_it(made, attentkit):
    _, out = made
    page = (out / "report.html").read_text()
    assert "Search of options" in page and "learning_rate" in page and "search.csv" in page
    assert "'source-dice' and never by target labels" in (out / "table.md").read_text()
    states = json.loads(attentkit("status", out, "--json").out)
    assert [state["row"] for state in states] == ["W/o adaptation", *(f"W/o adaptation, trial {n}" for n in (1, 2))]
    assert {state["state"] for state in states} == {"done"}
    graded = json.loads(attentkit("select", out, "--json").out)
    assert {run["run"] for run in graded["runs"]} == {str(out / "mr2ct" / "w-o-adaptation" / "seed0")}
    (out / "report.html").unlink()
    assert attentkit("report", out).code == 0
    assert "Search of options" in (out / "report.html").read_text()


def test_what_is_found_is_not_searched_again_and_the_dry_run_says_so(made, attentkit):
    suite, out = made
    before = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.ckpt")}
    result = compare(request(suite, out), REGISTRY).check()
    assert result.cells[0].done
    assert {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.ckpt")} == before
    (cell,) = json.loads(attentkit("compare", suite, "-o", out, "--dry-run", "--json").out)
    assert cell["done"] and "trials_left" not in cell and cell["superseded"] == []


def test_a_dry_run_and_a_plan_count_the_trials(prepared, tmp_path, attentkit):
    suite = suite_of(tmp_path, prepared)
    assert "2 trials" in attentkit("compare", suite, "-o", tmp_path / "out", "--dry-run").out
    price = json.loads(attentkit("compare", suite, "-o", tmp_path / "out", "--plan", "--json").out)
    (cell,), stages = price["cells"], price["stages"]
    assert cell["trials_left"] == 2
    assert cell["seconds"] == pytest.approx(3 * sum(s["steps"] * s["seconds_a_step"] for s in stages))
    assert not (tmp_path / "out").exists()


def test_it_goes_on_at_the_trial_where_it_was_stopped(made, tmp_path, monkeypatch):
    suite, out = made
    whole = {t.folder: (t.value, t.options) for t in read_searched(out / "search.csv")}
    copy = shutil.copytree(out, tmp_path / "out")
    shutil.rmtree(copy / "mr2ct")
    shutil.rmtree(copy / "search" / "mr2ct" / "w-o-adaptation-trial-2")
    grid = expanded(request(suite, copy), REGISTRY)
    assert [cell.trials_left for cell in grid.cells] == [1]
    trained = []
    train = running.train
    monkeypatch.setattr(running, "train", lambda *given: trained.append(given[1]) or train(*given))
    compare(request(suite, copy), REGISTRY).check()
    assert [path.parent.name for path in trained] == ["w-o-adaptation-trial-2", "w-o-adaptation"]
    assert {state_of(cell).state for cell in cells_in(copy)} == {"done"}
    assert {t.folder: (t.value, t.options) for t in read_searched(copy / "search.csv")} == whole


def test_a_search_that_comes_to_other_options_leaves_the_earlier_run_beside_the_new_one(made, prepared, tmp_path):
    _, out = made
    copy = shutil.copytree(out, tmp_path / "out")
    best = next(float(t.options["learning_rate"]) for t in read_searched(out / "search.csv") if t.chosen)
    other = suite_of(tmp_path, prepared, GRID.replace("[1e-3, 1e-2]", f"[{best / 2}, {best / 4}]"))
    (cell,) = compare(request(other, copy), REGISTRY).check().cells
    assert (
        cell.done and cell.folder.name.startswith("seed0-") and (copy / "mr2ct" / "w-o-adaptation" / "seed0").exists()
    )
    assert {state_of(found).state for found in cells_in(copy)} == {"done"}
    trials = read_searched(copy / "search.csv")
    assert len(trials) == 2 and {RunFolder(copy / trial.folder).path.name[:6] for trial in trials} == {"seed0-"}


def test_each_fold_has_a_search_of_its_own_and_bounds_have_none(volumes, tmp_path, attentkit):
    pytest.importorskip("optuna")
    for modality in ("ct", "mr"):
        words = ["prepare", volumes / modality / "images", "--labels", volumes / modality / "labels"]
        split = (
            ["--train", f"{modality}_1,{modality}_2", "--val", f"{modality}_3"]
            if modality == "mr"
            else ["--train", "all"]
        )
        outcome = attentkit(*words, *split, "-o", tmp_path / f"{modality}.h5", "--modality", modality, "--size", 32)
        assert outcome.code == 0
    rows = '\n[[rows]]\nlabel = "Supervised"\nalignment = "supervised"\n'
    suite = suite_of(tmp_path, tmp_path, TPE, more="folds = 3", rows=rows)
    out = tmp_path / "out"
    result = compare(request(suite, out, folds=[0, 1]), REGISTRY).check()
    trials = read_searched(out / "search.csv")
    assert {(t.row, t.fold) for t in trials} == {("W/o adaptation", "0/3"), ("W/o adaptation", "1/3")}
    assert len(trials) == 6 and sum(t.chosen for t in trials) == 2
    assert {cell.row for cell in result.cells} == {"W/o adaptation", "Supervised"}
    with (out / "search.csv").open(newline="") as file:
        channels = {line["segmentor.decoder_channels"] for line in csv.DictReader(file)}
    assert channels <= {"[16, 8, 8]", "[8, 8, 8]"}


def test_options_with_which_training_meets_nan_are_a_trial_without_a_score(prepared, tmp_path):
    space = GRID.replace("[1e-3, 1e-2]", "[1e-3, 1e38]")
    suite = suite_of(tmp_path, prepared, space)
    result = compare(request(suite, tmp_path / "out"), REGISTRY).check()
    good, bad = read_searched(tmp_path / "out" / "search.csv")
    assert good.chosen and bad.value is None and not bad.chosen
    assert result.cells[0].settings.alignment.options.learning_rate == 1e-3


# Bad input


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (GRID.replace("learning_rate", "learning_rat"), "'learning_rate'"),
        (GRID.replace("learning_rate", '"segmentor.encodr"').replace("1e-3, 1e-2", "1, 2"), "'encoder'"),
        (GRID.replace("1e-2]", '"fast"]'), "row 'W/o adaptation'"),
        (GRID.replace("learning_rate", "seed"), "search.space.seed"),
        (GRID.replace("[search]", '[search]\nobjective = "source-dise"'), "'source-dice'"),
        (GRID.replace("[search]", '[search]\nobjective = "target-oracle"'), "target labels"),
        (GRID.replace("[search]", '[search]\nrows = ["W/o adaption"]'), "'W/o adaptation'"),
        (GRID.replace('sampler = "grid"', 'sampler = "gird"'), "search.sampler"),
        (GRID.replace("[search]", "[search]\ntrails = 3"), "trials"),
    ],
)
def test_a_mistake_is_said_in_one_sentence_before_anything_is_trained(prepared, tmp_path, attentkit, search, said):
    suite = suite_of(tmp_path, prepared, search)
    outcome = attentkit("compare", suite, "-o", tmp_path / "out")
    assert says(outcome, 2, said) and outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_snapshots_there_is_nothing_to_judge(prepared, tmp_path):
    with pytest.raises(ConfigError, match=r"settings\.snapshots"):
        expanded(request(suite_of(tmp_path, prepared, snapshots=0), tmp_path / "out"), REGISTRY)


def test_without_optuna_a_sentence_says_what_to_install_and_a_grid_needs_none(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'attent-kit\[search\]'"):
        expanded(request(suite_of(tmp_path, prepared, TPE), tmp_path / "out"), REGISTRY)
    assert expanded(request(suite_of(tmp_path, prepared), tmp_path / "out"), REGISTRY).cells[0].trials_left == 2


def test_an_objective_that_the_data_cannot_give_is_said_before_anything_is_trained(
    volumes, prepared, tmp_path, attentkit
):
    words = ["prepare", volumes / "mr" / "images", "--labels", volumes / "mr" / "labels", "--train", "all"]
    assert attentkit(*words, "-o", tmp_path / "mr.h5", "--modality", "mr", "--size", 32).code == 0
    shutil.copy(prepared / "ct.h5", tmp_path)
    suite = suite_of(tmp_path, tmp_path)
    for more in ([], ["--dry-run"], ["--plan"]):
        outcome = attentkit("compare", suite, "-o", tmp_path / "out", *more)
        assert says(outcome, 3, "'source-dice'", "mr2ct", "mr.h5", "--val", '"im"'), outcome
    assert not (tmp_path / "out").exists()
    without_labels = suite_of(tmp_path, tmp_path, GRID.replace("[search]", '[search]\nobjective = "im"'))
    assert expanded(request(without_labels, tmp_path / "out"), REGISTRY).cells[0].trials_left == 2


def test_an_objective_that_a_method_cannot_give_is_said_after_the_first_trial(prepared, tmp_path):
    suite = suite_of(tmp_path, prepared, GRID.replace("[search]", '[search]\nobjective = "cycle"'))
    result = compare(request(suite, tmp_path / "out"), REGISTRY)
    assert "'cycle'" in str(result.error) and "method" in str(result.error)
    assert [cell.row for cell, _ in result.failed] == ["W/o adaptation"] and not result.scores


def test_a_launcher_is_refused_with_what_to_type_in_its_place(prepared, tmp_path, attentkit):
    suite = suite_of(tmp_path, prepared)
    suite.write_text(suite.read_text() + '\n[launcher]\nname = "later"\n')
    words = ("compare", suite, "-o", tmp_path / "out", "--plugin", later_in(tmp_path), "--dry-run")
    assert says(attentkit(*words), 2, "[search]", "later", "--launcher local", "search.csv")
    assert attentkit(*words, "--launcher", "local").code == 0


def test_suites_without_a_search_have_none(made, prepared, tmp_path):
    suite, out = made
    assert read_suite(suite, REGISTRY).search is not None
    copy = shutil.copytree(out, tmp_path / "out")
    compare(request(suite_of(tmp_path, prepared, ""), copy), REGISTRY).check()
    assert not (copy / "search.csv").exists()
