"""What a check has found: how bad it is, where, by which numbers, and what to do about it."""

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
    """The error that a reader raised as a finding: about the one of `files` that it names first, or else about `file`."""
    sentence = str(error)
    named = [str(path) for path in files if str(path) in sentence]
    place = min(named, key=sentence.index) if named else str(file)
    evidence, colon, advice = sentence.rstrip(". ").rpartition(": ")
    if not colon:
        evidence, advice = advice, "correct it or leave it out"
    return Finding("error", check, evidence.removeprefix(f"{place} ").removeprefix(f"{place}: "), advice, place, case)


def doubted(sentence: str) -> Finding:
    """What a layout doubts about a case, or `prepare` has doubted."""
    evidence, colon, advice = sentence.rstrip(".").rpartition(": ")
    if not colon:
        evidence, advice = advice, "look whether that matters"
    return Finding("warning", "doubt", evidence, advice)


def exit_code(findings: Iterable[Finding]) -> int:
    """3 if one of them is an error, as for other bad data; else 0."""
    return 3 if any(finding.severity == "error" for finding in findings) else 0
