"""Rows of a NamedTuple as CSV, and back: the one place that writes and reads the package's own CSV files.

Numbers are unrounded, what is not defined is nan, None is an empty cell, and a line ends with a line feed.

A name that a person chose, such as that of a case or a row, can begin with one of = + - @, a tab or a carriage return, and a
spreadsheet would run it as a formula. Each text that does is written with an apostrophe before it, which a spreadsheet takes
as "this is text"; so is one that has apostrophes before such a character, so that reading takes exactly one away again and
every name comes back as it was. Numbers are never touched: -0.5 stays -0.5.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, get_args, get_type_hints

from attent_kit.errors import DataError
from attent_kit.files import has_changed, write_unvouched, write_vouched
from attent_kit.reading import Unreadable, text_of

Row = TypeVar("Row", bound=tuple)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def csv_table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV of a header and of lines of cells: texts, numbers, or None."""
    made: list[str] = []
    # csv quotes what is in its line terminator: with both characters in it, a name with a carriage return is read back.
    writer = csv.writer(SimpleNamespace(write=made.append), lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in line] for line in lines)
    return "".join(line.removesuffix("\r\n") + "\n" for line in made)


def csv_of(kind: type[Row], rows: Iterable[Row]) -> str:
    """CSV of NamedTuples of one kind, one column per field."""
    return csv_table(_fields(kind), rows)


def write_rows(path: Path, kind: type[Row], rows: Iterable[Row], vouched: bool = False) -> None:
    """The file of `csv_of`, whole or not at all; if it is `vouched` for, `read_rows` refuses any other than this."""
    (write_vouched if vouched else write_unvouched)(path, csv_of(kind, rows))


def read_rows(path: Path, kind: type[Row], again: str, check: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """The rows of `write_rows`.

    DataError with file, line and `again`, which says how the file is made anew, for anything else, and for a row that `check`
    raises a ValueError about.
    """
    try:
        text = text_of(path)
    except (OSError, Unreadable) as error:
        raise DataError(f"{path} cannot be read ({error}). {again}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        if header != list(_fields(kind)):
            raise ValueError(f"the header is {','.join(header)!r}, expected {','.join(_fields(kind))!r}")
        readers = _readers(kind)
        for cells in reader:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} fields, expected {len(header)}")
            rows.append(kind(*[read(cell) for read, cell in zip(readers, cells, strict=True)]))
            check(rows[-1])
        if not text.endswith("\n"):
            raise ValueError("the last line is cut off")
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}, line {max(reader.line_num, 1)}: {error}. {again}") from error
    if has_changed(path):
        raise DataError(f"{path} has changed since it was written, by its digest in .{path.name}.sha256. {again}")
    return rows


def records(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Each line as texts by column, for readers that use what they can: missing cells are left out, nothing is checked, and
    it ends where the text is no longer CSV."""
    try:
        for found in csv.DictReader(lines):
            # What a line has beyond the header stands under None.
            yield {name: unguarded(cell) for name, cell in found.items() if name is not None and cell is not None}
    except csv.Error:
        return


def guarded(name: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{name}" if name.lstrip("'").startswith(FORMULA) else name


def unguarded(cell: str) -> str:
    """The reverse of `guarded`."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA) else cell


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return guarded(value)
    return repr(float(value)) if isinstance(value, float) else value


def _fields(kind: type) -> tuple[str, ...]:
    return kind._fields  # type: ignore[attr-defined]  # a NamedTuple, which has no type of its own


@cache
def _readers(kind: type) -> list[Callable[[str], Any]]:
    """What reads each column."""
    hints = get_type_hints(kind)
    return [_reader(name, hints[name]) for name in _fields(kind)]


def _reader(name: str, hint: Any) -> Callable[[str], Any]:
    """What reads the cells of a column: a text, a number, or None of an empty cell where there may be one."""
    if hint is str:
        return unguarded
    may_be_empty = type(None) in get_args(hint)
    number = next(kind for kind in get_args(hint) if kind is not type(None)) if may_be_empty else hint

    def read(cell: str) -> Any:
        if may_be_empty and not cell:
            return None
        try:
            # Python reads 0_5 as 05.
            return number(cell.replace("_", "?"))
        except ValueError:
            raise ValueError(f"{name} '{cell}' is not a number") from None

    return read
