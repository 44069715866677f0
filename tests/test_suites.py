"""Suites: their variants, the split that they ask for, and those that stand in benchmarks/."""

import json
import re
import shlex
import shutil
import tomllib
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attent_kit.cli import run
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.compare.patients import refuse_another_split
from attent_kit.engine.compare.suite import expand, read_suite
from attent_kit.errors import ConfigError, DataError
from attent_kit.plugins import load
from attent_kit.report.published import read_published
from support.commands import says
from support.dicom_slices import write_series
from support.layout_folders import SLICES, body, btcv, write_masks

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ROWS = [
    ("W/o adaptation", "source_only"),
    ("SynSegNet", "synsegnet"),
    ("AdaOutput", "ada_output"),
    ("CycleGAN", "cyclegan"),
    ("CyCADA", "cycada"),
    ("SIFA-v1", "sifa"),
    ("SIFA-v2", "sifa"),
    ("Pixel", "pixel"),
    ("Feature", "feature"),
    ("Entropy", "entropy"),
    ("AttENT", "attent"),
    ("Supervised", "supervised"),
]
REAL = ("mr2ct", "ct2mr")
ALL = [(direction, None) for direction in REAL] + [("phantom", "small"), ("phantom", "full")]


@pytest.fixture(scope="module")
def registry():
    return load().registry


# Names


@pytest.mark.parametrize(
    ("line", "by", "words"),
    [
        ('name = "tiny"', 'name = "../../x"', "name: '../../x'"),
        ('name = "tiny"', 'name = "/tmp/x"', "name: '/tmp/x'"),
        ('name = "tiny"', 'name = ".."', "name: '..'"),
        ('name = "tiny"', 'name = "nul"', "name: 'nul'"),
        ('name = "tiny"', 'name = "a\\u0000b"', "name: 'a\\x00b'"),
        ('name = "tiny"', f'name = "{"x" * 10**6}"', "name: 'xxx"),
        ('name = "tiny"', "name = 3", "name"),
        ('title = "Tiny"', 'title = "\\u001b[2J"', "title: '\\x1b[2J'"),
        ('title = "Tiny"', f'title = "{"x" * 301}"', "300 letters"),
        ('note = "Boxes and noise."', 'note = "a\\u0007"', "note: 'a\\x07'"),
        ('note = "Boxes and noise."', f'note = "{"x" * 10**6}"', "5000 letters"),
        ('label = "AttENT"', f'label = "{"-" * 10**6}"', "rows.1.label"),
        ('label = "AttENT"', 'label = "\\u202e"', "rows.1.label"),
        ("[domains]", '[domains]\n"../x" = "a.h5"', "domains: '../x'"),
    ],
)
def test_what_a_suite_calls_its_parts_stays_in_its_folder_and_off_the_terminal(
    attentkit, suite, tmp_path, monkeypatch, line, by, words
):
    text = suite.read_text(encoding="utf-8")
    assert line in text
    (tmp_path / "mine.toml").write_text(text.replace(line, by), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    outcome = attentkit("compare", "mine.toml", "--dry-run")
    assert says(outcome, 2, words) and "\x1b" not in outcome.err and len(outcome.err) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_note_may_have_several_lines(suite, tmp_path, registry):
    text = suite.read_text(encoding="utf-8").replace('"Boxes and noise."', '"""One.\n\tTwo."""')
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert read_suite(tmp_path / "mine.toml", registry).note == "One.\n\tTwo."


# Variants

VARIANTS = """
[variants.quick]
seeds = [3]
title = "Quick"

[variants.quick.options]
segment_steps = 1
segmentor = { encoder_depth = 4, decoder_channels = [16, 8, 8, 8] }

[variants.other]
name = "mine"

[[variants.other.rows]]
label = "AttENT alone"
alignment = "attent"
"""


@pytest.fixture
def varied(suite, tmp_path):
    """The suite of two rows with the variants quick and other."""
    (tmp_path / "tiny.toml").write_text(suite.read_text() + VARIANTS)
    return tmp_path / "tiny.toml"


def test_a_variant_is_laid_over_the_suite_and_lends_it_its_name(varied, registry):
    plain, quick = (read_suite(varied, registry, variant) for variant in (None, "quick"))
    assert (plain.name, plain.title, plain.seeds) == ("tiny", "Tiny", (0, 1))
    assert (quick.name, quick.title, quick.seeds) == ("tiny-quick", "Quick", (3,))
    assert (plain.options["segment_steps"], quick.options["segment_steps"]) == (2, 1)
    assert quick.options["segmentor"] == {
        **plain.options["segmentor"],
        "encoder_depth": 4,
        "decoder_channels": [16, 8, 8, 8],
    }
    assert quick.rows == plain.rows and quick.domains == plain.domains


def test_rows_and_name_of_a_variant_replace_those_of_the_suite(varied, registry):
    other = read_suite(varied, registry, "other")
    assert other.name == "mine" and [row.label for row in other.rows] == ["AttENT alone"]


def test_a_suite_with_variants_reads_as_without_them(varied, suite, registry):
    assert read_suite(varied, registry) == read_suite(suite, registry)


def test_a_variant_is_chosen_on_the_command_line_and_has_its_own_folder(attentkit, varied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(attentkit("compare", varied, "--variant", "quick", "--dry-run", "--json").out)
    assert {(cell["seed"], cell["folder"].split("/")[1]) for cell in cells} == {(3, "tiny-quick")} and len(cells) == 4


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("quik", "has no variant 'quik'. Did you mean 'quick'? It has: quick, other."),
        ("x", "'x'. It has: quick, other."),
    ],
)
def test_an_unknown_variant_is_answered_with_the_nearest_and_all(attentkit, varied, variant, sentence):
    outcome = attentkit("compare", varied, "--variant", variant, "--dry-run")
    assert outcome.code == 2 and sentence in outcome.err


