"""Torn, truncated, zeroed, bit-flipped and missing files of a finished comparison, and a command on what is left.

A command may refuse, or not need the file, or make it again; it may not end in a traceback, and what it answers must be what it
answered before the damage.
"""

import io
import math
import random
import re
import struct
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from campaigns.small import Small
from campaigns.trying import CODES, CRASHED, Lost

RUN = Path("mr2ct/attent/seed0")
NUMBERS = ("scores.csv", "table.csv", "table.md", "comparisons.csv")
EXTREMES = (
    b"\xff", b"\xff\x7f", b"\xff\xff", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\xff" * 8, b"\xff" * 7 + b"\x7f",
    struct.pack("<f", math.nan), struct.pack("<f", math.inf), struct.pack("<d", math.nan),
)  # fmt: skip
"""The largest numbers of their size, -1, infinity, and what is no number."""
SENSELESS = (
    b"",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"1e308",
    b"9" * 400,
    b"true",
    b'"',
    b"[" * 70,
    b"\x00",
    b"\x1b[2J",
    b"../../x",
)
"""What a text may say in place of a number."""
DAMAGES = ("bit", "bit", "bits", "truncated", "zeroed", "emptied", "torn", "garbage", "missing")
"""A flipped bit is the damage that is hardest to see: it is tried twice as often."""


class Asked(NamedTuple):
    """A command on a comparison, and what of its answer must be as before."""

    words: Callable[[Path], list[object]]
    answer: Callable[[Path, str], object]
    """From the folder and from what was printed."""


def _labels(out: Path, printed: str) -> object:
    return np.asarray(nib.load(out / "labels.nii.gz").dataobj).tobytes()


def _numbers(out: Path, printed: str) -> object:
    return [(out / name).read_bytes() for name in NUMBERS]


def _nothing(out: Path, printed: str) -> object:
    return None


def _printed(out: Path, printed: str) -> object:
    # A run that is scored again calls its row by the method's name, where the comparison has a label for it.
    return printed.replace(str(out), "OUT").replace('"AttENT"', '"attent"')


def commands(small: Small) -> dict[str, Asked]:
    """What is asked of a spoilt comparison, by name."""
    image = small.volumes / "ct" / "images" / "ct_3.nii.gz"
    truth = small.volumes / "ct" / "labels"

    def predict(out: Path) -> list[object]:
        return ["predict", out / RUN, image, out / "labels.nii.gz", "-d", "cpu"]

    organs = "liver=1,right kidney=2,left kidney=3,spleen=4"
    return {
        "predict": Asked(predict, _labels),
        "predict --select": Asked(lambda out: [*predict(out), "--select", "entropy"], _labels),
        "status": Asked(lambda out: ["status", out], _nothing),
        "status --json": Asked(lambda out: ["status", out, "--json"], _nothing),
        "report": Asked(lambda out: ["report", out], _nothing),
        "select": Asked(lambda out: ["select", out, "-d", "cpu", "--json"], _printed),
        "compare": Asked(lambda out: small.words(out, "-d", "cpu", "--no-report"), _numbers),
        "compare --dry-run": Asked(lambda out: small.words(out, "--dry-run"), _nothing),
        "train": Asked(
            lambda out: ["train", "--config", out / RUN / "config.toml", "-o", out / RUN, "-d", "cpu", "--json"], _printed
        ),
        "evaluate": Asked(
            lambda out: ["evaluate", out / RUN / "predictions", truth, "--organs", organs, "--json"], _printed
        ),
        "pack": Asked(lambda out: ["pack", out / RUN, out / "run.zip", "--overwrite"], _nothing),
        "shift": Asked(lambda out: ["shift", out, "-d", "cpu"], _nothing),
        "doctor": Asked(lambda out: ["doctor", out], _nothing),
        "train --from": Asked(lambda out: _warm(small, out), _nothing),
        "train --more-steps": Asked(
            lambda out: ["train", out / RUN, "--more-steps", 1, "-d", "cpu", "--json", "-o", out / "longer"], _printed
        ),
    }  # fmt: skip


WEIGHTS = {"predict": 6, "predict --select": 3, "compare": 2, "report": 1, "shift": 1, "select": 3, "evaluate": 3, "train": 3,
           "train --from": 1, "train --more-steps": 1}  # fmt: skip
