"""A whole data set: cases that are unlike the others, organs that nobody has, slices that labels chose."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attent_kit.data.check.case import Trace
from attent_kit.data.doubts.case import organs_never_seen, without_organs
from attent_kit.data.doubts.findings import Finding, Severity
from attent_kit.data.sets.splits import SPLITS
from attent_kit.errors import few

FEWEST = 5
"""Fewest cases whose median, and spread about it, mean something."""
SPREADS = 3.5
"""Median absolute deviations, scaled to a standard deviation by 1.4826, beyond which a case is an outlier."""
NEARBY = 0.25
"""Share of the median within which nothing is an outlier, however little the others spread."""
TWICE = 2.0
"""Times the median, or its inverse, beyond which an outlier is a warning rather than a note."""


REGION = "region"
"""The check of how much of a data set shows an organ."""


class _Quantity(NamedTuple):
    name: str
    unit: str
    of: Callable[[Trace], float]


QUANTITIES = (
    _Quantity("distance between slices", "mm", lambda t: t.spacing[0]),
    _Quantity("height of a pixel", "mm", lambda t: t.spacing[1]),
    _Quantity("width of a pixel", "mm", lambda t: t.spacing[2]),
    _Quantity("number of slices", "", lambda t: t.shape[0]),
    _Quantity("number of rows", "", lambda t: t.shape[1]),
    _Quantity("number of columns", "", lambda t: t.shape[2]),
)


def set_findings(traces: Sequence[Trace], organs: Sequence[str], place: str, target: bool = False) -> list[Finding]:
    """About the readable cases of one data set at `place`, for a task of `organs`; `target` if it is to be used as a target."""
    return [*_outliers(traces), *_labelled(traces, organs, place), *_slices(traces, organs, place, target)]


def split_findings(splits: dict[str, tuple[str, ...]], place: str) -> list[Finding]:
    """About the cases of each split by name: test cases in training or validation, and splits without a case."""
    found = []
    severity: Severity
    for one, other in (("test", "train"), ("test", "val"), ("train", "val")):
        severity = "error" if one == "test" else "warning"
        if shared := sorted({*splits.get(one, ())} & {*splits.get(other, ())}):
            found.append(
                _of_set(
                    severity, "splits", f"{few(shared)} of {one} {'is' if len(shared) == 1 else 'are'} in {other} too",
                    "prepare with other splits: scores on cases that were seen before are not those of new patients", place,
                )
            )  # fmt: skip
    for name in SPLITS:
        if splits.get(name):
            continue
        severity = "error" if name == "train" else "note"
        advice = {
            "train": "name cases with --train, or deal others with --seed: a source and a target both train",
            "val": "leave it so, or name cases with --val: no checkpoint is chosen by them",
            "test": "name cases with --test if it is to be scored as a target, unless a suite deals it into folds",
        }[name]
        found.append(_of_set(severity, "splits", f"no case is in {name}", advice, place))
    return found


def _outliers(traces: Sequence[Trace]) -> list[Finding]:
    """Cases far from the median in a quantity of `QUANTITIES`."""
    if len(traces) < FEWEST:
        return []
    found = []
    for quantity in QUANTITIES:
        values = np.array([quantity.of(trace) for trace in traces], float)
        median = float(np.median(values))
        spread = float(np.median(np.abs(values - median)))
        allowed = max(SPREADS * 1.4826 * spread, NEARBY * median)
        for trace, value in zip(traces, values, strict=True):
            if abs(value - median) <= allowed:
                continue
            far = value > TWICE * median or value < median / TWICE
            unit = f" {quantity.unit}" if quantity.unit else ""
            found.append(
                Finding(
                    "warning" if far else "note", "outliers",
                    f"the {quantity.name} is {value:.4g}{unit}, where the median of the {len(traces)} cases is "
                    f"{median:.4g}{unit} and the median absolute deviation {spread:.2g}{unit}",
                    "check whether its header is right, and whether it is a scan of the same kind", trace.file, trace.case,
                )
            )  # fmt: skip
    return found


def _labelled(traces: Sequence[Trace], organs: Sequence[str], place: str) -> list[Finding]:
    """Organs that no case has, cases that do not annotate all of them, and cases without a label map."""
    found = []
    labelled = [trace for trace in traces if trace.voxels is not None]
    if labelled and any(sum(trace.voxels.values()) for trace in labelled if trace.voxels):
        counts = [trace.voxels for trace in labelled if trace.voxels is not None]
        for sentence in organs_never_seen(counts, organs):
            evidence, _, advice = sentence.rstrip(".").rpartition(": ")
            found.append(_of_set("warning", "organs", f"{evidence} ({len(counts)} label maps)", advice, place))
        found += [_of_set("note", "annotated", *said, place) for said in _not_annotated(labelled, organs)]
    if unread := [trace.case for trace in traces if trace.unread]:
        evidence = f"{len(unread)} of {len(traces)} cases have labels that do not lie on their image: {few(unread)}"
        advice = "mend what is said of each of them; until then nothing is known of their organs"
        found.append(_of_set("note", "organs", evidence, advice, place))
    if bare := [trace.case for trace in traces if trace.voxels is None and not trace.unread]:
        many = f"{len(bare)} of {len(traces)} cases have no labels" + (
            "" if len(bare) == len(traces) else f": {few(bare)}"
        )
        advice = (
            "nothing to do for a target; a source needs them, and without them sides and slice order cannot be checked"
        )
        found.append(_of_set("note", "organs", many, advice, place))
    return found


def _not_annotated(labelled: Sequence[Trace], organs: Sequence[str]) -> list[tuple[str, str]]:
    """Evidence and advice about each group of cases whose labels leave out the same organs."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for trace in labelled:
        if lacking := tuple(organ for organ in organs if organ not in (trace.voxels or ())):
            groups.setdefault(lacking, []).append(trace.case)
    advice = "nothing to do: there these organs are unknown, not absent, and losses and scores leave them out"
    return [
        (f"{len(cases)} of {len(labelled)} label maps ({few(cases)}) do not annotate {', '.join(lacking)}", advice)
        for lacking, cases in groups.items()
    ]


def _slices(traces: Sequence[Trace], organs: Sequence[str], place: str, target: bool) -> list[Finding]:
    """Data sets much of which shows no organ, and stacks from which somebody threw away the slices without one."""
    labelled = [trace for trace in traces if trace.with_organ]
    slices = sum(trace.slices for trace in labelled)
    whole = [trace for trace in labelled if {*organs} <= {*(trace.voxels or ())}]
    for sentence in without_organs([(trace.slices, trace.with_organ) for trace in whole]):
        evidence, _, advice = sentence.rstrip(".").partition(": ")
        return [_of_set("note" if target or len(organs) == 1 else "warning", REGION, evidence, advice, place)]
    if not labelled or sum(trace.with_organ for trace in labelled) < slices:
        return []
    severity: Severity = "note" if len(labelled) == 1 else "error" if target else "warning"
    evidence = (
        f"every slice of every case holds an organ ({slices} of {slices} slices of {len(labelled)} case(s)), so labels "
        "chose the slices"
    )
    if len(labelled) == 1:
        evidence = f"all {slices} slices of its only labelled case hold an organ, as if labels had chosen them"
    return [
        _of_set(
            severity, "label-driven", evidence,
            "take whole scans for a target and for testing, where nobody knows which slices hold an organ", place,
        )
    ]  # fmt: skip


def _of_set(severity: Severity, check: str, evidence: str, advice: str, place: str) -> Finding:
    return Finding(severity, check, evidence, advice, place)
