"""Files that are either whole or not there, and JSON files of ours that may be neither."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from attent_kit.errors import RunError
from attent_kit.reading import Unreadable, json_in, text_of

T = TypeVar("T")
DIGEST = "digest"
"""Key of the SHA-256 of all else in a JSON file that carries one."""


def write_whole(path: Path, write: Callable[[Path], object], temporary: Path | None = None) -> None:
    """Call `write` with a temporary name beside `path`, then rename. What was at `path` stays until the very end.

    `temporary` is that name where it should not be made up here; it is on the same disk.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _keep_the_name(path.parent)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its zip writer.
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _keep_the_name(folder: Path) -> None:
    """The new name, too, survives a power cut; on systems that open no folder (Windows) it needs nothing of the kind."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        # Some network disks sync no folders; the file itself is safe by now.
        with suppress(OSError):
            os.fsync(number)
    finally:
        os.close(number)


def not_written(path: Path, error: BaseException) -> RunError:
    """The sentence for a disk that refused."""
    return RunError(
        f"{path} could not be written ({_reason(error)}). What was there before is unchanged: make room or choose "
        f"another --out, and start the same command again."
    )


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def parse_object(text: str | bytes, strict: bool = False) -> dict[str, Any] | None:
    """A JSON object; None for anything else: text that was cut off, or is nested too deeply to be ours.

    `strict`: NaN and Infinity, which JSON does not have, are anything else, too.
    """
    try:
        found = json_in(text, strict)
    except Unreadable:
        return None
    return found if isinstance(found, dict) else None


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of ours; None if it is missing or damaged."""
    try:
        return parse_object(text_of(path))
    except (OSError, Unreadable):
        return None


def write_signed(path: Path, facts: Mapping[str, Any]) -> None:
    """A JSON file that carries a digest of what it says: for facts of which a flipped bit would change labels unnoticed."""
    write_text(path, json.dumps({**facts, DIGEST: _digest(facts)}, indent=2) + "\n")


def parse_signed(text: str | bytes) -> dict[str, Any] | None:
    """What `write_signed` has written, without the digest; None if a bit of it is another."""
    found = parse_object(text, strict=True)
    if found is None or found.pop(DIGEST, None) != _digest(found):
        return None
    return found


def read_signed(path: Path) -> dict[str, Any] | None:
    """The same of a file; None if it is missing, too."""
    try:
        return parse_signed(text_of(path))
    except (OSError, Unreadable):
        return None


def write_vouched(path: Path, text: str) -> None:
    """A text file that other programs read, too, so that its SHA-256 stands in a hidden file beside it.

    That is written first, with the digest of what is still there: a kill at any moment leaves a file that one of both fits, or
    one that nothing vouches for.
    """
    beside, digest = _beside(path), hashlib.sha256(text.encode()).hexdigest()
    before = _of_file(path)
    if before is None or has_changed(path):
        beside.unlink(missing_ok=True)
    elif beside.exists():
        write_text(beside, f"{digest}\n{before}\n")
    write_text(path, text)
    write_text(beside, f"{digest}\n")


def write_unvouched(path: Path, text: str) -> None:
    """A text file that nothing vouches for any more."""
    write_text(path, text)
    _beside(path).unlink(missing_ok=True)


def has_changed(path: Path) -> bool:
    """Whether a file is another one than `write_vouched` has written; of a file that nobody vouches for, nothing is known."""
    try:
        known = _beside(path).read_bytes().split()
    except OSError:
        return False
    return str(_of_file(path)).encode() not in known


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _of_file(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def while_unchanged(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """`read`, which is called again for a file only once that was replaced, edited or removed. Its answers are shared."""
    known: dict[Path, tuple[tuple[int, ...] | None, T]] = {}

    def answer(path: Path) -> T:
        stamp = _stamp(path)
        if path not in known or known[path][0] != stamp:
            known[path] = stamp, read(path)
        return known[path][1]

    return answer


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file, None if there is none. A file that is written whole has another inode each time."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]
