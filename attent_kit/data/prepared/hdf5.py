"""Writing HDF5 on a disk that may fill up."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py


class Sink:
    """A file that takes every write of HDF5 and remembers the first that failed.

    HDF5 ends the process with a segmentation fault when it closes a file that it could not write. So it is told that
    all went well: what the disk refuses is kept in memory, until `check` raises the failure between two cases.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._end = 0
        self._refused: list[tuple[int, bytes]] = []
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raises what went wrong since the file was opened, an OSError as a rule."""
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: memoryview) -> int:
        size = len(data)
        try:
            self.check()
            self._file.seek(self._at)
            written = 0
            while written < size:
                written += self._file.write(data[written:])
        except BaseException as failure:
            self._failure = failure
            self._refused.append((self._at, bytes(data)))
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def readinto(self, buffer: memoryview) -> int:
        self._file.seek(self._at)
        content = bytearray(self._file.read(len(buffer)).ljust(len(buffer), b"\0"))
        for start, data in self._refused:
            low, high = max(start, self._at), min(start + len(data), self._at + len(buffer))
            if low < high:
                content[low - self._at : high - self._at] = data[low - start : high - start]
        buffer[:] = content
        self._at += len(buffer)
        return len(buffer)

    def truncate(self, size: int) -> int:
        try:
            self.check()
            self._file.truncate(size)
        except BaseException as failure:
            self._failure = failure
        self._end = size
        return size

    def flush(self) -> None:
        """Nothing waits to be written: the file is unbuffered."""


@contextmanager
def writing(path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """A new HDF5 file at `path` and its sink. OSError after the block if a write failed that nobody checked."""
    with open(path, "w+b", buffering=0) as raw:
        sink = Sink(raw)
        with h5py.File(sink, "w") as file:
            yield file, sink
        sink.check()
