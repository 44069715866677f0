"""What a comparison says in words, Markdown, CSV and figure: whatever the scores, a clear result or a clear sentence."""

import csv
import io
import itertools
import math

import pytest

from attent_kit.errors import ConfigError
from attent_kit.report.compared import ScoredRows
from attent_kit.report.compared import compared as computed
from attent_kit.report.comparisons import choose_reference, compare, comparisons_csv, slide_tests
from attent_kit.report.ranks import rank_rows, rank_sentence, ranks_csv, ranks_figure
from attent_kit.report.render import render
from attent_kit.report.scores import AVERAGE, Score, read_scores, write_scores
from attent_kit.report.sentences import claim, comparison_block, power_of, sentence
from attent_kit.report.significance import holm, p_text
from attent_kit.report.table import MethodRow
from support.messages import quotes

NAN = math.nan
TITLES = {"mr2ct": "MR to CT"}


def scores(rows, seeds=(0,), organs=("liver", "spleen")):
    """Dice, and ASSD in mm of 10 (1 - Dice), of {row: [Dice of case c0, of c1, ...]}; each organ and seed the same.

    A case is NaN, or a tuple of one Dice an organ.
    """
    made = []
    for label, cases in rows.items():
        for c, case in enumerate(cases):
            for organ, dice in zip(organs, case if isinstance(case, tuple) else [case] * len(organs), strict=True):
                for seed in seeds:
                    made.append(Score(label, "mr2ct", seed, f"c{c}", organ, "dice", dice, "fraction"))
                    made.append(Score(label, "mr2ct", seed, f"c{c}", organ, "assd", 10 * (1 - dice), "mm"))
    return made


def compared(rows, metric="dice", organ=AVERAGE, **kinds):
    """The comparisons with the first row."""
    labels = list(rows)
    found = compare(scores(rows, **kinds), labels, labels[0], TITLES)
    return [c for c in found if (c.metric, c.organ) == (metric, organ)]


def said(rows, metric="dice", organ=AVERAGE, **kinds):
    """The sentence of the last row against the first."""
    return sentence(compared(rows, metric, organ, **kinds)[-1], "MR to CT")


FIVE = {"W/o": [0.5] * 5, "A": [0.6, 0.65, 0.7, 0.75, 0.8]}
SIX = {"W/o": [0.5] * 6, "A": [0.6, 0.65, 0.7, 0.75, 0.8, 0.85]}


# Sentences


def test_three_cases_are_told_that_no_test_can_be_significant():
    # Differences 0.1, 0.3 and 0.2; of 27 resamples one is all 0.1 and one all 0.3, 3.7 % each.
    text = said({"W/o": [0.5, 0.4, 0.6], "A": [0.6, 0.7, 0.8]}, seeds=(0, 1))
    assert quotes(text, "A is 20.0 Dice points above W/o on MR to CT", "95 %", "10.0 to 30.0", "3 cases, 2 seeds")
    assert quotes(text, "3 cases no paired test can", "p < 0.05", "0.25")


def test_where_n_suffices_the_sentence_has_p_and_effect_size():
    assert quotes(said(SIX), "6 cases, 1 seed", "Wilcoxon signed-rank p = 0.0312", "rank-biserial r = 1.00")
    assert quotes(said(FIVE), "5 cases no paired test can", "p < 0.05", "0.0625")


def test_several_comparisons_are_corrected_and_told_what_that_leaves_possible():
    # 2 of 64 signs; twice that for two comparisons, which both have it.
    text = said({**SIX, "B": SIX["A"]})
    assert quotes(
        text, "Wilcoxon signed-rank p = 0.0312", "0.0625 after Holm", "2 comparisons", "rank-biserial r = 1.00"
    )
    assert quotes(text, "6 cases and 2 comparisons no corrected p can", "0.05", "0.0625")


def test_distances_and_organs_are_named_and_below_is_below():
    row = {"W/o": [0.9, 0.9, 0.9], "A": [0.7, 0.8, 0.6]}
    # Dice 0.2 lower, so ASSD 2 mm higher.
    assert said(row).startswith("A is 20.0 Dice points below W/o on MR to CT (95 % interval 10.0 to 30.0,")
    assert quotes(said(row, "assd"), "ASSD of A is 2.00 mm above that of W/o", "MR to CT", "1.00 to 3.00")
    assert quotes(said(row, organ="liver"), "liver Dice of A is 20.0 points below that of W/o", "MR to CT")


def test_an_interval_that_holds_zero_names_both_sides():
    assert "(95 % interval 10.0 below to 30.0 above, 3 cases" in said({"W/o": [0.5] * 3, "A": [0.4, 0.8, 0.6]})


