"""The share of the gap that a row closes, against numbers worked out by hand."""

import csv
import io
import math
from itertools import product

import numpy as np
import pytest

from attent_kit.engine.compare.results import method_row
from attent_kit.interfaces import Alignment
from attent_kit.report.compared import ScoredRows, compared, daggered
from attent_kit.report.gap import COLUMN, Ends, gaps, gaps_csv
from attent_kit.report.latex import latex
from attent_kit.report.metrics import METRICS
from attent_kit.report.scores import ORACLE, Score
from attent_kit.report.summary import headlines
from attent_kit.report.table import MethodRow, markdown
from support.comparison_folder import draw_nothing, reported, write_comparison

TITLES = {"mr2ct": "MR to CT"}
ENDS = Ends(["W/o"], ["Supervised"])
METHODS = [MethodRow("W/o", False, "floor"), MethodRow("A", False), MethodRow("Supervised", True, "ceiling")]
# By case: the gaps are 0.5, 0.4 and 0.3, of which A closes 0.4, 0.3 and -0.1.
DICE = {"W/o": (0.3, 0.4, 0.5), "A": (0.7, 0.7, 0.4), "Supervised": (0.8, 0.8, 0.8)}


def scores(dice=DICE, organs=("liver", "spleen"), seed=0, off=0.1):
    """The first organ is above the value of its case by `off`, the second below; with one distance for all."""
    return [
        score
        for row, values in dice.items()
        for n, value in enumerate(values)
        for organ, sign in zip(organs, (1, -1), strict=False)
        for score in (
            Score(row, "mr2ct", seed, f"c{n}", organ, "dice", value + sign * off, "fraction"),
            Score(row, "mr2ct", seed, f"c{n}", organ, "assd", 10 * (1 - value), "mm"),
        )
    ]


def made(found=None, methods=METHODS, reference=None, select="last"):
    scored = ScoredRows("T", "N.", scores() if found is None else found, methods, TITLES, ("liver", "spleen"), select)
    return compared(daggered(scored), reference)


def by_hand(dice):
    """Ends of the 95 % interval from all 3^3 draws of three cases, each as likely as any other."""
    floor, row, ceiling = (np.array(dice[label]) for label in ("W/o", "A", "Supervised"))
    draws = [list(draw) for draw in product(range(3), repeat=3)]
    return sorted(((row - floor)[d].mean() / (ceiling - floor)[d].mean()) for d in draws)


def test_a_share_is_the_mean_won_over_the_mean_gap_and_its_interval_that_of_patients_drawn_for_all_rows_at_once():
    (gap,) = gaps(scores(), ["W/o", "A", "Supervised"], ENDS, TITLES)
    # (0.4 + 0.3 - 0.1) / (0.5 + 0.4 + 0.3), and not the mean of 4/5, 3/4 and -1/3.
    assert gap.shares["A"].value == pytest.approx(0.6 / 1.2) and gap.size == pytest.approx(0.4)
    # One of 27 draws is the last case three times, and one the first: 3.7 % each, more than 2.5.
    shares = by_hand(DICE)
    assert (gap.shares["A"].low, gap.shares["A"].high) == pytest.approx((shares[0], shares[-1]))
    assert gap.interval == pytest.approx((0.3, 0.5)) and gap.cases == 3
    assert gap.text("A") == "50 (-33 to 80)" and (gap.text("W/o"), gap.text("Supervised")) == ("0", "100")


def test_seeds_are_averaged_for_each_patient_however_many_a_row_has():
    second = {"A": (0.9, 0.5, 0.2)}
    (gap,) = gaps(scores() + scores(second, seed=1), ["W/o", "A", "Supervised"], ENDS, TITLES)
    mean = {**DICE, "A": tuple((a + b) / 2 for a, b in zip(DICE["A"], second["A"], strict=True))}
    assert gap.shares["A"].value == pytest.approx((0.8 + 0.6 + 0.3 - 1.2) / 1.2)
    shares = by_hand(mean)
    assert (gap.shares["A"].low, gap.shares["A"].high) == pytest.approx((shares[0], shares[-1]))


def test_a_row_is_held_against_the_ends_on_the_cases_and_organs_that_all_three_have():
    # A lacks case c2, and its spleen of c1 is in neither truth nor prediction: liver alone is left there for all three.
    found = [s for s in scores() if (s.alignment, s.case) != ("A", "c2")]
    found = [
        s._replace(value=math.nan) if (s.alignment, s.case, s.organ) == ("A", "c1", "spleen") else s for s in found
    ]
    (gap,) = gaps(found, ["W/o", "A", "Supervised"], ENDS, TITLES)
    assert gap.shares["A"].value == pytest.approx(0.7 / 0.9) and gap.shares["A"].cases == 2 and gap.cases == 3
    assert gap.text("A").endswith("(n=2)")


def test_distances_have_no_share_as_they_leave_out_what_was_missed():
    assert [(gap.metric, METRICS[0].name) for gap in made().gaps] == [("dice", "dice")]
    assert [table.gap is None for table in made().tables] == [False, True]


