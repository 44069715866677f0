"""CSV files of the package: typed rows there and back, names that a spreadsheet would run, and damage told with its line."""

import contextlib
import math
import os
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_kit.errors import DataError
from attent_kit.files import has_changed, write_vouched
from attent_kit.report.rows import csv_of, guarded, read_rows, records, unguarded, write_rows
from attent_kit.report.scores import Score, read_scores, write_scores
from attent_kit.report.selection import Scored, choose, read_selection, write_selection

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


class Row(NamedTuple):
    case: str
    slice: int | None
    value: float
    note: str = "none"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1+1", "'=1+1"), ("+49", "'+49"), ("-case", "'-case"), ("@sum", "'@sum"), ("\tx", "'\tx"), ("\rx", "'\rx"),
        ("'=x", "''=x"), ("''-x", "'''-x"), ("ct_1", "ct_1"), ("'quoted'", "'quoted'"), ("a=b", "a=b"), ("", ""),
    ],
)  # fmt: skip
def test_a_name_that_begins_like_a_formula_is_written_as_text_and_comes_back(name, cell):
    assert guarded(name) == cell and unguarded(cell) == name


@given(
    names=st.lists(TEXT | TEXT.map("=".__add__) | TEXT.map("'-".__add__), min_size=1, max_size=5), number=st.floats()
)
def test_whatever_a_case_is_called_its_row_comes_back_and_no_cell_is_a_formula(tmp_path_factory, names, number):
    rows = [Row(name, n or None, number, name) for n, name in enumerate(names)]
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_rows(path, Row, rows)
    assert repr(read_rows(path, Row, "")) == repr(rows)
    assert not any(guarded(name).startswith(("=", "+", "-", "@", "\t", "\r")) for name in names)


def test_numbers_are_written_whole_and_never_guarded():
    text = csv_of(Row, [Row("-a", None, -0.1, "@b"), Row("b", -3, math.nan)])
    assert text == "case,slice,value,note\n'-a,,-0.1,'@b\nb,-3,nan,none\n"


def test_scores_of_a_case_called_like_a_formula_come_back(tmp_path):
    rows = [Score("=cmd()", "mr2ct", 0, "+1", "-liver", "dice", 0.5, "fraction")]
    write_scores(tmp_path / "scores.csv", rows)
    assert "\n'=cmd(),mr2ct,0,'+1,'-liver,dice,0.5," in (tmp_path / "scores.csv").read_text()
    assert read_scores(tmp_path / "scores.csv") == rows


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "case,slice,value,note"),
        ("case,slice\na,1\n", 1, "case,slice"),
        ("case,slice,value\na,1,0.5\n", 1, "expected 'case,slice,value,note'"),
        ("case,slice,value,note\na,1,0.5,x\nb,1\n", 3, "2 fields, expected 4"),
        ("case,slice,value,note\na,,high,x\n", 2, "value 'high'"),
        ("case,slice,value,note\na,1_0,0.5,x\n", 2, "slice '1_0'"),
        ("case,slice,value,note\na,,1,x\na,,1,x", 3, "cut off"),
        ('case,slice,value,note\n"a,,1,x\n', 2, "end of data"),
        ("case,slice,value,note\na,,1,x\nb,,-1,x\n", 3, "below 0"),
    ],
)
def test_damage_is_told_with_file_and_line(tmp_path, text, line, said):
    def check(row):
        if row.value < 0:
            raise ValueError("below 0")

    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "rows.csv", Row, "Make it again.", check)
    assert f"rows.csv, line {line}: " in str(caught.value) and said in str(caught.value)
    assert str(caught.value).endswith("Make it again.")


def test_a_reader_that_uses_what_it_can_gets_short_lines_and_stops_at_what_is_no_csv():
    assert list(records(["a,b", "'=x,1", "2", "3,4,5"])) == [{"a": "=x", "b": "1"}, {"a": "2"}, {"a": "3", "b": "4"}]
    assert list(records(["a", "1", "x" * 200_000])) == [{"a": "1"}]


# A digest beside the file


def test_a_digit_that_is_another_is_refused_where_somebody_vouches_for_the_file(tmp_path):
    path = tmp_path / "selection.csv"
    rows = [Scored(2, "entropy", 0.25, "lower"), Scored(4, "entropy", 0.125, "lower")]
    write_selection(path, rows[:1])
    write_selection(path, rows)
    assert read_selection(path) == rows and choose(rows, "entropy") == 4
    path.write_text(path.read_text().replace("0.125", "0.325"))
    with pytest.raises(DataError, match=r"selection.csv has changed since it was written, .*\.selection.csv.sha256"):
        read_selection(path)
    write_selection(path, rows[:1])
    assert read_selection(path) == rows[:1]
    (tmp_path / ".selection.csv.sha256").unlink()
    path.write_text(path.read_text().replace("0.25", "0.35"))
    assert read_selection(path)[0].value == 0.35


def test_a_file_that_others_write_is_vouched_for_by_nobody(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, [], vouched=True)
    assert (tmp_path / ".scores.csv.sha256").exists()
    write_scores(path, [])
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("first", [None, "old\n", "spoilt\n"])
@pytest.mark.parametrize("dies_before", [1, 2, 3, 4])
def test_a_kill_at_any_moment_leaves_a_file_that_is_not_called_changed(tmp_path, monkeypatch, first, dies_before):
    path = tmp_path / "a.csv"
    if first:
        write_vouched(path, "old\n")
        path.write_text(first)
    replace, seen = os.replace, []

    def dies(source, destination):
        seen.append(destination)
        if len(seen) == dies_before:
            raise KeyboardInterrupt
        replace(source, destination)

    monkeypatch.setattr(os, "replace", dies)
    with contextlib.suppress(KeyboardInterrupt):
        write_vouched(path, "new\n")
    there = path.read_text() if path.exists() else None
    assert there in (first, "new\n") and not (there in ("old\n", "new\n") and has_changed(path))
    monkeypatch.undo()
    write_vouched(path, "newer\n")
    assert not has_changed(path)
    path.write_text("new\n")
    assert has_changed(path)
