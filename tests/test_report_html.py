"""`attentkit report`: one file that needs nothing else and says what lies in the folder, whatever that is."""

import csv
import math
import re
import shutil
import statistics
from pathlib import Path

import pytest

from attent_kit.cli import run
from attent_kit.engine.compare.results_folder import recall
from attent_kit.report.scores import Score, read_scores, write_scores
from support.cases import contents
from support.comparison_folder import (
    CASES,
    DICE,
    ROWS,
    draw_nothing,
    parse,
    reported,
    scores_of,
    write_comparison,
    write_plan,
    write_run,
)

NASTY = "<script>alert('row')</script> & \"Ünï\" $x_1$"


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """The folder with a report."""
    out = shutil.copytree(folder, tmp_path_factory.mktemp("made") / "comparison")
    assert run(["report", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def quick_figures(request, monkeypatch):
    """Figures without what is drawn in them, in tests that look at the page alone."""
    if "made" not in request.fixturenames:
        draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory):
    """Three rows, two seeds, without a report."""
    return write_comparison(tmp_path_factory.mktemp("folder"), prepared)


@pytest.fixture
def spoilt(folder, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(folder, tmp_path / "spoilt")


def test_the_page_needs_no_other_file_and_runs_nothing(made):
    page = parse(made)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "base", "form")]
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster"):
            if name in attributes:
                allowed = ("data:image/",) if tag == "img" else ("#", "data:,")
                assert attributes[name].startswith(allowed), (tag, attributes[name][:60])
        assert not [name for name in attributes if name.startswith("on")]
    style = (made / "report.html").read_text(encoding="utf-8").partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    policy = [
        a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert (made / "report.html").stat().st_size < 2_000_000


def test_whoever_cannot_see_the_page_can_read_it(made):
    page = parse(made)
    assert ("html", {"lang": "en"}) in page.tags
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= level + 1 for level, later in zip(levels, levels[1:], strict=False))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for tag, a in page.tags if tag == "a"} <= set(ids)
    assert (
        sum(tag == "table" for tag, _ in page.tags) == sum(tag == "caption" for tag, _ in page.tags) == len(page.tables)
    )


def test_every_number_of_the_tables_follows_from_the_scores(made):
    page = parse(made)
    scores = [s for file in made.glob("*/*/seed*/scores.csv") for s in read_scores(file)]
    for metric, caption, scale, digits in (("dice", "Dice, %", 100, 1), ("assd", "ASSD, mm", 1, 2)):
        head, *lines = page.tables[f"MR to CT: {caption}, mean ± SD over 2 seeds"]
        numbers = ["liver", "right kidney", "left kidney", "spleen", "average"]
        # Of the gap from 0.4 to 0.9 AttENT closes 0.2, in every case.
        closed = {"dice": ["gap closed, %", "0", "40 (40 to 40)", "100"], "assd": []}[metric]
        assert head[:6] == ["method", *numbers] and [line[6] for line in (head, *lines) if line[6:]] == closed
        assert len(lines) == 3
        for label, *cells in lines:
            row = next(row for row in ROWS if label.startswith(row))
            for organ, cell in zip(numbers, cells[:5], strict=True):
                own = [s for s in scores if (s.alignment, s.metric) == (row, metric) and organ in (s.organ, "average")]
                means = [scale * statistics.fmean(s.value for s in own if s.seed == seed) for seed in (0, 1)]
                assert cell == f"{statistics.fmean(means):.{digits}f} ± {statistics.stdev(means):.{digits}f}"


def test_the_summary_says_who_is_best_and_that_three_cases_prove_nothing(made):
    text = parse(made).text
    # Seeds 0 and 1, cases 1 to 3: 0.6 - 0.05 + 0.01 = 0.56 against 0.36.
    assert "MR to CT: AttENT has the highest average Dice of the 2 rows that see no target labels, 56.0 ± 1.4 %" in text
    assert "AttENT is 20.0 Dice points above W/o adaptation on MR to CT" in text
    assert "AttENT closes 40 % of the gap from W/o adaptation to Supervised (95 % interval 40 to 40 %)." in text
    assert "with 3 cases no paired test can reach p < 0.05 (smallest possible 0.25)" in text
    assert "Before you read the numbers" not in text


