"""What a comparison prints and writes is what the score rows say."""

import csv
import io
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from attent_kit.errors import ConfigError
from attent_kit.report.compared import ScoredRows, compared
from attent_kit.report.figures import Panel, segmentation_figure
from attent_kit.report.metrics import DICE
from attent_kit.report.published import read_published
from attent_kit.report.render import render
from attent_kit.report.table import cell_text, csv_text, markdown, spread, tables
from support.score_rows import METHODS, ONE, TITLES, rows

PUBLISHED = Path(__file__).parent.parent / "benchmarks" / "published.toml"
BOTH = {**TITLES, "ct2mr": "CT to MR"}


def test_the_best_of_a_column_is_never_a_row_that_sees_target_labels():
    dice, assd = tables(ONE, METHODS, TITLES)
    assert dice.best == assd.best == (("A|B",), ("A|B",), ("A|B",))
    assert dice.organs == ("liver", "spleen", "average")


def test_the_average_is_the_mean_of_the_organs_in_percent():
    dice, assd = tables(ONE, METHODS, TITLES)
    assert [cell_text(cells[2], dice.metric) for _, cells in dice.rows] == ["40.0", "70.0", "90.0"]
    assert [cell_text(cells[2], assd.metric) for _, cells in assd.rows] == ["6.00", "3.00", "1.00"]


def test_the_spread_is_over_cases_with_one_seed_and_over_seeds_with_several_and_the_title_says_so():
    two_cases = ONE + rows({"W/o": (0.7, 0.5)}, case="c2")
    two_seeds = ONE + rows({"W/o": (0.7, 0.5)}, seed=1)
    assert spread(two_cases) == "cases" and spread(two_seeds) == "seeds"
    assert "SD over 2 cases" in tables(two_cases, METHODS, TITLES)[0].title
    assert tables(ONE, METHODS, TITLES)[0].title == "MR to CT: Dice, %, one case"
    assert "SD over 2 seeds" in tables(two_seeds, METHODS, TITLES)[0].title
    # A row that has one of the two seeds says so; 50 and 70 have mean 60, sample SD sqrt(200) = 14.1
    (_, without), (_, with_one), _ = tables(two_seeds, METHODS, TITLES)[0].rows
    assert [cell_text(cells[0], DICE, 2) for cells in (without, with_one)] == ["60.0 ± 14.1", "80.0 (n=1)"]


def test_a_missed_organ_is_a_footnote_and_counts_zero():
    missed = [r._replace(value=0.0 if r.metric == "dice" else math.nan) if r.organ == "spleen" else r for r in ONE]
    dice, assd = tables(missed, METHODS, TITLES)
    assert dice.footnotes[0] == "W/o: spleen missed in 1 of 1; it counts 0 in Dice."
    assert assd.footnotes[0] == "W/o: spleen missed in 1 of 1; it has no distance."
    assert cell_text(dice.rows[0][1][1], dice.metric) == "0.0" and cell_text(assd.rows[0][1][1], assd.metric) == "-"


def test_markdown_marks_the_best_escapes_bars_and_keeps_published_numbers_apart():
    text = markdown("Phantom", "A note.", tables(ONE, METHODS, TITLES), read_published(PUBLISHED), BOTH)
    ours, _, theirs = text.partition("# Published")
    assert "| A\\|B | **80.0** | **60.0** | **70.0** |" in ours and "88.56" not in ours
    assert "88.56" in theirs and "Li, Luo" in theirs


def test_published_numbers_are_shown_as_printed_with_what_their_spread_is():
    text = markdown("T", "N", [], read_published(PUBLISHED), BOTH)
    assert "| AttENT | 0.99 | 1.03 | 1.26 | 1.12 | 1.10 |" in text  # TOML reads 1.10 as 1.1
    assert "assd, voxel, ± SD of three values" in text and "| Feature | 2.94 ± 1.40 |" in text
    assert "dice, percent, ± SD of the test volumes\n" in text
    assert "| SIFA-v2, released model | 88.0 ± 3.6 | 82.5 ± 6.4 | 76.6 ± 13.9 | 78.4 ± 13.0 | 81.4 |" in text


