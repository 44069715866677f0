"""Writing HDF5 on a disk that may fill up, and reading what a stranger or a dying disk has left of it."""

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from attent_kit.data.scans.limits import MOST_VOXELS
from attent_kit.reading import MOST_BYTES

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
"""Filters of HDF5 that a prepared file may use, each once: two in a row could unpack a million times what is stored."""


class Spoilt(ValueError):
    """A text has changed since it was written."""


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


def plain(file: h5py.File, name: str) -> h5py.Dataset:
    """A data set as `prepare` writes it. ValueError for one that leads out of the file, or that unpacks to more than it says.

    What a stranger's file holds is looked at before a value is read: links, external storage, filters that unpack without end.
    """
    group = file
    *folders, last = name.split("/")
    for part in (*folders, last):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"'{name}' is a link")
        group = group[part]
    data = group
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise ValueError(f"'{name}' does not lie in the file")
    if math.prod(data.shape) > MOST_VOXELS:
        raise ValueError(f"'{name}' has {data.shape} values")
    filters = data.id.get_create_plist()
    codes = [filters.get_filter(n)[0] for n in range(filters.get_nfilters())]
    if len(set(codes)) < len(codes) or not {*codes} <= FILTERS:
        raise ValueError(f"'{name}' is compressed in a way that is not read here")
    if data.chunks is not None:
        whole = math.prod(data.chunks) * data.dtype.itemsize
        stored = (data.id.get_chunk_info(n).size for n in range(data.id.get_num_chunks()))
        if math.prod(data.chunks) > MOST_VOXELS or max(stored, default=0) > whole + whole // 50 + 1024:
            raise ValueError(f"'{name}' has chunks that are larger than what they hold")
    return data


def put_text(file: h5py.File, name: str, text: str) -> None:
    """Store a text as bytes of a fixed number, and their SHA-256 beside them, in place of what is there.

    A string of HDF5's own lies in a heap, and the library looks for it for ever where a few bytes of that heap are zero.
    """
    for place, content in (
        (name, text.encode()),
        (f"{name}_sha256", hashlib.sha256(text.encode()).hexdigest().encode()),
    ):
        if place in file:
            del file[place]
        file[place] = np.bytes_(content)


def text_in(file: h5py.File, name: str) -> bytes:
    """What `put_text` has stored. ValueError for anything else, Spoilt for a text that has changed since."""
    found = []
    for place in (name, f"{name}_sha256"):
        data = plain(file, place)
        if data.shape or data.dtype.kind != "S" or data.dtype.itemsize > MOST_BYTES:
            raise ValueError(f"'{place}' is no text of a fixed length")
        found.append(bytes(data[()]))
    if hashlib.sha256(found[0]).hexdigest().encode() != found[1]:
        raise Spoilt(f"'{name}' does not match its digest")
    return found[0]


@contextmanager
def writing(path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """A new HDF5 file at `path` and its sink. OSError after the block if a write failed that nobody checked."""
    with open(path, "w+b", buffering=0) as raw:
        sink = Sink(raw)
        with h5py.File(sink, "w") as file:
            yield file, sink
        sink.check()
