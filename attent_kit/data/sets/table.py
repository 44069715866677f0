"""A CSV list of pairs as people write it: any of three separators, and the words that they use for label maps."""

from pathlib import Path
from typing import NamedTuple

from attent_kit.data.sets.labelmap import LabelMap, OrganNames, parse_organs
from attent_kit.data.sets.roles import IMAGE_WORDS, LABEL_WORDS
from attent_kit.errors import ConfigError, DataError, did_you_mean
from attent_kit.reading import Unreadable, csv_in, text_of

LISTS = (".csv", ".tsv")
"""Endings of a file that is such a list."""
SEPARATORS = (",", ";", "\t")
_EXAMPLE = "write a first line 'image,labels' and a line for each case below it"


class PairLine(NamedTuple):
    """What a line names; files are relative to the list."""

    case: str
    """"" where the list has no column of that name."""
    image: Path
    labels: Path | None
    organs: LabelMap | OrganNames | None = None
    patient: str = ""
    """"" where the list has no column of that name."""


def read_pairs(path: Path, allow_unlabelled: bool = False) -> list[PairLine]:
    """The lines of a list with the columns image, labels (a cell may be empty) and, if wanted, case, organs and patient.

    A cell of organs is what `--organs` could say; where it is empty, the label map is like the others.

    DataError for a list that cannot be read, that names no image, or that has no column of labels, unless that is allowed;
    then for a column that means nothing here, so that labels under another heading are not dropped.
    """
    rows = _rows(path)
    if len(rows) < 2:
        raise DataError(f"{path} lists no pair: {_EXAMPLE}.")
    columns = _columns(rows[0], path, allow_unlabelled)
    lines = []
    for number, row in enumerate(rows[1:], 1):
        cells = {role: row[at].strip() if at < len(row) else "" for role, at in columns.items()}
        if not cells["image"]:
            raise DataError(f"{path}, case {number}: there is no image: write its file, or remove the line.")
        labels = cells.get("labels", "")
        files = _file(path, cells["image"]), _file(path, labels) if labels else None
        lines.append(
            PairLine(
                cells.get("case", ""),
                *files,
                _organs(cells.get("organs", ""), f"{path}, case {number}"),
                cells.get("patient", ""),
            )
        )
    return lines


def _organs(cell: str, where: str) -> LabelMap | OrganNames | None:
    try:
        return parse_organs(cell) if cell else None
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from None


def _rows(path: Path) -> list[list[str]]:
    """The rows that hold anything, split at the separator of the first."""
    try:
        text = text_of(path)
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(SEPARATORS, key=first.count)
        rows = csv_in(text, separator)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check the file and its rights.") from error
    except Unreadable as error:
        raise DataError(f"{path} cannot be read as a list of pairs ({error}): save it as CSV in UTF-8.") from None
    return [row for row in rows if any(cell.strip() for cell in row)]


def _columns(head: list[str], path: Path, allow_unlabelled: bool) -> dict[str, int]:
    """Which column is the image, the labels, the case and the patient."""
    columns: dict[str, int] = {}
    strange: list[str] = []
    for at, cell in enumerate(head):
        word = cell.strip().lower().removesuffix("_path").removesuffix("_file")
        role = "image" if word in IMAGE_WORDS else "labels" if word in LABEL_WORDS or word == "ground_truth" else word
        if role not in ("image", "labels", "case", "organs", "patient"):
            strange.append(cell.strip())
        elif columns.setdefault(role, at) != at:
            raise DataError(f"{path} has two columns of {role}, the second is '{cell.strip()[:60]}': keep one of them.")
    if "image" not in columns:
        raise DataError(f"{path} has no column 'image' (it has {', '.join(head)[:200]}): {_EXAMPLE}.")
    if "labels" in columns or allow_unlabelled:
        return columns
    near = "".join(filter(None, (did_you_mean(word.lower(), ["labels"]) for word in strange)))[:40]
    named = f", and '{strange[0][:60]}' means nothing here" if strange else ""
    raise DataError(
        f"{path} has no column 'labels'{named}: call the column of the label maps so, or type --allow-unlabelled if the "
        f"images are for training on the target side only.{near}"
    )


def _file(path: Path, cell: str) -> Path:
    """A file as a line names it; with the backslashes of Windows where only that leads to a file."""
    named = path.parent / cell
    turned = path.parent / cell.replace("\\", "/")
    return turned if "\\" in cell and not named.exists() else named
