"""A metric more in METRICS has its tables, sentences, tests, ranks and figures, and nothing else knows of it."""

import csv
import io
import math
import sys

import pytest

from attent_kit.engine.train.tracking import mean_scores
from attent_kit.report.compared import ScoredRows, compared
from attent_kit.report.latex import latex
from attent_kit.report.metrics import ASSD, DICE, METRICS, Metric
from attent_kit.report.numbers import boxes_section, comparisons_section, other_tables, tables_section
from attent_kit.report.page import Page, write_page
from attent_kit.report.pairwise import all_pairs
from attent_kit.report.published import PublishedTable
from attent_kit.report.render import render
from attent_kit.report.scores import Score
from attent_kit.report.summary import headlines
from attent_kit.report.table import MethodRow, tables
from support.comparison_folder import parse

NSD = Metric(
    "nsd 2 mm", "fraction", "NSD 2 mm", "%", 100.0, 1, higher_is_better=True, one_sided="counts 0 in NSD", step="points"
)
HD95 = Metric("hd95", "mm", "HD95", "mm", 1.0, 2, higher_is_better=False, one_sided="has no distance", step="mm")
THIRD = pytest.mark.parametrize("third", [NSD, HD95], ids=["nsd", "hd95"])
ROWS = ("W/o", "CycleGAN", "AttENT", "Supervised")
METHODS = [MethodRow(label, label == "Supervised") for label in ROWS]
TITLES = {"mr2ct": "MR to CT"}
# What Dice says of the rows, and what the others do: the last row without labels is the best by Dice alone.
VALUES = {
    "dice": {"W/o": 0.4, "CycleGAN": 0.5, "AttENT": 0.6, "Supervised": 0.9},
    "assd": {"W/o": 6.0, "CycleGAN": 4.0, "AttENT": 5.0, "Supervised": 1.0},
    "nsd 2 mm": {"W/o": 0.2, "CycleGAN": 0.7, "AttENT": 0.3, "Supervised": 0.8},
    "hd95": {"W/o": 30.0, "CycleGAN": 20.0, "AttENT": 25.0, "Supervised": 2.0},
}
UNITS = {"dice": "fraction", "assd": "mm", "nsd 2 mm": "fraction", "hd95": "mm"}


def scores(values=VALUES, protocol="3d-mm", units=UNITS):
    """Two organs of seven cases, case n better or worse than the last by 0.01 of a row's value."""
    return [
        Score(row, "mr2ct", 0, f"c{n}", organ, metric, value * (1 + 0.01 * n), units[metric], protocol)
        for metric, rows in values.items()
        for row, value in rows.items()
        for n in range(7)
        for organ in ("liver", "spleen")
    ]


@pytest.fixture
def with_third(monkeypatch, third):
    for name, module in list(sys.modules.items()):
        if name.startswith("attent_kit") and getattr(module, "METRICS", None) is METRICS:
            monkeypatch.setattr(module, "METRICS", (*METRICS, third))
    return third


def made(found=None, **more):
    return compared(
        ScoredRows("T", "N.", found or scores(), METHODS, TITLES, ("liver", "spleen"), **more), slide_test=True
    )


@THIRD
def test_it_is_titled_and_starred_in_every_form_of_the_table(with_third, tmp_path):
    third, c = with_third, made()
    assert [table.metric for table in c.tables] == [DICE, ASSD, third]
    assert [table.best[-1] for table in c.tables] == [("AttENT",), ("CycleGAN",), ("CycleGAN",)]
    render(c, {}, tmp_path)
    best = {"nsd 2 mm": "72.1 ± 1.5", "hd95": "20.60 ± 0.43"}[third.name]
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    own = text.partition(f"## MR to CT: {third.heading}, mean ± SD over 7 cases")[2].partition("\n\n#")[0]
    assert f"| CycleGAN | **{best}** | **{best}** | **{best}** | label-free |" in own and own.count("**") == 6
    tex = latex(c.tables, ())
    assert r"\caption{MR to CT: " + third.heading.replace("%", r"\%") in tex
    assert rf"\textbf{{{best}}}".replace("±", r"\ensuremath{\pm}") in tex
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text(encoding="utf-8"))))
    assert {(line["metric"], line["unit"]) for line in lines} >= {(third.name, third.unit)}
    shown = c.tables[2].shown
    stand_out = [row[0] for row, bold in zip(shown.rows, shown.bold, strict=True) if any(bold)]
    assert third.heading in shown.title and stand_out == ["CycleGAN"]


