"""Turns the volumes of one domain into one HDF5 file: oriented, scaled, split, and with its provenance inside.

What is in the file stands in `attent_kit.data.prepared`.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import scipy

from attent_kit import __version__
from attent_kit.data.checks import image_doubts, label_doubts
from attent_kit.data.geometry import Grid
from attent_kit.data.hdf5 import writing
from attent_kit.data.intensity import Intensity, sample
from attent_kit.data.labelmap import LabelMap, Others
from attent_kit.data.layouts import Pair
from attent_kit.data.prepared import FORMAT, VERSION, Manifest
from attent_kit.data.splits import SPLITS, Split, divide, split_by_name
from attent_kit.data.volumes import read_labels, read_volume, sha256
from attent_kit.errors import ConfigError, DataError
from attent_kit.files import write_whole

Report = Callable[[str, int, int], None]
"""`report(case, index, total)`, called before each reading of a volume; index counts from 0."""


def prepare(
    pairs: Sequence[Pair | tuple[str, Path, Path | None]],
    out: Path | str,
    *,
    modality: str,
    organs: Mapping[str, int | Sequence[int]] | LabelMap,
    others: Others = "error",
    domain: str | None = None,
    size: int = 256,
    channels: int = 1,
    intensity: Intensity | None = None,
    split: Split | str | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Manifest:
    """Writes `out` and returns what it says about itself; the same input gives the same bytes.

    `organs` names the task's organs in order with their values in the label files; `others` = "background" lets every
    other value pass as background. Intensity constants are measured on the training cases alone. `channels` is 1, or an
    odd number of neighbouring slices. Slices without contrast are kept for prediction and left out of training, which
    needs no label. `split` is fractions, lists of cases, or the name of a split. DataError for any unusable input,
    RunError if `out` cannot be written; an existing `out` is then as it was.
    """
    out = Path(out)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: name the file to write, as in {out / (domain or modality)}.h5.")
    label_map = LabelMap.of(organs, others)
    intensity = intensity or Intensity.default(modality)
    if size < 1 or channels < 1 or channels % 2 == 0:
        raise ConfigError(f"size is {size} and channels {channels}: use 1 or more, and an odd number, as in 256 and 1.")
    cases = _checked([Pair(*pair) for pair in pairs])
    named = split if isinstance(split, str) else None
    if isinstance(split, str):
        split = split_by_name(split, modality, [pair.case for pair in cases])
    splits = divide([pair.case for pair in cases], split, seed)
    splits_of = {pair.case: [name for name in SPLITS if pair.case in splits[name]] for pair in cases}
    warnings = []
    if left_out := [case for case, names in splits_of.items() if not names]:
        warnings.append(f"in no split and left out: {', '.join(left_out)}.")
    if shared := [case for case, names in splits_of.items() if len(names) > 1]:
        warnings.append(f"in several splits, so that scores are not those of unseen patients: {', '.join(shared)}.")
    cases = [pair for pair in cases if splits_of[pair.case]]

    training = [pair for pair in cases if pair.case in splits["train"] and not intensity.measured]
    tell = _counted(report, len(training) + len(cases))
    if not intensity.measured:
        if not training:
            raise ConfigError("no case is for training, so nothing tells the percentiles: give low and high instead.")
        intensity = intensity.measure([sample(read_volume(pair.image).array) for pair in training if tell(pair.case)])

    manifest: Manifest = {
        "format": FORMAT,
        "version": VERSION,
        "domain": domain or modality,
        "modality": modality,
        "organs": list(label_map.organs),
        "label_map": label_map.to_dict(),
        "size": size,
        "channels": channels,
        "intensity": intensity.to_dict(),
        "splits": {name: list(members) for name, members in splits.items()},
        "split": named,
        "split_rule": _split_rule(split),
        "seed": seed,
        "shared_cases": shared,
        "warnings": warnings,
        "versions": _versions(),
        "cases": [],
    }

    def write(path: Path) -> None:
        with writing(path) as (file, sink):
            for pair in cases:
                tell(pair.case)
                record, doubts = _write_case(file, pair, splits_of[pair.case], modality, label_map, size, intensity)
                sink.check()
                manifest["cases"].append(record)
                warnings.extend(f"{pair.case}: {doubt}" for doubt in doubts)
            _no_image_twice(manifest["cases"])
            warnings.extend(_organs_never_seen(manifest["cases"], label_map))
            file["manifest"] = json.dumps(manifest)  # a data set, since HDF5 attributes end at 64 KiB

    write_whole(out, write)
    return manifest


def _write_case(
    file: h5py.File,
    pair: Pair,
    splits: list[str],
    modality: str,
    label_map: LabelMap,
    size: int,
    intensity: Intensity,
) -> tuple[dict[str, Any], list[str]]:
    """Writes one case; its record in the manifest, and what is doubtful about it."""
    group = file.create_group(f"cases/{pair.case}")
    volume = read_volume(pair.image)
    low, high = intensity.bounds(volume.array)
    grid = Grid.of(volume.array.shape, volume.affine, size)
    images = grid.to_slices(intensity.apply(volume.array)).astype(np.float16)
    blank = [z for z, image in enumerate(images) if image.min() == image.max()]
    if len(blank) == len(images):
        raise DataError(
            f"{pair.image} has no contrast between {low:g} and {high:g} in any slice: give another intensity, or "
            "convert the image to HU if it is a CT."
        )
    group.create_dataset("images", data=images, chunks=(1, size, size), fletcher32=True, track_times=False)
    content = hashlib.sha256(images.tobytes())
    doubts = image_doubts(volume, modality, intensity.kind == "window")
    record = {
        "id": pair.case,
        "splits": splits,
        "slices": len(images),
        "blank": blank,
        "shape": list(grid.shape),
        "affine": [list(row) for row in grid.affine],
        "spacing": list(grid.spacing),
        "orientation": grid.orientation,
        "pixel": grid.pixel,
        "low": low,
        "high": high,
        "image": {"name": pair.image.name, "sha256": sha256(pair.image)},
        "labels": None,
    }
    if pair.labels is not None:
        truth = label_map.apply(read_labels(pair.labels, like=volume).array, str(pair.labels))
        labels = grid.labels_to_slices(truth)
        group.create_dataset("labels", data=labels, chunks=(1, size, size), compression="gzip", track_times=False)
        content.update(labels.tobytes())
        if "val" in splits or "test" in splits:
            group.create_dataset("truth", data=truth, compression="gzip", track_times=False)
            content.update(truth.tobytes())
        voxels = {organ: int((truth == n).sum()) for n, organ in enumerate(label_map.organs, start=1)}
        record["labels"] = {"name": pair.labels.name, "sha256": sha256(pair.labels), "voxels": voxels}
        doubts += label_doubts(labels, label_map.organs)
    record["content"] = content.hexdigest()
    return record, doubts


def _checked(pairs: list[Pair]) -> list[Pair]:
    if not pairs:
        raise DataError("there is no case to prepare: name a folder that holds .nii or .nii.gz files.")
    ids = [pair.case for pair in pairs]
    if twice := sorted({case for case in ids if ids.count(case) > 1}):
        raise DataError(f"the case '{twice[0]}' is given twice: give each case its own name.")
    if bad := [case for case in ids if case in ("", ".", "..") or "/" in case or "\0" in case]:
        raise DataError(f"'{bad[0]}' cannot name a case: use letters, digits, '-' and '_'.")
    for path in (Path(path) for pair in pairs for path in pair[1:] if path is not None):
        if not path.exists():
            raise DataError(f"{path} does not exist: check the spelling of the path.")
    return sorted((Pair(p.case, Path(p.image), p.labels and Path(p.labels)) for p in pairs), key=lambda p: p.case)


def _counted(report: Report | None, total: int) -> Callable[[str], bool]:
    done = iter(range(total))

    def tell(case: str) -> bool:
        index = next(done)
        if report is not None:
            report(case, index, total)
        return True

    return tell


def _no_image_twice(records: list[dict[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for record in records:
        if (other := seen.setdefault(record["image"]["sha256"], record["id"])) != record["id"]:
            raise DataError(f"the cases '{other}' and '{record['id']}' are the same image: leave one of them out.")


def _organs_never_seen(records: list[dict[str, Any]], label_map: LabelMap) -> list[str]:
    voxels = [record["labels"]["voxels"] for record in records if record["labels"]]
    unseen = [organ for organ in label_map.organs if voxels and not any(of_case[organ] for of_case in voxels)]
    return [f"no case has the organ '{organ}': check its value in the label map." for organ in unseen]


def _split_rule(split: Split | None) -> Any:
    if split is None:
        return "default"
    return {name: share if isinstance(share, int | float) else list(share) for name, share in split.items()}


def _versions() -> dict[str, str]:
    modules = {"numpy": np, "scipy": scipy, "nibabel": nibabel, "h5py": h5py}
    versions = {"attent-kit": __version__, "python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    return versions | {name: module.__version__ for name, module in modules.items()}
