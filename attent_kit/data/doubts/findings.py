"""What a check has found: how bad it is, where, by which numbers, and what to do about it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Wrong for certain, or a score would mean nothing; perhaps wrong, look; good to know."""


class Finding(NamedTuple):
    """One thing that somebody should know before this data is used."""

    severity: Severity
    check: str
    """One word for the kind of check, the same in every run: sides, geometry, duplicates, ..."""
    evidence: str
    """What is seen, with its numbers; no full stop."""
    advice: str
    """What to do; no full stop."""
    file: str = ""
    """The file, or the folder if it is about several."""
    case: str = ""
    """The case, if it is about one."""

    @property
    def sentence(self) -> str:
        """Evidence and advice."""
        return f"{self.evidence}: {self.advice}."


def refusal(check: str, error: BaseException, file: Path | str, files: Iterable[Path] = (), case: str = "") -> Finding:
    """The error that a reader raised as a finding: about the place that it begins with, the one of `files` that it names
    first, or else about `file`."""
    sentence = str(error)
    named = [str(path) for path in files if str(path) in sentence]
    place = _begins_with(sentence) or (min(named, key=sentence.index) if named else str(file))
    said = sentence.rstrip(". ").removeprefix(f"{place} ").removeprefix(f"{place}: ")
    return Finding("error", check, *_parted(said, "correct it or leave it out"), place, case)


def _begins_with(sentence: str) -> str:
    """The file or folder whose name a sentence begins with, or ""."""
    ends = [n for n, letter in enumerate(sentence) if letter in " :,"]
    starts = [sentence[:n] for n in ends if os.sep in sentence[:n]]
    return max((start for start in starts if os.path.exists(start)), key=len, default="")


def _parted(sentence: str, otherwise: str) -> tuple[str, str]:
    """Evidence and advice of a sentence: what stands before and after its last colon outside brackets."""
    evidence, colon, advice = sentence.rpartition(": ")
    inside = advice.count(")") > advice.count("(")
    return (evidence, advice) if colon and not inside else (sentence, otherwise)


def doubted(sentence: str) -> Finding:
    """The doubt of a layout, or of `prepare`, about a case."""
    evidence, advice = _parted(sentence.rstrip("."), "check whether that matters")
    return Finding("warning", "doubt", evidence, advice)
