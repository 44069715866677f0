"""Cells of a comparison are known by what they are made of: what is run, what is kept, what the table shows."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attent_kit.cli import run, screen
from attent_kit.config import read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.compare import content
from attent_kit.engine.compare.content import components_of, located, superseded
from attent_kit.engine.compare.results import scores_of
from attent_kit.engine.compare.suite import expand, read_suite, slug
from attent_kit.engine.run.folder import RunFolder
from attent_kit.errors import DataError
from attent_kit.plugins import load
from attent_kit.registry import Registry
from attent_kit.report.scores import read_scores
from support.cases import contents
from support.commands import prepare_words
from support.comparison_folder import parse
from support.messages import quotes

FOLDER = "mr2ct/w-o-adaptation/seed0"


@pytest.fixture(scope="module")
def compared(suite, tmp_path_factory):
    """Both rows from MR to CT with seed 0."""
    folder = tmp_path_factory.mktemp("cells")
    assert run(["compare", str(suite), "--seeds=0", "--directions=mr2ct", "-d", "cpu", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def out(compared, tmp_path):
    """A copy of `compared` that a test may spoil."""
    return shutil.copytree(compared, tmp_path / "out")


@pytest.fixture
def compare(attentkit, suite, out, tmp_path):
    """`compare(*words, old=new)`: the suite with words of its file replaced, into `out`."""

    def command(*words, seeds="0", directions="mr2ct", more="", **replaced):
        text = suite.read_text(encoding="utf-8")
        for old, new in replaced.items():
            text = text.replace(f'"{old}"', new)
        (tmp_path / "suite.toml").write_text(text + more, encoding="utf-8")
        where = [f"--{name}={value}" for name, value in (("seeds", seeds), ("directions", directions)) if value]
        return attentkit("compare", tmp_path / "suite.toml", "-d", "cpu", "-o", out, *where, *words)

    return command


def ran(outcome):
    """The cells that a command has run, in their order."""
    found = re.findall(r"runs done: (.+), (\w+), seed (\d+)$", outcome.err, re.MULTILINE)
    return [(row, direction, int(seed)) for row, direction, seed in found]


@pytest.fixture
def mistaken(tmp_path, monkeypatch):
    """`mistaken(line)`: the file of a plugin whose method 'mistaken' does that in its first step."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "tries" / "mistaken_method.py"
    file.parent.mkdir()

    def write(line):
        file.write_text(MISTAKEN.format(line=line))
        return file

    yield write
    sys.modules.pop("mistaken_method", None)
    load.cache_clear()


MISTAKEN = """
from attent_kit import hookimpl
from attentkit_builtin.alignments.source_only import SourceOnly


class Mistaken(SourceOnly):
    "Makes a mistake."

    def segment(self, batch, update):
        {line}


@hookimpl
def attentkit_alignments():
    return {{"mistaken": Mistaken}}
"""


def cells_of(suite, out, registry):
    read = read_suite(suite, registry)
    return located(expand(read, registry, read.domains, out), registry)


def changed(registry, kind, name, version):
    """The registry with one component from another version of another distribution."""
    other = Registry()
    for component in registry:
        mine = (component.kind, component.name) == (kind, name)
        other.add(replace(component, distribution="attentkit-more", version=version) if mine else component)
    return other


# What is shown


def test_a_large_grid_shows_the_seeds_of_a_row_together(compare, out, monkeypatch):
    monkeypatch.setattr(screen, "MANY_ROWS", 3)
    shown = compare("--dry-run", seeds="3,7,4,5").out
    lines = [line for line in shown.splitlines() if "to run" in line]
    assert len(lines) == 2 and all("3 to 5, 7" in line for line in lines) and "8 runs" in shown
    assert screen.ranges(["2", "-", "0", "1", "-"]) == "0 to 2, -" and screen.ranges(["5"]) == "5"


# What is run


