"""Standard output and error that let no control character of anybody's names through to a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from attent_kit.errors import printable


class Plain:
    """A text stream that shows control characters as escapes; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        return self.raw.write(text if text.isascii() and text.isprintable() else printable(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)


@contextmanager
def plain_streams() -> Iterator[None]:
    """`sys.stdout` and `sys.stderr` are such streams within; one that is closed stays so."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if stream is None or isinstance(stream, Plain) else Plain(stream) for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
