"""Reads the one HDF5 file that `attent_kit.data.prepare.prepare` makes of a domain.

Shapes: N Z slices, C channels, H W = `size`, X Y Z a native grid.

    manifest                JSON as bytes of a fixed number, where everything comes from and how it was made
    manifest_sha256         of these bytes, compared on every load
    cases/<case>/images     [Z, H, W] float16 in [-1, 1]
    cases/<case>/labels     [Z, H, W] uint8 class indices, present if the case is labelled
    cases/<case>/truth      [X, Y, Z] uint8 class indices on the native grid, present if the case is labelled; files of
                            earlier versions have it of val and test cases alone
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attent_kit.data.prepared.believed import strange
from attent_kit.data.prepared.hdf5 import Spoilt, plain, text_in
from attent_kit.data.scans.volumes import Volume
from attent_kit.data.sets.splits import SPLITS, WHOLE, Fold
from attent_kit.data.space.geometry import Grid
from attent_kit.data.space.intensity import Intensity
from attent_kit.data.space.slicing import Slicing
from attent_kit.errors import ConfigError, DataError, did_you_mean
from attent_kit.reading import json_in, of_git

FORMAT = "attent-kit prepared domain"
VERSION, PARTIAL_VERSION = 1, 2
"""The second where some case does not annotate every organ: a reader that knew the first alone would take those for
background."""
IGNORE = 255
"""Label of a pixel that no loss and no metric counts; the same number as `interfaces.IGNORE`, which needs torch."""

Manifest = dict[str, Any]
"""What a prepared file says about itself; plain JSON values."""
IN_MANIFEST = (
    "format", "version", "domain", "modality", "layout", "options", "organs", "label_map", "size", "pixel_mm", "channels",
    "intensity", "measured_on", "label_driven", "splits", "split", "split_rule", "seed", "shared_cases", "phantom",
    "decisions", "warnings", "versions", "cases",
)  # fmt: skip
IN_RECORD = (
    "id", "splits", "slices", "blank", "shape", "affine", "spacing", "orientation", "pixel", "low", "high", "grey", "image",
    "labels", "decisions", "doubts", "content",
)  # fmt: skip
"""What the manifest says of a case; `without_organ` too, of a training case that was prepared with --foreground-only, and
`middle`, of one that is centred on the body; `annotated`, of a labelled case that does not annotate every organ; `label_map`,
of one whose label values differ from the others'; `truth`, its SHA-256, if the case is labelled; `patient`, where several cases
may be of one."""


@dataclass(frozen=True)
class Case:
    """One patient of a domain."""

    id: str
    splits: tuple[str, ...]
    """Some of 'train', 'val', 'test'; several only if the split was made so on purpose."""
    slices: int
    """Z, all slices of the volume."""
    kept: tuple[int, ...]
    """The slices that are not blank, ascending: what training sees."""
    with_organ: tuple[int, ...]
    """Those that training on the source side sees: the same, unless the file was prepared with --foreground-only."""
    spacing: tuple[float, float, float]
    """mm between voxel centres along the native X, Y, Z."""
    has_labels: bool
    annotated: tuple[str, ...]
    """Organs that its labels annotate, in task order; where another one is, they say background. None without labels."""


class Prepared:
    """A prepared domain, opened for reading; the file is opened on first use, once per process.

    prepared = Prepared.open("ct.h5")
    images = prepared.images(prepared.ids("train"))        # [N, 1, 256, 256] float16
    """

    def __init__(self, path: Path, manifest: Manifest, fold: Fold = WHOLE) -> None:
        self.path = path
        self.manifest = manifest
        self.domain: str = manifest["domain"]
        self.modality: str = manifest["modality"]
        self.organs: tuple[str, ...] = tuple(manifest["organs"])
        self.slicing = Slicing.from_dict(manifest)
        self.channels: int = manifest["channels"]
        self.intensity = Intensity.from_dict(manifest["intensity"])
        self.fold = fold
        """Which fold of it this is; its splits are then not those of the file."""
        self.split: str | None = manifest["split"]
        """Name of the split; None where its cases were listed or dealt."""
        self.decisions: tuple[str, ...] = tuple(manifest["decisions"])
        """What was settled without being asked for, a sentence each."""
        self.warnings: tuple[str, ...] = tuple(manifest["warnings"])
        """What is doubtful, a sentence each."""
        self.shared_cases: tuple[str, ...] = tuple(manifest["shared_cases"])
        self.cases: tuple[Case, ...] = tuple(_case(record, self.organs) for record in manifest["cases"])
        self._records = {record["id"]: record for record in manifest["cases"]}
        self._file: h5py.File | None = None
        self._looked_at: set[str] = set()
        """Data sets that are as `prepare` writes them."""
        self._process = 0

    @property
    def size(self) -> int:
        """Side of a slice in pixels."""
        return self.slicing.size

    @property
    def pixel_mm(self) -> float | None:
        """mm of a pixel where it was asked for; None where `size` pixels span each field of view."""
        return self.slicing.pixel

    @property
    def centre(self) -> str:
        """What slices are centred on: "grid" or "body"."""
        return self.slicing.centre

    @property
    def plane(self) -> str:
        """The plane of the slices: "axial", "sagittal" or "coronal"."""
        return self.slicing.plane

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(self.ids(split))} {split}" for split in SPLITS)
        return f"<{self.path}: {self.domain}, {len(self.cases)} cases ({splits}), {', '.join(self.organs)}>"

    @classmethod
    def open(cls, path: Path | str) -> "Prepared":
        """DataError if the file is missing, was not made by `attentkit prepare`, or has another format version."""
        path = Path(path)
        if path.is_dir():
            raise DataError(
                f"{path} is a folder: make one file of its volumes with `attentkit prepare`, and name that."
            )
        if not path.is_file():
            raise DataError(
                f"{path} does not exist: make it with `attentkit prepare`, or check the spelling of the path."
            )
        try:
            with h5py.File(path, "r") as file:
                manifest = json_in(text_in(file, "manifest"))
            known = manifest["format"] == FORMAT
        except Spoilt as error:
            raise DataError(
                f"{path} is damaged: its manifest has changed since it was written. Run `attentkit prepare` again."
            ) from error
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            if reason := _of_the_system(error):
                raise DataError(f"{path} cannot be read ({reason}): copy it again, or make it readable.") from error
            known = False
        if not known:
            raise DataError(of_git(path) or f"{path} is not a prepared domain: make one with `attentkit prepare`.")
        if "version" in manifest and manifest["version"] not in (VERSION, PARTIAL_VERSION):
            raise DataError(
                f"{path} has format {manifest['version']}, this attent-kit reads {VERSION} and {PARTIAL_VERSION}: "
                "run `attentkit prepare` again."
            )
        try:
            if missing := _missing(manifest):
                raise DataError(f"the manifest in {path} lacks {missing}: run `attentkit prepare` again.")
            if wrong := strange(manifest):
                raise DataError(
                    f"the manifest in {path} says that {wrong}, which cannot be: run `attentkit prepare` again."
                )
            prepared = cls(path, manifest)
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise DataError(
                f"the manifest of {path} is not as `attentkit prepare` writes it ({type(error).__name__}: {error}): run "
                "`attentkit prepare` again."
            ) from error
        return prepared

    def with_channels(self, channels: int | None) -> "Prepared":
        """The same file, of whose slices so many are seen at once, an odd number; None: as it was prepared."""
        if channels is None or channels == self.channels:
            return self
        return Prepared(self.path, {**self.manifest, "channels": channels}, self.fold)

    def cases_in(self, split: str) -> tuple[Case, ...]:
        """The cases of 'train', 'val' or 'test', sorted by id."""
        return tuple(case for case in self.cases if split in case.splits)

    def ids(self, split: str) -> tuple[str, ...]:
        """The case ids of a split, sorted."""
        return tuple(case.id for case in self.cases_in(split))

    def case(self, case: str) -> Case:
        """The case of that id; DataError with the nearest id if there is none."""
        for known in self.cases:
            if known.id == case:
                return known
        raise DataError(f"{self.path} has no case '{case}'.{did_you_mean(case, self._records)}")

    def index(self, case_ids: Iterable[str], as_source: bool = False) -> list[tuple[str, int]]:
        """(case, z) of every slice that is not blank, in the order of `images` and `labels`.

        `as_source` leaves out what --foreground-only leaves out: of a target, labels choose nothing.
        """
        return [(case, z) for case in case_ids for z in self._chosen(case, as_source)]

    def images(self, case_ids: Sequence[str], as_source: bool = False) -> np.ndarray:
        """All slices of `index`: [N, C, H, W] float16 in [-1, 1]."""
        images = np.empty((len(self.index(case_ids, as_source)), self.channels, self.size, self.size), np.float16)
        row = 0
        for case in case_ids:
            kept = list(self._chosen(case, as_source))
            images[row : row + len(kept)] = self.slices(case)[kept]
            row += len(kept)
        return images

    def stacks(self, case_ids: Sequence[str], as_source: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """What `images` are made of, each slice once: slices [M, H, W] float16 in [-1, 1], and which of them are the channels of
        each image, [N, C]."""
        parts, rows, start, reach = [], [], 0, self.channels // 2
        for case in case_ids:
            chosen = np.array(self._chosen(case, as_source), np.int64)[:, None] + np.arange(-reach, reach + 1)
            needed, found = np.unique(chosen.clip(0, self.case(case).slices - 1), return_inverse=True)
            parts.append(self._read(case, "images")[needed])
            rows.append(start + found.reshape(chosen.shape))
            start += len(needed)
        return np.concatenate(parts), np.concatenate(rows)

    def labels(self, case_ids: Sequence[str], as_source: bool = False) -> np.ndarray:
        """Class indices of the slices of `images`: [N, H, W] uint8, IGNORE throughout a case without labels."""
        parts = [self.label_slices(case)[list(self._chosen(case, as_source))] for case in case_ids]
        return np.concatenate(parts) if parts else np.empty((0, self.size, self.size), np.uint8)

    def unknown(self, case: str) -> tuple[int, ...]:
        """Classes of the organs that a labelled case does not annotate: where it says background, it may be one of these."""
        annotated = self.case(case).annotated
        return tuple(n for n, organ in enumerate(self.organs, start=1) if organ not in annotated)

    def class_counts(self, case_ids: Sequence[str]) -> np.ndarray:
        """Labelled pixels of each class, background first, in the slices of `images`: [K]. One case is read at a time.

        An organ is counted in the cases that annotate it, as if it were as frequent in the others; background is the rest.
        """
        counts, seen = np.zeros((2, len(self.organs) + 1), np.int64)
        for case in case_ids:
            labels = self.labels([case])
            found = np.bincount(labels[labels != IGNORE], minlength=len(counts))
            annotated = np.delete(np.arange(len(counts)), self.unknown(case))
            counts += found
            seen[annotated] += found.sum()
        if (seen == counts.sum()).all():
            return counts
        organs = np.divide(counts[1:] * counts.sum(), seen[1:], out=np.zeros(len(self.organs)), where=seen[1:] > 0)
        return np.array([max(counts.sum() - organs.sum(), 0), *organs])

    def slices(self, case: str) -> np.ndarray:
        """Every slice of a case, blank or not, for prediction: [Z, C, H, W] float16 in [-1, 1]."""
        return neighbours(self._read(case, "images"), range(self.case(case).slices), self.channels)

    def volume(self, case: str, rows: slice = slice(None)) -> np.ndarray:
        """Slices of a case without their neighbours, blank or not: [Z, H, W] float16 in [-1, 1]."""
        return self._read(case, "images", rows)

    def label_slices(self, case: str) -> np.ndarray:
        """Class indices of `slices`: [Z, H, W] uint8, IGNORE throughout if the case has no labels."""
        if self.case(case).has_labels:
            return self._read(case, "labels")
        return np.full((self.case(case).slices, self.size, self.size), IGNORE, np.uint8)

    def image_row(self, case: str, z: int) -> np.ndarray:
        """One slice, read by itself: [C, H, W] float16 in [-1, 1]."""
        reach, last = self.channels // 2, self.case(case).slices - 1
        first, end = max(z - reach, 0), min(z + reach, last)
        return neighbours(self._read(case, "images", slice(first, end + 1)), [z - first], self.channels)[0]

    def label_row(self, case: str, z: int) -> np.ndarray:
        """Class indices of one slice: [H, W] uint8, IGNORE if the case has no labels."""
        if self.case(case).has_labels:
            return self._read(case, "labels", z)
        return np.full((self.size, self.size), IGNORE, np.uint8)

    def grid(self, case: str) -> Grid:
        """The native grid of a case, the way back for its predictions."""
        return self.slicing.grid(self._records[self.case(case).id])

    def truth(self, case: str) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Labels as drawn, not resampled: [X, Y, Z] uint8 class indices, and the spacing in mm along X, Y, Z."""
        found = self.case(case)
        if not found.has_labels:
            raise DataError(f"case '{case}' of {self.path} has no labels to score against: prepare it with labels.")
        if not {"val", "test"} & set(found.splits):
            raise DataError(f"case '{case}' of {self.path} is for training only: score a val or test case.")
        return self.drawn(case), found.spacing

    def drawn(self, case: str) -> np.ndarray:
        """The labels of `truth`, whichever split the case is in; DataError if the file does not hold them."""
        return self._read(case, "truth")

    def content_hash(self) -> str:
        """SHA-256 of what training and scoring can see: equal for equal data, whatever the libraries that wrote it."""
        seen = ("domain", "modality", "organs", "size", "channels", "intensity")
        content = {name: self.manifest[name] for name in seen}
        content |= {name: value for name, value in self.slicing.to_dict().items() if value is not None}
        content["cases"] = [[r["id"], r["splits"], r["affine"], r["content"]] for r in self.manifest["cases"]]
        if self.fold != WHOLE:
            # What its own splits keep for training is tested here, and `content` does not know the truth of it.
            content["truth"] = [r.get("truth") for r in self.manifest["cases"] if "test" in r["splits"]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _chosen(self, case: str, as_source: bool) -> tuple[int, ...]:
        found = self.case(case)
        return found.with_organ if as_source else found.kept

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _read(self, case: str, name: str, selection: Any = ()) -> np.ndarray:
        try:
            return self._data(case, name)[selection]
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise DataError(f"{self.path} is damaged in case '{case}': run `attentkit prepare` again.") from error

    def _data(self, case: str, name: str) -> h5py.Dataset:
        # An HDF5 handle must not cross a fork: each process opens its own.
        if self._file is None or self._process != os.getpid():
            try:
                self._file, self._process = h5py.File(self.path, "r"), os.getpid()
            except OSError as error:
                reason = _of_the_system(error) or "run `attentkit prepare` again"
                raise DataError(f"{self.path} can no longer be read: {reason}.") from error
        place = f"cases/{self.case(case).id}/{name}"
        if place not in self._looked_at:
            found = plain(self._file, place)
            if found.shape != self._shape(case, name) or found.dtype != (np.float16 if name == "images" else np.uint8):
                raise ValueError(f"'{place}' is {found.shape} {found.dtype}")
            self._looked_at.add(place)
        return self._file[place]

    def _shape(self, case: str, name: str) -> tuple[int, ...]:
        """What the manifest makes of the shape of a data set."""
        if name == "truth":
            return tuple(self._records[case]["shape"])
        return self.case(case).slices, self.size, self.size


def _of_the_system(error: BaseException) -> str:
    """What the system says about a file that it does not hand out; "" where the file itself is to blame."""
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if not number:
        return ""
    locked = number in (errno.EAGAIN, errno.EACCES) and "lock" in str(error)
    advice = (
        "another program is writing to it, so wait until that has ended" if locked else "check its rights and its disk"
    )
    return f"{os.strerror(number)}: {advice}"


def encode(
    volume: Volume, slicing: Slicing, intensity: Intensity, modality: str, channels: int = 1
) -> tuple[np.ndarray, Grid]:
    """An image as a prepared file holds it, [Z, C, H, W] float16 in [-1, 1], and the grid that leads back."""
    placed = slicing.place(volume.array, volume.affine, modality)
    slices = placed.grid.to_slices(intensity.apply(placed.array)).astype(np.float16)
    return neighbours(slices, range(len(slices)), channels), placed.grid


def neighbours(slices: Any, rows: Sequence[int], channels: int) -> np.ndarray:
    """Slices with their neighbours as channels: [Z, H, W] -> [N, C, H, W]; the ends of a volume are repeated."""
    reach, last = channels // 2, len(slices) - 1
    return np.stack([np.stack([slices[min(max(z + d, 0), last)] for d in range(-reach, reach + 1)]) for z in rows])


def _missing(manifest: Manifest) -> str:
    """The first thing that a manifest or one of its cases does not say, or ""."""
    if lacking := [name for name in IN_MANIFEST if name not in manifest]:
        return f"'{lacking[0]}'"
    for number, record in enumerate(manifest["cases"], start=1):
        if lacking := [name for name in IN_RECORD if name not in record]:
            return f"'{lacking[0]}' of case {record.get('id', number)}"
    return ""


def _case(record: dict[str, Any], organs: tuple[str, ...]) -> Case:
    annotated = () if record["labels"] is None else tuple(record.get("annotated", organs))
    if strange := [organ for organ in annotated if organ not in organs]:
        raise ValueError(f"case {record['id']} annotates {strange[0]!r}, which is none of its organs")
    blank, bare = set(record["blank"]), set(record.get("without_organ", ()))
    kept = tuple(z for z in range(record["slices"]) if z not in blank)
    return Case(
        id=record["id"],
        splits=tuple(record["splits"]),
        slices=record["slices"],
        kept=kept,
        with_organ=tuple(z for z in kept if z not in bare),
        spacing=tuple(record["spacing"]),
        has_labels=record["labels"] is not None,
        annotated=annotated,
    )
