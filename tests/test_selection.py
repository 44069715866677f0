"""Which snapshot a selector chooses, how good that was, and that no table holds snapshots chosen in several ways."""

import csv
import math

import pytest

from attent_kit.errors import ConfigError, DataError
from attent_kit.report.compared import ScoredRows, compared, daggered
from attent_kit.report.render import render
from attent_kit.report.scores import Score, read_scores, summarise, write_scores
from attent_kit.report.selection import (
    Grade,
    Scored,
    aggregate,
    best_step,
    choose,
    grade,
    graded_csv,
    mean_dice,
    rank_correlation,
    read_grades,
    read_selection,
    write_grades,
    write_selection,
)
from attent_kit.report.table import MethodRow, tables

ROWS = [
    *(Scored(step, "entropy", value, "lower") for step, value in ((10, 0.3), (20, 0.1), (30, 0.1), (40, 0.2))),
    *(Scored(step, "im", value, "higher") for step, value in ((10, 0.9), (20, 0.2), (30, 0.4), (40, 0.1))),
    *(Scored(step, "odd", value, "lower") for step, value in ((10, math.nan), (20, 0.5), (30, -math.inf))),
]
DICE = {10: 0.2, 20: 0.8, 30: 0.5, 40: 0.6}


def test_the_best_score_is_chosen_and_of_equal_ones_the_latest():
    assert choose(ROWS, "entropy") == 30
    assert choose(ROWS, "im") == 10


def test_a_score_that_is_no_number_is_never_chosen():
    assert choose(ROWS, "odd") == 20


def test_a_selector_that_does_not_apply_is_a_sentence_with_those_that_do():
    with pytest.raises(
        DataError, match=r"'entrpy' has scored no snapshot.*Did you mean 'entropy'\? There are: entropy, im"
    ):
        choose(ROWS, "entrpy")
    with pytest.raises(DataError, match="There are: none"):
        choose([], "cycle")


def test_the_dice_of_a_snapshot_is_the_mean_over_organs_of_the_mean_over_cases():
    # Liver: (0.8 + 0.4) / 2 = 0.6; spleen: 0.2 alone; the kidney has no value anywhere.
    grades = [
        Grade(10, "a", "liver", 0.8), Grade(10, "b", "liver", 0.4), Grade(10, "a", "spleen", 0.2),
        Grade(10, "b", "spleen", math.nan), Grade(10, "a", "kidney", math.nan), Grade(20, "a", "kidney", math.nan),
    ]  # fmt: skip
    found = mean_dice(grades)
    assert found[10] == pytest.approx(0.4) and math.isnan(found[20])
    assert best_step(found) == 10 and best_step({1: 0.5, 2: 0.5}) == 2


def test_regret_is_what_the_choice_gives_away_to_the_best_snapshot():
    last, entropy, im, odd, oracle = grade(ROWS, DICE)
    assert [g.selector for g in (last, entropy, im, odd, oracle)] == ["last", "entropy", "im", "odd", "target-oracle"]
    assert (last.step, last.dice, last.regret) == (40, 0.6, pytest.approx(0.2))
    assert (entropy.step, entropy.dice, entropy.regret) == (30, 0.5, pytest.approx(0.3))
    assert (im.step, im.dice, im.regret) == (10, 0.2, pytest.approx(0.6))
    assert (oracle.step, oracle.dice, oracle.regret) == (20, 0.8, 0)
    assert {g.oracle for g in (last, entropy, im)} == {0.8} and {g.last for g in (last, entropy, im)} == {0.6}
    assert (odd.step, odd.snapshots) == (20, 1) and math.isnan(odd.rho)


