"""Named splits: which numbers are tested on, from the names of the files to the prepared file."""

import pytest

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.sets.splits import NAMED, numbers_in, split_by_name
from attent_kit.errors import ConfigError, DataError
from attent_kit.report.scores import read_scores
from support.cases import write_case
from support.commands import TINY, prepare_words
from support.messages import quotes

BTCV = [f"{n:04}" for n in (*range(1, 11), *range(21, 41))]
CHAOS = [str(n) for n in (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)]


@pytest.mark.parametrize("case", ["1", "0001", "img0001", "case_01", "T1-b"])
def test_a_case_is_known_by_the_number_in_its_name(case):
    assert numbers_in(case) == [1]


def test_sifa_tests_on_six_of_thirty_ct_and_four_of_twenty_mr_cases():
    ct, mr = (split_by_name("sifa-abdominal", m, cases) for m, cases in (("ct", BTCV), ("mr", CHAOS)))
    assert ct["test"] == ("0001", "0009", "0030", "0032", "0033", "0039") and mr["test"] == ("1", "13", "32", "38")
    assert [len(members) for members in (*ct.values(), *mr.values())] == [24, 0, 6, 16, 0, 4]
    assert sorted(ct["train"] + ct["test"]) == BTCV


def test_protocontra_tests_on_others_of_the_same_cases():
    ct, mr = (split_by_name("protocontra", m, cases) for m, cases in (("ct", BTCV), ("mr", CHAOS)))
    assert ct["test"] == ("0002", "0009", "0010", "0035", "0036", "0040") and mr["test"] == ("2", "8", "31", "34")
    assert [len(members) for members in (*ct.values(), *mr.values())] == [24, 0, 6, 16, 0, 4]


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ([*CHAOS, "phantom"], "'phantom' .*img0001"),
        ([*CHAOS, "case2_40"], "'case2_40' has 2 numbers"),
        ([*CHAOS, "img0032"], "'32' and 'img0032' .*32"),
        (["2", "13", "38"], "case 1, 32,"),
    ],
)
def test_cases_that_cannot_be_told_by_number_are_named(cases, sentence):
    with pytest.raises(DataError, match=sentence):
        split_by_name("sifa-abdominal", "mr", cases)


def test_a_split_or_a_modality_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(ConfigError, match="'sifa-abdomen'.*mean 'sifa-abdominal'.*There are: sifa-abdominal, protocon"):
        split_by_name("sifa-abdomen", "mr", CHAOS)
    with pytest.raises(ConfigError, match="'pet'.* ct and mr"):
        split_by_name("sifa-abdominal", "pet", CHAOS)


# From the command line


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """images and labels of the MR cases 1, 2, 13, 32 and 38."""
    folder = tmp_path_factory.mktemp("numbered")
    for case in (1, 2, 13, 32, 38):
        write_case(folder, f"{case:02}", "mr", seed=case)
    return folder


def words(folder, out, *more):
    return [
        "prepare",
        folder / "images",
        "--labels",
        folder / "labels",
        "-o",
        out,
        "--modality",
        "MR",
        "--size",
        32,
        *more,
    ]


def test_the_prepared_file_is_split_by_name_and_keeps_the_name(attentkit, numbered, tmp_path):
    outcome = attentkit(*words(numbered, tmp_path / "mr.h5", "--split", "sifa-abdominal"))
    assert outcome.code == 0 and quotes(outcome.out, "5 case ... 1 train, 0 val, 4 test; 5 labelled")
    prepared = Prepared.open(tmp_path / "mr.h5")
    assert prepared.split == prepared.manifest["split"] == "sifa-abdominal"
    assert prepared.ids("train") == ("02",) and prepared.ids("test") == ("01", "13", "32", "38")


def test_a_named_split_is_the_same_data_as_the_list_of_its_cases(attentkit, numbered, tmp_path):
    attentkit(*words(numbered, tmp_path / "named.h5", "--split", "sifa-abdominal"))
    attentkit(*words(numbered, tmp_path / "listed.h5", "--test", "01,13,32,38"))
    named, listed = (Prepared.open(tmp_path / f"{name}.h5") for name in ("named", "listed"))
    assert listed.split is None and named.content_hash() == listed.content_hash()


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--split=sifa-abdominl"], 2, "'sifa-abdominl' ... 'sifa-abdominal'?"),
        (["--split=sifa-abdominal", "--test=01"], 2, "--split and --test ... one of them"),
        (["--split=protocontra"], 3, "'protocontra' ... case 8, 31, 34,"),
    ],
)
def test_a_split_that_cannot_be_made_is_one_sentence(attentkit, numbered, tmp_path, more, code, sentence):
    outcome = attentkit(*words(numbered, tmp_path / "mr.h5", *more))
    assert outcome.code == code and quotes(outcome.err, sentence)
    assert not (tmp_path / "mr.h5").exists()


def test_the_help_names_every_split(attentkit):
    assert all(name in attentkit("prepare", "--help").out.replace("\n", "") for name in NAMED)


def test_without_cases_for_validation_a_run_is_trained_and_scored(attentkit, volumes, tmp_path):
    for modality in ("mr", "ct"):
        listed = prepare_words(volumes / modality, tmp_path / f"{modality}.h5", modality)
        listed = [word for word in listed if not word.startswith(("--train", "--val"))]
        assert attentkit(*listed).code == 0
        assert Prepared.open(tmp_path / f"{modality}.h5").ids("val") == ()
    run = [
        "train",
        "source_only",
        "-s",
        tmp_path / "mr.h5",
        "-t",
        tmp_path / "ct.h5",
        "-d",
        "cpu",
        "-o",
        tmp_path / "run",
    ]
    assert attentkit(*run, *TINY).code == 0
    assert {score.case for score in read_scores(tmp_path / "run" / "scores.csv")} == {"ct_3"}
