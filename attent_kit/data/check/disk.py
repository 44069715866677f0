"""Looks at a data set as it lies on disk, case by case, through the layout that reads it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from attent_kit.data.check.case import (
    CheckedCase,
    Trace,
    case_findings,
    content_hash,
    fingerprint,
    organ_medians,
    voxels_of,
)
from attent_kit.data.check.grey import grey_findings
from attent_kit.data.doubts.case import grid_doubts, unplaced
from attent_kit.data.doubts.findings import Finding, Severity, doubted, refusal
from attent_kit.data.prepare.cases import read_scan
from attent_kit.data.prepare.options import Organs
from attent_kit.data.prepare.organs import DataSet, domain_maps
from attent_kit.data.prepare.plan import entries_of, entry_files
from attent_kit.data.scans.dicom_file import is_dicom, read_header, text
from attent_kit.data.scans.grids import apart, corners_apart, rounding
from attent_kit.data.scans.nifti_file import unit_of
from attent_kit.data.scans.volumes import Volume
from attent_kit.data.scans.volumes import read_header as read_nifti_header
from attent_kit.data.sets.labelmap import MOST_LABELS, LabelMap
from attent_kit.data.sets.layout import Entry, Layout, Scan
from attent_kit.data.space.geometry import Grid
from attent_kit.data.space.slicing import across
from attent_kit.errors import AttentKitError, DataError
from attent_kit.naming import LONGEST_NAME, names_a_file

HU = (-500.0, -300.0)
"""HU below which a voxel is air, and above which it is body."""
ASIDE = 0.05
"""Distance in mm between a corner by sform and by qform that passes as rounding of the quaternion."""


class OnDisk:
    """A data set, checked one case after another.

    data = OnDisk(layout, "ct")
    for case in data.cases:
        findings, trace = data.look(case)
    """

    def __init__(self, layout: Layout, modality: str | None = None, organs: Organs | None = None) -> None:
        self.layout = layout
        self.name = f"{layout.path} ({layout.part})" if layout.part else str(layout.path)
        self.modality = modality
        self.findings: list[Finding] = []
        """About the data set as a whole, known before a volume is read."""
        self.chosen = organs is not None
        self.entries: dict[str, Entry] = {}
        layout.refused = []
        try:
            self._take(entries_of(layout))
        except AttentKitError as error:
            self.findings.append(refusal("files", error, layout.path))
        self.findings += [refusal("files", error, layout.path) for error in layout.refused]
        maps = domain_maps([DataSet(layout, organs)], [list(self.entries.values())])
        self.label_map, self._maps = maps.whole, maps.of_case

    @property
    def cases(self) -> list[str]:
        """Ids, sorted."""
        return sorted(self.entries)

    def look(self, case: str) -> tuple[list[Finding], Trace | None]:
        """What is found in one case, and what is kept of it; None for one that cannot be read."""
        try:
            return self._look(case)
        except MemoryError:
            # As a rule because of a damaged header: the other cases may well fit.
            place = _place(self.entries[case].images)
            advice = "check whether its header gives the right size, and leave it out if it does not"
            return [Finding("error", "unreadable", "does not fit into memory", advice, place, case)], None

    def _look(self, case: str) -> tuple[list[Finding], Trace | None]:
        entry = self.entries[case]
        image_place, label_place = _place(entry.images), _place(entry.labels or entry.images)
        found = [*header_findings(entry)]
        scan = None
        try:
            scan = read_scan(self.layout, entry)
        except AttentKitError as error:
            # A grid that does not fit has been reported already, with more numbers.
            if not any(finding.severity == "error" for finding in found):
                found.append(refusal("unreadable", error, image_place, entry_files(entry)))
            if entry.labels:
                scan = self._image_alone(entry)
        if scan is None:
            return [_at(finding, image_place, case) for finding in found], None
        if not scan.image.placed:
            evidence, _, taken = unplaced(scan.image).rstrip(".").rpartition("; ")
            advice = (
                f"make sure that it is {taken.removeprefix('taken as ')}, which is how it is read, or write an sform"
            )
            found.append(Finding("warning", "orientation", evidence, advice))
        found += [doubted(sentence)._replace(check="geometry") for sentence in grid_doubts(scan.image)]
        found += [doubted(sentence) for sentence in scan.doubts]
        label_map = self._maps[case]
        labels, of_labels = self._classes(scan, label_map)
        grid = Grid.of(scan.image.array.shape, scan.image.affine, 1)
        if self.layout.plane is None and (unlike := across(grid)):
            advice = f"prepare it with --plane {grid.acquired}, or --plane auto"
            found.append(Finding("warning", "plane", unlike.replace("is cut", "would be cut"), advice))
        modality = entry.modality or self.modality
        seen = CheckedCase(
            grid.planes(scan.image.array), None if labels is None else grid.planes(labels), label_map.organs,
            grid.planes_spacing, None, label_map.annotated,
        )  # fmt: skip
        greys = grey_findings(seen.image, modality, organ_medians(seen))
        if modality == "ct" and not any(finding.severity != "note" for finding in greys):
            seen = replace(seen, air_and_body=HU)
        found += [_at(finding, image_place) for finding in greys]
        found += [_at(finding, label_place) for finding in (*of_labels, *case_findings(seen))]
        return [_at(finding, image_place, case) for finding in found], self._trace(entry, seen)

    def _take(self, entries: list[Entry]) -> None:
        for entry in entries:
            if not entry.images:
                evidence = f"the case '{entry.id}' has no image"
                self.findings.append(Finding("error", "files", evidence, "add it", str(self.layout.path), entry.id))
                continue
            if not names_a_file(entry.id):
                evidence = f"{entry.id[:LONGEST_NAME]!r} cannot name a case on every system"
                advice = "use letters, digits, '-' and '_'"
                self.findings.append(Finding("error", "files", evidence, advice, str(self.layout.path)))
                continue
            if entry.id in self.entries:
                advice = "give each case its own name"
                self.findings.append(
                    Finding("error", "files", f"the case '{entry.id}' is there twice", advice, str(self.layout.path))
                )
            self.entries[entry.id] = entry
        if not self.entries:
            advice = "name a folder that holds volumes"
            self.findings.append(Finding("error", "files", "there is no case in it", advice, str(self.layout.path)))

    def _image_alone(self, entry: Entry) -> Scan | None:
        """The image of a case whose labels cannot be read; None where it cannot be read either."""
        try:
            return read_scan(self.layout, entry._replace(labels=()))
        except AttentKitError:
            return None

    def _classes(self, scan: Scan, label_map: LabelMap) -> tuple[np.ndarray | None, list[Finding]]:
        """Class indices [X, Y, Z], and what is odd about the values of the label file."""
        if scan.labels is None:
            return None, []
        source = str(scan.labels.path)
        try:
            classes, found = label_map.apply(scan.labels.array, source), []
        except DataError as error:
            counts = self._strays(scan.labels, label_map)
            finding = refusal("label values", error, source)
            if len(counts) > MOST_LABELS:
                return None, [finding]
            finding = finding._replace(evidence=f"{finding.evidence} ({_counted(counts)})")
            return replace(label_map, others="background").apply(scan.labels.array, source), [finding]
        if not self.chosen and label_map.others == "background" and (counts := self._strays(scan.labels, label_map)):
            advice = "check what it is: it counts as background"
            evidence = f"has values that the data set does not name: {_counted(counts)}"
            found.append(Finding("warning", "label values", evidence, advice))
        return classes, found

    def _strays(self, labels: Volume, label_map: LabelMap) -> dict[int, int]:
        """Voxels of each value that is not an organ of the data set or of the label map."""
        known: set[int] = {0}
        for named in (label_map, *([self.layout.organs] if self.layout.organs and not self.chosen else [])):
            known |= _values(named)
        if labels.array.dtype == np.uint8:
            counts = np.bincount(labels.array.ravel(order="K"), minlength=256)
            values = np.flatnonzero(counts)
            counts = counts[values]
        else:
            values, counts = np.unique(labels.array, return_counts=True)
        return {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in known}

    def _trace(self, entry: Entry, seen: CheckedCase) -> Trace:
        voxels = voxels_of(seen)
        patient, study = _dicom_ids(entry)
        with_organ = 0 if seen.labels is None else int(seen.labels.any(axis=(1, 2)).sum())
        return Trace(
            str(self.layout.path), str(self.layout.part or ""), entry.id, _place(entry.images),
            (entry.split,) if entry.split else (), _three(seen.image.shape), seen.spacing,
            content_hash(seen.image), fingerprint(seen.image),
            content_hash(seen.labels) if seen.labels is not None and with_organ else "",
            voxels, bool(entry.labels) and voxels is None, len(seen.image), with_organ, patient=patient, study=study,
        )  # fmt: skip


def header_findings(entry: Entry) -> Iterator[Finding]:
    """What the headers of the NIfTI files of a case say, before a voxel is read: grids that do not fit, two orientations."""
    headers = {}
    for path in entry_files(entry):
        if path.name.lower().endswith((".nii", ".nii.gz")):
            try:
                headers[path] = read_nifti_header(path)
            except AttentKitError:
                continue  # reading it tells why
    for path, (_, _, header) in headers.items():
        yield from _two_orientations(path, header)
    image = next((headers[path] for path in entry.images if path in headers), None)
    for path in entry.labels:
        if image is None or path not in headers or path in entry.images:
            continue
        (shape, affine, _), (image_shape, image_affine, _) = headers[path], image
        if len(shape) < 3 or len(image_shape) < 3:
            continue
        shape, image_shape = shape[:3], image_shape[:3]
        distance = apart(shape, affine, image_shape, image_affine)
        if distance == float("inf"):
            evidence = f"has {_times(shape)} voxels, its image {_times(image_shape)}"
        elif distance > rounding(image_affine):
            passes = rounding(image_affine)
            evidence = f"a voxel lies {distance:.2g} mm from its place in the image, and up to {passes:.2g} mm pass as rounding"
        else:
            continue
        yield Finding("error", "geometry", evidence, f"resample the labels to the image {entry.images[0]}", str(path))


def _two_orientations(path: Path, header: nib.Nifti1Header) -> Iterator[Finding]:
    """sform and qform that place the volume differently: programs differ in which of the two they believe."""
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return
    try:
        sform, qform = header.get_sform(), header.get_qform()
        codes = ["".join(map(str, nib.aff2axcodes(affine))) for affine in (sform, qform)]
        distance = float(corners_apart(sform, qform, header.get_data_shape()[:3]).diagonal().max())
        distance *= unit_of(header)[1]
    except Exception:
        # nibabel raises several kinds of error on an invalid quaternion.
        yield Finding(
            "warning", "orientation", "its qform cannot be read, and its sform is used", "write both", str(path)
        )
        return
    if codes[0] != codes[1] or not distance <= ASIDE:
        severity: Severity = "error" if codes[0] != codes[1] else "warning"
        evidence = (
            f"sform and qform place a corner {distance:.3g} mm apart (sform {codes[0]}, qform {codes[1]}); the sform is "
            "used here, and other programs use the other"
        )
        yield Finding(severity, "orientation", evidence, "write the right one into both", str(path))


def _dicom_ids(entry: Entry) -> tuple[str, str]:
    """PatientID and StudyInstanceUID of a case of DICOM files; "" where they are not known."""
    try:
        if entry.images[0].is_file() and is_dicom(entry.images[0]):
            header = read_header(entry.images[0])
            return text(header, "PatientID"), text(header, "StudyInstanceUID")
    except (AttentKitError, OSError):
        pass
    return "", ""


def _at(finding: Finding, file: str, case: str = "") -> Finding:
    return finding._replace(file=finding.file or file, case=finding.case or case)


def _place(files: tuple[Path, ...]) -> str:
    """One file, or the folder of several."""
    return str(files[0]) if len(files) == 1 else str(files[0].parent)


def _values(label_map: LabelMap) -> set[int]:
    return {value for _, values in label_map.values for value in values}


def _counted(counts: dict[int, int]) -> str:
    words = [f"{n} voxels of {value}" for value, n in list(counts.items())[:5]]
    return ", ".join(words) + (f" and {len(counts) - 5} more values" if len(counts) > 5 else "")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    a, b, c = shape
    return a, b, c
