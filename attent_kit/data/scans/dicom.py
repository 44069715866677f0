"""DICOM series as volumes: slices in the order in which they lie in the patient, never in that of their names.

The place of a slice is its ImagePositionPatient along the normal of ImageOrientationPatient, and the distance between
slices that of their positions; SliceThickness is something else. What cannot be one regular grid is refused: a missing
slice, two at one place, a tilted gantry. One file of several frames, enhanced CT or MR, is read like one file per slice.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from attent_kit.data.scans.dicom_file import (
    LARGEST,
    Plane,
    has_image,
    is_dicom,
    number,
    planes_of,
    read_header,
    read_planes,
    require_pydicom,
    text,
)
from attent_kit.data.scans.limits import refuse_too_large
from attent_kit.data.scans.volumes import Volume
from attent_kit.errors import ConfigError, DataError, did_you_mean, few

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
"""A file with such a name that is not DICOM is more likely a damaged slice than a stray."""
TILT = 0.5
"""Degrees between the stack of slices and their normal that pass as rounding of the header."""
ASIDE = 0.1
"""Largest distance in mm of a slice from the line on which they all lie."""


@dataclass(frozen=True)
class Series:
    """The files of one series below a folder. Nothing of their pixels is read yet."""

    uid: str
    """SeriesInstanceUID; "" where anonymisation left none that the files have in common."""
    description: str
    modality: str
    """As DICOM spells it: CT, MR, ..."""
    files: tuple[Path, ...]
    """In the order of the slices, along the normal of ImageOrientationPatient; by name where the order is not known."""
    notes: tuple[str, ...] = ()
    """What was left out beside it, and what its header lacks, a sentence each."""
    slices: int = 0
    """More than there are files where one file holds several."""
    numbers: tuple[int | None, ...] = ()
    """InstanceNumber of each file, in the order of `files`."""
    damaged: tuple[Path, ...] = ()
    """Unreadable files of the same folder, each of which may be one of its slices."""


def find_series(folder: Path | str) -> list[Series]:
    """Every series of images below a folder, sorted by folder and UID; empty if there is none.

    All files are looked at, with any ending or none. Hidden ones and a DICOMDIR are skipped silently; what is not DICOM,
    holds no image, or is a link out of the folder is skipped with a note. DataError if the folder does not exist.
    """
    return _find(Path(folder))[0]


def read_series(series: Series | Path | str, uid: str | None = None) -> tuple[Volume, tuple[str, ...]]:
    """The volume of a series, [X, Y, Z] float32 with X along the rows of a slice, and notes on how it was read.

    `series` may be a folder, or one file of several frames; `uid` chooses among several series, ConfigError lists them.
    DataError, which names a file, for anything that is not a regular grid of grey values.
    """
    if not isinstance(series, Series):
        series = choose_series(series, uid)
    if series.damaged:
        raise DataError(
            f"{series.damaged[0]} cannot be read as DICOM and may be a slice of its series: copy it again, or remove it."
        )
    if not series.files:
        raise DataError("a series without files cannot be read: name the folder that they lie in.")
    planes, step = _stack([plane for path in series.files for plane in planes_of(read_header(path), path)])
    array, affine = _voxels(planes), _affine(planes[0], step)
    if array.min() == array.max():
        raise DataError(
            f"{planes[0].path} and its series are constant, every voxel is {array.flat[0]:g}: leave it out."
        )
    folder = Path(os.path.commonpath([path if len(series.files) == 1 else path.parent for path in series.files]))
    return Volume(array, affine, _header(array, affine), folder), series.notes + _notes(planes, step)


def choose_series(place: Path | str, uid: str | None = None, by: str = "choose one by its UID") -> Series:
    """The only series of a folder or file, or the one of that UID. DataError if there is none.

    ConfigError that lists them, and says how one is chosen (`by`), if there are several, or none has that UID.
    """
    place = Path(place)
    found, skipped = _find(place)
    if not found:
        reasons = sorted(skipped.items(), key=lambda reason: reason[0] != "unreadable")
        seen = next((f" ({names[0]}: {why})" for why, names in reasons), "")
        raise DataError(f"{place} holds no DICOM image{seen}: name the folder of the slices, or copy it again.")
    chosen = found if uid is None else [series for series in found if series.uid == uid]
    if len(chosen) == 1:
        return chosen[0]
    listed = "; ".join(
        f"{series.uid or 'no UID'}, {series.slices} slice(s) of {series.modality or 'no modality'} "
        f"'{series.description}' from {series.files[0]} on"
        for series in (chosen or found)[:20]
    )
    if not chosen:
        near = did_you_mean(str(uid), [series.uid for series in found])
        raise ConfigError(f"{place} has no series '{uid}'.{near} It holds: {listed}.")
    other = "" if uid is not None else f", or {by}"
    raise ConfigError(f"{place} holds {len(chosen)} series: {listed}. Name the folder of one{other}.")


# Finding


class _File(NamedTuple):
    """What a header says."""

    path: Path
    uid: str
    description: str
    modality: str
    number: int | None
    planes: tuple[Plane, ...]
    """Empty where the header does not place the slices."""


def _find(place: Path) -> tuple[list[Series], dict[str, list[str]]]:
    """The series, and the names of the skipped files by the reason why."""
    require_pydicom()
    if not place.exists():
        raise DataError(f"{place} does not exist: check the spelling of the path.")
    files: list[_File] = []
    damaged: list[Path] = []
    skipped: dict[str, list[str]] = defaultdict(list)

    def skip(why: str, *paths: Path) -> None:
        skipped[why] += [str(path.relative_to(place)) if path != place else path.name for path in paths]

    for path, why_not in _walk(place):
        try:
            if why_not:
                skip(why_not, path)
            elif is_dicom(path):
                header = read_header(path)
                if has_image(header, path):
                    files.append(_file(header, path))
                else:
                    skip(f"{text(header, 'Modality') or 'DICOM'} without an image", path)
            elif path.suffix.lower() in DICOM_ENDINGS:
                damaged.append(path)
            else:
                skip("not DICOM", path)
        except (DataError, OSError):
            damaged.append(path)
    groups = _groups(files)
    if any(file.planes for _, group in groups for file in group):
        # Reports and screenshots come as images too, as a series of their own that nothing places in the patient.
        for _, group in groups:
            if not any(file.planes for file in group):
                skip("images without a position", *(file.path for file in group))
        groups = [(uid, group) for uid, group in groups if any(file.planes for file in group)]
    beside = {file.path.parent for _, group in groups for file in group}
    if far := [path for path in damaged if path.parent not in beside]:
        skip("unreadable", *far)
    notes = tuple(f"skipped, {why}: {few(names)}." for why, names in skipped.items())
    return [_series(uid, group, notes, damaged) for uid, group in groups], skipped


def _walk(place: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder, sorted, with the reason why it is not to be opened, or ""."""
    if not place.is_dir():
        yield place, ""
        return
    root, seen = place.resolve(), set()
    for folder, inner, names in os.walk(place):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        linked = [name for name in inner if Path(folder, name).is_symlink()]
        for path in (Path(folder, name) for name in sorted([*names, *linked])):
            if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
                continue
            target = path.resolve()
            if not target.is_relative_to(root):
                yield path, "a link out of the folder"
            elif path.is_file():
                if target not in seen:
                    yield path, ""
                seen.add(target)
            elif not path.is_dir():
                yield path, "not a file"


