"""BraTS and what is built like it: brain tumours in several MR sequences of one patient, on one grid (synapse.org/brats).

    BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz, -t1c, -t2w, -t2f, -seg       2023 and later
    BraTS2021_00000/BraTS2021_00000_t1.nii.gz, _t1ce, _t2, _flair, _seg              to 2021, perhaps below HGG and LGG

A part is a sequence, so that one sequence can be adapted to another. The enhancing tumour has the value 4 in the old sets and
3 in the new ones, where 4 is a resection cavity (gliomas after treatment, 2024).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, LabelMap, Layout, Scan
from attentkit_builtin.layouts.folders import NIFTI, below, checked, chosen, folders, listing, names, only, scan_of

NEW, OLD = ("t1n", "t1c", "t2w", "t2f"), ("t1", "t1ce", "t2", "flair")
"""Native T1, T1 with contrast agent, T2 and FLAIR."""
_SEQUENCE = re.compile(r"^(?P<case>.+)[-_](?P<sequence>t1n|t1c|t2w|t2f|t1|t1ce|t2|flair)\.nii(\.gz)?$", re.I)
_SEG = re.compile(r"(^|[-_])(seg|segm)\.nii(\.gz)?$", re.I)
_AFTER_TREATMENT = re.compile(r"-GLI-[0-9]{5}-1[0-9]{2}$", re.I)
_CHILDREN = re.compile(r"-PED-", re.I)
_VISIT = re.compile(r"^(BraTS-[A-Z]+-[0-9]{5})-[0-9]{3}$", re.I)
_LEAST, _DEPTH = 3, 3
_EXPECTED = "BraTS data (a folder a case with ..._t1.nii.gz, _t1ce, _t2, _flair and _seg, or ...-t1n.nii.gz and so on)"
_COMMON = {"necrotic core": 1, "edema": 2}


class BratsCase(NamedTuple):
    """The files of one case."""

    id: str
    sequences: dict[str, Path]
    seg: Path | None


class Brats(Layout):
    """BraTS-like brain tumours: a folder a case, a file a sequence, and seg; part chooses the sequence."""

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        cases = list(_cases(self.path))
        only([next(iter(case.sequences.values())) for case in cases[:1]], self.path, _EXPECTED)
        self.part = chosen(part, _sequences(cases), self.path)
        self.organs = _organs(cases)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return next(_cases(Path(path)), None) is not None

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        return _sequences(list(_cases(Path(path))))

    def entries(self) -> list[Entry]:
        cases = list(_cases(self.path))
        if missing := [case.id for case in cases if self.part not in case.sequences]:
            self.refuse(
                DataError(f"{self.path} has no {self.part} of the case {listing(missing)}: add it, or remove the case.")
            )
        bare = [case.id for case in cases if case.seg is None]
        if bare and len(bare) < len(cases):
            self.refuse(DataError(f"{self.path} has no seg of the case {listing(bare)}: add it, or remove the case."))
        return checked(
            (
                Entry(case.id, (case.sequences[str(self.part)],), (case.seg,) if case.seg else (), "mr")
                for case in cases
                if self.part in case.sequences
            ),
            self.path,
        )

    def read(self, entry: Entry) -> Scan:
        return scan_of(entry, tuple(_other_visits(entry)))


def _other_visits(entry: Entry) -> Iterator[str]:
    """A sentence if the folders beside that of a case are of the same patient."""
    if match := _VISIT.match(entry.id):
        beside = (folder.name for folder in folders(entry.images[0].parent.parent))
        if others := [name for name in beside if name != entry.id and name.startswith(f"{match[1]}-")]:
            yield f"{listing(others)} is of the same patient: name both in one split, with --train and --test."


def _cases(path: Path) -> Iterator[BratsCase]:
    for folder in below(path, lambda folder: any(_in(folder)), _DEPTH):
        yield from _in(folder)


def _in(folder: Path) -> Iterator[BratsCase]:
    """The cases whose files lie directly in a folder: at least three sequences each. Most data sets have a folder a case."""
    there = names(folder, NIFTI)
    found: dict[str, dict[str, Path]] = {}
    for name in there:
        if match := _SEQUENCE.match(name):
            found.setdefault(match["case"], {})[match["sequence"].lower()] = folder / name
    whole = {id: own for id, own in found.items() if len(own) >= _LEAST and ({*own} <= {*NEW} or {*own} <= {*OLD})}
    segs = [name for name in there if _SEG.search(name)]
    for id, own in whole.items():
        named = [name for name in segs if name[: len(id)] == id] or (segs if len(whole) == 1 else [])
        yield BratsCase(id, own, folder / named[0] if len(named) == 1 else None)


def _sequences(cases: list[BratsCase]) -> tuple[str, ...]:
    found = {sequence for case in cases for sequence in case.sequences}
    if found & {*NEW} and found & {*OLD}:
        case, other = (next(case.id for case in cases if {*case.sequences} & {*kind}) for kind in (NEW, OLD))
        raise DataError(
            f"{case} is named as BraTS does since 2023 and {other} as before, and their labels have other values: read the "
            "two sets one by one."
        )
    return tuple(sequence for sequence in (*NEW, *OLD) if sequence in found)


def _organs(cases: list[BratsCase]) -> LabelMap:
    if any(_CHILDREN.search(case.id) for case in cases):
        # The sets of children's tumours have counted in two ways, so nothing is claimed here.
        return LabelMap.of({f"label {value}": value for value in (1, 2, 3, 4)})
    if _sequences(cases)[0] in OLD:
        return LabelMap.of(_COMMON | {"enhancing tumor": 4})
    cavity = {"resection cavity": 4} if any(_AFTER_TREATMENT.search(case.id) for case in cases) else {}
    return LabelMap.of(_COMMON | {"enhancing tumor": 3} | cavity)