def test_the_note_of_several_published_tables_is_printed_once():
    text = markdown("T", "N", [], read_published(PUBLISHED), BOTH)
    assert text.count("cell by cell") == 1
    assert text.count("## Published") == 8 and text.count("Its note above holds here too.") == 3 + 1 + 1


def test_every_number_of_the_csv_is_unrounded_and_says_where_it_comes_from():
    lines = list(csv.DictReader(io.StringIO(csv_text(tables(ONE, METHODS, TITLES), read_published(PUBLISHED)))))
    measured = [line for line in lines if line["origin"] == "measured"]
    assert len(measured) == 3 * 3 * 2
    assert float(measured[0]["mean"]) == 0.5 and measured[0]["metric"] == "dice" and measured[0]["n"] == "1"
    assert {line["source"] for line in measured} == {""}
    published = [line for line in lines if line["origin"] == "published"]
    # Nine systems in four tables of five columns, six columns in two ablations, two tests of one model.
    assert len(measured) + len(published) == len(lines) and len(published) == 9 * 4 * 5 + 6 * 2 + 2 * 5
    again = [line for line in published if "issue 56" in line["source"] and line["direction"] == "mr2ct"]
    assert [(line["mean"], line["std"]) for line in again] == [
        ("88.0", "3.6"), ("82.5", "6.4"), ("76.6", "13.9"), ("78.4", "13.0"), ("81.4", ""),
    ]  # fmt: skip


SYSTEMS = [
    "Supervised", "W/o adaptation", "SynSegNet", "AdaOutput", "CycleGAN", "CyCADA", "SIFA-v1", "SIFA-v2", "AttENT",
]  # fmt: skip
ABLATION = ["W/o adaptation", "CycleGAN", "Pixel", "Feature", "Entropy", "AttENT"]


def published_with(word):
    """The published tables whose citation has a word, by direction and metric."""
    return {(t.direction, t.metric): t for t in read_published(PUBLISHED) if word in t.citation}


def test_every_system_and_every_column_of_the_ablation_is_published():
    comparison, ablation, again = (published_with(word) for word in ("comparison", "ablation", "SIFA issue"))
    assert set(comparison) == {(d, m) for d in ("mr2ct", "ct2mr") for m in ("dice", "assd")}
    assert all(list(table.rows) == SYSTEMS for table in comparison.values())
    assert set(ablation) == {("mr2ct", "assd"), ("ct2mr", "dice")}
    assert all(list(table.rows) == list(table.spread) == ABLATION for table in ablation.values())
    assert set(again) == {("mr2ct", "dice"), ("ct2mr", "dice")}
    assert len(comparison) + len(ablation) + len(again) == len(read_published(PUBLISHED))


def test_published_averages_equal_the_means_of_their_organs_within_rounding():
    for table in read_published(PUBLISHED):
        for label, values in table.rows.items():
            (*organs, average), digits = values, max(len(str(value).partition(".")[2]) for value in values)
            if table.organs:
                # Half a unit of the last printed digit for the organs, and half for the average.
                what = (table.citation, table.direction, table.metric, label)
                assert average == pytest.approx(statistics.fmean(organs), abs=10**-digits + 1e-9), what


def test_the_ablation_ends_in_the_average_of_the_comparison_and_the_second_test_below_it():
    comparison, ablation = published_with("comparison"), published_with("ablation")
    for key, table in ablation.items():
        assert table.rows["AttENT"][-1] == comparison[key].rows["AttENT"][-1]
    below = {
        key[0]: comparison[key].rows["SIFA-v2"][-1] - table.rows["SIFA-v2, released model"][-1]
        for key, table in published_with("SIFA issue").items()
    }
    assert below == {"mr2ct": pytest.approx(83.7 - 81.4), "ct2mr": pytest.approx(85.4 - 85.0)}


