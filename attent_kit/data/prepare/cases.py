"""One case, from its files to what a prepared file holds of it. Runs in any process; nothing here knows another case."""

import hashlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit import __version__
from attent_kit.data.doubts.case import image_doubts, label_doubts, refuse_label_map
from attent_kit.data.prepare.plan import entry_files, leads_out
from attent_kit.data.prepare.unfinished import Unfinished, key_of
from attent_kit.data.prepared.familiar import grey_values
from attent_kit.data.sets.labelmap import LabelMap
from attent_kit.data.sets.layout import Entry, Layout, Scan
from attent_kit.data.space.geometry import to_axial
from attent_kit.data.space.intensity import Intensity, sample
from attent_kit.data.space.slicing import Placed, Slicing, across
from attent_kit.errors import AttentKitError, ConfigError, DataError, RunError
from attent_kit.files import sha256


class CaseTask(NamedTuple):
    """A case, the splits that it is in, and how its label files are read."""

    entry: Entry
    splits: tuple[str, ...]
    label_map: LabelMap
    home: int = 0
    """Which of the layouts of the recipe it lies in."""


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a case besides its own files."""

    layouts: tuple[Layout, ...]
    unfinished: Unfinished
    modality: str
    slicing: Slicing
    intensity: Intensity
    foreground_only: bool
    training: int
    """Number of training cases, among which the samples of `measure_case` are shared."""

    def shaping(self, task: CaseTask) -> list[Any]:
        """The same in plain values, with what is said of a case, and which code reads its files."""
        layout = self.layouts[task.home]
        return [
            __version__, layout.origin, layout.part, _source_hash(type(layout)), self.modality,
            task.label_map.to_dict(), self.slicing.to_dict(), self.intensity.to_dict(), self.foreground_only,
        ]  # fmt: skip


def measure_case(recipe: Recipe, task: CaseTask) -> str:
    """Keeps the voxels of a training case that the percentiles are taken from; returns the key under which they lie."""
    files = digests(recipe.layouts[task.home], task.entry.images, task.entry)
    key = key_of("sample", task.entry.id, files, recipe.shaping(task), recipe.training)
    if recipe.unfinished.load(key) is None:
        scan = _read(recipe, task)
        recipe.unfinished.save(key, {}, {"sample": sample(_placed(recipe, scan).array, recipe.training)})
    return key


def finish_case(recipe: Recipe, task: CaseTask) -> str:
    """Keeps the slices, the labels and the record of a case, unless they are kept already; returns their key."""
    layout = recipe.layouts[task.home]
    images, labels = (digests(layout, files, task.entry) for files in (task.entry.images, task.entry.labels))
    key = key_of("case", task.entry.id, task.entry.patient, task.splits, images, labels, recipe.shaping(task))
    if recipe.unfinished.load(key) is None:
        recipe.unfinished.save(key, *_encoded(recipe, task, images, labels))
    return key


def _encoded(
    recipe: Recipe, task: CaseTask, images: list[dict[str, str]], labels: list[dict[str, str]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The record of a case in the manifest, and its arrays: images [Z, H, W] float16, labels and truth uint8."""
    entry, splits, label_map, home = task
    scan = _read(recipe, task)
    placed = _placed(recipe, scan)
    grid = placed.grid
    low, high = recipe.intensity.bounds(placed.array)
    slices = grid.to_slices(recipe.intensity.apply(placed.array)).astype(np.float16)
    blank = [z for z, image in enumerate(slices) if image.min() == image.max()]
    if len(blank) == len(slices):
        raise DataError(
            f"{scan.image.path} has no contrast between {low:g} and {high:g} in any slice: give another intensity, or "
            "convert the image to HU if it is a CT."
        )
    arrays = {"images": slices}
    doubts = image_doubts(scan.image, recipe.modality, recipe.intensity.kind == "window")
    doubts += [*scan.doubts, *_link_doubts(recipe.layouts[home], entry), *placed.doubts]
    if unlike := across(grid):
        doubts.append(f"{unlike}: type --plane {grid.acquired}, or --plane auto.")
    record: dict[str, Any] = {
        "id": entry.id,
        "splits": list(splits),
        "slices": len(slices),
        "blank": blank,
        "shape": list(grid.shape),
        "affine": [list(row) for row in grid.affine],
        "spacing": list(grid.spacing),
        "orientation": grid.orientation,
        "pixel": grid.pixel,
        "low": low,
        "high": high,
        "grey": grey_values(placed.array, low, high),
        "image": _together(images),
        "labels": None,
        "decisions": list(scan.decisions),
        **({"patient": entry.patient} if entry.patient else {}),
    }
    if grid.middle is not None:
        record["middle"] = list(grid.middle)
    if scan.labels is not None:
        truth = label_map.apply(scan.labels.array, str(scan.labels.path))
        classes = grid.labels_to_slices(truth)
        arrays |= {"labels": classes, "truth": truth}
        record["truth"] = truth_hash(truth)
        voxels = {o: int((truth == n).sum()) for n, o in enumerate(label_map.organs, 1) if o in label_map.annotated}
        record["labels"] = {**_together(labels or images), "voxels": voxels}
        if label_map.annotated != label_map.organs:
            record["annotated"] = list(label_map.annotated)
        doubts += label_doubts(to_axial(classes, grid.plane), label_map.organs) + _cut_off(placed, truth)
    if recipe.foreground_only and "train" in splits:
        if scan.labels is None:
            raise ConfigError(
                f"--foreground-only goes by labels, and the training case '{entry.id}' has none: leave it out, or "
                "prepare labelled cases only."
            )
        record["without_organ"] = [z for z, plane in enumerate(classes) if not plane.any() and z not in blank]
    record["doubts"] = doubts
    record["content"] = content_of(arrays, record)
    return record, arrays