def test_each_row_is_stamped_with_what_it_knows_of_target_labels(made):
    labels = [line[0] for line in parse(made).tables["MR to CT: Dice, %, mean ± SD over 2 seeds"][1:]]
    assert labels == ["W/o adaptation label-free", "AttENT label-free", "Supervised sees target labels"]


def test_the_matrix_has_every_pair_both_ways_with_the_sign_turned(made):
    head, *lines = parse(made).tables["MR to CT: Dice, row minus column, points; 3 cases, 3 pairs"]
    assert head[1:] == list(ROWS) and [line[0] for line in lines] == list(ROWS)
    # Three cases that all agree: p = 2 / 2^3, times three pairs.
    assert lines[1][1:] == ["▲ +20.0 p 0.75", "", "▼ -30.0 p 0.75"]
    assert lines[0][1:] == ["", "▼ -20.0 p 0.75", "▼ -50.0 p 0.75"]
    assert lines[2][1:] == ["▲ +50.0 p 0.75", "▲ +30.0 p 0.75", ""]
    distances = parse(made).tables["MR to CT: ASSD, row minus column, mm; 3 cases, 3 pairs"]
    assert distances[2][1:] == ["▲ -2.00 p 0.75", "", "▼ +3.00 p 0.75"]
    with (made / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["column"], float(r["holm"])) for r in rows if r["metric"] == "dice"] == [
        ("W/o adaptation", "AttENT", 0.75), ("W/o adaptation", "Supervised", 0.75), ("AttENT", "Supervised", 0.75),
    ]  # fmt: skip


def test_it_shows_the_worst_case_with_prediction_entropy_translation_and_the_way_back(made):
    page = parse(made)
    # The median case is ct_2, which is no test case of the prepared file.
    assert "MR to CT: worst case, ct_3, slice" in page.text and "median case" not in page.text
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    for wanted in (
        "Target image, ct_3", "Truth of ct_3", "Prediction of AttENT for ct_3", "Entropy map of W/o adaptation for ct_3",
        "in source style, by AttENT", "and back, by AttENT", "Box plot of Dice", "Learning curves of Supervised",
    ):  # fmt: skip
        assert any(wanted in alt for alt in alts), wanted
    # The Dice of the case with seed 0: 0.6 - 2 x 0.05.
    assert "prediction, Dice 50.0 %" in page.text


def test_it_says_how_it_was_made_and_what_to_cite(made):
    text = parse(made).text
    assert "attentkit compare 'a b'" in text and "/somewhere" not in text
    assert "segment_steps = 7" in text and "torch 2" in text and "test 1 case: ct_3" in text
    assert "@inproceedings{li2021attent" in text and "chen2020unsupervised" not in text


def test_figures_lie_beside_it_as_png_and_svg(made):
    names = {path.name for path in (made / "figures").iterdir()}
    stems = {"boxes-mr2ct-dice", "boxes-mr2ct-assd", "cases-mr2ct-worst"}
    stems |= {f"curves-mr2ct-{row}" for row in ("w-o-adaptation", "attent", "supervised")}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}


def test_the_same_files_give_the_same_bytes(attentkit, made):
    before = contents(made)
    reported(attentkit, made)
    assert contents(made) == before


def test_html_in_names_is_text(attentkit, prepared, tmp_path):
    rows = {NASTY: "attent", "W/o adaptation": "source_only"}
    organs = ("liver", "<b>spleen</b>")
    for row, alignment in rows.items():
        folder = write_run(tmp_path, prepared, row, alignment, scores=scores_of(row, organs=organs))
    write_plan(tmp_path, rows, title="</title><script>alert(1)</script>", note="<img src=x onerror=alert(1)>")
    audit = 'case,slice,measure,value\n"<img src=x onerror=alert(2)>",3,edge,0.5\n'
    (folder / "translation_audit.csv").write_text(audit)
    page = reported(attentkit, tmp_path)
    assert not [tag for tag, _ in page.tags if tag in ("script", "b")]
    assert all(a["src"].startswith("data:image/") for tag, a in page.tags if tag == "img")
    for shown in (NASTY, "<b>spleen</b>", "</title><script>alert(1)</script>", "<img src=x onerror=alert(2)>"):
        assert shown in page.text
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"\textless{}script\textgreater{}alert('row')\textless{}/script\textgreater{} \& \textquotedbl{}Ünï" in latex
    assert r"\$x\_1\$" in latex