def test_what_a_suite_without_the_variant_has_is_said(attentkit, suite, tmp_path, registry):
    assert "It has none: leave out --variant" in attentkit("compare", suite, "--variant", "full", "--dry-run").err
    (tmp_path / "a.toml").write_text(suite.read_text() + "[variants]\nquick = 3\n")
    with pytest.raises(ConfigError, match=r"write each as a table of its own, as in \[variants.quick\]"):
        read_suite(tmp_path / "a.toml", registry)


def test_a_suite_whose_data_stand_in_its_variants_asks_for_one(attentkit):
    outcome = attentkit("compare", BENCHMARKS / "phantom.toml", "--dry-run")
    assert outcome.code == 2
    assert "is run in a variant: type --variant full or --variant small." in outcome.err


# Splits


def test_other_test_cases_than_those_of_the_suites_split_are_refused(attentkit, suite, prepared, tmp_path):
    named = tmp_path / "tiny.toml"
    named.write_text('split = "sifa-abdominal"\n' + suite.read_text())
    outcome = attentkit("compare", named, "-d", "cpu", "--out", tmp_path / "out")
    assert outcome.code == 3 and not (tmp_path / "out").exists()
    assert f"{prepared / 'mr.h5'}: the suite tests on the mr cases 1, 13, 32, 38, all others" in outcome.err
    assert "tests on mr_3. Run `attentkit prepare` again with --split sifa-abdominal." in outcome.err


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ('split = "sifa-abdomen"', "split: no split is named 'sifa-abdomen'. Did you mean 'sifa-abdominal'?"),
        ('split = "protocontra"\nphantom = {}', "the phantom has its own split: leave out split = 'protocontra'"),
    ],
)
def test_a_split_that_a_suite_cannot_have_is_one_sentence(attentkit, suite, tmp_path, head, sentence):
    text = suite.read_text()
    if "phantom" in head:
        text = re.sub(r"\[domains\]\n.*\n.*\n", "", text)
    (tmp_path / "tiny.toml").write_text(f"{head}\n{text}")
    outcome = attentkit("compare", tmp_path / "tiny.toml", "--dry-run")
    assert outcome.code == 2 and sentence in outcome.err


def file_with(train, test, split=None):
    ids = {"train": train, "test": test}
    return SimpleNamespace(path="mr.h5", modality="mr", split=split, ids=ids.__getitem__)


def test_the_test_cases_of_a_split_are_known_by_number_and_are_never_trained_on():
    suite = SimpleNamespace(split="sifa-abdominal")
    refuse_another_split(suite, file_with(("2",), ("case_01", "img13", "32", "0038")))
    refuse_another_split(SimpleNamespace(split=None), file_with(("2",), ("5",)))
    for train, test in [
        (("2",), ("1", "13", "32")),  # one is missing
        (("2",), ("1", "13", "32", "38", "39")),  # one too many
        (("1", "2"), ("1", "13", "32", "38")),  # one is trained on
        (("2",), ("1", "13", "32_2", "38")),  # which number is it?
    ]:
        with pytest.raises(DataError, match="--split sifa-abdominal"):
            refuse_another_split(suite, file_with(train, test))
    with pytest.raises(DataError, match="tests on the split 'protocontra'"):
        refuse_another_split(suite, file_with(("1",), ("2", "8", "31", "34"), "protocontra"))


# The suites of benchmarks/


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_benchmark_has_the_nine_systems_and_the_three_ablations_in_the_order_of_the_slides(name, variant, registry):
    suite = read_suite(BENCHMARKS / f"{name}.toml", registry, variant)
    assert [(row.label, row.alignment) for row in suite.rows] == ROWS
    assert [row.options["version"] for row in suite.rows if row.alignment == "sifa"] == ["v1", "v2"]


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_all_rows_of_a_benchmark_have_one_segmentor_but_for_the_second_head_that_one_needs(
    name, variant, registry, tmp_path
):
    suite = read_suite(BENCHMARKS / f"{name}.toml", registry, variant)
    files = {domain: tmp_path / f"{domain}.h5" for domain in suite.domain_names}
    cells = expand(suite, registry, files, tmp_path)
    assert len(cells) == 12 * len(suite.directions) * len(suite.seeds)
    segmentors = {cell.row: cell.settings.alignment.options.segmentor.dump() for cell in cells}
    if variant is not None:
        assert segmentors["SIFA-v2"].pop("auxiliary") == 3
        segmentors = {row: {**options, "auxiliary": None} for row, options in segmentors.items()}
    assert all(options == segmentors["W/o adaptation"] for options in segmentors.values())