"""How often a command is tried, where that is not twice."""


def _warm(small: Small, out: Path) -> list[object]:
    return ["train", "--config", out / RUN / "config.toml", "--from", out / RUN, "-o", out / "warm", "-d", "cpu"]


def artefacts(small: Small) -> Callable[[random.Random, int], str]:
    """A try of this campaign."""
    asked = commands(small)
    names = [name for name in asked for _ in range(WEIGHTS.get(name, 2))]
    known: dict[str, object] = {}
    places = [p.relative_to(small.finished()) for p in sorted(small.finished().rglob("*")) if p.is_file()]
    # Files of the run that commands ask about, half of the time: others are often not looked at.
    near = [p for p in places if p.is_relative_to(RUN) or len(p.parts) == 1]

    def one(chance: random.Random, number: int) -> str:
        out = small.copy("artefacts")
        place = chance.choice(chance.choice((places, near)))
        damage = chance.choice(DAMAGES)
        name = chance.choice(names)
        if name not in known:
            known[name] = _sound(small, name, asked[name])
        spoil(out / place, damage, chance)
        code, printed, said = _inside(asked[name].words(out))
        kind, where = name, f"{damage} {place}, then {name}"
        if code == CRASHED or "Traceback" in said:
            raise Lost(f"{where}: a traceback: {said[-1500:]}", kind)
        if code not in CODES:
            raise Lost(f"{where}: exit code {code}", kind)
        if code == 0:
            try:
                found = asked[name].answer(out, printed)
            except Exception as error:
                raise Lost(f"{where}: exit code 0, and no answer: {error!r}", kind) from None
            if found != known[name] and not _admitted(said):
                raise Lost(f"{where}: another answer, exit code 0, stderr {said[-500:]!r}", kind)
        return kind

    return one


SAID = ("damaged", "cannot be read", "Warning", "missing", "not readable", "is not a", "Left out")
"""Words of which one is in every sentence about a part of an answer that is not there."""


def _admitted(said: str) -> bool:
    """Whether a command has said that something is missing from its answer."""
    return any(word in said for word in SAID)


def spoil(path: Path, damage: str, chance: random.Random) -> None:
    """Damage a file."""
    content = path.read_bytes()
    # A new file: a finished comparison may lie on hard links.
    path.unlink()
    if damage != "missing":
        path.write_bytes(spoilt(content, damage, chance))


def spoilt(whole: bytes, damage: str, chance: random.Random) -> bytes:
    """The bytes of a file, damaged."""
    content = bytearray(whole)
    size = len(content)
    if damage == "emptied" or not size:
        return b""
    if damage in ("bit", "bits"):
        for _ in range(1 if damage == "bit" else 20):
            content[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif damage == "truncated":
        del content[chance.randrange(size) :]
    elif damage == "zeroed":
        begin = chance.randrange(size)
        end = min(size, begin + chance.choice((1, 16, 512, size)))
        content[begin:end] = bytes(end - begin)
    elif damage == "torn":
        # The first half of one version and the second of another, as a disk without order leaves it.
        middle = chance.randrange(size)
        content[middle:] = content[: size - middle]
    elif damage == "extreme":
        word = chance.choice(EXTREMES)
        begin = chance.randrange(size) // len(word) * len(word)
        content[begin : begin + len(word)] = word
    elif damage == "number" and (numbers := [*re.finditer(rb"[0-9][0-9.e+-]*", whole)]):
        number = chance.choice(numbers)
        content[number.start() : number.end()] = chance.choice(SENSELESS)
    else:
        return chance.randbytes(chance.choice((1, 40, 4096)))
    return bytes(content)


def _inside(words: list[object]) -> tuple[int, str, str]:
    """A command in this process: exit code, what it printed, what it said; CRASHED with a traceback."""
    from attent_kit.cli import run

    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run([str(word) for word in words])
    except BaseException:
        return CRASHED, out.getvalue(), err.getvalue() + traceback.format_exc()
    return code, out.getvalue(), err.getvalue()


def _sound(small: Small, name: str, asked: Asked) -> object:
    """What a command answers on the comparison as it is."""
    out = small.copy("sound")
    code, printed, said = _inside(asked.words(out))
    if code:
        raise Lost(f"{name} on a sound comparison ended with {code}: {said[-800:]}", name)
    return asked.answer(out, printed)