def test_runs_that_are_not_finished_are_named_and_not_counted(attentkit, spoilt):
    (spoilt / "mr2ct" / "attent" / "seed1" / "scores.csv").unlink()
    write_plan(spoilt, runs=[*recall(spoilt).runs, "mr2ct/attent/seed2"])
    page = reported(attentkit, spoilt)
    assert "2 runs are not finished and not counted: AttENT, mr2ct, seed 1, AttENT, mr2ct, seed 2." in page.text
    assert "the rows do not have the same seeds (W/o adaptation 2, AttENT 1, Supervised 2)" in page.text
    assert page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds"][2][1] == "55.0 (n=1)"


def test_nothing_finished_is_a_page_that_says_so(attentkit, spoilt):
    for file in spoilt.glob("*/*/*/scores.csv"):
        file.unlink()
    text = reported(attentkit, spoilt).text
    assert "MR to CT: nothing is scored yet." in text and "6 runs are not finished" in text


def test_one_row_with_one_seed_is_a_page(attentkit, prepared, tmp_path):
    write_run(tmp_path, prepared, "AttENT", "attent")
    page = reported(attentkit, tmp_path)
    assert "A comparison needs two scored rows" in page.text
    assert page.tables["MR to CT: Dice, %, mean ± SD over 3 cases"][1][1] == "55.0 ± 5.0"
    assert "The folder has no comparison.toml" in page.text


def test_targets_without_labels_are_shown_without_scores(attentkit, prepared, tmp_path):
    for row, alignment in ROWS.items():
        write_run(tmp_path, prepared, row, alignment, scores=[])
    write_plan(tmp_path)
    page = reported(attentkit, tmp_path)
    assert "Nothing is scored yet" in page.text and "The first test cases by name." in page.text
    assert any("Prediction of AttENT for ct_3" in a.get("alt", "") for _, a in page.tags)


def test_rows_of_other_cases_are_told_apart_and_compared_on_common_ones(attentkit, spoilt):
    for seed in (0, 1):
        fewer = scores_of("AttENT", seed=seed, cases=CASES[:2])
        write_scores(spoilt / "mr2ct" / "attent" / f"seed{seed}" / "scores.csv", fewer)
    page = reported(attentkit, spoilt)
    assert "not scored on the same cases (W/o adaptation 3, AttENT 2, Supervised 3)" in page.text
    head, *lines = page.tables["MR to CT: Dice, row minus column, points; 2 to 3 cases, 3 pairs"]
    assert lines[0][2] == "▼ -20.0 p 1"


def test_several_protocols_have_tables_of_their_own(attentkit, spoilt):
    for row in ROWS:
        for seed in (0, 1):
            file = next(spoilt.glob(f"mr2ct/*/seed{seed}/scores.csv"))
            file = (
                spoilt
                / "mr2ct"
                / {"W/o adaptation": "w-o-adaptation"}.get(row, row.lower())
                / f"seed{seed}"
                / "scores.csv"
            )
            other = scores_of(row, seed=seed, base=DICE[row] - 0.1, protocol="sifa")
            write_scores(file, [*read_scores(file), *other])
    page = reported(attentkit, spoilt)
    ours = page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds"]
    theirs = page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds, protocol sifa"]
    assert (ours[2][1], theirs[2][1]) == ("56.0 ± 1.4", "46.0 ± 1.4")
    assert "MR to CT: ASSD, voxel, mean ± SD over 2 seeds, protocol sifa" in page.tables
    assert "scores by several protocols (3d-mm, sifa)" in page.text


