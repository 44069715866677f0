"""Text files that are read back: TOML, JSON and CSV, by whoever wrote them and whatever became of them since.

Everything that cannot be read is an `Unreadable`, which is a ValueError whose words say why; what the system refuses stays an
OSError. Who reads knows the name of the file, and what is to be typed next.
"""

import csv
import io
import json
import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MOST_BYTES = 2**28
"""Of a text file: the scores of ten thousand cases are a tenth of it."""
_POINTER = b"version https://git-lfs"
DEEPEST = 64
"""Tables or lists inside one another; ours go to six."""


class Unreadable(ValueError):
    """Why a text is not what it should be."""


def of_git(path: Path) -> str:
    """What to do about a file that is a Git LFS pointer, "" for any other."""
    try:
        with path.open("rb") as file:
            there = file.read(len(_POINTER)) == _POINTER
    except OSError:
        return ""
    return (
        f"{path} is a Git LFS pointer, not the file that it stands for: fetch that with `git lfs pull`."
        if there
        else ""
    )


def text_of(path: Path) -> str:
    """The text of a file, without the mark that some editors put before it. Line ends stay as they are."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise Unreadable(f"it is larger than {MOST_BYTES // 2**20} MiB")
    return _decoded(content)


def toml_in(text: str) -> dict[str, Any]:
    """What TOML says."""
    try:
        return _shallow(tomllib.loads(text))
    except RecursionError:
        raise _too_deep() from None
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(_first_line(error)) from None


def json_in(
    text: str | bytes, strict: bool = False, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """What JSON says. `strict`: no NaN and no number that is infinite, which JSON does not have.

    `pairs` makes an object of its names and values; a ValueError of it is one here.
    """
    checks: Any = {"parse_constant": _no_constant, "parse_float": _finite} if strict else {}
    try:
        found = json.loads(_decoded(text) if isinstance(text, bytes) else text, object_pairs_hook=pairs, **checks)
        return _shallow(found)
    except RecursionError:
        raise _too_deep() from None
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(_first_line(error)) from None


def csv_in(text: str, separator: str = ",") -> list[list[str]]:
    """The cells of each line; blanks behind a separator do not count."""
    try:
        return [*csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)]
    except csv.Error as error:
        raise Unreadable(str(error)) from None


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8: {error.reason} at byte {error.start}") from None


def _shallow(found: Any) -> Any:
    """The same, if nothing in it lies too deep for what walks through it."""
    level = [found]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return found
    raise _too_deep()


def _inside(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (each for each in inner if isinstance(each, dict | list))


def _too_deep() -> Unreadable:
    return Unreadable(f"it is nested more than {DEEPEST} levels deep")


def _no_constant(constant: str) -> float:
    raise Unreadable(f"{constant} is not a number of JSON")


def _finite(digits: str) -> float:
    if math.isfinite(number := float(digits)):
        return number
    raise Unreadable(f"{digits[:20]} is too large a number")


def _first_line(error: Exception) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__)[:200]