def _file(header: Any, path: Path) -> _File:
    try:
        planes = tuple(planes_of(header, path))
    except DataError:
        planes = ()
    instance = number(header, "InstanceNumber")
    return _File(
        path, text(header, "SeriesInstanceUID"), text(header, "SeriesDescription"), text(header, "Modality"),
        None if instance is None else int(instance), planes,
    )  # fmt: skip


def _groups(files: list[_File]) -> list[tuple[str, list[_File]]]:
    """Files by UID; by folder where no UID tells them apart, under "", and where one UID stands for several stacks.

    Anonymisation empties the UID, or gives each file of a series its own, or one to all; copies of a series share it.
    """
    times = Counter(file.uid for file in files)
    folders = _by_folder(files)
    own = {
        folder for folder, inside in folders.items() if _one_stack(inside) and all(times[f.uid] == 1 for f in inside)
    }
    by_uid: dict[tuple[str, Path | None], list[_File]] = defaultdict(list)
    for file in files:
        known = file.uid and file.path.parent not in own
        by_uid[(file.uid, None) if known else ("", file.path.parent)].append(file)
    groups = []
    for (uid, _), group in by_uid.items():
        places: dict[tuple[float, ...], set[Path]] = defaultdict(set)
        for file in group:
            for plane in file.planes:
                places[tuple(np.round(plane.position, 2))].add(file.path.parent)
        twice = any(len(where) > 1 for where in places.values())
        groups += [(uid, part) for part in (_by_folder(group).values() if twice else [group])]
    return sorted(groups, key=lambda group: (min(file.path.parent for file in group[1]), group[0]))