def test_an_organ_without_distance_is_a_dash_and_no_crash(attentkit, spoilt):
    file = spoilt / "mr2ct" / "attent" / "seed0" / "scores.csv"
    missed = [
        s._replace(value=math.nan if s.metric == "assd" else 0.0) if s.organ == "spleen" else s
        for s in read_scores(file)
    ]
    write_scores(file, missed)
    other = spoilt / "mr2ct" / "attent" / "seed1" / "scores.csv"
    write_scores(other, [s._replace(seed=1) for s in missed])
    page = reported(attentkit, spoilt)
    assert page.tables["MR to CT: ASSD, mm, mean ± SD over 2 seeds"][2][4:] == ["-", "-"]
    for counts in ("it counts 0 in Dice.", "it has no distance."):
        assert page.text.count(f"AttENT: spleen missed in 6 of 6; {counts}") == 1


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda text: text[:-1], "the last line is cut off"),
        (lambda text: text[:-9], "fields, expected"),
        (lambda text: text.replace("dice,0.", "dice,O.", 1), "is not a number"),
        (lambda text: text + text.splitlines()[1] + "\n", "would count twice"),
        (lambda text: text.rpartition("\n")[0].rpartition("\n")[0] + "\n", "lacks rows of spleen in case ct_3"),
    ],
)
def test_damaged_scores_are_one_sentence_and_leave_the_last_report(attentkit, spoilt, spoil, word):
    reported(attentkit, spoilt)
    file = spoilt / "mr2ct" / "attent" / "seed0" / "scores.csv"
    file.write_text(spoil(file.read_text()))
    before = contents(spoilt)
    outcome = attentkit("report", spoilt)
    assert outcome.code == 3 and word in outcome.err and str(file) in outcome.err
    assert contents(spoilt) == before


def test_without_the_data_the_page_has_no_images_and_says_why(attentkit, spoilt):
    for file in spoilt.glob("*/*/*/config.toml"):
        file.write_text(re.sub(r'"[^"]*/(\w+\.h5)"', r'"/gone/\1"', file.read_text()))
    page = reported(attentkit, spoilt)
    assert "/gone/ct.h5 is missing, so no image of mr2ct can be shown" in page.text
    assert not any("Prediction of" in a.get("alt", "") for _, a in page.tags)
    assert "56.0 ± 1.4" in page.text


def test_images_of_other_data_are_never_shown_as_those_of_the_runs(attentkit, spoilt):
    for file in spoilt.glob("*/*/*/config.toml"):
        file.write_text(re.sub(r'target_hash = "\w+"', 'target_hash = "0"', file.read_text()))
    page = reported(attentkit, spoilt)
    assert "ct.h5 is not what the runs of mr2ct were made with, so no image of it is shown" in page.text
    assert not any("Prediction of" in a.get("alt", "") for _, a in page.tags)


def test_data_beside_the_runs_are_found_when_the_folder_has_moved(attentkit, spoilt, prepared):
    for file in spoilt.glob("*/*/*/config.toml"):
        file.write_text(re.sub(r'"[^"]*/(\w+\.h5)"', r'"/gone/\1"', file.read_text()))
    (spoilt / "data").mkdir()
    for name in ("mr.h5", "ct.h5"):
        shutil.copy(prepared / name, spoilt / "data" / name)
    page = reported(attentkit, spoilt)
    assert any("Prediction of AttENT for ct_3" in a.get("alt", "") for _, a in page.tags)


def test_runs_of_an_earlier_version_are_shown_without_what_they_did_not_keep(attentkit, spoilt):
    for file in spoilt.glob("*/*/*/slices.npz"):
        file.unlink()
    (spoilt / "mr2ct" / "supervised" / "seed0" / "slices.npz").write_bytes(b"PK damaged")
    page = reported(attentkit, spoilt)
    assert "There is no entropy map of W/o adaptation, AttENT, Supervised" in page.text
    assert "No row translates images, or no run has kept a translation." in page.text


