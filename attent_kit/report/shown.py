"""Tables as a notebook and a terminal show them. rich is imported when a terminal asks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Group

T = TypeVar("T")

MOST_COLUMNS = 10
"""Of a table that is read at a glance: a method, eight organs or seven and their average, and a stamp."""


def columns_in_parts(columns: Sequence[T]) -> list[list[T]]:
    """The columns of a table, or those of several tables, about equally many in each, that begin with the same first column."""
    first, *others = columns
    count = max(1, -(-(len(others)) // (MOST_COLUMNS - 1)))
    ends = [round(n * len(others) / count) for n in range(count + 1)]
    return [[first, *others[start:end]] for start, end in zip(ends, ends[1:], strict=False)]


@dataclass(frozen=True)
class Shown:
    """Words in rows and columns, the first column on the left and numbers on the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: Sequence[Sequence[bool]] = ()
    """Which words of each row stand out."""
    words: Sequence[int] = (0,)
    """Columns that hold words; all others hold numbers."""
    footnotes: Sequence[str] = ()

    def rich(self) -> "Group":
        """For rich, in several parts where there are many columns; other people's words are never taken for markup."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        parts, drawn = columns_in_parts(range(len(self.columns))), []
        for number, chosen in enumerate(parts, start=1):
            title = self.title + (f" ({number} of {len(parts)})" if len(parts) > 1 else "")
            table = RichTable(title=Text(title), title_justify="left", title_style="bold", header_style="bold")
            for n in chosen:
                table.add_column(Text(self.columns[n]), justify="left" if n in self.words else "right")
            for row in self._marked():
                table.add_row(*(Text(row[n][0], style="bold green" if row[n][1] else "") for n in chosen))
            drawn.append(table)
        if self.footnotes:
            drawn[-1].caption, drawn[-1].caption_justify = Text("\n".join(self.footnotes)), "left"
        return Group(*drawn)

    def html(self) -> str:
        """For a notebook."""
        head = "".join(f"<th style='text-align:{self._side(n)}'>{escape(c)}</th>" for n, c in enumerate(self.columns))
        body = ""
        for row in self._marked():
            cells = (f"<b>{escape(word)}</b>" if stands_out else escape(word) for word, stands_out in row)
            body += "<tr>" + "".join(f"<td style='text-align:{self._side(n)}'>{c}</td>" for n, c in enumerate(cells))
            body += "</tr>"
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.footnotes)
        caption = f"<caption style='text-align:left'><b>{escape(self.title)}</b></caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _side(self, column: int) -> str:
        return "left" if column in self.words else "right"

    def _marked(self) -> Iterator[list[tuple[str, bool]]]:
        for n, row in enumerate(self.rows):
            marks = self.bold[n] if self.bold else [False] * len(row)
            yield list(zip(row, marks, strict=True))