def test_another_option_of_a_row_trains_that_row_again_keeps_its_earlier_run_and_shows_the_new_one(
    compare, out, monkeypatch
):
    before = contents(out)
    other = {"source_only": '"source_only"\noptions = { dice = 1.0 }'}
    dry = compare("--dry-run", **other).out
    assert f"to run; superseded: {FOLDER}" in dry and dry.count("superseded") == 1
    cells = json.loads(compare("--dry-run", "--json", **other).out)
    assert [(cell["done"], cell["superseded"]) for cell in cells] == [(False, [str(out / FOLDER)]), (True, [])]
    assert contents(out) == before

    outcome = compare(**other)
    assert outcome.code == 0
    assert "1 of 1 runs done: W/o adaptation, mr2ct, seed 0" in outcome.err
    (sentence,) = [line for line in outcome.out.splitlines() if "kept and not shown" in line]
    assert quotes(sentence, "W/o adaptation: 1 ", FOLDER, "alignment.dice")
    (new,) = [folder for folder in (out / FOLDER).parent.iterdir() if folder.name != "seed0"]
    assert re.fullmatch("seed0-[0-9a-f]{8}", new.name)
    after = contents(out)
    for name in before:
        assert not name.startswith("mr2ct/") or after[name] == before[name], name
    shown = [score for score in read_scores(out / "scores.csv") if score.alignment == "W/o adaptation"]
    assert repr(shown) == repr(read_scores(new / "scores.csv")) != repr(read_scores(out / FOLDER / "scores.csv"))

    monkeypatch.setattr("attent_kit.engine.train.train.fit", lambda *a: pytest.fail("the earlier run is there"))
    back = compare()
    assert back.code == 0 and f"1 earlier run (mr2ct/w-o-adaptation/{new.name}) kept" in back.out
    assert contents(out) == {**after, **{name: data for name, data in before.items() if not name.startswith("mr2ct/")}}


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        ({"seeds": "0,1"}, [("W/o adaptation", "mr2ct", 1), ("AttENT", "mr2ct", 1)]),
        ({"directions": "mr2ct,ct2mr"}, [("W/o adaptation", "ct2mr", 0), ("AttENT", "ct2mr", 0)]),
        ({"more": '[[rows]]\nlabel = "Entropy"\nalignment = "entropy"\n'}, [("Entropy", "mr2ct", 0)]),
        ({"AttENT": '"AttENT"\noptions = { cycle = 1.0 }'}, [("AttENT", "mr2ct", 0)]),
    ],
)
def test_a_seed_a_direction_a_row_or_an_option_more_runs_only_what_is_missing(compare, words, cells):
    outcome = compare(**words)
    assert (outcome.code, ran(outcome)) == (0, cells)


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (
            {"source_only": '"source_only"\noptions = { dice = 1.0 }'},
            ["attent/seed0", "attent/seed1", "w-o-adaptation/seed1"],
        ),
        ({"AttENT": '"Another"'}, ["another/seed1", "w-o-adaptation/seed0", "w-o-adaptation/seed1"]),
    ],
)
def test_the_report_shows_what_the_table_shows_and_no_run_of_earlier_options_or_rows(compare, out, words, runs):
    outcome = compare(seeds="1", **words)
    assert outcome.code == 0 and "kept and not shown" in outcome.out
    assert read_toml(out / "comparison.toml")["runs"] == [f"mr2ct/{run}" for run in runs]
    scored = {(score.alignment, score.seed) for score in read_scores(out / "scores.csv")}
    assert sorted(f"{slug(label)}/seed{seed}" for label, seed in scored) == runs
    (dice,) = (rows for title, rows in parse(out).tables.items() if title.startswith("MR to CT: Dice, %"))
    assert {row[0].partition(" label-free")[0] for row in dice[1:]} == {label for label, _ in scored}


