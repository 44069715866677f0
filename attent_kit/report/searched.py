"""search.csv of a comparison: every trial of its search, and a section of the report that shows what was chosen."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.errors import DataError
from attent_kit.files import write_text
from attent_kit.reading import Unreadable, text_of
from attent_kit.report.page import Heading, Listing, PageCell, PageRow, PageTable, Section, Text
from attent_kit.report.rows import csv_table, records

SEARCH_CSV = "search.csv"
LONGEST_LISTING = 200_000
"""Characters of search.csv that the report holds."""
_HEAD = ("direction", "row", "seed", "fold", "trial", "objective", "value", "chosen", "folder")


class SearchedTrial(NamedTuple):
    """One trial of the search for the options of a cell."""

    row: str
    direction: str
    seed: int
    fold: str
    """1/5 where the target was dealt into folds."""
    trial: int
    objective: str
    """Selector that judges it."""
    value: float | None
    """Its score; None if training met NaN."""
    chosen: bool
    """Whether the cell was trained with its options."""
    folder: str
    """Of the trial, in that of the comparison."""
    options: Mapping[str, Any]


def write_searched(path: Path, trials: Sequence[SearchedTrial], names: Sequence[str]) -> None:
    """A line for each trial, with a column for each option of the space: numbers and words as they are, lists as JSON."""
    lines = [
        (
            t.direction, t.row, t.seed, t.fold, t.trial, t.objective, t.value, "yes" if t.chosen else "no", t.folder,
            *(_written(t.options[name]) if name in t.options else None for name in names),
        )
        for t in trials
    ]  # fmt: skip
    write_text(path, csv_table([*_HEAD, *names], lines))


def read_searched(path: Path) -> list[SearchedTrial]:
    """The trials of `write_searched`, options as texts; none if there is no such file. DataError for a damaged one."""
    if not path.exists():
        return []
    made = []
    try:
        for line in records(text_of(path).splitlines(keepends=True)):
            value = float(line["value"]) if line["value"] else None
            if value is not None and not math.isfinite(value):
                raise ValueError(f"value {value}")
            options = {name: cell for name, cell in line.items() if name not in _HEAD and cell}
            made.append(
                SearchedTrial(
                    line["row"], line["direction"], int(line["seed"]), line["fold"], int(line["trial"]),
                    line["objective"], value, line["chosen"] == "yes", line["folder"], options,
                )
            )  # fmt: skip
    except (OSError, Unreadable, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not as `attentkit compare` writes it ({error!r}): run that again, which makes it anew."
        ) from None
    return made


def search_note(trials: Sequence[SearchedTrial]) -> str:
    """What must be said below the tables of a comparison with a search; empty without."""
    if not trials:
        return ""
    rows = ", ".join(dict.fromkeys(trial.row for trial in trials))
    options = ", ".join(dict.fromkeys(name for trial in trials for name in trial.options))
    return (
        f"{options} of {rows} {'was' if options.count(',') == 0 else 'were'} searched for each run by trials of its own, "
        f"judged by '{trials[0].objective}' and never by target labels: {SEARCH_CSV}."
    )


def search_section(trials: Sequence[SearchedTrial], titles: Mapping[str, str], path: Path) -> Section | None:
    """What was chosen for each run, and every trial; None without a search."""
    if not trials:
        return None
    blocks: list = [Text([search_note(trials)])]
    for direction, domains in titles.items():
        own = [trial for trial in trials if trial.direction == direction]
        blocks += [Heading(domains)] if own else []
        for row in dict.fromkeys(trial.row for trial in own):
            of_row = [trial for trial in own if trial.row == row]
            names = list(dict.fromkeys(name for trial in of_row for name in trial.options))
            cells = list(dict.fromkeys((trial.seed, trial.fold) for trial in of_row))
            lines = [_line([t for t in of_row if (t.seed, t.fold) == cell], names) for cell in cells]
            caption = f"{row}, {domains}: options chosen by {of_row[0].objective}"
            blocks.append(PageTable(caption, ["run", *names, of_row[0].objective, "trials"], lines))
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    blocks.append(Listing(f"All trials: {SEARCH_CSV}", text[:LONGEST_LISTING]))
    return Section("search", "Search of options", blocks)


def _line(trials: Sequence[SearchedTrial], names: Sequence[str]) -> PageRow:
    """The chosen trial of one cell, or dashes where its search is not over."""
    best = next((trial for trial in trials if trial.chosen), None)
    first = trials[0]
    label = f"seed {first.seed}" + (f", fold {first.fold}" if first.fold else "")
    shown = [str(best.options.get(name, "-")) if best else "-" for name in names]
    value = "-" if best is None or best.value is None else f"{best.value:.4f}"
    return PageRow(label, [PageCell(text) for text in (*shown, value, str(len(trials)))])


def _written(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) else value
