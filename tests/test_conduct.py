"""Comparisons, runs and choices as functions: a request in, values out, and errors that say the same as the commands."""

import pytest

from attent_kit.config import as_words, parse_set
from attent_kit.engine.compare.suite import read_suite
from attent_kit.engine.conduct.compare import compare
from attent_kit.engine.conduct.grid import expanded, priced
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.engine.conduct.select import select
from attent_kit.engine.conduct.train import TrainRequest, train
from attent_kit.engine.conduct.watcher import Watcher
from attent_kit.engine.train.train import TrainWatcher
from attent_kit.errors import ConfigError, DataError, RunError
from attent_kit.plugins import load
from attent_kit.report.scores import read_scores
from support.cases import contents
from support.commands import TINY

REGISTRY = load().registry
ONCE = {"seeds": [0], "directions": ["mr2ct"], "devices": ["cpu"]}


class Listener(Watcher):
    """Writes down what it is told, and is told at once."""

    def __init__(self):
        self.heard = []

    def expanded(self, grid):
        self.heard.append(("expanded", len(grid.cells)))

    def training(self, cells):
        self.heard.append(("training", len(cells)))
        return super().training(cells)

    def finished(self, cell):
        self.heard.append(("finished", cell.name))

    def failed(self, cell, error):
        self.heard.append(("failed", cell.name))

    def scored(self, result):
        self.heard.append(("scored", [path.name for path in result.files if path.suffix == ".html"]))


@pytest.fixture(scope="module")
def compared(suite, tmp_path_factory):
    """A comparison of both rows from MR to CT, the suite given as a value, and what was heard of it."""
    listener = Listener()
    out = tmp_path_factory.mktemp("conduct") / "out"
    request = CompareRequest(read_suite(suite, REGISTRY), out=out, **ONCE)
    return compare(request, REGISTRY, listener), listener.heard


def test_what_a_comparison_comes_to_is_at_hand_and_is_what_the_files_say(compared):
    result, _ = compared
    out = result.grid.out
    assert result.check() is result and result.error is None and result.besides == []
    assert repr([*result.scores]) == repr([*read_scores(out / "scores.csv")])
    assert [cell.done for cell in result.cells] == [True, True] and not result.failed
    dice = result.compared.tables[0]
    assert [label for label, _ in dice.rows] == ["W/o adaptation", "AttENT"]
    (average,) = [c for c in result.compared.comparisons if (c.metric, c.organ) == ("dice", "average")]
    assert (average.method, result.compared.reference) == ("AttENT", "W/o adaptation")
    assert all(path.exists() for path in result.files)
    assert {"table.md", "report.html", "figure-mr2ct.png"} <= {path.name for path in result.files}


def test_a_watcher_hears_of_the_grid_of_each_run_and_of_the_tables_before_the_report_is_made(compared):
    _, heard = compared
    assert heard == [
        ("expanded", 2), ("training", 2), ("finished", "W/o adaptation, mr2ct, seed 0"), ("finished", "AttENT, mr2ct, seed 0"),
        ("scored", []),
    ]  # fmt: skip


def test_a_grid_and_a_price_write_nothing_and_know_what_is_done(compared, suite):
    out = compared[0].grid.out
    before = contents(out)
    grid = expanded(CompareRequest(suite, out=out, **ONCE | {"seeds": [0, 1]}), REGISTRY)
    assert [(cell.seed, cell.done) for cell in grid.cells] == [(0, True), (1, False)] * 2
    other = expanded(CompareRequest(suite, out=out, set={"segment_steps": 3}, **ONCE), REGISTRY)
    older = [list(differing.values()) for differing in other.superseded.values()]
    assert older == [[["alignment.segment_steps"]], [["alignment.segment_steps"]]]
    price = priced(CompareRequest(suite, out=out, **ONCE | {"seeds": [0, 1]}), REGISTRY)
    assert (price.missing, price.check()) == (2, price) and price.seconds > 0
    assert contents(out) == before


def test_one_failing_row_is_in_the_result_beside_the_tables_of_the_others(suite, tmp_path):
    file = tmp_path / "suite.toml"
    broken = '[[rows]]\nlabel = "Broken"\nalignment = "source_only"\noptions = { learning_rate = 1e30 }\n'
    file.write_text(suite.read_text() + broken)
    listener = Listener()
    request = CompareRequest(
        file, alignments=["source_only"], set={"log_steps": 1}, out=tmp_path / "out", report=False, **ONCE
    )
    result = compare(request, REGISTRY, listener)
    ((cell, error),) = result.failed
    assert cell.name == "Broken, mr2ct, seed 0" and "finite" in str(error)
    assert ("failed", cell.name) in listener.heard
    assert {score.alignment for score in result.scores} == {"W/o adaptation"}
    assert not [path for path in result.files if path.name == "report.html"]
    with pytest.raises(RunError, match="1 of 2 runs failed"):
        result.check()


