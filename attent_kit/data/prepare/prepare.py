"""Turns the volumes of one domain into one HDF5 file: oriented, scaled, split, and with its provenance inside.

`attent_kit.data.prepared.file` says what is in the file. The same provenance lies beside it as TOML, for people.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from attent_kit.data.doubts.case import organs_never_seen, without_organs
from attent_kit.data.phantom.write import in_phantom
from attent_kit.data.prepare.cases import CaseTask, Recipe, finish_case, measure_case
from attent_kit.data.prepare.options import DEFAULTS, Addition, PrepareOptions
from attent_kit.data.prepare.organs import DataSet
from attent_kit.data.prepare.plan import DomainPlan, PairList, entry_files, plan
from attent_kit.data.prepare.plane import settled_plane
from attent_kit.data.prepare.preview import preview_of, refuse_preview
from attent_kit.data.prepare.unfinished import Finished, Unfinished
from attent_kit.data.prepared.file import FORMAT, PARTIAL_VERSION, VERSION, Manifest, Prepared
from attent_kit.data.prepared.hdf5 import put_text, writing
from attent_kit.data.prepared.manifest import beside, refuse_to_overwrite, to_toml, versions
from attent_kit.data.sets.labelmap import LabelMap
from attent_kit.data.sets.layout import Layout
from attent_kit.data.sets.pairs import Pair
from attent_kit.data.sets.recognise import open_layout, parts_at
from attent_kit.data.space.intensity import Intensity
from attent_kit.data.space.slicing import Slicing
from attent_kit.data.workers import Ask, ReportDone, WorkerEnded, asking, counted, sensible_workers
from attent_kit.errors import AttentKitError, ConfigError, DataError
from attent_kit.files import not_written, write_whole
from attent_kit.naming import names_a_file
from attent_kit.registry import Registry


def prepare_data_set(
    path: Path | str,
    out: Path | str,
    registry: Registry,
    options: PrepareOptions = DEFAULTS,
    *,
    preview: Path | None = None,
    workers: int | None = None,
    report: ReportDone | None = None,
) -> Prepared:
    """`attentkit prepare`: the data set at `path` as the prepared file `out`, and a picture of some cases at `preview`.

    `path` is read by one of the layouts of `registry`; the rest is as in `prepare`.
    """
    refuse_preview(preview, Path(out))
    layout = open_layout(
        path, registry, options.layout, options.part,
        labels=options.labels, allow_unlabelled=options.allow_unlabelled or None,
    )  # fmt: skip
    added = [_added(more, registry) for more in options.added]
    prepared = prepare(layout, out, options, added=added, workers=workers, report=report)
    if preview is not None:
        preview_of(prepared, preview)
    return prepared


def _added(more: Addition, registry: Registry) -> DataSet:
    """A data set that `--add` names. ConfigError for a place with several of which one must be chosen, as none can be there."""
    parts = parts_at(more.path, registry, labels=more.labels)
    try:
        return DataSet(open_layout(more.path, registry, labels=more.labels), more.organs)
    except ConfigError:
        if len(parts) < 2:
            raise
        raise ConfigError(
            f"{more.path} holds several data sets ({', '.join(parts)}), and --add takes one: name it first, with --part, and add "
            "the other, or list the files of both in a CSV."
        ) from None


def prepare(
    source: Layout | Sequence[Pair | tuple[str, Path, Path | None]],
    out: Path | str,
    options: PrepareOptions = DEFAULTS,
    *,
    added: Sequence[DataSet] = (),
    workers: int | None = 1,
    report: ReportDone | None = None,
) -> Prepared:
    """Writes `out` and its manifest beside it; the same input gives the same bytes of both.

    `source` is a data set, or pairs of files, and `added` are others for the same domain, which may annotate other organs.
    Intensity constants are measured on the training cases alone. Slices without contrast are kept for prediction and left out of
    training, which needs no label; with `foreground_only`, so are the slices without any organ of training cases on the source
    side. However many `workers` there are, None being as many as are sensible, the result is the same. `report(case, done,
    total)` is called after each case.

    A call that was killed continues where it stopped. DataError for any unusable input, RunError if `out` cannot be written;
    an existing `out` is then as it was.
    """
    out = Path(out)
    layout = source if isinstance(source, Layout) else PairList(source)
    settled = plan(layout, options, added)
    _refuse_what_cannot_be(out, settled, options, workers)
    if workers is None:
        workers = sensible_workers(len(settled.entries), _bytes_of(settled))
    plane, decisions = settled_plane(options.plane, settled, workers)
    settled = replace(settled, decisions=(*settled.decisions, *decisions))
    recipe = Recipe(
        settled.layouts, Unfinished(out), settled.modality, options.slicing(plane),
        options.intensity(settled.modality), options.foreground_only, len(settled.splits["train"]),
    )  # fmt: skip
    tasks = [
        CaseTask(entry, settled.splits_of(entry.id), settled.maps.of_case[entry.id], settled.home[entry.id])
        for entry in settled.entries
    ]
    manifest = _without_cases(settled, options, recipe.slicing)
    try:
        with recipe.unfinished.claimed(), _removed_unless_stopped(recipe.unfinished):
            folder = recipe.unfinished.folder
            write_whole(
                out,
                lambda path: _write(path, folder / "manifest.part", recipe, tasks, manifest, workers, report),
                folder / "prepared.part",
            )
            os.replace(folder / "manifest.part", beside(out))
    except OSError as error:
        raise not_written(out, error) from error
    return Prepared(out, manifest)


def _without_cases(settled: DomainPlan, options: PrepareOptions, slicing: Slicing) -> Manifest:
    """What the manifest says before a volume is read."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "domain": options.domain or settled.modality,
        "modality": settled.modality,
        "layout": {"origin": settled.layouts[0].origin, "part": settled.layouts[0].part},
        "options": options.words(),
        "organs": list(settled.maps.whole.organs),
        "label_map": settled.maps.whole.to_dict(),
        **slicing.to_dict(),
        "channels": options.channels,
        "intensity": {},
        "measured_on": [],
        "label_driven": ["source training sees slices with an organ only"] if options.foreground_only else [],
        "splits": {name: list(members) for name, members in settled.splits.items()},
        "split": settled.split,
        "split_rule": settled.rule,
        "seed": options.seed,
        "shared_cases": settled.shared,
        "phantom": any(in_phantom(folder) for folder in {entry.images[0].parent for entry in settled.entries}),
        "decisions": list(settled.decisions),
        "warnings": list(settled.warnings),
        "versions": versions(),
        "cases": [],
    }