@pytest.mark.parametrize("direction", REAL)
def test_every_published_system_is_a_row_of_the_benchmark(direction, registry):
    suite = read_suite(BENCHMARKS / f"{direction}.toml", registry)
    assert (suite.name, suite.directions, suite.seeds) == (direction, (direction,), (0, 1, 2))
    assert suite.split == "sifa-abdominal"
    published = [table for table in read_published(suite.published) if "slides" in table.citation]
    assert {label for table in published for label in table.rows} == {label for label, _ in ROWS}


def test_the_small_variant_sets_what_the_suite_that_ships_sets_which_is_narrower_and_shorter(registry):
    shipped = tomllib.loads(Path(str(registry.find("suites", "phantom").target)).read_text())["options"]
    small = read_suite(BENCHMARKS / "phantom.toml", registry, "small")
    assert small.phantom.size == "small" and small.options["segmentor"] == shipped["segmentor"]
    for name, value in shipped.items():
        if isinstance(value, dict) and name != "segmentor":
            assert value.keys() <= small.options[name].keys() and value["width"] < small.options[name]["width"]
    assert shipped["segment_steps"] < small.options["segment_steps"]
    assert shipped.keys() <= small.options.keys()
    assert read_suite(BENCHMARKS / "phantom.toml", registry, "full").phantom.size == "full"


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """CHAOS and BTCV as they are unpacked, the test cases of SIFA and two others in each, and the suites beside them."""
    folder = tmp_path_factory.mktemp("patients")
    for case in (1, 2, 3, 13, 32, 38):
        image, labels = body(case)
        sequence = folder / "CHAOS" / "Train_Sets" / "MR" / str(case) / "T2SPIR"
        tags = [{"InstanceNumber": SLICES - z} for z in range(SLICES)]
        names = [f"IMG-{case:04}-{z:05}" for z in range(SLICES)]
        write_series(
            sequence / "DICOM_anon",
            image,
            [f"{name}.dcm" for name in names],
            tags=tags,
            Modality="MR",
            PatientID=f"p{case}",
        )
        write_masks(sequence / "Ground", labels, [f"{name}.png" for name in names])
    btcv(folder / "BTCV" / "RawData" / "Training", (1, 2, 3, 9, 30, 32, 33, 39))
    shutil.copytree(BENCHMARKS, folder / "benchmarks", ignore=shutil.ignore_patterns("results", "*.h5"))
    return folder


@pytest.mark.parametrize("direction", REAL)
def test_the_commands_at_the_top_of_a_benchmark_prepare_what_it_runs_on(direction, attentkit, patients):
    text = (BENCHMARKS / f"{direction}.toml").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^#   attentkit ((?:check|prepare) .*)", text, re.M)]
    assert [command[0] for command in commands] == ["check", "check", "prepare", "prepare"]
    with chdir(patients):
        assert [run(command) for command in commands[2:]] == [0, 0]
        assert all((patients / picture).stat().st_size > 10_000 for picture in ("mr.png", "ct.png"))
        cells = json.loads(attentkit("compare", f"benchmarks/{direction}.toml", "--dry-run", "--json").out)
    assert [cell["row"] for cell in cells] == [label for label, _ in ROWS for _ in range(3)]
    for name, tested in (("mr", ("1", "13", "32", "38")), ("ct", ("0001", "0009", "0030", "0032", "0033", "0039"))):
        prepared = Prepared.open(patients / "benchmarks" / f"{name}.h5")
        assert prepared.split == "sifa-abdominal" and prepared.ids("test") == tested
        assert prepared.organs == ("liver", "right kidney", "left kidney", "spleen")
        truth, _ = prepared.truth(tested[0])
        assert np.array_equal(truth, body(1)[1])


def test_the_readme_and_the_tutorial_give_the_commands_of_the_benchmarks():
    """Five commands: two that look, two that prepare, and the comparison; the tutorial writes beside itself."""
    at_the_top = re.findall(r"^#   (attentkit .*)", (BENCHMARKS / "mr2ct.toml").read_text(), re.M)
    assert len(at_the_top) == 4
    for page, home in (("README.md", "benchmarks/"), ("docs/tutorials/own_data.md", "")):
        text = (BENCHMARKS.parent / page).read_text()
        compare = "attentkit compare benchmarks/mr2ct.toml" if home else "attentkit compare mine.toml"
        for command in [*(command.replace("benchmarks/", home) for command in at_the_top), compare]:
            assert f"\n{command}" in text, f"{page} lacks: {command}"