def test_a_method_that_is_not_installed_is_treated_as_if_it_saw_target_labels(attentkit, spoilt):
    for seed in (0, 1):
        file = spoilt / "mr2ct" / "attent" / f"seed{seed}" / "config.toml"
        file.write_text(file.read_text().replace('name = "attent"', 'name = "elsewhere"'))
    page = reported(attentkit, spoilt)
    assert "The method of AttENT, 'elsewhere', is not installed" in page.text
    assert page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds"][2][0] == "AttENT sees target labels"


def test_published_numbers_and_second_tests_are_stamped_and_apart(attentkit, spoilt):
    shutil.copy(Path(__file__).parent.parent / "benchmarks" / "published.toml", spoilt / "published.toml")
    page = reported(attentkit, spoilt)
    theirs = page.tables["Published, MR to CT: Dice, percent"]
    assert theirs[-1] == ["AttENT published", "88.56", "80.66", "85.59", "86.34", "85.29"]
    again = page.tables["Re-run by others, MR to CT: Dice, percent, ± SD of the test volumes"]
    assert again[1][:2] == ["SIFA-v2, released model re-run", "88.0 ± 3.6"]
    assert "88.56" not in str(page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds"])


def test_measured_shift_and_audit_are_shown_as_their_commands_print_them(attentkit, spoilt):
    rows = ["direction,row,seed,space,when,measure,value,spread,zero,fold"]
    for seed, before, after in ((0, 1.5, 0.5), (1, 1.7, 0.7)):
        rows += [
            f"mr2ct,AttENT,{seed},pixels,{when},mmd,{v},0.1,0.2," for when, v in (("before", before), ("after", after))
        ]
    (spoilt / "shift.csv").write_text("\n".join(rows) + "\n")
    audit = ["case,slice,measure,value", "ct_2,0,edge,0.7", "ct_3,1,edge,0.5", "ct_3,2,edge,0.1"]
    audit += ["ct_2,,volume-drift:liver,0.2", "ct_3,,volume-drift:liver,-0.8"]
    (spoilt / "mr2ct" / "attent" / "seed0" / "translation_audit.csv").write_text("\n".join(audit) + "\n")
    page = reported(attentkit, spoilt)
    assert page.tables["MR to CT: domain shift, before → after"][1] == ["AttENT", "pixels", "1.600 → 0.600"]
    assert page.tables["AttENT, MR to CT: translation audit, seed0"][1:] == [
        ["edge", "0.500", "0.300", "ct_3"],
        ["volume-drift:liver", "-0.300", "-0.800", "ct_3"],
    ]
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert sum("and back, by AttENT" in alt for alt in alts) == 3  # The worst case, the first, and the audit's.
    (spoilt / "shift.csv").write_text("\n".join(rows)[:-12] + "\n")
    assert "shift.csv, line 5: " in reported(attentkit, spoilt).text


@pytest.mark.parametrize("what", ["nowhere", "empty", "run"])
def test_a_folder_that_holds_no_comparison_is_one_sentence(attentkit, spoilt, tmp_path, what):
    (tmp_path / "empty").mkdir()
    folder = spoilt / "mr2ct" / "attent" / "seed0" if what == "run" else tmp_path / what
    outcome = attentkit("report", folder)
    said = {"nowhere": "is not a folder", "empty": "holds no run", "run": "is a single run"}
    assert outcome.code == 2 and said[what] in outcome.err and not (folder / "report.html").exists()


def test_a_damaged_plan_and_a_wrong_reference_are_one_sentence(attentkit, spoilt):
    outcome = attentkit("report", spoilt, "--reference", "AttENTT")
    assert outcome.code == 2 and "Did you mean 'AttENT'?" in outcome.err
    (spoilt / "comparison.toml").write_text('title = "T"\n')
    outcome = attentkit("report", spoilt)
    assert outcome.code == 2 and "comparison.toml" in outcome.err and "KeyError('note')" in outcome.err


def test_a_score_row_without_a_mean_is_no_best_row(attentkit, prepared, tmp_path):
    nothing = [Score("AttENT", "mr2ct", 0, "ct_3", "liver", "dice", math.nan, "fraction")]
    write_run(tmp_path, prepared, "AttENT", "attent", scores=nothing)
    assert "no row without target labels has an average Dice yet" in reported(attentkit, tmp_path).text