@pytest.mark.parametrize(
    ("dice", "words"),
    [
        # 0.5, 0.4 and -0.1: the mean is 0.267, and a draw of the last case alone is below 0.
        ({**DICE, "Supervised": (0.8, 0.8, 0.4)}, "26.7 points better than W/o, which is no gap"),
        ({**DICE, "Supervised": (0.2, 0.3, 0.4)}, "10.0 points worse than W/o, which is no gap"),
        ({**DICE, "Supervised": DICE["W/o"]}, "0.0 points better than W/o, which is no gap"),
        ({label: values[:1] for label, values in DICE.items()}, "one case in common"),
        ({label: DICE[label] for label in ("W/o", "A")}, "as Supervised has no average"),
        ({"A": DICE["A"]}, "as W/o and Supervised have no average"),
    ],
)
def test_where_the_gap_is_noise_or_an_end_is_missing_there_is_a_dash_and_a_note(dice, words):
    c = made(scores(dice))
    table = c.tables[0]
    assert {table.texts(label, cells)[-1][0] for label, cells in table.rows} == {"-"}
    assert sum(words in note for note in table.notes) == 1 and "closes" not in " ".join(headlines(c))


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ([MethodRow("W/o", False), *METHODS[1:]], "no row learns from the source alone"),
        ([*METHODS[:2], MethodRow("Supervised", True)], "no row is trained with target labels"),
    ],
)
def test_a_comparison_with_one_end_alone_says_which_is_missing_and_one_with_neither_has_no_column(methods, words):
    assert words in made(methods=methods).tables[0].notes[-1]
    neither = [MethodRow(m.label, m.bound) for m in METHODS]
    assert made(methods=neither).gaps == [] and COLUMN not in made(methods=neither).tables[0].columns


def test_of_several_rows_the_first_is_the_end_unless_the_reference_is_one_too_and_the_note_says_so():
    methods = [METHODS[0], MethodRow("A", False, "floor"), METHODS[2], MethodRow("More", True, "ceiling")]
    first = made(methods=methods).gaps[0]
    assert (first.floor, first.ceiling) == ("W/o", "Supervised")
    assert "A could be 0 as well" in first.notes[0] and "More could be 100 as well" in first.notes[0]
    other = made(methods=methods, reference="A").gaps[0]
    assert (other.floor, other.shares["A"].value) == ("A", 0)
    # A bound as the reference changes nothing.
    assert made(methods=methods, reference="Supervised").gaps[0].floor == "W/o"


def test_a_method_says_itself_what_it_can_be():
    class Of(Alignment):
        uses_target_images = False

    class AtTestTime(Of):
        def adapt_to(self, volume):
            return self.predict

    class Labelled(Alignment):
        uses_target_labels = True

    found = [method_row("x", method).spans for method in (Of, AtTestTime, Labelled, Alignment)]
    assert found == ["floor", "", "ceiling", ""]


def test_it_stands_beside_dice_in_every_form_of_the_table():
    c = made()
    assert "| A | **70.0 ± 17.3** | **50.0 ± 17.3** | **60.0 ± 17.3** | 50 (-33 to 80) | label-free |" in markdown(
        "T", "N.", c.tables, (), TITLES
    )
    tex = latex(c.tables, ())
    assert r"& gap closed, \% & selection" in tex and r"& 50 (-33 to 80) & label-free" in tex
    shown = c.tables[0].shown
    assert shown.columns[-2] == COLUMN and [row[-2] for row in shown.rows] == ["0", "50 (-33 to 80)", "100"]
    assert "0 is W/o, 100 is Supervised" in c.tables[0]._repr_html_()
    assert "A closes 50 % of the gap from W/o to Supervised (95 % interval -33 to 80 %)." in headlines(c)[0]


def test_the_csv_has_the_share_the_gap_and_both_ends_unrounded():
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(gaps_csv(made().gaps)))}
    assert list(lines) == ["W/o", "A", "Supervised"] and (lines["A"]["floor"], lines["A"]["ceiling"]) == (
        "W/o", "Supervised",
    )  # fmt: skip
    assert float(lines["A"]["share"]) == pytest.approx(0.5) and float(lines["A"]["gap"]) == pytest.approx(0.4)
    assert float(lines["A"]["gap_low"]) == pytest.approx(0.3) and lines["A"]["cases"] == "3"


def test_rows_chosen_by_target_labels_keep_their_ends_under_their_marked_names():
    found = [s._replace(selection=ORACLE) for s in scores()]
    assert made(found, select=ORACLE).gaps[0].floor == "W/o †"


def test_a_method_that_is_not_installed_is_no_end_of_the_gap(attentkit, prepared, tmp_path, monkeypatch):
    draw_nothing(monkeypatch)
    write_comparison(tmp_path, prepared)
    for seed in (0, 1):
        file = tmp_path / "mr2ct" / "attent" / f"seed{seed}" / "config.toml"
        file.write_text(file.read_text().replace('name = "attent"', 'name = "elsewhere"'))
    page = reported(attentkit, tmp_path)
    assert "0 is W/o adaptation, 100 is Supervised, on" in page.text and "could be 100" not in page.text
