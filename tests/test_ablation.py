"""`attentkit compare --ablate`: any method that declares its terms, with them all and without each of them."""

import json
import re
from importlib.metadata import entry_points

import pytest

from attent_kit.engine.compare.ablation import ablate, rows_without
from attent_kit.engine.compare.suite import SuiteRow, options_of, read_suite
from attent_kit.plugins import load
from attent_kit.report.scores import read_scores
from attent_kit.testing import check_alignment
from support.commands import SUITE

STRANGER = '''
from attent_kit import hookimpl
from attentkit_builtin.alignments.source_only import SourceOnly


class Mine(SourceOnly):
    """A stranger's method."""

    terms = {"Dice": {"dice": 0.0}, "<second> head": {"auxiliary": 0.0}}


@hookimpl
def attentkit_alignments():
    return {"mine": Mine}
'''
TINY = {"segmentor": {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}, "dice": 1.0}


@pytest.fixture
def suite(prepared, tmp_path):
    """`suite(old=new)`: the suite of two rows, with words of it replaced."""

    def write(**replaced):
        text = SUITE.format(prepared=prepared)
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "suite.toml").write_text(text)
        return tmp_path / "suite.toml"

    return write


def rows(attentkit, *words):
    outcome = attentkit("compare", *words, "--dry-run", "--json", "--seeds=0", "--directions=mr2ct")
    assert outcome.code == 0, outcome.err
    return [cell["row"] for cell in json.loads(outcome.out)], outcome.err


ATTENT = ["AttENT", *(f"AttENT w/o {t}" for t in ("cycle", "identity", "attention gate", "entropy alignment"))]


def test_the_rows_are_the_full_method_and_those_without_one_term_each(attentkit, suite):
    assert rows(attentkit, suite(), "--ablate", "attent") == (ATTENT, "")
    assert rows(attentkit, suite(), "--ablate", "feature")[0] == ["feature", "feature w/o feature alignment"]


def test_with_alignments_named_their_rows_stay(attentkit, suite):
    labels, _ = rows(attentkit, suite(), "-m", "source_only,attent", "--ablate", "attent")
    assert labels == ["W/o adaptation", *ATTENT]


def test_each_row_differs_from_the_full_one_in_the_options_of_its_term_alone(suite):
    registry = load().registry
    read = read_suite(suite(), registry)
    made = ablate(read, ["attent"], registry).suite
    full, *others = (options_of(made, row, registry) for row in made.rows)
    differ = [{name: row[name] for name in row if row[name] != full.get(name)} for row in others]
    assert differ == [
        {"cycle": 0.0},
        {"identity": 0.0},
        {"translator": {"width": 4, "blocks": 1, "gate": "none"}},
        {"adversarial": 0.0, "auxiliary_adversarial": 0.0},
    ]


@pytest.mark.parametrize(
    ("replaced", "lost", "sentence"),
    [
        ({"translate_steps = 2": "translate_steps = 2\nidentity = 0.0"}, "identity", "'AttENT' has the term off already."),
        ({'{ width = 4, blocks = 1 }': '{ name = "resnet", width = 4 }'}, "attention gate", "cannot be turned off ("),
    ],
)  # fmt: skip
def test_a_term_that_is_off_or_that_other_options_do_without_is_said_and_left_out(
    attentkit, suite, replaced, lost, sentence
):
    labels, said = rows(attentkit, suite(**replaced), "--ablate", "attent")
    assert labels == [label for label in ATTENT if not label.endswith(lost)]
    assert said.startswith(f"AttENT w/o {lost} is left out: ") and sentence in said


def test_a_method_without_terms_is_refused_with_those_that_have_some(attentkit, suite):
    outcome = attentkit("compare", suite(), "--ablate", "source_only", "--dry-run")
    assert outcome.code == 2
    assert "--ablate source_only: the method declares no terms" in outcome.err and "cycada" in outcome.err
    assert (
        "no alignment is called 'atent'. Did you mean 'attent'?" in attentkit("compare", suite(), "--ablate=atent").err
    )


def test_a_strangers_method_goes_through_the_same_table_with_its_full_row_as_the_reference(
    attentkit, install, found, suite, tmp_path
):
    found([*entry_points(group="attentkit"), *install("mine", STRANGER)])
    file, out = suite(**{"segment_steps = 2": "segment_steps = 2\ndice = 1.0"}), tmp_path / "out"
    words = ("compare", file, "-d", "cpu", "-o", out, "--seeds=0", "--directions=mr2ct")
    assert attentkit(*words, "--ablate", "mine").code == 0
    labels = ["mine", "mine w/o Dice", "mine w/o <second> head"]
    assert {s.alignment for s in read_scores(out / "scores.csv")} == {*labels}
    table = (out / "table.md").read_text()
    assert "## MR to CT: comparisons with mine" in table
    assert re.findall(r"^\| (mine.*?) \|", table, re.M)[:3] == labels

    assert attentkit(*words, "-m", "source_only").code == 0
    table = (out / "table.md").read_text()
    assert "## MR to CT: comparisons with W/o adaptation" in table
    assert re.findall(r"^\| (W/o adaptation|mine.*?) \|", table, re.M)[:4] == ["W/o adaptation", *labels]

    shown = json.loads(attentkit("show", "mine", "--json").out)[0]
    assert shown["terms"] == {"Dice": {"dice": 0.0}, "<second> head": {"auxiliary": 0.0}}


def test_show_says_what_turns_a_term_off(attentkit):
    lines = attentkit("show", "attent").out.splitlines()
    assert any(re.search("attention gate +│ translator.gate=none", line) for line in lines)
    assert "Terms" not in attentkit("show", "source_only").out


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"x": {"dyce": 0.0}}, r"Mine.terms\['x'\]: .*no such option. Did you mean 'dice'"),
        ({"x": {"dice": -1.0}}, r"Mine.terms\['x'\]: the method cannot be built"),
        ({"x": {"momentum": 0.9}}, r"Mine.terms\['x'\]: .*changes nothing"),
        ({"x": {}}, r"Mine.terms\['x'\]: .*changes nothing"),
        ({"x": "dice"}, "terms: give"),
        (["x"], "terms: give"),
    ],
)
def test_the_contract_says_which_term_is_none(terms, sentence):
    base = load().registry.alignment("source_only")
    mine = type("Mine", (base,), {"__doc__": "A method.", "terms": terms})
    with pytest.raises(AssertionError, match=sentence):
        check_alignment(mine, TINY)


def test_a_term_whose_name_cannot_be_a_row_is_one_sentence(attentkit, install, found, suite):
    source = STRANGER.replace('"Dice": {"dice": 0.0}', '"two\\nlines": {"dice": 0.5}')
    found([*entry_points(group="attentkit"), *install("mine", source)])
    outcome = attentkit("compare", suite(), "--ablate", "mine", "--dry-run")
    assert outcome.code == 2 and "is not a label" in outcome.err


def test_a_label_and_a_term_make_a_row(suite):
    made = rows_without(SuiteRow(label="Ours, 2", alignment="ada_output", options={"dice": 1.0}), load().registry)
    assert [(row.label, row.options) for row in made] == [
        ("Ours, 2 w/o output alignment", {"dice": 1.0, "adversarial": 0.0, "auxiliary_adversarial": 0.0})
    ]
