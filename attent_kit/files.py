"""Files that are either whole or not there, and JSON files of ours that may be neither."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from attent_kit.errors import RunError
from attent_kit.reading import Unreadable, json_in, text_of

T = TypeVar("T")


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
