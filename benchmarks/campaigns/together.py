"""Two processes and several suites on one folder, people who look on, and two `prepare` to one file."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from attent_kit.data.prepared.file import Prepared
from campaigns.small import Small, same, without_figures
from campaigns.trying import Ended, Forked, Lost, accepted, command

KINDS = ("two processes", "two suites", "onlookers", "two prepares", "doctor")
SECONDS = 300.0
LOOKS = (("status",), ("status", "--json"), ("report",), ("select",), ("doctor",))


def together(small: Small) -> Callable[[random.Random, int], str]:
    """A try of this campaign."""
    small.finished()
    halves = [small.work / f"{name}.toml" for name in ("first", "second")]
    halves[0].write_text(small.suite_of(["AttENT"]))
    halves[1].write_text(small.suite_of(["Pixel", "AttENT"]))

    def one(chance: random.Random, number: int) -> str:
        kind = KINDS[number % len(KINDS)]
        out = small.fresh("together")
        if kind == "two prepares":
            return _prepares(small, out, chance, kind)
        words = small.words(out, "-d", "cpu", "--no-report")
        if kind == "two processes":
            commands = [words, words]
        elif kind == "two suites":
            commands = [[word.replace(str(small.suite), str(half)) for word in words] for half in halves]
        else:
            commands = [words]
        started = []
        for each in commands:
            started.append(command(*each, before=without_figures))
            time.sleep(chance.uniform(0, 1))
        if kind in ("onlookers", "doctor"):
            _look_on(out, started[0], chance, kind)
        _fine([process.wait(SECONDS) for process in started], kind)
        _fine([command(*words, before=without_figures).wait(SECONDS)], kind)
        # Whichever run comes first trains the stage that both share, and has its losses.
        same(out, small.pristine, kind, leaving_out=("log.jsonl",))
        if _losses(out) != _losses(small.pristine):
            raise Lost("other losses after all", kind)
        return kind

    return one


def _losses(out: Path) -> list[str]:
    """The lines of all logs."""
    return sorted(line for log in out.glob("*/*/seed*/log.jsonl") for line in log.read_text().splitlines())


def _fine(ended: list[Ended], kind: str) -> None:
    for each in ended:
        accepted(each, "compare", kind)
        if each.code:
            raise Lost(f"compare ended with {each.code}: {each.err[-800:]}", kind)


def _look_on(out: Path, process: Forked, chance: random.Random, kind: str) -> None:
    """Commands that read, one after another, for as long as the other works."""
    while not _is_over(process.pid):
        name, *more = chance.choice(LOOKS) if kind == "onlookers" else ("doctor", "--clean", "--yes")
        accepted(command(name, out, *more, *(["-d", "cpu"] if name == "select" else [])).wait(SECONDS), name, kind)
        time.sleep(chance.uniform(0, 0.3))


def _is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _prepares(small: Small, out: Path, chance: random.Random, kind: str) -> str:
    """One makes the file; the other waits for nobody, and says that it is being made, or makes it again."""
    out.mkdir(parents=True)
    processes = []
    for _ in range(2):
        processes.append(command(*small.prepare_words("ct", out / "ct.h5")))
        time.sleep(chance.uniform(0, 0.3))
    ended = [accepted(process.wait(SECONDS), "prepare", kind) for process in processes]
    if {each.code for each in ended} - {0, 1} or all(each.code for each in ended):
        raise Lost(f"exit codes {[each.code for each in ended]}: {ended[0].err[-300:]} {ended[1].err[-300:]}", kind)
    if Prepared.open(out / "ct.h5").content_hash() != Prepared.open(small.data / "ct.h5").content_hash():
        raise Lost("the file holds something else", kind)
    if left := [path.name for path in out.iterdir() if path.name not in ("ct.h5", "ct.toml")]:
        raise Lost(f"left behind: {left}", kind)
    return kind