def test_equal_rows_are_equal_and_nearly_equal_ones_nearly():
    same = said({"W/o": [0.5] * 6, "A": [0.5] * 6})
    assert quotes(same, "A equals W/o on MR to CT", "0.0 to 0.0", "6 cases, 1 seed", "Wilcoxon signed-rank p = 1")
    near = said({"W/o": [0.5] * 6, "A": [0.5002] * 6})
    assert near.startswith("A differs from W/o by less than 0.05 Dice points on MR to CT")


def test_cases_and_seeds_that_differ_are_said():
    both = scores({"W/o": [0.5, 0.5, 0.5]}, seeds=(0, 1)) + scores({"A": [0.6, 0.7, 0.8, 0.9]}, seeds=(0,))
    *_, average = compare(both, ["W/o", "A"], "W/o", TITLES)
    assert claim(average, "MR to CT").endswith("3 cases, 1 against 2 seeds, 1 case left out for want of a partner)")
    # The row's own average is over all of its cases, as in the table: ASSD of Dice 0.75.
    assert average.mean == pytest.approx(2.5) and average.difference == pytest.approx(-2.0)


def test_label_maps_of_another_tool_are_one_set_against_the_mean_over_seeds():
    both = scores({"W/o": [0.5, 0.5]}, seeds=(0, 1, 2)) + scores({"Tool": [0.6, 0.7]}, seeds=(None,))
    block = {}
    for reference, other in (("W/o", "Tool"), ("Tool", "W/o")):
        found = compare(both, [reference, other], reference, TITLES)
        assert (found[-1].seeds, found[-1].reference_seeds) == ((None, 3) if other == "Tool" else (3, None))
        block[other] = "\n".join(comparison_block(found, "MR to CT"))
    assert quotes(block["Tool"], "Label maps of another tool", "one set of label maps against the mean of 3 seeds")
    assert quotes(block["W/o"], "the mean of 3 seeds against one set of label maps")
    assert "seed" not in said({"A": [0.5, 0.6], "B": [0.6, 0.8]}, seeds=(None,)).replace("seeds", "")


def test_values_that_are_not_defined_are_counted():
    # Two organs of three cases; one spleen has no value.
    text = said({"W/o": [(0.5, 0.5)] * 3, "A": [(0.6, NAN), (0.7, 0.7), (0.8, 0.8)]})
    assert "3 cases, 1 seed, 1 of 6 values of A not defined)" in text


def test_one_case_is_not_tested():
    text = said({"W/o": [0.5], "A": [0.6]})
    assert quotes(text, "A is 10.0 Dice points above W/o on MR to CT", "1 case, 1 seed", "cannot be tested")


def test_rows_that_cannot_be_compared_say_why():
    never = {"W/o": [(0.5, 0.5)] * 3, "A": [(0.6, NAN)] * 3}
    assert quotes(said(never), "A and W/o", "MR to CT", "Dice of spleen", "averages are not compared")
    assert quotes(said(never, organ="spleen"), "they are not compared")
    assert quotes(said(never, organ="liver"), "liver Dice of A is 10.0 points above that of W/o")
    nothing = compare(scores({"W/o": [0.5]}), ["W/o", "A"], "W/o", TITLES)
    assert quotes(sentence(nothing[-1], "MR to CT"), "A has no ASSD on MR to CT")
    nothing = compare(scores({"A": [0.5]}), ["W/o", "A", "B"], "W/o", TITLES)
    assert quotes(sentence(nothing[-1], "MR to CT"), "B and W/o have no ASSD on MR to CT")
    apart = scores({"W/o": [0.5]}) + [s._replace(case="other") for s in scores({"A": [0.6]})]
    assert "have no test case in common on MR to CT" in sentence(
        compare(apart, ["W/o", "A"], "W/o", TITLES)[-1], "MR to CT"
    )


def test_small_p_values_are_not_printed_as_zero():
    assert [p_text(p) for p in (0.25, 1.0, 0.04971, 0.0005, NAN)] == ["0.25", "1", "0.0497", "< 0.001", "-"]
    many = [0.5 + 0.01 * i for i in range(1, 15)]
    assert "Wilcoxon signed-rank p < 0.001" in said({"W/o": [0.5] * 14, "A": many})


# Correction


def test_averages_and_organs_are_corrected_apart():
    rows = {**SIX, "B": [0.6, 0.6, 0.4, 0.6, 0.6, 0.6]}
    averages, organs = compared(rows), compared(rows, organ="liver") + compared(rows, organ="spleen")
    assert {c.family for c in averages} == {2} and {c.family for c in organs} == {4}
    assert [c.wilcoxon_holm for c in averages] == [2 * 2 / 64, averages[1].wilcoxon_p]
    assert {c.smallest_holm for c in organs} == {4 * 2 / 64}


