"""Standard output and error that let no control character of anybody's names through to a terminal, and outlive their reader."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from attent_kit.errors import printable


class Lasting:
    """A text stream that goes on where nobody reads it any more: what cannot be written is dropped, and said at the end.

    A reader that went away, a full disk and a terminal that was closed end no training.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        """None: it was closed before this process began."""
        self.error: OSError | None = None
        """The first reason for which something was dropped."""

    @property
    def lost(self) -> bool:
        """Whether nobody reads it any more."""
        return self.error is not None

    @property
    def open(self) -> bool:
        return self._stream is not None and self.error is None

    def write(self, text: str) -> int:
        if self._stream is not None and self.error is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except OSError as error:
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None and self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        self.error = error
        with suppress(OSError, ValueError):
            # What Python itself has not written yet would fail again at the very end, with words of its own.
            assert self._stream is not None
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Plain:
    """A text stream that shows control characters as escapes; everything else is the stream's own."""

    def __init__(self, stream: Lasting) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        return self.raw.write(text if text.isascii() and text.isprintable() else printable(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw._stream or ())


class Streams:
    """Standard output and error while a command runs."""

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        self._err = Lasting(err)
        self._out = Lasting(out) if out is not None else self._err
        """What is meant for an output that was closed before we began goes to the errors, if anywhere."""
        self.out, self.err = Plain(self._out), Plain(self._err)

    def tell(self, sentence: str) -> None:
        """What a command ends with: on stderr, or where that cannot be written, on stdout."""
        for stream in (self._err, self._out):
            if stream.open:
                stream.write(printable(sentence) + "\n")
                stream.flush()
            if stream.open:
                return

    def end(self, code: int) -> int:
        """Write what is left. The exit code: 1 instead of 0 where not all of the output was written, which is told."""
        for stream in (self._out, self._err):
            stream.flush()
        if self._out is self._err or self._out.error is None:
            return code
        self.tell(
            f"RunError: standard output could not be written to its end ({self._out.error.strerror}). What was computed is "
            "saved all the same."
        )
        return code or 1


@contextmanager
def plain_streams() -> Iterator[Streams]:
    """`sys.stdout` and `sys.stderr` are such streams within."""
    before = sys.stdout, sys.stderr
    streams = Streams(*before)
    sys.stdout, sys.stderr = streams.out, streams.err
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before


def occupy_closed() -> None:
    """Standard streams that are closed lead nowhere instead, for this process and those that it starts.

    Otherwise the next file that is opened takes the number of such a stream, and what a library prints ends up in the file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
