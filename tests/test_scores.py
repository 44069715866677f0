"""Score rows to and from CSV, and their summaries worked out by hand."""

import math

import pytest

from attent_kit.errors import ConfigError, DataError
from attent_kit.report.scores import COUNTS, Score, Scores, read_scores, summarise, write_scores

ROOT_2 = math.sqrt(2)
HEADER = "alignment,direction,seed,case,organ,metric,value,unit,protocol,selection\n"


def score(seed, case, organ, metric, value, unit="fraction", alignment="attent", direction="mr2ct"):
    return Score(alignment, direction, seed, case, organ, metric, value, unit)


def scores(values):
    """Dice and ASSD in mm of {(seed, case, organ): (dice, assd)}."""
    return [
        score(*key, metric, value, unit)
        for key, pair in values.items()
        for metric, value, unit in zip(("dice", "assd"), pair, ("fraction", "mm"), strict=True)
    ]


# The spleen of case 7 is missed by seed 0.
TWO_SEEDS = scores(
    {
        (0, "7", "liver"): (0.8, 1.0),
        (0, "9", "liver"): (0.9, 1.0),
        (1, "7", "liver"): (0.6, 1.0),
        (1, "9", "liver"): (0.7, 1.0),
        (0, "7", "spleen"): (0.0, math.nan),
        (0, "9", "spleen"): (0.6, 2.0),
        (1, "7", "spleen"): (0.4, 4.0),
        (1, "9", "spleen"): (0.8, 6.0),
    }
)


def mean_std_n(summaries):
    return {row.organ: (row.mean, row.std, row.n) for row in summaries}


def near(*values):
    return tuple(pytest.approx(value, abs=1e-12, nan_ok=True) for value in values)


def test_over_seeds_is_the_spread_of_the_means_over_cases():
    # liver 0.85 and 0.65, spleen 0.3 and 0.6; their averages 0.575 and 0.625.
    found = mean_std_n(summarise(TWO_SEEDS, "dice", over="seeds"))
    assert list(found) == ["liver", "spleen", "average"]
    assert found["liver"] == near(0.75, 0.1 * ROOT_2, 2)
    assert found["spleen"] == near(0.45, 0.15 * ROOT_2, 2)
    assert found["average"] == near(0.6, 0.025 * ROOT_2, 2)


def test_over_cases_is_the_spread_of_the_means_over_seeds():
    # liver 0.7 and 0.8, spleen 0.2 and 0.7; their averages 0.45 and 0.75.
    found = mean_std_n(summarise(TWO_SEEDS, "dice", over="cases"))
    assert found["liver"] == near(0.75, 0.05 * ROOT_2, 2)
    assert found["spleen"] == near(0.45, 0.25 * ROOT_2, 2)
    assert found["average"] == near(0.6, 0.15 * ROOT_2, 2)


def test_a_value_that_is_not_a_number_is_left_out_and_counted():
    liver, spleen, average = summarise(TWO_SEEDS, "assd", over="seeds")
    assert (spleen.mean, spleen.std) == near(3.5, 1.5 * ROOT_2)  # seed 0: 2; seed 1: 4 and 6
    assert average.mean == pytest.approx((1 + 3.5) / 2)
    assert [(row.excluded, row.total) for row in (liver, spleen, average)] == [(0, 4), (1, 4), (1, 8)]
    assert mean_std_n(summarise(TWO_SEEDS, "assd", over="cases"))["spleen"] == near(4, 0, 2)


def test_a_missed_organ_is_counted_whatever_the_metric():
    for metric in ("dice", "assd"):
        assert [row.missed for row in summarise(TWO_SEEDS, metric)] == [0, 1, 1]


def test_an_organ_found_in_the_wrong_place_is_not_missed():
    (spleen, _) = summarise(scores({(0, "7", "spleen"): (0.0, 40.0)}), "dice")
    assert (spleen.missed, spleen.absent, spleen.mean) == (0, 0, 0)


def test_an_organ_that_the_patient_does_not_have_is_invented_not_missed():
    rows = scores({(0, "7", "spleen"): (0.0, math.nan), (0, "9", "spleen"): (0.0, math.nan)})
    rows += [score(0, "7", "spleen", "true volume", 0.0, "ml"), score(0, "9", "spleen", "true volume", 150.0, "ml")]
    spleen, average = summarise(rows, "dice")
    assert (spleen.missed, spleen.invented, spleen.total) == (1, 1, 2)
    assert (average.missed, average.invented) == (1, 1)


