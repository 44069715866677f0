"""The parts that a report is made of, with numbers worked out by hand."""

import base64
import csv
import io
import json
import math
import types

import numpy as np
import pytest
from PIL import Image

from attent_kit.errors import DataError
from attent_kit.report.boxplots import box, box_figure, boxes
from attent_kit.report.curves import curve_figure, read_curves, thinned
from attent_kit.report.latex import escape, latex
from attent_kit.report.metrics import DICE
from attent_kit.report.page import drawing
from attent_kit.report.pairwise import all_pairs, pairs_csv
from attent_kit.report.pictures import entropy_picture, picture
from attent_kit.report.published import PublishedTable
from attent_kit.report.scores import by_protocol
from attent_kit.report.shift import over_seeds, read_shift
from attent_kit.report.summary import stamps
from attent_kit.report.table import MethodRow, tables
from support.comparison_folder import scores_of


def test_a_box_spans_the_quartiles_and_its_whiskers_stop_before_an_outlier():
    # Quartiles of 1..5 and 100: positions 1.25, 2.5 and 3.75 of six sorted numbers.
    found = box([3, 1, 2, 5, 4, 100, math.nan])
    assert (found.first, found.median, found.third) == (2.25, 3.5, 4.75)
    # 4.75 + 1.5 x 2.5 = 8.5 is below 100.
    assert (found.low, found.high) == (1, 5) and found.cases == (1, 2, 3, 4, 5, 100)
    assert box([math.nan]) is None and box([]) is None


def test_a_case_is_its_mean_over_seeds_and_dice_is_in_percent():
    scores = scores_of("A", seed=0, cases=("c1",)) + scores_of("A", seed=1, cases=("c1", "c2"))
    drawn = boxes(scores, ["A", "B"], "mr2ct", DICE)
    # 0.5 and 0.52 of c1; 0.47 of c2, which one seed has.
    assert list(drawn) == ["A"] and drawn["A"]["liver"].cases == pytest.approx((47, 51))


def test_an_organ_has_its_colour_whether_or_not_others_are_there(tmp_path):
    drawn = boxes(scores_of("A", organs=("spleen",)), ["A"], "mr2ct", DICE)
    _, svg = box_figure(drawn, ("liver", "spleen"), DICE, "T $x$", tmp_path / "b")
    text = svg.read_text(encoding="utf-8")
    # Beside the legend there is one box: sky blue, the colour of the second organ.
    assert text.count("#56b4e9") == text.count("#e69f00") + 1 and "T $x$" in text


def log(folder, lines):
    (folder / "log.jsonl").write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    )


def test_curves_are_the_logged_losses_and_what_cannot_be_read_is_counted(tmp_path):
    log(
        tmp_path,
        [{"step": 9, "stage": "a", "L": 2.0}, {"step": 19, "stage": "b", "L": 1.0, "M": 3.0}, '{"step": 29, "st'],
    )
    (tmp_path / "selection.csv").write_text(
        "step,selector,value,better\n10,E,0.5,lower\n20,E,x,lower\n20,E,0.1,lower\n"
    )
    found = read_curves(tmp_path / "log.jsonl", tmp_path / "selection.csv")
    assert found.losses == {"L": [(9, 2.0), (19, 1.0)], "M": [(19, 3.0)]}
    assert found.stages == (("a", 9), ("b", 19)) and found.skipped == 2
    assert found.selectors == {"E": [(10, 0.5), (20, 0.1)]} and found.better == {"E": "lower"}


def test_a_long_log_is_averaged_over_neighbours():
    # 401 points: three at a time, the last two together.
    found = thinned([(n, float(n)) for n in range(401)])
    assert len(found) == 134 and found[0] == (1, 1) and found[-1] == (399.5, 399.5)
    assert thinned([(7, 1.5), (8, 2.5)]) == [(7, 1.5), (8, 2.5)]


def test_a_run_that_logged_nothing_has_no_curves(tmp_path):
    assert read_curves(tmp_path / "none", tmp_path / "neither") == ({}, (), {}, {}, 0)