@pytest.mark.parametrize("cases", [(5, 3, 3), (6, 4, 4, 3), (6, 4, 4)])
def test_the_smallest_corrected_p_is_the_least_of_all_that_rows_of_unequal_cases_can_have(cases):
    rows = {"W/o": [0.5] * max(cases)} | {f"row {n}": [0.6] * count for n, count in enumerate(cases)}
    # Two-sided, with n cases: so many of the 2^n signs are at least as far out, and as many the other way.
    possible = [[many * 2.0 ** (1 - n) for many in range(1, 2 ** (n - 1) + 1)] for n in cases]
    least = [min(corrected) for corrected in zip(*map(holm, itertools.product(*possible)), strict=True)]
    assert [c.smallest_holm for c in compared(rows)] == least


def test_what_cannot_be_compared_is_not_corrected_for():
    rows = {**SIX, "B": [(NAN, NAN)] * 6}
    first, second = compared(rows)
    assert (first.family, first.wilcoxon_holm) == (1, 2 / 64)
    assert second.cases == 0 and math.isnan(second.wilcoxon_p)


def test_a_limit_speaks_for_all_comparisons_or_not_at_all():
    assert quotes(power_of(compared(FIVE)).limit, "5 cases", "p < 0.05", "0.0625")
    assert power_of(compared(SIX)).limit == ""
    limit = power_of(compared({**SIX, "B": SIX["A"]})).limit
    assert quotes(limit, "6 cases and 2 comparisons", "0.05", "0.0625")
    assert power_of(compared({"W/o": [0.5], "A": [NAN]})) is None


# Files


def block(rows, slide=False, **kinds):
    labels, all_scores = list(rows), scores(rows, **kinds)
    found = compare(all_scores, labels, labels[0], TITLES)
    slides = slide_tests(all_scores, labels, labels[0], TITLES) if slide else []
    return "\n".join(comparison_block(found, "MR to CT", rank_rows(all_scores, labels, TITLES), slides))


def test_the_block_has_each_average_with_its_intervals_and_says_what_goes_for_all_once():
    text = block({"W/o": [0.5, 0.4, 0.6], "A|B": [0.6, 0.7, 0.8], "C": [0.5, 0.4, 0.6]})
    assert text.startswith("## MR to CT: comparisons with W/o\n")
    assert "With one seed they do not cover" in text
    # d = 0.1, 0.3, 0.2: mean 0.2, SD 0.1.
    assert (
        "| A\\|B | 70.0 (60.0 to 80.0) | +20.0 (+10.0 to +30.0) | 3 | 0.25 | 0.5 | 0.25 | 0.5 | 1.00 | 2.00 |" in text
    )
    assert "| C | 50.0 (40.0 to 60.0) | +0.0 (+0.0 to +0.0) | 3 | 1 | 1 | 1 | 1 | - | - |" in text
    assert text.count("no paired test can reach") == 2  # once for Dice, once for ASSD
    assert block({"W/o": [0.5, 0.4]}) == ""


def test_the_slides_test_is_of_seeds_with_population_sds_and_is_not_recommended():
    of_seeds = {0: {"W/o": [0.4, 0.4], "A": [0.7, 0.7]}, 1: {"W/o": [0.6, 0.6], "A": [0.9, 0.9]}}
    all_scores = [s for seed, rows in of_seeds.items() for s in scores(rows, seeds=(seed,))]
    dice, assd = slide_tests(all_scores, ["W/o", "A"], "W/o", TITLES)
    # Averages 0.8 and 0.5, population SD 0.1. t = 0.3 / sqrt(0.02) = 2.121 with 2 degrees of freedom, for which the upper
    # tail of Student's t is (1 - t / sqrt(2 + t^2)) / 2.
    assert (dice.mean, dice.sd, dice.n) == (pytest.approx(0.8), pytest.approx(0.1), 2)
    t = 0.3 / math.sqrt(0.02)
    assert dice.p == pytest.approx((1 - t / math.sqrt(2 + t * t)) / 2)
    assert assd.p == pytest.approx(dice.p)  # 3 mm less, with an SD of 1 mm
    text = "\n".join(comparison_block(compare(all_scores, ["W/o", "A"], "W/o", TITLES), "MR to CT", (), [dice, assd]))
    assert "### The slides' test" in text and "It is not recommended" in text
    assert f"| A | 80.0 ± 10.0 | {p_text(dice.p)} | 2.00 ± 1.00 | {p_text(dice.p)} |" in text


def test_the_slides_test_of_one_seed_has_no_p_and_says_what_it_needs():
    text = block({"W/o": [0.5, 0.4, 0.6], "A": [0.6, 0.7, 0.8]}, slide=True)
    assert "(1 here, and a row needs two to be tested; on the slides 3" in text
    assert "| A | 70.0 | - | 3.00 | - |" in text


