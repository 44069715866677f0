"""The option `--plugin FILE.py`, of the whole command line and of the commands that people try a file with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def plugin_option(command: F) -> F:
    """Add `--plugin FILE.py`, repeatable."""
    option = click.option(
        "--plugin",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE.py",
        expose_value=False,
        is_eager=True,
        callback=_take_up,
        help="Load a single file as a plugin, for a quick try.",
    )
    return option(command)


def _take_up(context: click.Context, parameter: click.Parameter, files: tuple[Path, ...]) -> None:
    add_files(context, *files)


def add_files(context: click.Context, *files: Path) -> None:
    """Load these files beside the installed plugins as long as the command runs, also in processes that it starts."""
    if not files:
        return
    from attent_kit.plugins import FILES, load

    before = os.environ.get(FILES)
    known = [file for file in (before or "").split(os.pathsep) if file]
    more = [str(file.expanduser().resolve()) for file in files]
    os.environ[FILES] = os.pathsep.join(dict.fromkeys([*known, *more]))
    load.cache_clear()

    def restore() -> None:
        if before is None:
            os.environ.pop(FILES, None)
        else:
            os.environ[FILES] = before
        load.cache_clear()

    context.call_on_close(restore)