def test_an_organ_the_patient_does_not_have_is_absent_not_missed():
    rows = scores({(0, "7", "left kidney"): (math.nan, math.nan), (0, "9", "left kidney"): (0.9, 1.0)})
    kidney, average = summarise(rows, "dice")
    assert (kidney.mean, kidney.missed, kidney.absent, kidney.excluded, kidney.total) == (0.9, 0, 1, 1, 2)
    assert average.absent == 1


def test_one_seed_has_no_spread():
    liver, _ = summarise(scores({(0, "7", "liver"): (0.8, 1.0)}), "dice")
    assert (liver.mean, liver.n) == (0.8, 1)
    assert math.isnan(liver.std)


def test_an_organ_never_found_leaves_no_average_distance():
    never = {(seed, "7", "spleen"): (0.0, math.nan) for seed in (0, 1)}
    rows = scores({(0, "7", "liver"): (0.8, 1.0), (1, "7", "liver"): (0.6, 2.0)} | never)
    liver, spleen, average = summarise(rows, "assd")
    assert (liver.mean, liver.std) == near(1.5, 0.5 * ROOT_2)
    assert [math.isnan(value) for value in (spleen.mean, spleen.std, average.mean, average.std)] == [True] * 4
    assert summarise(rows, "dice")[-1].mean == pytest.approx(0.35)


def test_alignments_and_directions_are_never_mixed():
    rows = [
        score(0, "7", "liver", "dice", 0.9, alignment="attent"),
        score(0, "7", "liver", "dice", 0.5, alignment="none"),
        score(0, "7", "liver", "dice", 0.3, alignment="none", direction="ct2mr"),
    ]
    found = {(row.alignment, row.direction): row.mean for row in summarise(rows, "dice")}
    assert found == {("attent", "mr2ct"): 0.9, ("none", "mr2ct"): 0.5, ("none", "ct2mr"): 0.3}


def test_a_metric_in_two_units_asks_which():
    rows = [score(0, "7", "liver", "assd", 5.0, "mm"), score(0, "7", "liver", "assd", 1.0, "voxel")]
    with pytest.raises(ConfigError, match="several units. Choose unit= one of: mm, voxel"):
        summarise(rows, "assd")
    assert summarise(rows, "assd", unit="voxel")[0].mean == 1
    assert summarise(rows, "assd", unit="mm")[0].unit == "mm"


def test_numbers_of_two_protocols_are_never_in_one_mean():
    ours = score(0, "7", "liver", "dice", 0.8)
    rows = [ours, ours._replace(value=0.6, protocol="sifa"), ours._replace(metric="ravd", value=5.0, protocol="chaos")]
    with pytest.raises(ConfigError, match="several protocols. Choose protocol= one of: 3d-mm, sifa"):
        summarise(rows, "dice")
    assert [summarise(rows, "dice", protocol=name)[0].mean for name in ("3d-mm", "sifa")] == [0.8, 0.6]
    assert summarise(rows, "ravd")[0].mean == 5
    with pytest.raises(ConfigError, match="no protocol 'sifas'. They have: 3d-mm, sifa, chaos"):
        summarise(rows, "dice", protocol="sifas")


def counts(case, *numbers, organ="liver"):
    """The count rows of one case: scored, missed, invented, absent, undefined."""
    return [score(0, case, organ, name, n, "slices") for name, n in zip(COUNTS, numbers, strict=True)]


def test_written_counts_are_added_up_and_stand_above_what_dice_and_distances_tell():
    # Dice is 0 and there is no distance, which used to read as missed; the counts know that both were empty.
    rows = [*scores({(0, "7", "liver"): (0.0, math.nan)}), *counts("7", 9, 2, 1, 3, 6)]
    rows += [score(0, "8", "liver", "dice", 0.5), *counts("8", 4, 0, 0, 1, 1)]
    liver, average = summarise(rows, "dice", "cases")
    for row in (liver, average):
        assert (row.total, row.missed, row.invented, row.absent, row.undefined) == (13, 2, 1, 4, 7)
        assert (row.mean, row.n) == (0.25, 2)


def test_a_mean_over_slices_weighs_each_case_by_its_slices():
    # 1 slice of 0.9 and 3 of 0.5: 2.4 / 4. The spleen is in slices of case 8 only.
    rows = [score(0, "7", "liver", "dice", 0.9), *counts("7", 1, 0, 0, 0, 0)]
    rows += [score(0, "8", "liver", "dice", 0.5), *counts("8", 3, 0, 0, 0, 0)]
    rows += [score(0, "7", "spleen", "dice", math.nan), *counts("7", 0, 0, 0, 0, 0, organ="spleen")]
    rows += [score(0, "8", "spleen", "dice", 0.2), *counts("8", 5, 0, 0, 0, 0, organ="spleen")]
    assert [row.mean for row in summarise(rows, "dice", "cases", weight="scored")] == [
        pytest.approx(mean) for mean in (0.6, 0.2, 0.4)
    ]
    assert summarise(rows, "dice", "cases")[0].mean == pytest.approx(0.7)


