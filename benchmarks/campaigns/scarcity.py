"""A disk that is full, files that may not grow, folders that may not be written, no file handles, no home, no shared memory: at
some write of prepare, train, compare, predict or report. What was there stays whole, and the same command ends well once there
is room.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from attent_kit.data.prepared.file import Prepared
from campaigns.small import Small, same, without_figures
from campaigns.trying import Ended, Lost, accepted, command
from support.cases import contents

COMMANDS = ("prepare", "prepare again", "train", "compare", "predict", "report")
SCARCE = ("file size", "tmpfs", "read-only", "handles", "no home", "no shm")
RUN = Path("mr2ct/attent/seed0")
SECONDS = 300.0


def scarcity(small: Small) -> Callable[[random.Random, int], str]:
    """A try of this campaign."""
    small.finished()
    possible = [
        what for what in SCARCE if what not in ("tmpfs", "read-only", "no shm") or _may_mount(small.fresh("mounted"))
    ]
    known = _known(small)

    def one(chance: random.Random, number: int) -> str:
        what = possible[number % len(possible)]
        name = COMMANDS[number // len(possible) % len(COMMANDS)]
        _unmount(small.work / "tries" / "scarcity")  # left by a try that was killed
        place, kind = small.fresh("scarcity"), f"{what}: {name}"
        place.mkdir(parents=True)
        size = chance.randint(4, 700) * 2**10
        mounted = what in ("tmpfs", "read-only")
        if mounted:
            # Room for what is there already, and a little more.
            there = 0 if name in ("prepare", "train", "compare") else 2**20 + _size(small.pristine)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={there + size}", "none", place], check=True)
        try:
            words, here = _asked(small, name, place)
            before = contents(place)
            if what == "read-only":
                subprocess.run(["mount", "-o", "remount,ro", place], check=True)
            first = accepted(command(*words, before=_lacks(what, chance, size)).wait(SECONDS), "the command", kind)
            if mounted:
                subprocess.run(["mount", "-o", "remount,rw,size=1g", place], check=True)
            if first.code:
                _whole(before, contents(place), name, kind)
            if name != "predict" or first.code:  # which does not overwrite what it has made
                _with_room(words, name, first, kind)
            _answers(small, name, here, known, kind)
        finally:
            _unmount(place)
        return kind

    return one


def _with_room(words: list[object], name: str, first: Ended, kind: str) -> None:
    """The same command where nothing is scarce any more; Lost unless it ends well."""
    before = None if name == "report" else without_figures
    again = accepted(command(*words, before=before).wait(SECONDS), "the same command with room", kind)
    if again.code:
        raise Lost(f"with room it ended with {again.code}: {again.err[-500:]} (first: {first.err[-300:]})", kind)


def _asked(small: Small, name: str, place: Path) -> tuple[list[object], Path]:
    """The words of a command, and what it makes; what has to be there before is put there."""
    image = small.volumes / "ct" / "images" / "ct_3.nii.gz"
    if name in ("prepare", "prepare again"):
        if name == "prepare again":
            shutil.copy(small.data / "mr.h5", place / "ct.h5")
            shutil.copy(small.data / "mr.toml", place / "ct.toml")
        return [*small.prepare_words("ct", place / "ct.h5")], place / "ct.h5"
    if name == "train":
        config = small.pristine / RUN / "config.toml"
        return ["train", "--config", config, "-o", place / "run", "-d", "cpu"], place / "run"
    if name == "compare":
        return [*small.words(place / "out", "-d", "cpu", "--no-report")], place / "out"
    shutil.copytree(small.pristine, place / "out")
    if name == "predict":
        return ["predict", place / "out" / RUN, image, place / "labels.nii.gz", "-d", "cpu"], place / "labels.nii.gz"
    return ["report", place / "out"], place / "out" / "report.html"


def _lacks(what: str, chance: random.Random, size: int) -> Callable[[], None]:
    """What is taken from a process before it begins."""
    handles = chance.randint(8, 60)

    def take() -> None:
        # Bytecode that is cut off, too, would be there for all later ones.
        import sys

        sys.dont_write_bytecode = True
        if what == "file size":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        elif what == "handles":
            resource.setrlimit(resource.RLIMIT_NOFILE, (handles, handles))
        elif what == "no home":
            for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
                os.environ.pop(name, None)
            os.environ["HOME"] = "/nonexistent"
        elif what == "no shm":
            os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else _unshare()
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=4k", "none", "/dev/shm"], check=True)

    return take


def _unshare() -> None:
    """A mount namespace of its own, on a Python without os.unshare."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000):
        raise OSError(ctypes.get_errno(), "unshare")


def _whole(before: dict[str, bytes], after: dict[str, bytes], name: str, kind: str) -> None:
    """Results that were there are there still, byte by byte; a comparison's own bookkeeping may be newer."""
    for path, content in before.items():
        if after.get(path) != content and (
            name != "report" or path.endswith((".h5", ".ckpt", "scores.csv", ".nii.gz"))
        ):
            raise Lost(f"{path} is no longer what it was", kind)
    left = [path for path in after if path not in before and path.endswith(".part")]
    if left:
        raise Lost(f"{left[0]} was left behind", kind)


def _answers(small: Small, name: str, here: Path, known: dict[str, object], kind: str) -> None:
    if name.startswith("prepare"):
        found: object = Prepared.open(here).content_hash()
    elif name == "train":
        found = (here / "scores.csv").read_text().replace("attent,", "AttENT,")
    elif name == "compare":
        # Where the first row failed for want of something, the second has trained their shared stage, and its log says so.
        same(here, small.pristine, kind, ("log.jsonl",))
        return
    else:
        found = here.read_bytes() if name == "predict" else here.exists()
    if found != known[name]:
        raise Lost("another result than where nothing was scarce", kind)


def _known(small: Small) -> dict[str, object]:
    place = small.fresh("known")
    place.mkdir(parents=True)
    words, labels = _asked(small, "predict", place)
    if command(*words).wait(SECONDS).code:
        raise Lost("predict does not work where nothing is scarce", "known")
    hashes = Prepared.open(small.data / "ct.h5").content_hash()
    scores = (small.pristine / RUN / "scores.csv").read_text()
    return {"prepare": hashes, "prepare again": hashes, "train": scores, "predict": labels.read_bytes(), "report": True}


def _may_mount(place: Path) -> bool:
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True).returncode:
        return False
    return subprocess.run(["umount", "-l", place]).returncode == 0


def _unmount(place: Path) -> None:
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", place], check=True)


def _size(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