@THIRD
def test_it_is_compared_tested_and_ranked_by_its_own_better(with_third, tmp_path):
    third, c = with_third, made()
    above, difference = {"nsd 2 mm": ("51.5 points above", "+51.5"), "hd95": ("10.30 mm below", "-10.30")}[third.name]
    render(c, {}, tmp_path)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert f"### {third.heading}, average of organs" in text
    assert f"The {third.title} of CycleGAN is {above} that of W/o on MR to CT" in text
    assert "AttENT is 20.6 Dice points above W/o on MR to CT" in text
    assert f"| CycleGAN | {third.number(VALUES[third.name]['CycleGAN'] * 1.03)}" in text and f"| {difference} (" in text
    ranked = next(r for r in c.ranks if r.metric == third.name)
    assert ranked.labels == ("CycleGAN", "AttENT", "W/o") and " " not in ranked.name
    assert f"see {ranked.name}.png" in text and (tmp_path / f"{ranked.name}.png").exists()
    # Better by the slides' one-sided test, too: the row is better, not merely above.
    slide = next(s for s in c.slides if (s.metric, s.method) == (third.name, "CycleGAN"))
    assert math.isnan(slide.p) and f"| {third.title} | p |" in text


@THIRD
def test_it_has_its_place_on_the_page(with_third, tmp_path):
    third, c = (
        with_third,
        made(published=[PublishedTable("mr2ct", with_third.name, "u", (), "c", "n", {"X": (1.0,)})]),
    )
    pairs = all_pairs(c.scores, ROWS, TITLES)
    others = {"sifa": other_tables(scores(protocol="sifa", units={**UNITS, "hd95": "voxel"}), METHODS, TITLES, {})}
    sections = [tables_section(c, others, {}), boxes_section(c, tmp_path), comparisons_section(c, pairs, tmp_path)]
    write_page(Page("T", "N", headlines(c), [], sections), tmp_path / "report.html")
    page = parse(tmp_path)
    assert page.tables[f"MR to CT: {third.heading}, mean ± SD over 7 cases"][2][0] == "CycleGAN"
    unit = {"nsd 2 mm": "%", "hd95": "voxel"}[third.name]
    assert f"MR to CT: {third.title}, {unit}, mean ± SD over 7 cases, protocol sifa" in page.tables
    assert f"Published, MR to CT: {third.title}, u" in page.tables
    matrix = page.tables[f"MR to CT: {third.title}, row minus column, {third.step}; 7 cases, 6 pairs"]
    assert matrix[2][1].startswith({"nsd 2 mm": "▲ +51.5", "hd95": "▲ -10.30"}[third.name])
    assert (tmp_path / f"boxes-mr2ct-{third.stem}.svg").exists()
    assert "MR to CT: AttENT has the highest average Dice of the 3 rows that see no target labels, 61.8" in page.text


@THIRD
def test_what_a_missing_organ_counts_stands_below_its_own_table_alone(with_third):
    worst = {"dice": 0.0, "assd": math.nan, "nsd 2 mm": 0.0, "hd95": math.nan}
    missed = [
        s._replace(value=worst[s.metric]) if (s.organ, s.alignment, s.case) == ("spleen", "AttENT", "c0") else s
        for s in scores()
    ]
    notes = [table.footnotes for table in tables(missed, METHODS, TITLES)]
    assert notes == [(f"AttENT: spleen missed in 1 of 7; it {m.one_sided}.",) for m in (DICE, ASSD, with_third)]


@THIRD
def test_a_share_of_zero_is_nobodys_best_and_a_distance_of_zero_is(with_third):
    nothing = [s._replace(value=0.0) if s.metric == with_third.name else s for s in scores()]
    assert tables(nothing, METHODS, TITLES)[2].best[0] == (() if with_third is NSD else ROWS[:3])


@THIRD
def test_trackers_are_told_of_it(with_third):
    own = [s for s in scores() if s.alignment == "AttENT"]
    assert mean_scores(own)[f"{with_third.name}/average"] == pytest.approx(VALUES[with_third.name]["AttENT"] * 1.03)


def test_a_number_is_printed_in_the_unit_of_its_metric_and_a_negative_zero_has_no_sign():
    assert (DICE.number(0.853), DICE.number(-0.0001), ASSD.number(1.005, "+"), DICE.number(math.nan)) == (
        "85.3", "0.0", "+1.00", "-",
    )  # fmt: skip
    assert ASSD.in_unit("voxel").heading == "ASSD, voxel" and ASSD.in_unit("mm") is ASSD