def test_a_selector_is_drawn_from_its_worst_to_its_best_snapshot(tmp_path):
    from attent_kit.report.curves import _scaled

    log(tmp_path, [{"step": 9, "stage": "a", "L": -1.0}])
    lines = [
        "step,selector,value,better",
        "1,low,4,lower",
        "2,low,2,lower",
        "3,low,3,lower",
        "1,high,4,higher",
        "2,high,5,higher",
    ]
    (tmp_path / "selection.csv").write_text("\n".join(lines) + "\n")
    curves = read_curves(tmp_path / "log.jsonl", tmp_path / "selection.csv")
    assert _scaled(curves) == {"low": [(1, 0.0), (2, 1.0), (3, 0.5)], "high": [(1, 0.0), (2, 1.0)]}
    png, svg = curve_figure({0: curves, 1: curves}, "A & B", tmp_path / "c")
    assert png.exists() and "A &amp; B" in svg.read_text(encoding="utf-8")


def test_pairs_are_corrected_together_and_a_tie_has_no_sign():
    cases = tuple(f"c{n}" for n in range(6))
    scores = [s for row, base in (("A", 0.9), ("B", 0.7), ("C", 0.7)) for s in scores_of(row, cases=cases, base=base)]
    found = {(p.row, p.column): p for p in all_pairs(scores, ["A", "B", "C"], ["mr2ct"]) if p.metric == "dice"}
    assert list(found) == [("A", "B"), ("A", "C"), ("B", "C")]
    # Six cases of one sign: 2 / 2^6 = 0.03125; Holm multiplies the smallest by three.
    assert found["A", "B"].p == 0.03125 and found["A", "B"].holm == pytest.approx(0.09375)
    assert found["A", "C"].holm == pytest.approx(0.09375) and found["A", "B"].difference == pytest.approx(0.2)
    assert (found["B", "C"].p, found["B", "C"].holm, found["B", "C"].difference) == (1, 1, 0)
    assert {p.family for p in found.values()} == {3}
    assert next(csv.reader(io.StringIO(pairs_csv([]))))[:4] == ["direction", "metric", "row", "column"]


def test_rows_without_a_common_case_have_no_p_and_do_not_count():
    scores = scores_of("A", cases=("c1", "c2")) + scores_of("B", cases=("c1", "c2")) + scores_of("C", cases=("c9",))
    found = {(p.row, p.column): p for p in all_pairs(scores, ["A", "B", "C"], ["mr2ct"]) if p.metric == "dice"}
    assert found["A", "B"].family == 1 and found["A", "C"].cases == 0
    assert math.isnan(found["A", "C"].difference) and math.isnan(found["A", "C"].holm)


def test_latex_has_every_table_with_booktabs_and_no_bare_special_letter():
    scores = scores_of("A_1 & $") + scores_of("B", base=0.2)
    made = tables(scores, [MethodRow("A_1 & $", False), MethodRow("B", False)], {"mr2ct": "MR to CT"})
    theirs = PublishedTable(
        "mr2ct", "dice", "percent", (), "Cite #1", "n", {"X": (1.5,)}, {"X": (0.5,)}, "SD", "re-run"
    )
    text = latex(made, [theirs])
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3 and text.count(r"\toprule") == 3
    assert r"A\_1 \& \$ & \textbf{45.0 \ensuremath{\pm} 5.0}" in text
    assert r"\caption{Re-run, mr2ct: dice, percent, \ensuremath{\pm} SD. Cite \#1.}" in text
    assert r"X & 1.5 \ensuremath{\pm} 0.5 \\" in text
    assert escape("a\\b{c}^~\n\x07") == r"a\textbackslash{}b\{c\}\textasciicircum{}\textasciitilde{} "


def test_a_row_that_begins_like_an_argument_of_latex_is_not_taken_for_one():
    labels = ("[ours] A", "*B", "C [x]")
    made = tables(
        [s for label in labels for s in scores_of(label)], [MethodRow(label, False) for label in labels], {"mr2ct": ""}
    )
    lines = latex(made[:1], []).splitlines()
    first = lines.index(r"\midrule") + 1
    assert [line.partition(" & ")[0] for line in lines[first : first + 3]] == ["{}[ours] A", "{}*B", "C [x]"]


def test_latex_is_balanced_whatever_the_names():
    text = escape('}{\\end{table}%&_#$^~<>|"')
    depth = 0
    for before, letter in zip(" " + text, text, strict=False):
        depth += (letter == "{" and before != "\\") - (letter == "}" and before != "\\")
        assert depth >= 0
    assert depth == 0


SHIFTS = "direction,row,seed,space,when,measure,value,spread,zero,fold\n"