def _by_folder(files: list[_File]) -> dict[Path, list[_File]]:
    folders: dict[Path, list[_File]] = defaultdict(list)
    for file in files:
        folders[file.path.parent].append(file)
    return folders


def _one_stack(files: list[_File]) -> bool:
    """Whether files without a common UID may be slices of one series: of one kind, on one grid, at most one per file."""
    kinds = {(file.modality, file.description) for file in files}
    planes = [plane for file in files for plane in file.planes]
    grids = {(*plane.shape, *np.round([*plane.normal, *plane.spacing], 2)) for plane in planes}
    single = all(len(file.planes) <= 1 for file in files) and all(plane.frame is None for plane in planes)
    return single and len(planes) > 1 and len(kinds) == len(grids) == 1


def _series(uid: str, files: list[_File], notes: tuple[str, ...], damaged: list[Path]) -> Series:
    files = sorted(files, key=lambda file: file.path)
    if all(file.planes for file in files):
        normal = files[0].planes[0].normal
        files.sort(key=lambda file: min(float(plane.position @ normal) for plane in file.planes))
    if not uid and len(files) > 1:
        notes += ("the files have no SeriesInstanceUID in common: taken as one series since they lie in one folder.",)
    folders = {file.path.parent for file in files}
    return Series(
        uid, files[0].description, files[0].modality, tuple(file.path for file in files), notes,
        slices=sum(max(1, len(file.planes)) for file in files),
        numbers=tuple(file.number for file in files),
        damaged=tuple(path for path in damaged if path.parent in folders),
    )  # fmt: skip


# Stacking