def _write(
    path: Path,
    beside: Path,
    recipe: Recipe,
    tasks: list[CaseTask],
    manifest: Manifest,
    workers: int,
    report: ReportDone | None,
) -> None:
    """The prepared file at `path` and its manifest at `beside`; fills in the part of the manifest that the cases tell."""
    training = [task for task in tasks if "train" in task.splits and not recipe.intensity.measured]
    tell = counted(report, len(training) + len(tasks))
    with asking(workers, recipe) as ask:
        recipe = replace(recipe, intensity=_measured(recipe, training, ask, tell))
        manifest["intensity"] = recipe.intensity.to_dict()
        manifest["measured_on"] = [task.entry.id for task in training]
        with writing(path) as (file, sink):
            images: dict[str, str] = {}
            shown: list[tuple[int, int]] = []
            for task, key in zip(tasks, ask(partial(finish_case, recipe), tasks), strict=True):
                finished = _kept(recipe.unfinished, key)
                _store(file, task.entry.id, finished)
                sink.check()
                record = finished.record
                if record["labels"] and "annotated" not in record and "train" in task.splits:
                    shown.append(_slices_of(finished))
                if record["labels"] and (values := task.label_map.to_dict()) != manifest["label_map"]:
                    record["label_map"] = values
                if (other := images.setdefault(record["image"]["sha256"], record["id"])) != record["id"]:
                    raise DataError(
                        f"the cases '{other}' and '{record['id']}' are the same image: leave one of them out."
                    )
                manifest["cases"].append(record)
                manifest["warnings"] += [f"{record['id']}: {doubt}" for doubt in record["doubts"]]
                tell(record["id"])
            voxels = [record["labels"]["voxels"] for record in manifest["cases"] if record["labels"]]
            manifest["warnings"] += organs_never_seen(voxels, manifest["organs"])
            if not recipe.foreground_only and recipe.slicing.plane == "axial":
                manifest["warnings"] += without_organs(shown)
            if any("annotated" in record for record in manifest["cases"]):
                manifest["version"] = PARTIAL_VERSION
            _refuse_empty_training(manifest)
            _refuse_background_alone(voxels, manifest["label_map"])
            put_text(file, "manifest", json.dumps(manifest))  # a data set, since HDF5 attributes end at 64 KiB
    with open(beside, "wb") as text:
        text.write(to_toml(manifest).encode())
        text.flush()
        os.fsync(text.fileno())


