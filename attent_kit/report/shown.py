"""Tables as a notebook and a terminal show them. rich is imported when a terminal asks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable


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

    def rich(self) -> "RichTable":
        """For rich; other people's words in it are never taken for markup."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(self.title), title_justify="left", title_style="bold", header_style="bold")
        for n, column in enumerate(self.columns):
            table.add_column(Text(column), justify="left" if n in self.words else "right")
        for row in self._marked():
            table.add_row(*(Text(word, style="bold green" if stands_out else "") for word, stands_out in row))
        if self.footnotes:
            table.caption, table.caption_justify = Text("\n".join(self.footnotes)), "left"
        return table

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