def _stack(planes: Sequence[Plane]) -> tuple[list[Plane], np.ndarray]:
    """Slices in order along their normal, and the step [3] in mm from one to the next. DataError if they are not a grid."""
    first = planes[0]
    if len(planes) == 1:
        raise DataError(f"{first.name} is the only slice of its series, and a volume needs two: name the whole series.")
    for plane in planes[1:]:
        turn = np.abs([plane.along_row - first.along_row, plane.along_column - first.along_column]).max()
        spread = np.abs(np.subtract(plane.spacing, first.spacing)).max()
        if plane.shape != first.shape or plane.inverted != first.inverted or spread > 1e-3 or turn > 1e-3:
            raise DataError(
                f"{first.name} and {plane.name} are in one series and do not fit together: {_grid(first)}, but "
                f"{_grid(plane)}. Leave out the files that are of another image."
            )
    heights = np.array([plane.position @ first.normal for plane in planes])
    order = np.argsort(heights, kind="stable")
    planes, heights = [planes[n] for n in order], heights[order]
    gaps = np.diff(heights)
    if gaps[least := int(gaps.argmin())] < 1e-2:
        raise DataError(
            f"{planes[least].name} and {planes[least + 1].name} lie at the same place: keep one of them, or put each "
            "echo, phase or copy of the series into a folder of its own."
        )
    step = (planes[-1].position - planes[0].position) / (len(planes) - 1)
    aside = step - (step @ first.normal) * first.normal
    tilt = np.degrees(np.arctan2(np.linalg.norm(aside), step @ first.normal))
    if tilt > TILT:
        raise DataError(
            f"{planes[0].name} to {planes[-1].name}: the slices are stacked {tilt:.1f} degrees off their normal, as with "
            "a tilted gantry, which is not corrected here: let dcm2niix convert the series, and give its corrected .nii.gz."
        )
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    # Headers round to a tenth of a millimetre at worst.
    uneven = np.abs(gaps - usual) > min(max(0.11, 0.03 * usual), 0.3 * usual)
    if uneven.any():
        widest = int(np.argmax(np.abs(gaps - usual)))
        missing = round(gaps[widest] / usual) - 1
        where = f"{planes[widest].name} and {planes[widest + 1].name} lie {gaps[widest]:.4g} mm apart"
        raise DataError(
            f"{where}, other slices {usual:.4g} mm: "
            + (f"{missing} slice(s) between them are missing; copy the whole series." if missing > 0
               else "the slices are not evenly spaced; resample the series to a regular grid as .nii.gz.")
        )  # fmt: skip
    line = planes[0].position + np.arange(len(planes))[:, None] * step
    off = np.array([plane.position for plane in planes]) - line
    off -= (off @ first.normal)[:, None] * first.normal
    if (distance := np.linalg.norm(off, axis=1)).max() > ASIDE:
        worst = int(distance.argmax())
        raise DataError(
            f"{planes[worst].name} lies {distance[worst]:.2f} mm beside the line of the other slices: leave it out, or "
            "resample the series to a regular grid as .nii.gz."
        )
    return planes, step


def _voxels(planes: list[Plane]) -> np.ndarray:
    """Grey values [X, Y, Z] float32 of slices in order."""
    if len(planes) > LARGEST:
        raise DataError(
            f"{planes[0].path} is one of {len(planes)} slices, more than a volume may have: divide the series."
        )
    refuse_too_large(planes[0].path, (len(planes), *planes[0].shape))
    place = {(plane.path, plane.frame): z for z, plane in enumerate(planes)}
    stored = None
    for path in dict.fromkeys(plane.path for plane in planes):
        for plane, grey in read_planes(path):
            # Only now the size in the header is known to be true. [Z, Y, X], so that a slice is written in one piece.
            stored = np.empty((len(planes), *grey.shape), np.float32) if stored is None else stored
            stored[place[plane.path, plane.frame]] = grey
    assert stored is not None
    return stored.transpose(2, 1, 0)


def _affine(first: Plane, step: np.ndarray) -> np.ndarray:
    """[4, 4], voxel index to mm in RAS."""
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.spacing[0]
    affine[:3, 1] = first.along_column * first.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    affine[:2] *= -1  # DICOM counts to the left and to the back
    return affine + 0.0  # no -0


def _header(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(array.shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return header


def _notes(planes: list[Plane], step: np.ndarray) -> tuple[str, ...]:
    notes = []
    distance = float(np.linalg.norm(step))
    thickness = planes[0].thickness
    if thickness is not None and abs(thickness - distance) > 0.01 * distance:
        notes.append(f"SliceThickness says {thickness:g} mm, the positions {distance:.4g} mm: the positions count.")
    if len({(plane.slope, plane.intercept) for plane in planes}) > 1:
        notes.append("RescaleSlope or RescaleIntercept differ from slice to slice: each slice has its own.")
    if planes[0].inverted:
        notes.append("MONOCHROME1, high values are dark: the stored values were turned round.")
    return tuple(notes)


def _grid(plane: Plane) -> str:
    directions = ", ".join(f"{x:.3g}" for x in (*plane.along_row, *plane.along_column))
    kind = "MONOCHROME1" if plane.inverted else "MONOCHROME2"
    return (
        f"{plane.shape[1]} x {plane.shape[0]} {kind} pixels of {plane.spacing[0]:.4g} x {plane.spacing[1]:.4g} mm, "
        f"directions ({directions})"
    )
