"""The report as one HTML file that needs nothing else: what it is made of, and how that becomes a file.

A page is sections, a section is blocks; the template knows how each kind of block looks. Nothing here knows what is shown.
"""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit import __version__
from attent_kit.files import write_text
from attent_kit.report.pictures import drawn
from attent_kit.report.summary import Stamp

LARGEST_SVG = 400_000
"""Bytes of an SVG above which its PNG is shown."""
WIDEST = 400
"""Points of a figure whose letters can be read on a phone."""


class Heading(NamedTuple):
    """What the blocks after it are about."""

    text: str
    kind: str = "heading"


class Text(NamedTuple):
    """Sentences, a paragraph each, or as a list."""

    sentences: Sequence[str]
    listed: bool = False
    kind: str = "text"


class PageCell(NamedTuple):
    """One cell of a table."""

    text: str
    mark: str = ""
    """best, better, worse or nothing."""


class PageRow(NamedTuple):
    """A line of a table."""

    label: str
    cells: Sequence[PageCell]
    stamps: Sequence[Stamp] = ()


class PageTable(NamedTuple):
    """A table whose first column and first line are headers."""

    caption: str
    head: Sequence[str]
    """Of the first column, then of each cell."""
    rows: Sequence[PageRow]
    notes: Sequence[str] = ()
    kind: str = "grid"


class Picture(NamedTuple):
    """An image in the page itself, with what it shows for those who do not see it."""

    src: str
    alt: str
    caption: str = ""
    wide: bool = False
    """Whether it would be illegible on a phone, where it is then scrolled in its own box."""


class Figures(NamedTuple):
    """Drawings beside each other."""

    pictures: Sequence[Picture]
    kind: str = "figures"


class Strip(NamedTuple):
    """Slices beside each other that belong to one row."""

    label: str
    pictures: Sequence[Picture]
    by_three: bool = False
    """Whether a line holds three pictures that belong together, or up to four."""


class Strips(NamedTuple):
    """Strips below each other."""

    strips: Sequence[Strip]
    legend: Sequence[tuple[str, str]] = ()
    """Colour and organ."""
    kind: str = "strips"


class Facts(NamedTuple):
    """Names with values."""

    rows: Sequence[tuple[str, str]]
    kind: str = "facts"


class Listing(NamedTuple):
    """A file as it is written, folded away where it is long."""

    title: str
    text: str
    folded: bool = True
    kind: str = "listing"


class Section(NamedTuple):
    """A part of the page with an entry in its contents."""

    id: str
    title: str
    blocks: Sequence[Heading | Text | PageTable | Figures | Strips | Facts | Listing]


class Page(NamedTuple):
    """The report."""

    title: str
    note: str
    summary: Sequence[str]
    doubts: Sequence[str]
    sections: Sequence[Section]


def drawing(files: Sequence[Path], alt: str, caption: str = "") -> Picture:
    """A figure of `figures.save`, as SVG unless that is large."""
    png, svg = files
    width = re.search(rb'<svg [^>]*?width="([\d.]+)pt"', svg.read_bytes()[:2000])
    wide = width is not None and float(width[1]) > WIDEST
    if svg.stat().st_size > LARGEST_SVG:
        return Picture(drawn(png), alt, caption, wide)
    source = base64.b64encode(svg.read_bytes()).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{source}", alt, caption, wide)


def write_page(page: Page, path: Path) -> None:
    """The file, whole or not at all; every text in it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("attent_kit.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    write_text(path, environment.get_template("page.html").render(page=page, version=__version__))
