"""What paired tests could see is said before training and beside the results, by numbers that others print too."""

import json
import math

import numpy as np
import pytest

from attent_kit.data.phantom import SIZES
from attent_kit.data.sets.splits import WHOLE
from attent_kit.engine.compare.foresight import foresee
from attent_kit.engine.compare.suite import Cell, PhantomData, Suite
from attent_kit.report.compared import ScoredRows, compared
from attent_kit.report.power import Power, foreseen
from attent_kit.report.render import render
from attent_kit.report.scores import Score
from attent_kit.report.significance import ALPHA, detectable, power_of_t, signed_rank
from attent_kit.report.table import MethodRow

TITLES = {"mr2ct": "MR to CT", "ct2mr": "CT to MR"}


def test_the_power_of_a_paired_t_test_is_that_of_gpower_and_of_cohens_34_for_half_an_sd():
    # G*Power 3.1, manual: two dependent means, dz 0.421637, 50 pairs, two-sided 0.05.
    assert power_of_t(0.421637, 50) == pytest.approx(0.832114, abs=1e-6)
    assert detectable(34) < 0.5 < detectable(33)
    assert power_of_t(0, 10) == pytest.approx(ALPHA) and power_of_t(detectable(7, 0.01), 7, 0.01) == pytest.approx(0.8)
    assert (power_of_t(9.0, 1), detectable(1)) == (0, math.inf)


def test_that_power_is_the_share_of_samples_in_which_t_is_far_enough_out():
    # t(0.975) with 7 degrees of freedom is 2.3646.
    samples = np.random.default_rng(0).normal(detectable(8), 1, (20_000, 8))
    t = samples.mean(1) / samples.std(1, ddof=1) * math.sqrt(8)
    assert np.mean(np.abs(t) > 2.3646) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("cases", "comparisons", "least"), [(6, 1, 2 / 64), (8, 4, 4 * 2 / 256), (3, 4, 1.0)])
def test_the_smallest_corrected_p_is_what_cases_of_one_sign_have(cases, comparisons, least):
    power = foreseen(cases, comparisons)
    assert power.smallest_holm == least == min(1, comparisons * signed_rank(np.arange(1, cases + 1)))
    labels = ["W/o", *(f"R{n}" for n in range(comparisons))]
    scores = [
        Score(label, "mr2ct", 0, f"c{n}", "liver", "dice", 0.1 + 0.5 * (label != "W/o") + 0.01 * n, "fraction")
        for label in labels
        for n in range(cases)
    ]
    methods = [MethodRow(label, False) for label in labels]
    found = compared(ScoredRows("T", "N", scores, methods, {"mr2ct": "MR to CT"}, ("liver",)))
    assert {c.wilcoxon_holm for c in found.comparisons} == {least}
    # What was foreseen is what is said of the results.
    assert found.power_notes == [power.sentence]


def test_where_nothing_can_be_significant_the_sentence_says_how_many_cases_it_takes():
    for cases, comparisons, needed in ((1, 1, 6), (3, 1, 6), (3, 4, 8), (7, 4, 8), (8, 10, 9)):
        power = foreseen(cases, comparisons)
        assert f" {needed} or more." in power.limit and power.reach == ""
        assert foreseen(needed, comparisons).limit == "" and foreseen(needed - 1, comparisons).limit
    assert (
        foreseen(7, 4).limit.startswith("With 7 cases and 4 comparisons")
        and "fewer comparisons" in foreseen(7, 4).limit
    )
    assert "fewer comparisons" not in foreseen(3, 4).limit


def test_where_something_can_be_the_sentence_has_the_smallest_p_and_both_differences_in_sight():
    said = foreseen(16, 4).sentence
    assert f"{detectable(16):.2f} SDs" in said and f"{detectable(16, 0.05 / 4):.2f} at 0.05/4" in said
    assert "p is 0.0312 after Holm's correction for 4" in foreseen(8, 4).sentence
    assert "Holm" not in foreseen(8, 1).sentence and "p is 0.00781." in foreseen(8, 1).sentence


def test_notes_that_differ_say_of_what_they_are(tmp_path):
    scores = [
        Score(label, direction, 0, f"c{n}", "liver", metric, value + 0.01 * n, unit)
        for direction, cases in (("mr2ct", 6), ("ct2mr", 3))
        for label, value in (("W/o", 0.3), ("A", 0.6))
        for n in range(cases)
        for metric, unit in (("dice", "fraction"), ("assd", "mm"))
    ]
    methods = [MethodRow("W/o", False), MethodRow("A", False)]
    found = compared(ScoredRows("T", "N", scores, methods, TITLES, ("liver",)))
    assert found.power_notes == [
        f"MR to CT, Dice; MR to CT, ASSD: {foreseen(6, 1).sentence}",
        f"CT to MR, Dice; CT to MR, ASSD: {foreseen(3, 1).sentence}",
    ]
    render(found, {}, tmp_path)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text.count(foreseen(6, 1).reach) == 2 and text.count(f"**{foreseen(3, 1).limit}**") == 2


def cells(rows, direction, tested, monkeypatch):
    """Cells that test what `tested` says of each row."""
    monkeypatch.setattr(Cell, "to_be_scored", property(lambda cell: (tested[cell.row], ("liver",))))
    monkeypatch.setattr(Cell, "fold", WHOLE)
    return [Cell(row, row, direction, seed, None, None) for row in rows for seed in (0, 1)]


SUITE = {"name": "x", "directions": ["mr2ct"], "rows": [{"label": "A", "alignment": "a"}]}


def test_patients_are_counted_once_however_many_cells_test_them(monkeypatch):
    suite = Suite(**SUITE, domains={"mr": "mr.h5", "ct": "ct.h5"})
    tested = {"A": ["c1", "c2"], "B": ["c2", "c3"], "C": ["c1"]}
    found = foresee(suite, cells("ABC", "mr2ct", tested, monkeypatch))
    assert found == {"mr2ct": foreseen(3, 2)}
    assert foresee(suite, cells("A", "mr2ct", tested, monkeypatch)) == {}
    assert foresee(suite, cells("AB", "mr2ct", {"A": [], "B": []}, monkeypatch)) == {}


def test_a_phantom_that_is_yet_to_be_made_has_the_patients_of_its_size(monkeypatch):
    suite = Suite(**SUITE, phantom=PhantomData(size="small"))
    (power,) = foresee(suite, cells("AB", "mr2ct", {"A": [], "B": []}, monkeypatch)).values()
    assert power == foreseen(SIZES["small"].ct[2], 1)


def test_it_is_said_before_training_by_dry_run_plan_and_compare(attentkit, suite, tmp_path):
    # Two directions of two rows on one test case each.
    said = f"mr2ct, ct2mr: {foreseen(1, 1).limit}"
    for how in ("--dry-run", "--plan"):
        outcome = attentkit("compare", suite, how, "-d", "cpu", "--seeds", "0", "-o", tmp_path / "out")
        assert outcome.code == 0 and said in outcome.out and not (tmp_path / "out").exists()
    outcome = attentkit("compare", suite, "--plan", "--json", "-d", "cpu", "--seeds", "0", "-o", tmp_path / "out")
    power = json.loads(outcome.out)["power"]["mr2ct"]
    assert power == {**Power(1, 1, 1.0, 1.0)._asdict(), "detectable_dz": None}
    one = attentkit("compare", suite, "--dry-run", "-m", "attent", "-o", tmp_path / "out")
    assert one.code == 0 and "cannot be tested" not in one.out
