"""`attentkit check`: looks at data sets on disk and at prepared files, and finds what would spoil a comparison.

    audit(["CHAOS", "BTCV"], registry).findings

One case is in memory at a time; of the others a hash, a fingerprint of 48 KB and some numbers are kept. What is looked at:

    audit_disk       files and headers: unreadable cases, grids that do not fit, two orientations or none, label values
    audit_grey       Hounsfield units that are none
    audit_case       labels that are turned against the image, sides, upside-down stacks, organs that are not there
    audit_sets       cases unlike the others, splits, slices that labels have chosen
    audit_patients   one patient twice
    audit_prepared   a prepared file: its content, its constants, the manifest beside it, and two of them together
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py

from attent_kit.data.check.case import Trace
from attent_kit.data.check.disk import OnDisk
from attent_kit.data.check.patients import duplicate_findings
from attent_kit.data.check.prepared import InFile, agreement_findings
from attent_kit.data.check.sets import set_findings, split_findings
from attent_kit.data.doubts.findings import SEVERITIES, Finding, refusal
from attent_kit.data.prepare.plan import Organs
from attent_kit.data.sets.recognise import open_layout, parts_at
from attent_kit.data.workers import Report, counted
from attent_kit.errors import ConfigError, DataError
from attent_kit.registry import Registry

PREPARED = (".h5", ".hdf5")


class Audit(NamedTuple):
    """What was found, the worst first, and how much was looked at."""

    findings: list[Finding]
    data_sets: int
    cases: int


def audit(
    places: Sequence[Path | str],
    registry: Registry,
    *,
    layout: str | None = None,
    part: str | None = None,
    labels: Path | None = None,
    modality: str | None = None,
    organs: Organs | None = None,
    targets: Sequence[Path] = (),
    report: Report | None = None,
) -> Audit:
    """Looks at every case of `places`, each a data set on disk or a prepared file.

    `layout`, `labels`, `modality` and `organs` are as in `prepare`; of several parts of a data set all are looked at, unless
    `part` chooses one. `targets` are the prepared files among `places` that are to be used as targets. `report(case, done,
    total)` is called after each case. ConfigError for words that do not fit, DataError for a place that is not there:
    anything that is wrong with the data itself is a finding.
    """
    paths = [Path(place) for place in places]
    _refuse(paths, labels, targets)
    if missing := [path for path in paths if not path.exists()]:
        raise DataError(f"{missing[0]} does not exist: check the spelling of the path.")
    on_disk = [path for path in paths if not _is_prepared(path)]
    chosen = _parts(on_disk, registry, layout, part, labels)
    findings: list[Finding] = []
    data_sets: list[OnDisk | InFile] = []
    for path in paths:
        if path not in chosen:
            data_sets.append(InFile(path, target=any(path.samefile(target) for target in targets)))
            continue
        for one in chosen[path]:
            try:
                opened = open_layout(path, registry, layout, one, labels=labels)
                data_sets.append(OnDisk(opened, modality, organs))
            except DataError as error:
                findings.append(refusal("files", error, path))

    total = sum(len(data.cases) for data in data_sets)
    tell = counted(report, total)
    everything: dict[bool, list[Trace]] = {False: [], True: []}
    for data in data_sets:
        own, traces = list(data.findings), []
        for case in data.cases:
            more, trace = data.look(case)
            own += more
            if trace is not None:
                traces.append(trace)
            tell(case)
        prepared = isinstance(data, InFile)
        place = data.name if prepared else str(data.layout.path)  # type: ignore[union-attr]
        own += set_findings(traces, place, prepared and data.target)  # type: ignore[union-attr]
        own += data.overall() if isinstance(data, InFile) else _splits_of_layout(data)
        everything[prepared] += traces
        findings += _settled(own, len(data.cases))
    # A prepared file holds the patients of the data set that it was made of: each is held against its own kind.
    for traces in everything.values():
        findings += duplicate_findings(traces)
    findings += agreement_findings([data for data in data_sets if isinstance(data, InFile)])
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(findings, len(data_sets), total)


def _refuse(paths: list[Path], labels: Path | None, targets: Sequence[Path]) -> None:
    if not paths:
        raise ConfigError("nothing is named: name a data set or a prepared file.")
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise ConfigError(f"{twice[0]} is named twice: name it once.")
    if labels is not None and len(paths) > 1:
        raise ConfigError("--labels goes with one data set: check the others by themselves.")
    known = {path.resolve() for path in paths if path.exists() and _is_prepared(path)}
    if stray := [target for target in targets if target.resolve() not in known]:
        raise ConfigError(f"--target {stray[0]} is none of the prepared files that are checked: name it there, too.")


def _is_prepared(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in PREPARED or h5py.is_hdf5(path))


def _parts(
    paths: list[Path], registry: Registry, layout: str | None, part: str | None, labels: Path | None
) -> dict[Path, tuple[str | None, ...]]:
    """The parts of each data set that are looked at."""
    found: dict[Path, tuple[str | None, ...]] = {}
    somewhere = False
    for path in paths:
        try:
            parts = parts_at(path, registry, layout, labels=labels)
        except DataError:
            parts = ()  # opening it tells why
        same = [name for name in parts if part is not None and name.lower() == part.lower()]
        somewhere = somewhere or bool(same)
        found[path] = tuple(same) or parts or (None,)
    if part is not None and not somewhere:
        # With one part there is nothing to choose from, but its name is no mistake.
        for path in paths:
            open_layout(path, registry, layout, part, labels=labels)
    return found


def _splits_of_layout(data: OnDisk) -> list[Finding]:
    """About the splits that a data set has itself."""
    splits: dict[str, tuple[str, ...]] = {}
    for entry in data.entries.values():
        if entry.split:
            splits[entry.split] = (*splits.get(entry.split, ()), entry.id)
    return split_findings(splits, str(data.layout.path)) if splits else []


def _settled(findings: list[Finding], cases: int) -> list[Finding]:
    """A doubt that is the same about every case of a data set is a property of the data set: a note."""
    doubts = Counter(finding.evidence for finding in findings if finding.check == "doubt")
    return [
        finding._replace(severity="note")
        if finding.check == "doubt" and 1 < doubts[finding.evidence] >= cases
        else finding
        for finding in findings
    ]