HEAD = 'direction="a2b"\nmetric="dice"\nunit="percent"\ncitation="c"\nnote="n"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[tables]]\n", r"tables\[0\] is not a table"),
        ("", r"holds no \[\[tables\]\]"),
        (
            'organs=["liver"]\n[[tables]]\n[tables.rows]\nX=[1.0]',
            "row 'X' needs a value for each organ and their average",
        ),
        (
            "organs=[]\n[[tables]]\nspred={X=[1.0]}\n[tables.rows]\nX=[1.0]",
            "spred: no such entry. Did you mean 'spread'",
        ),
        ("organs=[]\n[[tables]]\nspread={X=[1.0]}\n[tables.rows]\nX=[1.0]", "has a spread: say what it is"),
        (
            'organs=[]\nof="SD"\n[[tables]]\nspread={Y=[1.0]}\n[tables.rows]\nX=[1.0]',
            "spread 'Y' needs a row of that label",
        ),
        ('organs=[]\nof="SD"\n[[tables]]\nspread={X=[]}\n[tables.rows]\nX=[1.0]', "spread 'X' needs"),
        (
            'organs=[]\n[[tables]]\nkind="hearsay"\n[tables.rows]\nX=[1.0]',
            "the kind is 'hearsay': write one of published, re-run",
        ),
        (
            'organs=[]\n[[tables]]\nmetric="hd95"\n[tables.rows]\nX=[1.0]',
            "the metric is 'hd95': write one of dice, assd",
        ),
    ],
)
def test_a_file_of_published_numbers_that_makes_no_sense_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "published.toml"
    path.write_text(HEAD + text)
    with pytest.raises(ConfigError, match=sentence):
        read_published(path)


def panel(name):
    image = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    truth = np.zeros((8, 8), np.uint8)
    truth[2:6, 2:6] = 1
    return Panel(name, image, {"AttENT": -image}, truth, {"W/o": np.zeros_like(truth), "AttENT": truth})


def test_a_figure_shows_every_slice_and_is_the_same_twice(tmp_path):
    for name in "ab":
        files = segmentation_figure([panel("case 1"), panel("case $2$")], ["liver"], "Title", tmp_path / name)
        assert files == [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"]
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "case $2$" in (tmp_path / "a.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("notes", [(), ("A note.",), ("A longer note. " * 20, "Another."), ("word " * 200,)])
def test_the_legend_of_a_figure_stands_between_slices_and_notes(tmp_path, monkeypatch, slices, notes):
    seen = {}

    def look(figure, stem):
        figure.draw_without_rendering()
        seen["legend"] = figure.legends[0].get_window_extent()
        seen["slices"] = min(axis.get_window_extent().y0 for axis in figure.axes)
        seen["notes"] = [text.get_window_extent().y1 for text in figure.texts if text.get_text().startswith(("A", "w"))]
        return []

    monkeypatch.setattr("attent_kit.report.figures.save", look)
    segmentation_figure([panel(f"case {n}") for n in range(slices)], ["liver"], "Title", tmp_path / "a", notes)
    assert seen["legend"].y1 <= seen["slices"] and len(seen["notes"]) == bool(notes)
    assert all(notes_end <= seen["legend"].y0 for notes_end in seen["notes"])


def test_render_writes_tables_and_a_figure_for_each_direction(tmp_path):
    found = compared(ScoredRows("T", "N", ONE, METHODS, BOTH, ["liver", "spleen"]))
    files = render(found, {"mr2ct": [panel("case 1")], "ct2mr": []}, tmp_path)
    assert [f.name for f in files] == [
        "table.md",
        "table.csv",
        "scores.csv",
        "comparisons.csv",
        "figure-mr2ct.png",
        "figure-mr2ct.svg",
    ]
    assert all(file.exists() for file in files if file.name != "scores.csv")