def test_the_csv_has_every_comparison_unrounded_with_its_sentence():
    labels, all_scores = list(SIX), scores(SIX)
    found = compare(all_scores, labels, "W/o", TITLES)
    text = comparisons_csv(found, [sentence(c, "MR to CT") for c in found])
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(x["metric"], x["organ"]) for x in lines] == [
        (metric, organ) for metric in ("dice", "assd") for organ in ("liver", "spleen", "average")
    ]
    average = lines[2]
    assert float(average["difference"]) == pytest.approx(0.225) and float(average["wilcoxon_p"]) == 2 / 64
    assert average["sentence"].startswith("A is 22.5 Dice points above W/o") and average["slide_p"] == ""


def test_any_row_can_be_the_reference_and_no_other():
    assert choose_reference(None, ["W/o", "AttENT"]) == "W/o"
    assert choose_reference("AttENT", ["W/o", "AttENT"]) == "AttENT"
    with pytest.raises(ConfigError, match="--reference AtENT: no row.*Did you mean 'AttENT'.*Rows are: W/o, AttENT"):
        choose_reference("AtENT", ["W/o", "AttENT"])


THREE = {"W/o": [0.5, 0.4], "<b>$x$</b>": [0.6, 0.7], "Größe": [0.8, 0.3]}


def test_ranks_are_of_three_rows_or_more_on_two_cases_or_more():
    labels = list(THREE)
    dice, assd = rank_rows(scores(THREE), labels, TITLES)
    # Ranks 3, 2, 1 and 2, 1, 3.
    assert dict(zip(dice.labels, dice.ranking.ranks, strict=True)) == {"<b>$x$</b>": 1.5, "Größe": 2, "W/o": 2.5}
    assert assd.labels == dice.labels and dice.groups == (dice.labels,)
    assert "No two can differ at 0.05" in rank_sentence(dice)
    assert rank_rows(scores(THREE), labels[:2], TITLES) == []
    assert rank_rows(scores({label: cases[:1] for label, cases in THREE.items()}), labels, TITLES) == []
    lines = list(csv.DictReader(io.StringIO(ranks_csv([dice]))))
    assert [(x["method"], x["rank"]) for x in lines] == [("<b>$x$</b>", "1.5"), ("Größe", "2.0"), ("W/o", "2.5")]


def test_a_row_without_an_organ_has_no_rank_and_that_is_said():
    rows = {**THREE, "never": [(0.9, NAN), (0.9, NAN)]}
    dice, _ = rank_rows(scores(rows), list(rows), TITLES)
    assert dice.left_out == ("never",) and "never" not in dice.labels
    assert rank_sentence(dice).endswith("Without a rank, as an organ has no score: never.")


def test_the_diagram_of_any_names_is_the_same_twice_and_its_svg_holds_them_escaped(tmp_path):
    dice, _ = rank_rows(scores({**THREE, "方法" * 40: [0.1, 0.2]}), [*THREE, "方法" * 40], TITLES)
    first = [file.read_bytes() for file in ranks_figure(dice, "Title & $x", tmp_path / "a")]
    assert first == [file.read_bytes() for file in ranks_figure(dice, "Title & $x", tmp_path / "b")]
    png, svg = first
    assert png.startswith(b"\x89PNG") and "Größe" in svg.decode() and "&lt;b&gt;$x$&lt;/b&gt;" in svg.decode()
    assert "<b>" not in svg.decode() and "方法" in svg.decode()


def test_every_number_of_a_rendered_comparison_comes_from_the_scores_file(tmp_path):
    rows = {**THREE, "Supervised": [0.9, 0.9]}
    write_scores(tmp_path / "scores.csv", scores(rows))
    methods = [MethodRow(label, label == "Supervised") for label in rows]
    found = computed(ScoredRows("T", "N", read_scores(tmp_path / "scores.csv"), methods, TITLES, ["liver"]))
    files = render(found, {}, tmp_path)
    names = ["table.md", "table.csv", "scores.csv", "comparisons.csv", "ranks.csv"]
    figures = [f"ranks-mr2ct-{metric}.{kind}" for metric in ("dice", "assd") for kind in ("png", "svg")]
    assert [file.name for file in files] == names + figures
    assert all(file.exists() for file in files)
    (note,) = found.power_notes
    assert quotes(note, "2 cases", "p < 0.05", "0.5")
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text.index("ASSD, mm, mean ± SD") < text.index("comparisons with W/o")
    assert "Supervised is 45.0 Dice points above W/o" in text
    # The bound is compared, but not ranked.
    assert "Supervised" not in (tmp_path / "ranks.csv").read_text(encoding="utf-8")
    two = {label: rows[label] for label in [*rows][:2]}
    methods = [MethodRow(label, False) for label in two]
    assert tmp_path / "ranks.csv" not in render(
        computed(ScoredRows("T", "N", scores(two), methods, TITLES, ["liver"])), {}, tmp_path
    )
    assert not (tmp_path / "ranks.csv").exists()
