"""What a worker is told, and what it says: two files that lie where both sides see them. No torch.

NAME.json       its errand: cells, device, trackers, and how the command that asks for them was called
NAME.events     a line of JSON for each thing that happens: what, the number of the cell, a sentence
NAME.log        whatever else it prints

A worker that is started again takes the same errand: what is trained is not trained again.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit import __version__
from attent_kit.files import write_text
from attent_kit.reading import Unreadable, json_in

WORKER = "attent_kit.cli.worker"
"""Module that such a process runs: it loads the plugins and calls `work`."""
EVENTS = ("began", "warned", "finished", "failed", "stopped", "busy", "staged", "refused")
"""began: the errand is read; stopped: it was told to end, and has saved; busy: another process works on the cell; staged: the
first stage, which is all that was asked for, is there for others; refused: nothing can be run on this machine, and why."""


class WorkerEvent(NamedTuple):
    """A thing that a worker said."""

    event: str
    number: int
    """Of the cell in its errand."""
    sentence: str


class Errand(NamedTuple):
    """The files of one worker."""

    file: Path

    @property
    def events(self) -> Path:
        """What it says."""
        return self.file.with_suffix(".events")

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.file.with_suffix(".log")

    @property
    def argv(self) -> tuple[str, ...]:
        """The command of such a worker."""
        return (sys.executable, "-m", WORKER, str(self.file.absolute()))

    def write(self, cells: Sequence[dict[str, Any]], **told: Any) -> None:
        """Say what is to be done: plain cells and whatever `work` takes beside them."""
        surroundings = {name: value for name, value in os.environ.items() if name.startswith("ATTENTKIT_")}
        whole = {
            "version": __version__,
            "folder": os.getcwd(),
            "command": sys.argv,
            "environment": surroundings,
            "cells": cells,
            **told,
        }
        write_text(self.file, json.dumps(whole) + "\n")

    def has_said(self, event: str) -> bool:
        """Whether its worker ever said so."""
        return any(heard.event == event for heard in Ear(self).hear())

    def last_words(self, lines: int = 12) -> str:
        """The end of its log, each line indented; empty if there is none."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2**16))
                words = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "".join(f"\n  {line}" for line in words[-lines:])


def refused_here(errand: Mapping[str, Any]) -> str | None:
    """Why an errand cannot be done on this machine, if so: another version of attent-kit, or another disk."""
    node = platform.node()
    if errand["version"] != __version__:
        return (
            f"attent-kit is {__version__} on {node} and {errand['version']} where `attentkit compare` was started: install the "
            "same version in both places."
        )
    if not Path(errand["folder"]).is_dir():
        return f"{node} does not see {errand['folder']}, where `attentkit compare` was started: start it on a disk that all see."
    return None


class Ear:
    """Hears what a worker says, each thing once."""

    def __init__(self, errand: Errand) -> None:
        self._file, self._read = errand.events, 0

    def hear(self) -> Iterator[WorkerEvent]:
        """What is new since the last time; a line that is not whole yet is left for later."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                event, number, sentence = json_in(line)
                yield WorkerEvent(str(event), int(number), str(sentence))
            except (TypeError, ValueError, Unreadable):
                # Cut off where two were written at once, as some network disks do.
                continue