def test_rho_is_positive_where_better_scores_go_with_higher_dice():
    """Ranks of Dice 10, 20, 30, 40: 1 4 2 3. Of im: 4 2 3 1, so rho = 1 - 6 (9 + 4 + 1 + 4) / 60 = -0.8."""
    _, entropy, im, _, _ = grade(ROWS, DICE)
    assert im.rho == pytest.approx(-0.8)
    # Minus entropy ranks 1, 3.5, 3.5, 2: rho is the correlation of the ranks, with their means 2.5 taken off.
    a, b = [-1.5, 1.0, 1.0, -0.5], [-1.5, 1.5, -0.5, 0.5]
    expected = sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    assert entropy.rho == pytest.approx(expected) and expected > 0


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0]), ([], [])])
def test_rho_of_what_is_constant_is_not_defined(a, b):
    assert math.isnan(rank_correlation(a, b))


def test_means_over_runs_count_in_how_many_a_choice_beats_the_last_snapshot():
    first, second = grade(ROWS, DICE), grade(ROWS[:8], {10: 0.5, 20: 0.1, 30: 0.7, 40: 0.4})
    found = {a.selector: a for a in aggregate([first, second])}
    assert list(found) == ["last", "entropy", "im", "odd", "target-oracle"]
    # Entropy: 0.5 (oracle 0.8, last 0.6), then 0.7 (oracle 0.7, last 0.4). im: 0.2, then 0.5 of the same.
    assert found["entropy"].dice == pytest.approx(0.6) and found["entropy"].regret == pytest.approx(0.15)
    assert found["entropy"].worst_regret == pytest.approx(0.3)
    assert (found["entropy"].better_than_last, found["entropy"].worse_than_last) == (0.5, 0.5)
    assert found["im"].regret == pytest.approx((0.6 + 0.2) / 2)
    # In the second run Dice ranks 3 1 4 2 and im 4 2 3 1: 1 - 6 (1 + 1 + 1 + 1) / 60 = 0.6.
    assert found["im"].rho == pytest.approx((-0.8 + 0.6) / 2) and found["im"].rho_runs == 2
    assert (found["odd"].runs, found["odd"].rho_runs) == (1, 0) and math.isnan(found["odd"].rho)
    assert (found["last"].better_than_last, found["last"].worse_than_last) == (0, 0)
    assert found["target-oracle"].regret == 0