def test_scores_that_cannot_be_used_are_in_the_result_and_are_what_check_raises(suite, tmp_path):
    request = CompareRequest(suite, out=tmp_path / "out", alignments=["source_only"], report=False, **ONCE)
    (cell,) = compare(request, REGISTRY).cells
    file = cell.answers.scores
    file.write_text(file.read_text().replace(",mr2ct,0,", ",mr2ct,5,"))
    file.with_name(".scores.csv.sha256").unlink()
    result = compare(request, REGISTRY)
    assert len(result.damaged) == 1 and not result.failed
    with pytest.raises(DataError, match=r"scores\.csv"):
        result.check()


def test_options_are_words_or_values(suite, tmp_path):
    given = {"segmentor.decoder_channels": [16, 8, 8], "dice": 0.5, "segmentor": {"encoder": "tu-test_resnet"}}
    words = as_words(given)
    assert as_words(words) == words
    assert parse_set(words) == [
        (["segmentor", "decoder_channels"], [16, 8, 8]), (["dice"], 0.5), (["segmentor", "encoder"], "tu-test_resnet"),
    ]  # fmt: skip
    rows = [
        [cell.row for cell in expanded(CompareRequest(suite, vary=vary, out=tmp_path, **ONCE), REGISTRY).cells]
        for vary in (["cycle=1,10"], {"cycle": [1, 10]})
    ]
    assert rows[0] == rows[1] == ["W/o adaptation", "AttENT, cycle=1", "AttENT, cycle=10"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": "012"}, "seeds"),
        ({"alignments": "attent"}, "alignments"),
        ({"set": "dice=1"}, "--set dice=1"),
        ({"devices": []}, "--devices"),
        ({"suite": "phantm"}, "Did you mean 'phantom'"),
        ({"select": "lst"}, "--select lst"),
        ({"reference": "AttENT 2"}, "--reference AttENT 2"),
    ],
)
def test_a_request_that_cannot_be_run_is_one_sentence(suite, tmp_path, given, words):
    with pytest.raises(ConfigError, match=words):
        expanded(CompareRequest(**{"suite": suite, "out": tmp_path / "out", **given}), REGISTRY)
    assert not (tmp_path / "out").exists()


def test_a_suite_that_is_a_value_has_no_variants(suite):
    with pytest.raises(ConfigError, match="variant 'quick'"):
        expanded(CompareRequest(read_suite(suite, REGISTRY), variant="quick"), REGISTRY)


def test_a_run_is_a_function_whose_scores_are_at_hand_and_whose_choices_can_be_graded(prepared, tmp_path):
    options, opened, warned = [word.removeprefix("--set=") for word in TINY], [], []
    watcher = TrainWatcher(opened=lambda *what: opened.append(what), warned=warned.append)
    request = TrainRequest(
        "source_only",
        source=prepared / "mr.h5",
        target=prepared / "ct.h5",
        set=options,
        device="cpu",
        out=tmp_path / "run",
    )
    result = train(request, REGISTRY, watcher)
    assert opened == [("source_only", 3)]
    assert result.run.path == result.answers.path == tmp_path / "run" and result.settings.seed == 0
    written = [repr(score) for score in read_scores(tmp_path / "run" / "scores.csv")]
    assert sorted(repr(score._replace(value=float(score.value))) for score in result.scores) == sorted(written)
    assert (len(result.dice), result.dice[-1].organ) == (4 + 1, "average")
    graded = select([tmp_path / "run"], REGISTRY, "cpu", out=tmp_path / "grades.csv")
    assert [run.run for run in graded.runs] == [str(tmp_path / "run")] and graded.counted == graded.runs
    assert {"last", "target-oracle"} <= {mean.selector for mean in graded.means}
    assert (tmp_path / "grades.csv").exists() and (graded.bare, graded.failed) == ([], [])


def test_a_run_on_one_and_the_same_file_is_doubted_before_it_begins(prepared, tmp_path):
    class Enough(Exception):
        """Nothing has to be trained."""

    def stop(name, steps):
        raise Enough

    warned = []
    file = prepared / "mr.h5"
    request = TrainRequest("source_only", source=file, target=file, device="cpu", out=tmp_path / "run")
    with pytest.raises(Enough):
        train(request, REGISTRY, TrainWatcher(opened=stop, warned=warned.append))
    assert len(warned) == 1 and "same file" in warned[0]


@pytest.mark.parametrize(("given", "words"), [({}, "name the method"), ({"alignment": "attent"}, "--source")])
def test_a_run_that_is_not_described_says_what_is_missing(given, words):
    with pytest.raises(ConfigError, match=words):
        train(TrainRequest(**given), REGISTRY)
