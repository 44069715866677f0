"""What a `prepare` has finished when it is killed: one file per case in a hidden folder beside its output.

The name of a file is the hash of everything that shapes what is in it, so that a case whose images, labels or options
have changed since is made anew, and nothing has to be compared.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from attent_kit.errors import RunError
from attent_kit.reading import json_in

_RECORD = "record"


class Finished(NamedTuple):
    """One case: what the manifest says about it, and its arrays by name."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Unfinished:
    """The finished cases of an output that is not there yet."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f".{out.name}.unfinished")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """One process at a time. RunError where another one is at it."""
        if self.folder.is_symlink():
            self.folder.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=0):
                yield
        except Timeout:
            raise RunError(
                f"{self.out} is being prepared by another process: wait for it, or name another --out."
            ) from None

    def load(self, key: str) -> Finished | None:
        """The case of that key, or None if it is not finished or its file is damaged."""
        try:
            # Opened here: np.load leaves a file open that is not an archive.
            with open(self.path(key), "rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return Finished(json_in(arrays.pop(_RECORD).tobytes()), arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, key: str, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a case, whole or not at all. OSError on a full disk."""
        path = self.path(key)
        temporary = path.with_suffix(".part")
        text = np.frombuffer(json.dumps(record).encode(), np.uint8)
        with open(temporary, "wb") as file:
            np.savez(file, **{_RECORD: text}, **arrays)  # type: ignore[arg-type]  # one keyword, allow_pickle, is not an array
        temporary.replace(path)

    def path(self, key: str) -> Path:
        """Where the case of that key lies."""
        return self.folder / f"{key}.npz"

    def remove(self) -> None:
        """Everything that is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)


def key_of(*shaping: Any) -> str:
    """Hash of plain values."""
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
