"""The same patient twice: in one data set, on both sides of a split, or in two domains."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from attent_kit.data.check.case import Trace
from attent_kit.data.doubts.findings import Finding, Severity
from attent_kit.errors import few

ALIKE = 0.8
"""Correlation of two fingerprints from which one volume is likely a copy of the other."""
PAIRS_SHOWN = 20

_SAME: tuple[tuple[str, Callable[[Trace], str]], ...] = (
    ("the same voxels", lambda trace: trace.content),
    ("made from the same file", lambda trace: trace.source),
    ("the same label map", lambda trace: trace.labels),
    ("the same StudyInstanceUID", lambda trace: trace.study),
    ("the same PatientID", lambda trace: trace.patient),
)
"""What proves that two cases are of one patient."""


def duplicate_findings(traces: Sequence[Trace]) -> list[Finding]:
    """Cases that are, or seem to be, of one patient, across all data sets that are given.

    An error where they are on two sides of a split or in two data sets, else a warning. Sequences of one data set share
    their patients: there only cases of different names are compared with each other.
    """
    found: list[Finding] = []
    told: set[frozenset[int]] = set()
    for what, key in _SAME:
        groups: dict[str, list[int]] = defaultdict(list)
        for n, trace in enumerate(traces):
            if value := key(trace):
                groups[value].append(n)
        for value, members in groups.items():
            if what == "the same PatientID" and _placeholder(value, members, traces):
                continue
            pairs = [frozenset(pair) for pair in combinations(members, 2) if _worth_it(*(traces[n] for n in pair))]
            new = [pair for pair in pairs if pair not in told]
            told.update(pairs)
            if new:
                found.append(_group(what, sorted({n for pair in new for n in pair}), new, traces))
    return found + _copies(traces, told)


def _copies(traces: Sequence[Trace], told: set[frozenset[int]]) -> list[Finding]:
    """Volumes of the same size that look alike in detail and have not been reported as the same yet."""
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for n, trace in enumerate(traces):
        by_shape[*trace.shape, trace.fingerprint.size].append(n)
    found = []
    for members in by_shape.values():
        prints = np.stack([traces[n].fingerprint for n in members])
        alike = prints @ prints.T
        for i, j in np.argwhere(np.triu(alike > ALIKE, 1)):
            one, other = traces[members[i]], traces[members[j]]
            several = one.data_set != other.data_set
            if frozenset((int(members[i]), int(members[j]))) not in told and _worth_it(one, other):
                found.append(
                    Finding(
                        "warning", "duplicates",
                        f"{_named(one, several)} and {_named(other, several)} have the same size and a correlation of "
                        f"{alike[i, j]:.2f} in detail, where two patients stay "
                        "below 0.5, so one is likely a copy of the other with other grey values"
                        f"{_where([one, other])}",
                        "keep one of them, or both in one split", one.file, one.case,
                    )
                )  # fmt: skip
    if len(found) > PAIRS_SHOWN:
        more = f"{len(found) - PAIRS_SHOWN} more pairs look alike in the same way"
        found[PAIRS_SHOWN:] = [Finding("warning", "duplicates", more, "see the pairs above", found[0].file)]
    return found


def _group(what: str, members: list[int], pairs: list[frozenset[int]], traces: Sequence[Trace]) -> Finding:
    cases = [traces[n] for n in members]
    severity: Severity = "warning"
    # Two hospitals, or two anonymisations, give one PatientID to two patients.
    far = {trace.data_set for trace in cases} if what == "the same PatientID" else set()
    if len(far) < 2 and any(_apart(*(traces[n] for n in pair)) for pair in pairs):
        severity = "error"
    several = len({trace.data_set for trace in cases}) > 1
    names = few([_named(trace, several) for trace in cases])
    between = " have " if what.startswith("the same") else " are "
    meaning = ""
    if what == "the same label map" and not several:
        meaning = "; either they are of one patient, or a label map was copied to another image"
    return Finding(
        severity, "duplicates", f"{names}{between}{what}{meaning}{_where(cases)}",
        "keep one of them, or make sure that all are in one split of one domain", cases[0].file, cases[0].case,
    )  # fmt: skip


def _where(cases: Sequence[Trace]) -> str:
    """Splits and domains that the cases are spread over."""
    sets = sorted({trace.data_set for trace in cases})
    if len(sets) > 1:
        return f", and {' and '.join(sets)} should share no patient"
    splits = sorted({split for trace in cases for split in trace.splits})
    return f", and they are in {' and '.join(splits)}" if len(splits) > 1 else ""


def _named(trace: Trace, with_set: bool) -> str:
    facts = [*([trace.data_set] if with_set else []), *trace.splits]
    return trace.case + (f" [{', '.join(facts)}]" if facts else "")


def _worth_it(one: Trace, other: Trace) -> bool:
    """Whether two cases should be of two patients."""
    return one.data_set != other.data_set or one.case != other.case


def _apart(one: Trace, other: Trace) -> bool:
    """Whether two cases are in two data sets, or in different splits of one."""
    if one.data_set != other.data_set:
        return True
    return any(here != there for here in one.splits for there in other.splits)


def _placeholder(value: str, members: list[int], traces: Sequence[Trace]) -> bool:
    """Whether an ID is what anonymisation wrote into many files, and so does not name a patient."""
    return len(members) > max(2, len(traces) / 5) or "anon" in value.lower()
