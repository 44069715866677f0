"""`attentkit check`: looks at data sets on disk and at prepared files, and finds what would spoil a comparison.

    check(["CHAOS", "BTCV"], registry).findings

One case is in memory at a time; of the others only a hash, a fingerprint of 48 KB and some numbers are kept. The checks:

    disk       files and headers: unreadable cases, grids that do not fit, two orientations or none, label values
    grey       a CT whose grey values are not Hounsfield units
    case       labels that are turned against the image, sides, upside-down stacks, organs that are not there
    sets       cases unlike the others, splits, slices that labels chose
    patients   one patient twice
    prepared   a prepared file: its content, its constants, the manifest beside it, and two of them together
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py

from attent_kit.data.check.case import Trace
from attent_kit.data.check.disk import OnDisk
from attent_kit.data.check.patients import duplicate_findings
from attent_kit.data.check.prepared import InFile, agreement_findings
from attent_kit.data.check.sets import REGION, set_findings, split_findings
from attent_kit.data.doubts.findings import SEVERITIES, Finding, refusal
from attent_kit.data.prepare.options import Added, Addition, Organs, additions, modality_of, organs_of
from attent_kit.data.sets.recognise import open_layout, parts_at
from attent_kit.data.workers import ReportDone, counted
from attent_kit.errors import ConfigError, DataError
from attent_kit.registry import Registry

PREPARED = (".h5", ".hdf5")


@dataclass(frozen=True)
class CheckOptions:
    """How data sets are read, as in `attentkit prepare`, and which prepared files are to be targets."""

    layout: str | None = None
    """How a data set is read; None recognises it."""
    part: str | None = None
    """Which of several data sets in a place; None takes all."""
    labels: Path | None = None
    """Label maps, where there is one place and it holds only images."""
    modality: str | None = None
    """ct or mr, where the data set does not say."""
    organs: Organs | None = None
    """Organs with their label values; None leaves them to the data set. A LabelMap from here on."""
    targets: Sequence[Path] = ()
    """The prepared files that are to be targets."""
    add: Sequence[Added] = ()
    """Other data sets with label maps and organs of their own, as `attentkit prepare` adds them."""

    @property
    def added(self) -> tuple[Addition, ...]:
        """What `add` names."""
        return additions(self.add)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modality", modality_of(self.modality))
        object.__setattr__(self, "organs", organs_of(self.organs))


class CheckResult(NamedTuple):
    """What was found, the worst first, and how much was looked at."""

    findings: list[Finding]
    data_sets: int
    cases: int

    @property
    def exit_code(self) -> int:
        """3 if a finding is an error, as for other bad data; else 0."""
        return 3 if any(finding.severity == "error" for finding in self.findings) else 0


def check(
    places: Sequence[Path | str],
    registry: Registry,
    options: CheckOptions = CheckOptions(),
    report: ReportDone | None = None,
) -> CheckResult:
    """Looks at every case of `places`, each a data set on disk or a prepared file.

    `report(case, done, total)` is called after each case. ConfigError for options that do not fit, DataError for a place that
    does not exist: anything that is wrong with the data itself is a finding.
    """
    paths = [Path(place) for place in places]
    _refuse(paths, options)
    data_sets, findings = _opened(paths, registry, options)
    total = sum(len(data.cases) for data in data_sets)
    tell = counted(report, total)
    everything: dict[bool, list[Trace]] = {False: [], True: []}
    for data in data_sets:
        own, traces = _looked_at(data, tell)
        findings += own
        everything[isinstance(data, InFile)] += traces
    # A prepared file holds the patients of the data set that it was made from: each is compared with its own kind.
    for traces in everything.values():
        findings += duplicate_findings(traces)
    findings += agreement_findings([data for data in data_sets if isinstance(data, InFile)])
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return CheckResult(findings, len(data_sets), total)


def _opened(
    paths: list[Path], registry: Registry, options: CheckOptions
) -> tuple[list[OnDisk | InFile], list[Finding]]:
    """Every data set and prepared file, and a finding about each that cannot be opened."""
    chosen = _parts([path for path in paths if not _is_prepared(path)], registry, options)
    data_sets: list[OnDisk | InFile] = []
    findings: list[Finding] = []
    for path in paths:
        if path not in chosen:
            data_sets.append(InFile(path, target=any(path.samefile(target) for target in options.targets)))
            continue
        for part in chosen[path]:
            try:
                opened = open_layout(path, registry, options.layout, part, labels=options.labels)
                data_sets.append(OnDisk(opened, options.modality, options.organs))
            except DataError as error:
                findings.append(refusal("files", error, path))
    for more in options.added:
        try:
            data_sets.append(
                OnDisk(open_layout(more.path, registry, labels=more.labels), options.modality, more.organs)
            )
        except DataError as error:
            findings.append(refusal("files", error, more.path))
    return data_sets, findings


def _looked_at(data: OnDisk | InFile, tell: Callable[[str], None]) -> tuple[list[Finding], list[Trace]]:
    """What one data set has, case by case and as a whole, and what is kept of its cases."""
    found, traces = list(data.findings), []
    for case in data.cases:
        more, trace = data.look(case)
        found += more
        if trace is not None:
            traces.append(trace)
        tell(case)
    if isinstance(data, InFile):
        organs = data.prepared.organs if data.prepared else ()
        chosen = data.prepared is not None and data.prepared.manifest["label_driven"]
        whole = set_findings(traces, organs, data.name, data.target)
        found += [finding for finding in whole if not (chosen and finding.check == REGION)] + data.overall()
    else:
        found += set_findings(traces, data.label_map.organs, str(data.layout.path)) + _splits_of_layout(data)
    return _settled(found, len(data.cases)), traces


def _refuse(paths: list[Path], options: CheckOptions) -> None:
    if not paths:
        raise ConfigError("nothing is named: name a data set or a prepared file.")
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise ConfigError(f"{twice[0]} is named twice: name it once.")
    if options.labels is not None and len(paths) > 1:
        raise ConfigError("--labels goes with one data set: check the others by themselves.")
    known = {path.resolve() for path in paths if path.exists() and _is_prepared(path)}
    if stray := [target for target in options.targets if target.resolve() not in known]:
        raise ConfigError(f"--target {stray[0]} is not among the prepared files to check: name it there, too.")
    if missing := [path for path in (*paths, *(more.path for more in options.added)) if not path.exists()]:
        raise DataError(f"{missing[0]} does not exist: check the spelling of the path.")


def _is_prepared(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in PREPARED or h5py.is_hdf5(path))


def _parts(paths: list[Path], registry: Registry, options: CheckOptions) -> dict[Path, tuple[str | None, ...]]:
    """The parts of each data set that are looked at."""
    found: dict[Path, tuple[str | None, ...]] = {}
    part, somewhere = options.part, False
    for path in paths:
        try:
            parts = parts_at(path, registry, options.layout, labels=options.labels)
        except DataError:
            parts = ()  # opening it tells why
        same = [name for name in parts if part is not None and name.lower() == part.lower()]
        somewhere = somewhere or bool(same)
        found[path] = tuple(same) or parts or (None,)
    if part is not None and not somewhere:
        # With one part there is nothing to choose from, but naming it is not a mistake.
        for path in paths:
            open_layout(path, registry, options.layout, part, labels=options.labels)
    return found


def _splits_of_layout(data: OnDisk) -> list[Finding]:
    """About the splits that a data set brings with it."""
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
