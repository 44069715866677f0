"""Files that are either whole or not there."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attent_kit.errors import RunError


def write_whole(path: Path, write: Callable[[Path], None], temporary: Path | None = None) -> None:
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
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its zip writer.
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def not_written(path: Path, error: BaseException) -> RunError:
    """The sentence for a disk that refused."""
    return RunError(
        f"{path} could not be written ({_reason(error)}). What was there before is unchanged: make room or choose "
        f"another --out, and start the same command again."
    )


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))  # type: ignore[arg-type, return-value]


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]
