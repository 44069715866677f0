"""What the report says beside a number: how the row came about, what its mean is over, and which runs have collapsed."""

import json
import shutil

import pytest

from attent_kit.report.scores import COUNTS, read_scores, write_scores
from support.comparison_folder import (
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


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch):
    """The page is what is looked at here."""
    draw_nothing(monkeypatch)


@pytest.fixture
def spoilt(prepared, tmp_path):
    """Three rows, two seeds, which a test may spoil."""
    return write_comparison(tmp_path, prepared)


def collapse(folder, *warnings):
    """The monitor's word that a run has failed: (step, check, sentence) each."""
    told = [{"step": n, "stage": "s", "check": check, "sentence": sentence} for n, check, sentence in warnings]
    (folder / "monitor.json").write_text(json.dumps({"collapsed": True, "warnings": told}))


def test_a_collapsed_run_is_stamped_counted_and_explained_by_what_it_failed_at(attentkit, spoilt):
    won, gone = (
        (3, "discriminator-won", "The discriminator has won."),
        (9, "organ-vanished", "The spleen has vanished."),
    )
    collapse(spoilt / "mr2ct" / "attent" / "seed1", won, gone)
    (spoilt / "mr2ct" / "attent" / "seed0" / "monitor.json").write_text('{"collapsed": fal')
    page = reported(attentkit, spoilt)
    assert "AttENT, mr2ct, seed 1 has collapsed and is counted all the same. The spleen has vanished." in page.text
    assert "The discriminator has won." not in page.text
    line = page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds"][2]
    assert line[0] == "AttENT label-free collapsed 1 of 2" and line[1] == "56.0 ± 1.4"
    assert "AttENT: 1 of 2 runs collapsed (seed 1: organ-vanished); it is in the means." in page.text
    assert "AttENT: 1 of 2 runs collapsed" in (spoilt / "table.tex").read_text(encoding="utf-8")


def test_a_run_that_collapsed_without_scores_is_counted_and_not_called_unfinished(attentkit, spoilt):
    for seed in (0, 1):
        folder = spoilt / "mr2ct" / "attent" / f"seed{seed}"
        collapse(folder, (9, "not-finite", "L_seg is no longer finite."))
        (folder / "scores.csv").unlink()
    page = reported(attentkit, spoilt)
    assert "AttENT, mr2ct, seed 0 has collapsed and has no scores. L_seg is no longer finite." in page.text
    assert "not finished" not in page.text
    line = page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds"][2]
    assert line == ["AttENT label-free collapsed 2 of 2", *["-"] * 6]
    assert "AttENT: 2 of 2 runs collapsed (seed 0: not-finite; seed 1: not-finite); they have no scores" in page.text


def test_whatever_target_labels_have_chosen_has_a_dagger_everywhere(attentkit, spoilt):
    for file in list(spoilt.glob("*/*/*/scores.csv")):
        place = file.parent / "selections" / "target-oracle"
        shutil.copytree(file.parent / "predictions", place / "predictions")
        write_scores(place / "scores.csv", [s._replace(selection="target-oracle") for s in read_scores(file)])
    write_plan(spoilt, select="target-oracle", reference="AttENT")
    page = reported(attentkit, spoilt)
    assert "† Of each run the snapshot with the highest Dice on the target's test cases" in page.text
    assert "AttENT † has the highest average Dice of the 2 rows that are trained without target labels" in page.text
    assert "Supervised † is 30.0 Dice points above AttENT †" in page.text
    for name in ("table.tex", "pairs.csv"):
        text = (spoilt / name).read_text(encoding="utf-8").replace(r"\ensuremath{\dagger}", "†")
        assert text.count("AttENT") == text.count("AttENT †") > 0, name
    caption = "MR to CT: Dice, %, mean ± SD over 2 seeds, selected by target-oracle"
    assert [row[0] for row in page.tables[caption][1:]] == [
        "W/o adaptation † target-oracle †",
        "AttENT † target-oracle †",
        "Supervised † sees target labels target-oracle †",
    ]
    matrix = next(rows for caption, rows in page.tables.items() if "row minus column" in caption)
    assert matrix[0][1:] == ["W/o adaptation †", "AttENT †", "Supervised †"]
    assert all("†" in a["alt"] for _, a in page.tags if "AttENT" in a.get("alt", ""))


def test_a_row_has_the_label_that_the_suite_gives_it_now(attentkit, spoilt):
    write_plan(spoilt, {"W/o adaptation": "source_only", "ATTENT": "attent", "Supervised": "supervised"})
    assert attentkit("report", spoilt, "--reference", "ATTENT").code == 0
    page = parse(spoilt)
    assert page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds"][2][0] == "ATTENT label-free"
    assert "ATTENT has the highest average Dice" in page.text


def test_rows_that_are_equally_good_are_all_named(attentkit, spoilt):
    for seed in (0, 1):
        equal = scores_of("W/o adaptation", seed=seed, base=DICE["AttENT"])
        write_scores(spoilt / "mr2ct" / "w-o-adaptation" / f"seed{seed}" / "scores.csv", equal)
    page = reported(attentkit, spoilt)
    assert "MR to CT: W/o adaptation and AttENT have the highest average Dice of the 2 rows" in page.text
    text = (spoilt / "table.tex").read_text(encoding="utf-8")
    assert text.count(r"\textbf{56.0") == 10


def test_each_direction_says_what_its_own_numbers_are_over(attentkit, spoilt, prepared):
    write_run(spoilt, prepared, "AttENT", "attent", "ct2mr", scores=scores_of("AttENT", "ct2mr"))
    write_plan(spoilt)
    page = reported(attentkit, spoilt)
    assert "MR to CT: Dice, %, mean ± SD over 2 seeds" in page.tables
    assert "CT to MR: Dice, %, mean ± SD over 3 cases" in page.tables


def test_means_over_slices_are_means_over_slices(attentkit, spoilt):
    for file in spoilt.glob("*/*/*/scores.csv"):
        scores = read_scores(file)
        first = scores[0]._replace(protocol="attent-code")
        more = []
        for case, dice, slices in (("ct_1", 0.5, 10), ("ct_2", 0.9, 90), ("ct_3", 0.9, 0)):
            for organ in dict.fromkeys(s.organ for s in scores):
                own = first._replace(case=case, organ=organ)
                more += [own._replace(metric="dice", value=dice, unit="fraction")]
                more += [own._replace(metric=m, value=slices * (m == "scored"), unit="slices") for m in COUNTS]
        write_scores(file, [*scores, *more])
    page = reported(attentkit, spoilt)
    assert page.tables["MR to CT: Dice, %, mean ± SD over 2 seeds, protocol attent-code"][2][1] == "86.0 ± 0.0"


def test_a_matrix_says_what_its_own_pairs_cannot_show(attentkit, spoilt, prepared):
    cases = [f"ct_{n}" for n in range(6)]
    for row, alignment in ROWS.items():
        write_run(spoilt, prepared, row, alignment, scores=scores_of(row, cases=cases))
        write_run(spoilt, prepared, row, alignment, seed=1, scores=scores_of(row, seed=1, cases=cases))
    text = reported(attentkit, spoilt).text
    assert "With 6 cases and 3 comparisons no corrected p can be below 0.05 (smallest possible 0.0938)" in text
    assert "with 6 cases and 2 comparisons no corrected p can be below 0.05 (smallest possible 0.0625)" in text