def test_a_question_that_cannot_be_answered_names_the_answers():
    with pytest.raises(ConfigError, match="Did you mean 'dice'.*They have: dice, assd"):
        summarise(TWO_SEEDS, "dise")
    with pytest.raises(ConfigError, match="over='seeds' or over='cases'"):
        summarise(TWO_SEEDS, "dice", over="organs")
    with pytest.raises(DataError, match="Two scores for attent, mr2ct, 0, 7, liver, dice"):
        summarise(TWO_SEEDS + TWO_SEEDS[:1], "dice")


def test_scores_read_back_exactly_as_written(tmp_path):
    rows = [
        score(3, "img0001, cropped", "left kidney", "dice", 0.1 + 0.2),
        score(3, "0007", "liver", "assd", 1e-17, "mm"),
    ]
    write_scores(tmp_path / "scores.csv", rows)
    assert read_scores(tmp_path / "scores.csv") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_not_a_number_is_written_as_nan(tmp_path):
    write_scores(tmp_path / "scores.csv", [score(0, "7", "liver", "assd", math.nan, "mm")])
    assert (tmp_path / "scores.csv").read_text() == HEADER + "attent,mr2ct,0,7,liver,assd,nan,mm,3d-mm,last\n"
    assert math.isnan(read_scores(tmp_path / "scores.csv")[0].value)


def test_a_write_that_fails_leaves_the_old_scores(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, TWO_SEEDS[:1])
    with pytest.raises(ValueError):
        write_scores(path, [TWO_SEEDS[1], score(0, "7", "liver", "dice", "good")])
    assert read_scores(path) == TWO_SEEDS[:1]
    assert list(tmp_path.iterdir()) == [path]


GOOD = "attent,mr2ct,0,7,liver,dice,0.5,fraction,3d-mm,last\n"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "the header is ''"),
        ("alignment,seed\n" + GOOD, 1, "the header is 'alignment,seed'"),
        (HEADER.replace(",selection", "") + GOOD.replace(",last", ""), 1, "the header is 'alignment,direction"),
        (HEADER + GOOD + "attent,mr2ct,0,7,spl", 3, "5 fields, expected 10"),
        (HEADER + GOOD + "attent,mr2ct,0,7,spleen,dice,0.5,fraction,3d-mm,la", 3, "the last line is cut off"),
        (HEADER + "attent,mr2ct,0,7,liver,dice,0;5,fraction,3d-mm,last\n" + GOOD, 2, "value '0;5' is not a number"),
        (HEADER + "attent,mr2ct,first,7,liver,dice,0.5,fraction,3d-mm,last\n", 2, "seed 'first' is not a number"),
        (HEADER + GOOD.replace("0.5", "0_5"), 2, "value '0_5' is not a number"),
        (HEADER + GOOD.replace("ct,0", "ct,1_0"), 2, "seed '1_0' is not a number"),
        (HEADER + GOOD + GOOD.replace("liver,dice,0.5", "liver,assd,-inf"), 3, "value '-inf' is not finite"),
        (HEADER + GOOD.replace("0.5", "1.7"), 2, "dice is a fraction, and '1.7' is not between 0 and 1"),
        (HEADER + GOOD.replace("dice,0.5", "nsd 2 mm,-0.1"), 2, "nsd 2 mm is a fraction, and '-0.1' is not"),
        (HEADER + GOOD + "\n" + GOOD, 3, "0 fields, expected 10"),
        (HEADER + GOOD + GOOD, 3, "this row is already there"),
        (HEADER + GOOD + HEADER, 3, "seed 'seed' is not a number"),
        (HEADER + 'attent,mr2ct,0,"7,liver,dice,0.5,fraction,3d-mm,last\n', 2, "unexpected end of data"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, text, line, reason):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_scores(path)
    assert f"{path}, line {line}: {reason}" in str(caught.value)
    assert "attentkit evaluate" in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_scores(tmp_path / "absent.csv")
    (tmp_path / "image.csv").write_bytes(b"\x1f\x8b\x08\xff")
    with pytest.raises(DataError, match=r"image\.csv"):
        read_scores(tmp_path / "image.csv")


def test_what_is_counted_has_no_mean_among_the_scores_that_are_shown():
    rows = [score(0, "7", "liver", "dice", 0.5), score(0, "7", "liver", "folds of the liver", 3, "slices")]
    assert Scores(rows).shown.columns == ["organ", "dice, fraction"]
    assert [row for row in Scores(rows).shown.rows if row[0] == "liver"] == [["liver", "0.500"]]