def test_how_often_a_run_saves_and_where_its_data_lie_make_no_other_cell(compare, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    outcome = compare("--set", "save_seconds=9", "--set", "log_steps=3")
    assert (outcome.code, ran(outcome)) == (0, [])
    moved = {f"{prepared}/{name}.h5": f'"{tmp_path}/data/{name}.h5"' for name in ("mr", "ct")}
    outcome = compare(**moved)
    assert (outcome.code, ran(outcome)) == (0, [])


def test_data_that_changed_make_every_cell_on_them_another(compare, attentkit, prepared, volumes, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    words = prepare_words(volumes / "ct", tmp_path / "data" / "ct.h5", "ct", "--window", "0", "200")
    assert attentkit(*words).code == 0
    outcome = compare(**{f"{prepared}/ct.h5": f'"{tmp_path}/data/ct.h5"'})
    assert len(ran(outcome)) == 2
    assert "kept and not shown, since the suite now differs in the data of the target." in outcome.out


def test_a_cell_depends_on_the_versions_of_exactly_the_distributions_whose_components_it_uses(suite, out):
    registry = load().registry
    newer = changed(registry, "translators", "attention", "2.0")
    plain, attent = (cell for cell in cells_of(suite, out, newer) if (cell.direction, cell.seed) == ("mr2ct", 0))
    assert "attentkit-more" in {component.distribution for component in components_of(attent.settings, newer)}
    assert {component.kind for component in components_of(plain.settings, newer)} == {"alignments", "segmentors"}
    assert plain.done and plain.folder.name == "seed0"
    assert not attent.done and re.fullmatch("seed0-[0-9a-f]{8}", attent.folder.name)
    (differs,) = superseded([attent], newer)[attent.folder].values()
    assert len(differs) == 1 and differs[0].startswith("translators/attention (attent-kit ")
    assert differs[0].endswith(" then, attentkit-more 2.0 now)")


def test_a_run_made_by_another_version_of_attent_kit_is_another_cell(suite, out):
    file = out / FOLDER / "env.json"
    file.write_text(file.read_text().replace('"attent_kit": "', '"attent_kit": "0.0.'))
    cell = cells_of(suite, out, load().registry)[0]
    assert not cell.done
    assert superseded([cell], load().registry)[cell.folder][out / FOLDER][0].startswith("attent-kit (0.0.")


def test_a_folder_of_many_runs_is_listed_once_and_each_of_their_files_is_read_once(suite, tmp_path, monkeypatch):
    registry, read, listed = load().registry, [], []
    whole = read_suite(suite, registry).model_copy(update={"seeds": tuple(range(40))})
    for seed in range(0, 40, 2):
        folder = tmp_path / FOLDER.replace("seed0", f"seed{seed}")
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(f"seed = {seed}\n")
        (folder / "scores.csv").touch()
    find, toml = RunFolder.find, content.read_toml
    monkeypatch.setattr(RunFolder, "find", staticmethod(lambda out: listed.append(out) or find(out)))
    monkeypatch.setattr(content, "read_toml", lambda file: read.append(file) or toml(file))
    cells = located(expand(whole, registry, whole.domains, tmp_path), registry)
    older = superseded(located(cells, registry), registry)
    assert sum(map(bool, older.values())) == 20 and len(older) == len(cells)
    assert listed == [tmp_path] and len(read) == len({*read}) == 20


@pytest.mark.parametrize("spoil", ["missing", "junk"])
def test_results_that_do_not_say_their_versions_are_still_found(suite, out, spoil):
    file = out / FOLDER / "env.json"
    file.unlink() if spoil == "missing" else file.write_text(spoil)
    assert cells_of(suite, out, load().registry)[0].done


def test_a_run_whose_config_cannot_be_read_is_kept_and_another_takes_its_place(compare, out):
    (out / FOLDER / "config.toml").write_text("= junk")
    before = contents(out / FOLDER)
    outcome = compare()
    assert (outcome.code, ran(outcome)) == (0, [("W/o adaptation", "mr2ct", 0)])
    assert "kept and not shown" in outcome.out and contents(out / FOLDER) == before


def test_a_mistake_in_the_code_of_one_method_does_not_end_the_comparison_of_the_others(compare, out, mistaken):
    outcome = compare("--plugin", mistaken('return {}["x"]'), seeds="1", source_only='"mistaken"')
    assert outcome.code == 1
    record = out / "mr2ct/w-o-adaptation/seed1/failed.json"
    assert f"FAILED: W/o adaptation, mr2ct, seed 1: KeyError: 'x' (where: {record})" in outcome.err
    assert ran(outcome) == [("AttENT", "mr2ct", 1)] and "1 of 2 runs failed" in outcome.err
    assert any('return {}["x"]' in line for line in json.loads(record.read_text())["traceback"])


def test_a_device_that_no_longer_computes_does_not_fail_every_cell(compare, out, mistaken, monkeypatch):
    file = mistaken('raise RuntimeError("CUDA error: device-side assert triggered")')
    monkeypatch.setattr("attent_kit.engine.compare.cells.works", lambda device: False)
    outcome = compare("--plugin", file, seeds="1", source_only='"mistaken"')
    assert outcome.code == 1 and "RunError: --device cpu does not compute" in outcome.err
    assert (out / "mr2ct/w-o-adaptation/seed1/failed.json").exists() and not (out / "mr2ct/attent/seed1").exists()


def test_the_published_numbers_of_another_suite_do_not_stay(compare, out, tmp_path):
    shutil.copy(Path(__file__).parent.parent / "benchmarks" / "published.toml", tmp_path / "numbers.toml")
    assert compare(tiny='"tiny"\npublished = "numbers.toml"').code == 0
    assert (out / "published.toml").read_bytes() == (tmp_path / "numbers.toml").read_bytes()
    assert compare().code == 0 and not (out / "published.toml").exists()


# What is shown


def test_rows_that_were_added_stay_in_the_table_until_the_options_change(compare, attentkit, out):
    assert ran(compare("-m", "entropy")) == [("entropy", "mr2ct", 0)]
    outcome = compare()
    assert (outcome.code, ran(outcome)) == (0, [])
    page = (out / "report.html").read_bytes()
    assert attentkit("report", out).code == 0 and (out / "report.html").read_bytes() == page
    assert "| entropy | " in (out / "table.md").read_text(encoding="utf-8")
    assert {s.alignment for s in read_scores(out / "scores.csv")} == {"W/o adaptation", "AttENT", "entropy"}
    file = out / "mr2ct/entropy/seed0/scores.csv"
    file.write_text(file.read_text()[:-9])
    assert f"{file}, line " in compare().err
    outcome = compare("--set", "segment_steps=5")
    assert "entropy: 1 earlier run (mr2ct/entropy/seed0) kept and not shown, since" in outcome.out
    assert {s.alignment for s in read_scores(out / "scores.csv")} == {"W/o adaptation", "AttENT"}


def test_a_row_that_left_the_suite_is_kept_and_said(compare, out):
    outcome = compare(AttENT='"AttENT, ours"')
    assert ran(outcome) == [("AttENT, ours", "mr2ct", 0)]
    assert "1 earlier run (mr2ct/attent/seed0) kept and not shown, since the suite has no such row" in outcome.out
    assert {s.alignment for s in read_scores(out / "scores.csv")} == {"W/o adaptation", "AttENT, ours"}


def test_one_row_with_more_seeds_than_the_other_makes_a_table_that_says_so(compare, out):
    outcome = compare("-m", "source_only", seeds="1")
    assert outcome.code == 0
    table = (out / "table.md").read_text(encoding="utf-8")
    assert {s.seed for s in read_scores(out / "scores.csv") if s.alignment == "W/o adaptation"} == {0, 1}
    assert "over 2 seeds" in table and "| AttENT | 0.0 (n=1) | " in table


SPOILT = {
    "cut in a line": (lambda text: text[:-20], "Delete the file and start the same command again"),
    "cut after a line": (lambda text: "".join(text.splitlines(True)[:-9]), "lacks rows of spleen in case ct_3"),
    "cut after the first line": (lambda text: text.splitlines(True)[0], "lacks rows of liver in case ct_3"),
    "a word for a number": (lambda text: re.sub(r",0\.\d+,", ",high,", text, count=1), "value 'high' is not a number"),
    "another seed": (lambda text: text.replace(",mr2ct,0,", ",mr2ct,5,"), "has rows of another run"),
    "two labels": (lambda text: text.replace("AttENT", "Other", 1), "has rows of another run"),
    "empty": (lambda text: "", "the header is ''"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_scores_that_are_not_those_of_the_cell_are_refused_with_what_to_do(suite, out, kind):
    spoil, sentence = SPOILT[kind]
    file = out / "mr2ct/attent/seed0/scores.csv"
    text = file.read_text()
    file.write_text(spoil(text))
    file.with_name(".scores.csv.sha256").unlink()  # by which any change is met first
    assert file.read_text() != text
    (cell,) = (cell for cell in cells_of(suite, out, load().registry) if cell.folder == file.parent)
    with pytest.raises(DataError) as refused:
        scores_of(cell)
    assert str(file) in str(refused.value) and sentence in str(refused.value)
    assert "the run is scored anew, not trained anew" in str(refused.value)


def test_scores_of_another_run_are_named_and_the_other_rows_make_the_table(compare, out):
    file = out / "mr2ct/attent/seed0/scores.csv"
    file.write_text(SPOILT["another seed"][0](file.read_text()))
    file.with_name(".scores.csv.sha256").unlink()
    outcome = compare()
    assert (outcome.code, ran(outcome)) == (3, []) and "Traceback" not in outcome.err
    assert str(file) in outcome.err and "has rows of another run" in outcome.err
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| AttENT | -" in table and re.search(r"\| W/o adaptation \| \*?\*?\d", table)


@pytest.mark.parametrize("spoil", ["missing", *(kind for kind in SPOILT if kind != "another seed")])
def test_damaged_scores_are_made_again_without_training(compare, out, monkeypatch, spoil):
    file = out / "mr2ct/attent/seed0/scores.csv"
    before = file.read_bytes()
    if spoil == "missing":
        file.unlink()
    else:
        file.write_text(SPOILT[spoil][0](file.read_text()))
    monkeypatch.setattr("attent_kit.engine.train.fit._step", lambda *a: pytest.fail("it is trained already"))
    outcome = compare("--no-report")
    assert (outcome.code, ran(outcome)) == (0, [("AttENT", "mr2ct", 0)])
    assert file.read_bytes() == before


@pytest.mark.parametrize("label", ["Ähnlich/比較", "<b>x</b> & y", "[red]a[/] {b}", "a | b \\ c", "100 %"])
def test_a_label_of_any_words_is_a_folder_and_stands_in_the_table_as_it_is(compare, out, label):
    words = {"AttENT": json.dumps(label, ensure_ascii=False)}
    (cell,) = [c for c in json.loads(compare("--dry-run", "--json", **words).out) if c["row"] == label]
    assert re.fullmatch(r"[\w-]+", cell["folder"].split("/")[-2])
    shutil.move(out / "mr2ct/attent", out / "mr2ct" / cell["folder"].split("/")[-2])
    outcome = compare(**words)
    assert (outcome.code, ran(outcome)) == (0, [])
    assert sum(f"│ {label} " in line for line in outcome.out.splitlines()) == 3
    assert {s.alignment for s in read_scores(out / "scores.csv")} == {"W/o adaptation", label}


@pytest.mark.parametrize("label", ["", " ", "a\nb", "a\x1b[2Jb", "x" * 300])
def test_a_label_that_cannot_be_shown_is_one_sentence(compare, out, label):
    outcome = compare("--dry-run", AttENT=json.dumps(label).replace("\\u001b", "\\u001B"))
    assert outcome.code == 2 and "label" in outcome.err and "\x1b" not in outcome.err and len(outcome.err) < 500


def test_the_hash_of_a_cell_does_not_depend_on_where_its_data_lie(suite, out, prepared, tmp_path):
    """The folder of other content has the same name on every machine."""
    shutil.copytree(prepared, tmp_path / "elsewhere")
    assert (
        Prepared.open(tmp_path / "elsewhere/ct.h5").content_hash() == Prepared.open(prepared / "ct.h5").content_hash()
    )
    registry = load().registry
    read = read_suite(suite, registry)
    moved = {name: tmp_path / "elsewhere" / f"{name}.h5" for name in ("mr", "ct")}
    names = [
        [c.folder for c in located(expand(read, registry, files, out, ["dice=1.0"]), registry)]
        for files in (read.domains, moved)
    ]
    assert names[0] == names[1] and any("-" in folder.name for folder in names[0])
