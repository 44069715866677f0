"""A campaign: its tries, what became of each, and a process of its own for whatever may die."""

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CODES = {0, 1, 2, 3, 130}
"""What a command may end with."""
CRASHED = 70
"""What a process of ours ends with after a traceback."""


class Lost(Exception):
    """Something went wrong that must not."""


class Try(NamedTuple):
    """What was done."""

    number: int
    kind: str
    lost: str = ""
    """Why it did not survive; empty if it did."""


class Ended(NamedTuple):
    """A process that is over."""

    code: int
    """Negative: the signal that ended it."""
    out: str
    err: str
    left: list[int]
    """Processes of its session that it left behind."""


def campaign(
    name: str, tries: int, seed: int, work: Path, one: Callable[[random.Random, int], str], say: Callable[[str], None]
) -> list[Try]:
    """Try so often, less what an earlier call has tried; `one` does a try, says its kind, and raises Lost.

    A Lost may carry the kind as its second argument.
    """
    journal = work / f"{name}-{seed}.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    done = read_journal(journal)
    for number in sorted({*range(tries)} - {each.number for each in done}):
        try:
            made = Try(number, one(random.Random(f"{name}-{seed}-{number}"), number))
        except Lost as lost:
            made = Try(number, str(lost.args[1]) if len(lost.args) > 1 else "?", str(lost.args[0])[:2000])
            say(f"{name} {number}, {made.kind}: LOST: {made.lost}")
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(made._asdict()) + "\n")
        done.append(made)
    return done


def read_journal(journal: Path) -> list[Try]:
    """What was tried; a line that was cut off is tried again."""
    found = []
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        try:
            found.append(Try(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return list({each.number: each for each in found}.values())


def summed(tries: list[Try]) -> str:
    """tried / survived / lost."""
    lost = sum(bool(each.lost) for each in tries)
    return f"{len(tries)} tried, {len(tries) - lost} survived, {lost} lost"


def by_kind(tries: list[Try]) -> dict[str, tuple[int, int]]:
    """Tried and lost of each kind."""
    tried, lost = Counter(t.kind for t in tries), Counter(t.kind for t in tries if t.lost)
    return {kind: (number, lost[kind]) for kind, number in sorted(tried.items())}


class Forked:
    """A function in a process and a session of its own; the memory of this one is there already, so it starts at once."""

    patience = 30.0
    """Seconds that its children have to end after it."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115, read when it is over
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = CRASHED
            try:
                os.setsid()
                for number, file in enumerate(self._files, start=1):
                    os.dup2(file.fileno(), number)
                sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", encoding="utf-8") for n in (1, 2))
                code = work()
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    with suppress(OSError, ValueError):
                        stream.flush()
                os._exit(code)

    def wait(self, seconds: float = 600.0) -> Ended:
        """Until it is over; after so long it is killed, which is not an end that anybody wants."""
        deadline = time.monotonic() + seconds
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
                break
            time.sleep(0.005)
        left = self._left()
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return Ended(os.waitstatus_to_exitcode(status), *texts, left)

    def _left(self) -> list[int]:
        """Processes of its session that are still there when patience ends; they are ended then."""
        deadline = time.monotonic() + self.patience
        while (left := in_session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left


def in_session(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == session and words[0] not in "ZX":
            found.append(int(place.name))
    return found


def command(*words: object, before: Callable[[], None] | None = None) -> Forked:
    """`attentkit` in a process of its own; `before` changes something in it first."""

    def work() -> int:
        from attent_kit.cli import run

        if before is not None:
            before()
        return run([str(word) for word in words])

    return Forked(work)


def accepted(ended: Ended, what: str, kind: str) -> Ended:
    """The same; Lost for a traceback, another exit code, or a process that was left behind."""
    if "Traceback" in ended.err or ended.code not in CODES:
        raise Lost(f"{what} ended with {ended.code}: {ended.err[-800:]}", kind)
    if ended.left:
        raise Lost(f"{what} left {len(ended.left)} processes behind", kind)
    return ended