def test_both_files_are_read_as_they_were_written(tmp_path):
    write_selection(tmp_path / "selection.csv", ROWS)
    assert (tmp_path / "selection.csv").read_text().startswith("step,selector,value,better\n10,entropy,0.3,lower\n")
    assert str(read_selection(tmp_path / "selection.csv")) == str(ROWS)
    grades = [Grade(10, "a", "left kidney", 0.25), Grade(10, "b", "left kidney", math.nan)]
    write_grades(tmp_path / "grades.csv", grades)
    assert str(read_grades(tmp_path / "grades.csv")) == str(grades)
    assert read_selection(tmp_path / "none.csv") == [] == read_grades(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1"),
        ("step,value\n", "line 1"),
        ("step,selector,value,better\n10,im,0.5,higher", "line 2"),
        ("step,selector,value,better\n10,im,0.5\n", "line 2"),
        ("step,selector,value,better\nten,im,0.5,higher\n", "line 2"),
        ("step,selector,value,better\n10,im,high,higher\n", "line 2"),
        ("step,selector,value,better\n10,im,0.5,more\n", "better is 'more'"),
        ("\xff\xfe", "not UTF-8"),
    ],
)
def test_a_damaged_file_is_a_sentence_that_names_it(tmp_path, text, why):
    (tmp_path / "selection.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=rf"selection.csv.*{why}.*Delete it: train the run again"):
        read_selection(tmp_path / "selection.csv")


def test_the_csv_of_graded_runs_has_a_line_for_each_run_and_selector(tmp_path):
    class Run:
        run, direction, row, seed, bound, selectors = "runs/a", "mr2ct", "AttENT", 0, False, grade(ROWS, DICE)
        fold = "0/2"

    graded_csv(tmp_path / "graded.csv", [Run])
    lines = list(csv.DictReader((tmp_path / "graded.csv").read_text().splitlines()))
    assert len(lines) == 5 and lines[1]["selector"] == "entropy" and lines[1]["fold"] == "0/2"
    assert float(lines[1]["regret"]) == pytest.approx(0.3) and lines[1]["oracle_step"] == "20"


# Score rows and tables


def scores(selection, label="AttENT", dice=0.5):
    return [
        Score(label, "mr2ct", 0, case, "liver", metric, value, unit, selection=selection)
        for case in ("1", "2")
        for metric, value, unit in (("dice", dice, "fraction"), ("assd", 1 - dice, "mm"))
    ]


def test_scores_keep_the_selection_that_they_are_of(tmp_path):
    write_scores(tmp_path / "new.csv", scores("im"))
    assert read_scores(tmp_path / "new.csv") == scores("im")


def test_no_fold_and_no_table_holds_snapshots_chosen_in_several_ways():
    mixed = scores("last") + scores("im", "Other")
    for fold in (lambda: summarise(mixed, "dice"), lambda: tables(mixed, METHODS, {"mr2ct": "MR to CT"})):
        with pytest.raises(ConfigError, match="chosen in several ways, last, im.*choose one with --select"):
            fold()


def test_one_direction_by_one_selection_and_the_other_by_another_are_a_mixture_too():
    mixed = scores("last") + [row._replace(direction="ct2mr") for row in scores("im")]
    with pytest.raises(ConfigError, match="several ways"):
        tables(mixed, METHODS, {"mr2ct": "MR to CT", "ct2mr": "CT to MR"})


METHODS = [MethodRow("AttENT", False), MethodRow("Other", False), MethodRow("Supervised", True)]


def rendered(selection, out, reference=None):
    rows = [row for m, dice in zip(METHODS, (0.5, 0.7, 0.9), strict=True) for row in scores(selection, m.label, dice)]
    scored = daggered(ScoredRows("T", "A note.", rows, METHODS, {"mr2ct": "MR to CT"}, ["liver"], selection))
    found = compared(scored, reference)
    render(found, {}, out)
    return found


def test_every_row_is_stamped_with_what_it_knows_of_target_labels(tmp_path):
    made = rendered("last", tmp_path)
    assert made.tables[0].stamps == ("label-free", "label-free", "sees target labels")
    text = (tmp_path / "table.md").read_text()
    assert "| AttENT | 50.0 ± 0.0 | 50.0 ± 0.0 | label-free |" in text and "†" not in text
    assert made.note == "A note." and "selected by" not in text
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert {(line["method"], line["selection"]) for line in lines} == {
        ("AttENT", "label-free"), ("Other", "label-free"), ("Supervised", "sees target labels"),
    }  # fmt: skip


def test_a_selector_is_named_in_title_and_note_and_its_rows_are_label_free(tmp_path):
    made = rendered("im", tmp_path)
    assert made.tables[0].title.endswith("2 cases, selected by im") and "'im' chose without target labels" in made.note
    assert "†" not in (tmp_path / "table.md").read_text() and made.tables[0].stamps[0] == "label-free"


def test_the_oracle_carries_a_dagger_in_every_table_and_a_note_that_explains_it(tmp_path):
    made = rendered("target-oracle", tmp_path, reference="Other †")
    text = (tmp_path / "table.md").read_text()
    shown = [line for line in text.splitlines() if line.startswith(("| AttENT", "| Other", "| Supervised"))]
    assert len(shown) >= 3 * 2 + 2 and all("†" in line.split("|")[1] for line in shown)
    assert "comparisons with Other †" in text and "† Of each run the snapshot" in made.note and made.note in text
    assert set(made.tables[0].stamps) == {"target-oracle †"}
    for name in ("table.csv", "comparisons.csv"):
        lines = list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        assert lines and all(line["method"].endswith("†") for line in lines), name