def _measured(recipe: Recipe, training: list[CaseTask], ask: Ask, tell: Callable[[str], None]) -> Intensity:
    """The intensity with the percentiles of the training cases, where it has to be measured."""
    if recipe.intensity.measured:
        return recipe.intensity
    if not training:
        raise ConfigError("no case is for training, so the percentiles cannot be measured: give low and high instead.")
    samples = []
    for task, key in zip(training, ask(partial(measure_case, recipe), training), strict=True):
        samples.append(_kept(recipe.unfinished, key).arrays["sample"])
        tell(task.entry.id)
    return recipe.intensity.measure(samples)


def _store(file: h5py.File, case: str, finished: Finished) -> None:
    group = file.create_group(f"cases/{case}")
    arrays, one_slice = finished.arrays, (1, *finished.arrays["images"].shape[1:])
    group.create_dataset("images", data=arrays["images"], chunks=one_slice, fletcher32=True, track_times=False)
    if "labels" in arrays:
        group.create_dataset("labels", data=arrays["labels"], chunks=one_slice, compression="gzip", track_times=False)
    if "truth" in arrays:
        group.create_dataset("truth", data=arrays["truth"], compression="gzip", track_times=False)


def _kept(unfinished: Unfinished, key: str) -> Finished:
    found = unfinished.load(key)
    if found is None:
        raise OSError(0, "what was written cannot be read back")
    return found


def _refuse_what_cannot_be(out: Path, settled: DomainPlan, options: PrepareOptions, workers: int | None) -> None:
    domain = options.domain or settled.modality
    if not names_a_file(domain):
        raise ConfigError(f"{domain[:40]!r} cannot name a domain: use letters and digits, as in --domain mr.")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: name the file to write, as in {out / settled.modality}.h5.")
    if workers is not None and workers < 1:
        raise ConfigError(f"{workers} workers cannot work: use 1 or more.")
    refuse_to_overwrite(out, [file for entry in settled.entries for file in entry_files(entry)])


@contextlib.contextmanager
def _removed_unless_stopped(unfinished: Unfinished) -> Iterator[None]:
    """A call that has ended, well or with an error, leaves nothing behind; one that was stopped finds its cases again."""
    try:
        yield
    except WorkerEnded:
        raise
    except (AttentKitError, OSError):
        unfinished.remove()
        raise
    unfinished.remove()


def _slices_of(finished: Finished) -> tuple[int, int]:
    """How many slices of a labelled case are trained on, and how many of these show an organ."""
    blank = {*finished.record["blank"]}
    seen = [bool(plane.any()) for z, plane in enumerate(finished.arrays["labels"]) if z not in blank]
    return len(seen), sum(seen)


def _refuse_background_alone(voxels: Sequence[Mapping[str, int]], label_map: Mapping[str, Any]) -> None:
    """DataError if none of the label maps holds any of the organs."""
    if voxels and not any(count for of_case in voxels for count in of_case.values()):
        raise DataError(
            f"none of the {len(voxels)} label map(s) holds any of the organs {LabelMap.of(**label_map)}, so all would be "
            "background: give the values that the label maps have with --organs, as in --organs liver=6,spleen=1."
        )


def _refuse_empty_training(manifest: Manifest) -> None:
    training = [record for record in manifest["cases"] if "without_organ" in record]
    if training and not any(r["slices"] > len(r["blank"]) + len(r["without_organ"]) for r in training):
        raise DataError("no slice of the training cases has an organ: check --organs, or leave out --foreground-only.")


def _bytes_of(settled: DomainPlan) -> int:
    return sum(file.stat().st_size for entry in settled.entries for file in entry_files(entry))
