"""Prepared files copied to the disk of a node, once for all jobs on it, and checked by their hash."""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.run.domains import Reader
from attent_kit.errors import DataError, RunError
from attent_kit.files import sha256, while_unchanged, write_whole

PLACES = ("SLURM_TMPDIR", "TMPDIR")
"""Environment variables that name a node's own disk; without them it is the system's folder for temporary files."""
CHUNK = 2**22


def hashes_of(cells: Sequence[Cell]) -> dict[str, str]:
    """SHA-256 of each prepared file that these cells read, by its path."""
    read = (file for cell in cells for file in (cell.settings.data.source, cell.settings.data.target))
    return {name: _hash(file) for name, file in {str(file): file for file in read if file is not None}.items()}


def node_folder() -> Path:
    """Where copies lie on this machine: of this person, and of nobody else."""
    place = next((os.environ[name] for name in PLACES if os.environ.get(name)), tempfile.gettempdir())
    folder = Path(place) / f"attentkit-{os.getuid() if hasattr(os, 'getuid') else 'data'}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def copied(file: Path, wanted: str, folder: Path) -> Path:
    """The copy of a file in a folder of this machine, made if it is missing or damaged. `wanted` is its SHA-256.

    DataError if the file itself is another by now. RunError if there is no room.
    """
    copy = folder / f"{wanted[:32]}.h5"
    with FileLock(f"{copy}.lock"):
        if not copy.exists() or _hash(copy) != wanted:
            found = hashlib.sha256()

            def write(temporary: Path) -> None:
                with file.open("rb") as source, temporary.open("wb") as target:
                    while chunk := source.read(CHUNK):
                        found.update(chunk)
                        target.write(chunk)
                if found.hexdigest() != wanted:
                    raise DataError(
                        f"{file} has changed since the jobs were submitted, or cannot be read whole on this machine: check it "
                        "with `attentkit check`, and start the same command again."
                    )

            write_whole(copy, write)
    return copy


def reader_of_copies(hashes: Mapping[str, str], folder: Path) -> Reader:
    """Opens prepared files as they lie in the node's folder; those without a known hash where they are."""

    def read(path: Path) -> Prepared:
        wanted = hashes.get(str(path))
        if wanted is None:
            return Prepared.open(path)
        try:
            return Prepared.open(copied(path, wanted, folder))
        except RunError as error:
            # No room on the node is no reason to lose the run.
            print(f"{path} is read where it lies: {error}", flush=True)
            return Prepared.open(path)

    return read


@while_unchanged
def _hash(file: Path) -> str:
    return sha256(file)
