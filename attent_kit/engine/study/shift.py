"""How far two domains are apart, before and after alignment, of one run or of every finished run of a comparison.

before    images as they are, and what a network makes of them that learned from the source alone (the baseline)
after     images as they reach the run's segmentor, and what that makes of them

A run is measured with its weights at the end of training, whichever of its snapshots was scored.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.apply.trained import TrainedRun, load_run, names_of, open_run
from attent_kit.engine.compare.results_folder import begun_in, is_shown, recall
from attent_kit.engine.compare.suite import slug
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.settings import pinned
from attent_kit.engine.study.views import Slices, View, sample, view_of_images, view_through
from attent_kit.engine.train.train import task_of
from attent_kit.errors import AttentKitError, ConfigError, DataError, RunError
from attent_kit.files import read_json, write_text
from attent_kit.metrics.shift import Measured, Sample, principal_components, shift
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST
from attent_kit.report.shift import SPACES, Panel, ShiftRow, shift_figure, write_shift

SLICES = 16
"""Slices of each patient, unless told otherwise."""
CACHE = "shift.json"
"""What was measured of a run, in its folder."""
VERSION = 1
"""Of the measures and of CACHE: files of another are measured again."""

Tell = Callable[[str, int, int], None]
"""What is measured, how many are done, of how many."""


class Shift(NamedTuple):
    """What was measured of two domains."""

    rows: list[ShiftRow]
    panels: list[Panel]
    notes: list[str]
    """What could not be measured, and what to type for it."""


Failed = list[tuple[Path, AttentKitError]]
"""Runs of which nothing was measured, and why."""


class ShiftOfRuns(NamedTuple):
    """What was measured of a comparison."""

    rows: list[ShiftRow]
    notes: list[str]
    files: list[Path]
    failed: Failed


class Pair:
    """Both domains as one network sees them, and how far they are apart in each space, measured when asked for."""

    def __init__(self, source: View, target: View) -> None:
        self.source, self.target = source, target
        self._measured: dict[tuple[str, int], dict[str, Measured]] = {}

    def measured(self, space: str, seed: int) -> dict[str, Measured]:
        """All measures of one space, by name."""
        if (space, seed) not in self._measured:
            self._measured[space, seed] = shift(self.source[space], self.target[space], seed)
        return self._measured[space, seed]


class Meter:
    """Measures shifts, each sample of slices and each baseline once."""

    def __init__(self, registry: Registry, device: str, slices: int = SLICES, seed: int = 0) -> None:
        self.registry, self.device, self.slices, self.seed = registry, device, slices, seed
        self._samples: dict[str, Slices] = {}
        self._baselines: dict[tuple[str, ...], Pair | None] = {}

    def of_images(self, source: Prepared, target: Prepared) -> Shift:
        """Pixels alone, without a run."""
        task_of(source, target)
        direction = f"{source.domain}2{target.domain}"
        return self._shift({"before": self._images(source, target)}, direction, "", self.seed, [])

    def of_run(self, folder: Path, source: Prepared, target: Prepared, baseline: Path | None) -> Shift:
        """Of a trained run, from its CACHE if that was made of the same run, baseline, data and options.

        Without a baseline, of the state before alignment only the pixels are measured.
        """
        run = whole(open_run(folder, self.registry))
        if task_of(source, target) != run.domain.task or target.size != run.domain.size:
            raise DataError(
                f"{source.path} and {target.path} are not what the run in {folder} segments: it takes "
                f"{run.domain.size} x {run.domain.size} pixels and {', '.join(run.domain.task.organs)}."
            )
        row, direction = names_of(run)
        made_of = self._made_of(run, source, target, baseline)
        cached = _read(folder / CACHE, made_of, direction, row, run.settings.seed)
        if cached is not None:
            return cached
        notes = []
        after = self._through(folder, source, target, keep=folder == baseline)
        if after is None:
            notes.append(f"'{run.component.name}' segments with no network that it names: nothing after alignment.")
        before = None if baseline is None else self._through(baseline, source, target, keep=True)
        if before is None:
            notes.append(
                "no run that learned from the source alone stands beside it, so before alignment only pixels are measured: "
                "train `source_only` on the same data and name its folder with --baseline."
            )
            before = self._images(source, target)
        pairs = {"before": before, **({} if after is None else {"after": after})}
        made = self._shift(pairs, direction, row, run.settings.seed, notes)
        _write(folder / CACHE, made_of, made)
        return made

    def _images(self, source: Prepared, target: Prepared) -> Pair:
        return Pair(*(view_of_images(self._sample(prepared)) for prepared in (source, target)))

    def _sample(self, prepared: Prepared) -> Slices:
        key = prepared.content_hash()
        if key not in self._samples:
            self._samples[key] = sample(prepared, self.slices, self.seed)
            if not len(self._samples[key].patients):
                raise DataError(f"{prepared.path} has no slice that is not blank: prepare it again.")
        return self._samples[key]

    def _through(self, folder: Path, source: Prepared, target: Prepared, keep: bool) -> Pair | None:
        """Both domains through a run; None if its answers come from no segmentor that it names."""
        key = str(folder.resolve()), source.content_hash(), target.content_hash()
        if key in self._baselines:
            return self._baselines[key]
        loaded = load_run(whole(open_run(folder, self.registry)), self.registry, self.device)
        s, t = (
            view_through(loaded.alignment, self._sample(prepared), of_source, loaded.device)
            for prepared, of_source in ((source, True), (target, False))
        )
        pair = None if s is None or t is None else Pair(s, t)
        if keep:
            self._baselines[key] = pair
        return pair

    def _made_of(self, run: TrainedRun, source: Prepared, target: Prepared, baseline: Path | None) -> dict[str, Any]:
        return {
            "version": VERSION,
            "source": source.content_hash(),
            "target": target.content_hash(),
            "run": weights(run),
            "baseline": None if baseline is None else weights(open_run(baseline, self.registry)),
            "slices": self.slices,
            "seed": self.seed,
        }

    def _shift(self, pairs: dict[str, Pair], direction: str, row: str, seed: int, notes: list[str]) -> Shift:
        rows, panels = [], []
        for space in SPACES:
            found = {when: pair for when, pair in pairs.items() if space in pair.source}
            for when, pair in found.items():
                for measure, measured in pair.measured(space, self.seed).items():
                    rows.append(ShiftRow(direction, row, seed, space, when, measure, *measured))
            # Pixels are the same numbers before and after, and so have the same axes; networks differ.
            for together in [[*found]] if space == SPACES[0] else [[when] for when in found]:
                panels += _panels(
                    space, {when: (found[when].source[space], found[when].target[space]) for when in together}
                )
        before = pairs["before"]
        if min(len(np.unique(view[SPACES[0]].patients)) for view in (before.source, before.target)) < 2:
            notes = [*notes, "a domain of a single patient: a shift cannot be told from that patient being another."]
        return Shift(rows, panels, notes)


def shift_of_comparison(out: Path, meter: Meter, tell: Tell) -> ShiftOfRuns:
    """Of every finished run below the folder of a comparison, or of the one run that `out` is.

    Writes out/shift.csv and, of the first seed of each row, shift-<direction>-<row>.png and .svg; RUN/shift.json holds what was
    measured, so that a second call measures only what is missing. A run that cannot be measured does not stop the others.
    ConfigError if there is no finished run.
    """
    rows: list[ShiftRow] = []
    notes: dict[str, None] = {}
    remembered = recall(out)
    if remembered and remembered.select != LAST:
        notes[f"measured at the end of training; the table shows the snapshots that {remembered.select} chose."] = None
    figures: dict[tuple[str, str], tuple[Shift, Path]] = {}
    failed: Failed = []
    for folder in each(finished_runs(out), out, tell):
        try:
            source, target = domains_of_run(open_run(folder, meter.registry))
            made = meter.of_run(folder, source, target, baseline_of(folder, meter.registry))
        except AttentKitError as error:
            failed.append((folder, error))
            continue
        rows += made.rows
        direction, label = made.rows[0].direction, made.rows[0].row
        notes.update(dict.fromkeys(f"{label}, {direction}: {note}" for note in made.notes))
        stem = out / ("shift" if folder == out else f"shift-{direction}-{slug(label)}")
        figures.setdefault((direction, label), (made, stem))
    files = [out / "shift.csv"] if rows else []
    if rows:
        write_shift(files[0], rows)
    for (direction, label), (made, stem) in figures.items():
        files += shift_figure(made.panels, made.rows, title_of(direction, label), stem)
    return ShiftOfRuns(rows, [*notes], files, failed)


def each(folders: list[Path], out: Path, tell: Tell) -> Iterator[Path]:
    """The folders one by one, each told before its turn."""
    for done, folder in enumerate(folders):
        tell(str(folder.relative_to(out.parent)), done, len(folders))
        yield folder


def refuse_failed(failed: Failed) -> None:
    """RunError that lists the runs of which nothing was measured and why; of a single one, its own error."""
    if len(failed) == 1:
        raise failed[0][1]
    if failed:
        listed = "\n".join(f"  {folder}: {error}" for folder, error in failed)
        raise RunError(f"{len(failed)} runs could not be measured; the others are.\n{listed}")


def title_of(direction: str, row: str) -> str:
    """Heading of a figure."""
    return f"{row}: domain shift, {direction}" if row else f"Domain shift, {direction}"


def finished_runs(out: Path) -> list[Path]:
    """Folders of the runs with scores below `out`, seeds in order of their number; ConfigError if there is none."""
    if RunFolder(out).is_run:
        return [out]
    found = [run for run in begun_in(out, recall(out)) if run.has_scores]
    if not found:
        raise ConfigError(
            f"{out} holds no finished run: name the folder of a run, or of a comparison that `attentkit compare` has made."
        )
    return [run.path for run in sorted(found, key=lambda run: (run.key or (), run.path.name))]


def domains_of_run(run: TrainedRun) -> tuple[Prepared, Prepared]:
    """The prepared files that the run was trained on. DataError if they are gone, ConfigError if they hold something else."""
    data = run.settings.data
    source, target = Prepared.open(data.source), Prepared.open(data.target)
    pinned(run.settings, source.content_hash(), target.content_hash())
    return source, target


def baseline_of(folder: Path, registry: Registry) -> Path | None:
    """The run beside this one that learned from the source alone: of the same data, direction and seed. None if there is none.

    Of several the first that the comparison shows, or else the one that was begun last.
    """
    own = _hashes(open_run(folder, registry))
    folder = folder.resolve()
    found = []
    for beside in sorted(folder.parent.parent.glob("*/*")):
        files = RunFolder(beside)
        if _seed_of(files) != _seed_of(RunFolder(folder)) or not files.has_scores or is_shown(files) is False:
            continue
        try:
            run = open_run(beside, registry)
            alone = not registry.alignment(run.component.name).uses_target_images
        except AttentKitError:
            # A neighbour that cannot be read is no baseline; who asks for it by name hears why.
            continue
        if alone and _hashes(run) == own:
            found.append(beside)
    shown = [beside for beside in found if is_shown(RunFolder(beside))]
    return shown[0] if shown else max(found, key=lambda f: RunFolder(f).config.stat().st_mtime_ns, default=None)


def _seed_of(run: RunFolder) -> int | str:
    """Of a run that does not lie as those of a comparison do, its name."""
    return run.key.seed if run.key else run.path.name


def whole(run: TrainedRun) -> TrainedRun:
    """The same run; ConfigError if not all of its networks are there."""
    if not run.is_whole:
        raise ConfigError(
            f"{run.folder} holds only what `predict` calls, and how images reach it is measured too: name the folder of the "
            "whole run, with its checkpoint.ckpt."
        )
    return run


def _hashes(run: TrainedRun) -> tuple[str | None, str | None]:
    return run.settings.data.source_hash, run.settings.data.target_hash


def weights(run: TrainedRun) -> str:
    """What tells the weights of one run from those of another."""
    path = run.files.answers().segmentor
    with open(path if path.exists() else run.weights, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{checkpoint.fingerprint(run.config)} {digest}"


def _panels(space: str, found: dict[str, tuple[Sample, Sample]]) -> list[Panel]:
    """Two principal components of all slices that are given, a picture for each `when`."""
    vectors = np.concatenate([sample.vectors for pair in found.values() for sample in pair])
    points = principal_components(vectors, 2)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    panels, first = [], 0
    for when, (s, t) in found.items():
        n = len(s.vectors) + len(t.vectors)
        patients = [np.unique(sample.patients, return_inverse=True)[1] for sample in (s, t)]
        is_source = np.arange(n) < len(s.vectors)
        panels.append(Panel(space, when, points[first : first + n], is_source, np.concatenate(patients)))
        first += n
    return panels


def _write(path: Path, made_of: dict[str, Any], made: Shift) -> None:
    content = {
        "made_of": made_of,
        "rows": [[*row[3:6], *(None if math.isnan(v) else v for v in row[6:])] for row in made.rows],
        "panels": [
            {
                "space": p.space,
                "when": p.when,
                "points": [[float(f"{c:.5g}") for c in point] for point in p.points],
                "is_source": p.is_source.tolist(),
                "patients": p.patients.tolist(),
            }
            for p in made.panels
        ],
        "notes": made.notes,
    }
    write_text(path, json.dumps(content) + "\n")


def _read(path: Path, made_of: dict[str, Any], direction: str, row: str, seed: int) -> Shift | None:
    """What `_write` wrote of the same things; None for anything else, which is then measured again."""
    try:
        content = read_json(path) or {}
        if content["made_of"] != made_of:
            return None
        rows = [
            ShiftRow(direction, row, seed, space, when, measure, *(math.nan if v is None else float(v) for v in values))
            for space, when, measure, *values in content["rows"]
        ]
        panels = [
            Panel(p["space"], p["when"], np.array(p["points"]), np.array(p["is_source"], bool), np.array(p["patients"]))
            for p in content["panels"]
        ]
        return Shift(rows, panels, [str(note) for note in content["notes"]])
    except (ValueError, KeyError, TypeError):
        return None