def test_the_shift_of_a_row_is_its_mean_over_seeds_before_and_after(tmp_path):
    path = tmp_path / "shift.csv"
    lines = [
        SHIFTS.strip(),
        "a2b,R,0,pixels,before,mmd,1,0,nan,",
        "a2b,R,1,pixels,before,mmd,2,0,nan,",
    ]
    lines += ["a2b,R,0,pixels,after,mmd,nan,0,nan,", "b2a,R,0,pixels,after,mmd,7,0,nan,"]
    path.write_text("\n".join(lines) + "\n")
    (only,) = over_seeds(read_shift(path), "a2b")
    assert only[:4] == ("R", "pixels", "mmd", 1.5) and math.isnan(only.after)
    # The mean before and the mean after are of the same runs, those that have both.
    lines += ["a2b,R,1,pixels,after,mmd,0.5,0,nan,", "a2b,R,1,pixels,after,mmd,3,0,nan,1/2"]
    path.write_text("\n".join(lines) + "\n")
    assert over_seeds(read_shift(path), "a2b") == [("R", "pixels", "mmd", 2.0, 0.5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("direction,row,seed,space,when,measure\n", "line 1: the header is"),
        (SHIFTS + "a2b,R,0,pixels,before,mmd,x,0,0,\n", "line 2: value 'x' is not a number"),
        (SHIFTS + "a2b,R,0,pixels,before,mmd,1,0,0,\na2b,R\n", "line 3: 2 fields, expected 10"),
        (SHIFTS + "a2b,R,first,pixels,before,mmd,1,0,0,\n", "line 2: seed 'first' is not a number"),
    ],
)
def test_a_shift_that_is_damaged_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "shift.csv").write_text(text)
    with pytest.raises(DataError, match=f"{said}.*run `attentkit shift` again"):
        read_shift(tmp_path / "shift.csv")


def score(selection):
    return types.SimpleNamespace(selection=selection)


def test_a_row_whose_snapshots_target_labels_chose_has_a_dagger():
    free, bound = MethodRow("A", False), MethodRow("B", True)
    words = {
        "oracle": [s.text for s in stamps(free, [score("target-oracle")], 0, 1)],
        "selector": [s.text for s in stamps(free, [score("entropy-min")], 0, 1)],
        "last": [s.text for s in stamps(free, [score("last")], 2, 3)],
        "bound": [s.text for s in stamps(bound, [score("last")], 0, 1)],
        "both": [s.text for s in stamps(bound, [score("target-oracle")], 0, 1)],
    }
    assert words == {
        "oracle": ["target-oracle †"],
        "selector": ["label-free", "entropy-min"],
        "last": ["label-free", "collapsed 2 of 3"],
        "bound": ["sees target labels"],
        "both": ["sees target labels", "target-oracle †"],
    }


def test_the_protocol_of_a_comparison_comes_first():
    other, own = scores_of("A", protocol="sifa"), scores_of("A")
    assert list(by_protocol([*other, *own])) == ["3d-mm", "sifa"]


def test_a_small_slice_is_enlarged_and_an_organ_is_coloured():
    import base64

    from PIL import Image

    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 1
    plain, drawn = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), int)
        for uri in (picture(np.full((8, 8), -1.0)), picture(np.full((8, 8), -1.0), labels))
    )
    assert plain.shape == (224, 224, 3) and plain.max() < 8
    # Orange at 0.45 over black, and nothing where there is no organ.
    assert np.abs(drawn[112, 200] - 0.45 * np.array([230, 159, 0])).max() < 10 and drawn[112, 50].max() < 10
    # Noise does not compress, and is a picture all the same: 4/3 of 24,000 bytes is 32,000 letters.
    assert 10_000 < len(picture(np.random.default_rng(0).uniform(-1, 1, (256, 256)))) <= 32_100
    assert entropy_picture(np.zeros((300, 300))) != entropy_picture(np.ones((300, 300)))


def test_a_large_drawing_is_shown_as_png_and_a_wide_one_in_a_box_of_its_own(tmp_path):
    png, svg = tmp_path / "f.png", tmp_path / "f.svg"
    noise = np.random.default_rng(0).integers(0, 256, (300, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(png)
    svg.write_text('<svg height="9pt" width="401pt"/>')
    small = drawing([png, svg], "alt")
    assert small.src.startswith("data:image/svg+xml;base64,") and small.wide
    svg.write_text('<svg width="399pt"/>' + " " * 400_001)
    large = drawing([png, svg], "alt")
    shown = Image.open(io.BytesIO(base64.b64decode(large.src.removeprefix("data:image/png;base64,"))))
    assert shown.size == (1200, 240) and len(shown.getcolors()) <= 32 and not large.wide
