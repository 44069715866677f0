"""SIGKILL at every step and in every write of a comparison, of one process or of several; then the same command again.

Where a process can die is recorded once from an undisturbed comparison: each step that progress.json names, and each file that is
written, before it is whole, before it has its name, and after. A try takes one of these places.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from campaigns.small import Small, same, without_figures
from campaigns.trying import Ended, Forked, Lost, accepted, command

KINDS = {
    "step of translate": r"step \S+ translate ",
    "step of segment": r"step \S+ segment ",
    "step of predict": r"step \S+ predict ",
    "checkpoint": r"write .*/checkpoint\.ckpt ",
    "shared stage": r"write shared/",
    "snapshot": r"write .*/snapshots/",
    "selection.csv": r"write .*/selection\.csv ",
    "monitor.json": r"write .*/monitor\.json ",
    "settings": r"write .*/(config\.toml|domain\.json|env\.json|speed\.json) ",
    "log": r"write .*/log\.jsonl ",
    "exported weights": r"write .*/segmentor\.safetensors ",
    "prediction": r"write .*/predictions/",
    "scores of a run": r"write .*/seed0/scores\.csv ",
    "slices": r"write .*/slices\.npz ",
    "grid and comparison": r"write (grid\.json|comparison\.toml) ",
    "tables": r"write (scores|table|comparisons|ranks)[^/]*\.(csv|md) ",
    "report": r"write (report|pairs|figures|table\.tex|figure)",
}
PHASES = ("half written", "without its name", "just renamed")
SECONDS = 300.0


def kills(small: Small) -> Callable[[random.Random, int], str]:
    """A try of this campaign."""
    places = _places(small)
    kinds = [kind for kind in KINDS if places.get(kind)]
    small.finished()

    def one(chance: random.Random, number: int) -> str:
        out = small.fresh("kills")
        if number % 10 == 9:
            return _several(small, out, chance)
        kind = kinds[number % len(kinds)]
        place, phase = chance.choice(places[kind]), chance.choice(PHASES)
        report = [] if kind == "report" else ["--no-report"]
        words = small.words(out, "-d", "cpu", *report)
        processes = 2 if number % 6 == 5 else 1
        said = f"{kind}{', two processes' if processes == 2 else ''}"
        drawn = kind == "report"

        def before() -> None:
            if not drawn:
                without_figures()
            dies_at(place, phase, out)

        started = [command(*words, before=before) for _ in range(processes)]
        ended = [process.wait(SECONDS) for process in started]
        if not any(each.code == -signal.SIGKILL for each in ended):
            raise Lost(f"nothing died at {place}: {[each.code for each in ended]} {ended[0].err[-300:]}", said)
        _goes_on(small, out, words, ended, said, drawn)
        return said

    return one


def _goes_on(small: Small, out: Path, words: list[str], ended: list[Ended], kind: str, drawn: bool = False) -> None:
    for each in ended:
        if each.left or "Traceback" in each.err:
            raise Lost(f"{len(each.left)} processes left behind; {each.err[-500:]}", kind)
    again = accepted(
        command(*words, before=None if drawn else without_figures).wait(SECONDS), "the same command again", kind
    )
    if again.code:
        raise Lost(f"the same command again ended with {again.code}: {again.err[-500:]}", kind)
    same(out, small.pristine, kind)


def _several(small: Small, out: Path, chance: random.Random) -> str:
    """`--devices cpu,cpu`: the parent or a worker is killed after some step of some run."""
    words = small.words(out, "--devices", "cpu,cpu", "--no-report")
    whom = chance.choice(("parent", "worker"))
    kind = f"--devices, {whom}"
    process = command(*words)
    victim = _at_a_step(out, chance.randint(1, 5), process)
    if victim is not None:
        os.kill(process.pid if whom == "parent" else victim, signal.SIGKILL)
    ended = process.wait(SECONDS)
    if whom == "worker" and ended.code not in (0, 1):
        raise Lost(f"after the death of a worker the parent ended with {ended.code}: {ended.err[-500:]}", kind)
    _goes_on(small, out, words, [ended], kind)
    return kind


def _at_a_step(out: Path, step: int, process: Forked) -> int | None:
    """The process that has done so many steps of a run; None if all is over before anybody says so."""
    while os.path.exists(f"/proc/{process.pid}") and not _is_over(process.pid):
        for path in out.glob("*/*/seed*/progress.json"):
            try:
                said = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
            if said["step"] >= step:
                return int(said["pid"])
        time.sleep(0.005)
    return None


def _is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def dies_at(place: str, phase: str, out: Path) -> None:
    """Let this process be killed at a place that `_places` has recorded."""

    def reached(name: str, die: Callable[[], None]) -> None:
        if name == place:
            die()

    watch(out, reached, phase)


def watch(out: Path, reached: Callable[[str, Callable[[], None]], None], phase: str) -> None:
    """Tell of every step and every file written below `out`, each with its number: "write table.md 1"."""
    from attent_kit.engine.run import heartbeat
    from attent_kit.engine.run.record import Run

    seen: dict[str, int] = {}
    beat, fsync, replace, flush = heartbeat.Heartbeat.__call__, os.fsync, os.replace, Run.flush
    heartbeat.SECONDS_BETWEEN_BEATS = 0.0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(name: str) -> str:
        seen[name] = seen.get(name, 0) + 1
        return f"{name} {seen[name]}"

    def below(path: str) -> str | None:
        """The file that a part will be; None for a heartbeat or what is elsewhere."""
        found = re.fullmatch(r"(.*/|)\.([^/]+)\.\d+\.part", os.path.abspath(path))
        final = Path(found[1], found[2]) if found else None
        inside = final is not None and final.is_relative_to(out.absolute()) and final.name != "progress.json"
        return final.relative_to(out.absolute()).as_posix() if final is not None and inside else None

    def beating(self, stage, step, steps, losses=None):  # type: ignore[no-untyped-def]
        beat(self, stage, step, steps, losses)
        reached(f"step {self._path.parent.relative_to(out).as_posix()} {stage} {step}", die)

    def syncing(number: int) -> None:
        name = below(os.readlink(f"/proc/self/fd/{number}"))
        if name is not None and phase != PHASES[2]:

            def cut() -> None:
                if phase == PHASES[0]:
                    os.truncate(f"/proc/self/fd/{number}", os.fstat(number).st_size // 2)
                die()

            reached(counted(f"write {name}"), cut)
        fsync(number)

    def replacing(source: str, destination: str) -> None:
        name = below(os.fspath(source))
        replace(source, destination)
        if name is not None and phase == PHASES[2]:
            reached(counted(f"write {name}"), die)

    def logging(self):  # type: ignore[no-untyped-def]
        means = flush(self)
        if means is not None:
            log = self.folder.log

            def cut() -> None:
                if phase == PHASES[0]:
                    os.truncate(log, log.stat().st_size - 9)
                die()

            reached(counted(f"write {log.relative_to(out).as_posix()}"), cut)
        return means

    heartbeat.Heartbeat.__call__ = beating  # type: ignore[method-assign]
    os.fsync, os.replace = syncing, replacing  # type: ignore[assignment]
    Run.flush = logging  # type: ignore[method-assign]


def _places(small: Small) -> dict[str, list[str]]:
    """Where a process may die, by kind; recorded once."""
    record = small.work / "places.json"
    if not record.exists():
        found = small.work / "places.txt"
        found.unlink(missing_ok=True)

        def note(name: str, die: Callable[[], None]) -> None:
            with found.open("a") as file:
                file.write(name + "\n")

        made = small.make("recorded", lambda out: watch(out, note, PHASES[2]))
        names = found.read_text().splitlines()
        by_kind = {kind: [n for n in names if re.match(pattern, n)] for kind, pattern in KINDS.items()}
        record.write_text(json.dumps(by_kind))
        if small.pristine.exists():
            shutil.rmtree(made)
        else:
            made.rename(small.pristine)
    return dict(json.loads(record.read_text()))