def _read(recipe: Recipe, task: CaseTask) -> Scan:
    scan = read_scan(recipe.layouts[task.home], task.entry)
    refuse_label_map(scan.image)
    return scan


def content_of(arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> str:
    """SHA-256 of what training and scoring can see of a case: its arrays, which of its slices labels have chosen, and what its
    labels annotate if that is not every organ.

    Of a case that its split does not test, nobody sees the truth, unless it is in a fold: `truth_hash` is for that.
    """
    content = hashlib.sha256()
    tested = {"val", "test"} & {*record["splits"]}
    for name in ("images", "labels", *(["truth"] if tested else [])):
        if name in arrays:
            content.update(arrays[name].tobytes())
    for name in ("without_organ", "annotated"):
        if name in record:
            content.update(repr(record[name]).encode())
    return content.hexdigest()


def truth_hash(truth: np.ndarray) -> str:
    """SHA-256 of labels as they were drawn."""
    return hashlib.sha256(truth.tobytes()).hexdigest()


def read_scan(layout: Layout, entry: Entry) -> Scan:
    """Image and labels of a case, checked; whatever goes wrong in a layout is a sentence that names the case."""
    try:
        scan = layout.read(entry)
    except (AttentKitError, MemoryError):
        raise
    except OSError as error:
        raise DataError(
            f"{error.filename or entry.images[0]} cannot be read ({error.strerror or error}): copy it again, or "
            "make it readable."
        ) from error
    except Exception as error:
        raise RunError(
            f"the layout {layout.origin or type(layout).__name__} failed on the case '{entry.id}' with "
            f"{type(error).__name__} ({error}): tell its author, or leave the case out."
        ) from error
    array = scan.image.array
    if array.ndim != 3 or not np.isfinite(array).all() or array.min() == array.max():
        raise DataError(
            f"the image of case '{entry.id}' in {layout.path} is not a volume of finite, unequal grey "
            "values: look at it in a viewer, or leave the case out."
        )
    if scan.labels is not None and (scan.labels.array.shape != array.shape or scan.labels.array.dtype.kind not in "iu"):
        raise DataError(
            f"the labels of case '{entry.id}' in {layout.path} are not whole numbers on the grid of the image: "
            "resample them by nearest neighbour, or leave the case out."
        )
    return scan


def digests(layout: Layout, files: tuple[Path, ...], entry: Entry) -> list[dict[str, str]]:
    """Name and SHA-256 of each file; of a folder, of every file in it. DataError if one cannot be read."""
    found = []
    for path in files:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            try:
                found.append({"name": _name(file, layout.path), "sha256": sha256(file)})
            except OSError as error:
                raise DataError(
                    f"{file} of case '{entry.id}' cannot be read ({error.strerror or error}): copy it again, or "
                    "make it readable."
                ) from error
    return found


def _together(files: list[dict[str, str]]) -> dict[str, Any]:
    """Several files as one: the folder that they share, the hash of their hashes, and the hash of each by its name there."""
    if len(files) == 1:
        return dict(files[0])
    folder = os.path.commonpath([os.path.dirname(file["name"]) for file in files])
    together = hashlib.sha256("".join(file["sha256"] for file in files).encode()).hexdigest()
    each = {file["name"].removeprefix(folder).lstrip("/"): file["sha256"] for file in files}
    return {"name": folder or files[0]["name"], "sha256": together, "files": each}


def _name(file: Path, root: Path) -> str:
    """The name of a file inside its data set; only its last part where it lies elsewhere."""
    place = root if root.is_dir() else root.parent
    try:
        name = Path(os.path.abspath(file)).relative_to(os.path.abspath(place)).as_posix()
    except ValueError:
        name = file.name
    return name.encode("utf-8", "replace").decode("utf-8")


def _link_doubts(layout: Layout, entry: Entry) -> list[str]:
    strays = [path for path in entry_files(entry) if leads_out(path, layout.path)]
    if not strays:
        return []
    lie = f" and {len(strays) - 1} more lie" if len(strays) > 1 else " lies"
    return [f"{strays[0].name}{lie} outside the data set's folder, by a link or by '..'."]


def _placed(recipe: Recipe, scan: Scan) -> Placed:
    return recipe.slicing.place(scan.image.array, scan.image.affine, recipe.modality)


def _cut_off(placed: Placed, truth: np.ndarray) -> list[str]:
    """What slices do not show of the organs, a sentence each."""
    grid, found = placed.grid, []
    if share := grid.outside(truth):
        side = f"{grid.size} pixels of {grid.pixel:g} mm"
        found.append(f"{100 * share:.2g} % of the organs lie outside slices of {side}: raise --size or --pixel.")
    if placed.body is not None and (share := float((truth[~placed.body] > 0).sum() / max((truth > 0).sum(), 1))):
        found.append(
            f"{100 * share:.2g} % of the organs lie outside the body that was found, where slices show air: leave out "
            "--centre body."
        )
    return found


def _source_hash(layout: type[Layout]) -> str:
    """SHA-256 of the file that a layout is written in, so that nothing is used that it read before an edit."""
    try:
        return sha256(inspect.getsourcefile(layout) or "")
    except (OSError, TypeError):
        return ""
