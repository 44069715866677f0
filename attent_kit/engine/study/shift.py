"""How far two domains are apart, before and after alignment, of one run or of every finished run of a comparison.

before    images as they are, and what a network that learned from the source alone (the baseline) makes of them
after     images as they reach the run's segmentor, and what it makes of them

A run is measured with its weights at the end of training, whichever of its snapshots was scored.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.unread import is_read
from attent_kit.data.workers import ReportDone
from attent_kit.engine.apply.trained import TrainedRun, load_run, names_of
from attent_kit.engine.compare.results_folder import recall
from attent_kit.engine.compare.suite import slug
from attent_kit.engine.run.assemble import channels_seen
from attent_kit.engine.study.runs import (
    Failed,
    OpenedRuns,
    domains_of_run,
    each,
    finished_runs,
    weights,
    whole,
)
from attent_kit.engine.study.views import Slices, Vectors, sample, view_of_images, view_through
from attent_kit.engine.train.train import task_of
from attent_kit.errors import AttentKitError, ConfigError, DataError
from attent_kit.files import read_json, write_text
from attent_kit.metrics.shift import Distance, Sample, principal_components, shift
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST
from attent_kit.report.shift import SPACES, ShiftPanel, ShiftRow, shift_figure, write_shift

SLICES = 16
"""Slices of each patient, unless told otherwise."""
VERSION = 1
"""Of the measures and of shift.json in a run's folder: files of another are measured again."""


@dataclass(frozen=True)
class ShiftOptions:
    """What is to be measured, and how."""

    places: tuple[Path, ...]
    """Two prepared files, or the folder of a run or of a comparison."""
    run: Path | None = None
    """Trained run that the two files are seen through."""
    baseline: Path | None = None
    """Run that learned from the source alone; None takes the one beside the run."""
    slices: int = SLICES
    """Slices of each patient, at most."""
    seed: int = 0
    """Of the choice of slices."""
    device: str = "auto"
    out: Path | None = None
    """Folder of shift.csv and the figures of two files; None takes the run's, and without a run writes nothing."""


class Shift(NamedTuple):
    """What was measured of two domains."""

    rows: list[ShiftRow]
    panels: list[ShiftPanel]
    notes: list[str]
    """What could not be measured, and what to type for it."""


class ShiftOfRuns(NamedTuple):
    """What was measured of a comparison, of a run, or of two files."""

    rows: list[ShiftRow]
    notes: list[str]
    files: list[Path]
    failed: Failed


class DomainPair:
    """Both domains as one network sees them, and how far they are apart in each space, measured when asked for."""

    def __init__(self, source: Vectors, target: Vectors) -> None:
        self.source, self.target = source, target
        self._measured: dict[tuple[str, int], dict[str, Distance]] = {}

    def measured(self, space: str, seed: int) -> dict[str, Distance]:
        """All measures of one space, by name."""
        if (space, seed) not in self._measured:
            self._measured[space, seed] = shift(self.source[space], self.target[space], seed)
        return self._measured[space, seed]


class Meter:
    """Measures shifts, each sample of slices and each baseline once."""

    def __init__(self, registry: Registry, device: str, slices: int = SLICES, seed: int = 0) -> None:
        self.registry, self.device, self.slices, self.seed = registry, device, slices, seed
        self.runs = OpenedRuns(registry)
        self._samples: dict[str, Slices] = {}
        self._baselines: dict[tuple[str, ...], DomainPair | None] = {}

    def of_images(self, source: Prepared, target: Prepared) -> Shift:
        """Pixels alone, without a run."""
        task_of(source, target)
        direction = f"{source.domain}2{target.domain}"
        return self._shift({"before": self._images(source, target)}, direction, "", self.seed, [])

    def of_run(self, run: TrainedRun, source: Prepared, target: Prepared, baseline: TrainedRun | None) -> Shift:
        """Of a trained run, from its shift.json if that was made from the same run, baseline, data and options.

        Without a baseline, of the state before alignment only the pixels are measured.
        """
        whole(run)
        if task_of(source, target) != run.domain.task or target.size != run.domain.size:
            raise DataError(
                f"{source.path} and {target.path} are not what the run in {run.folder} segments: it takes "
                f"{run.domain.size} x {run.domain.size} pixels and {', '.join(run.domain.task.organs)}."
            )
        row, direction = names_of(run)
        made_of = self._made_of(run, source, target, baseline)
        fold = str(run.settings.data.part)
        cached = _read(run.files.shift, made_of, direction, row, run.settings.seed)
        if cached is not None:
            return _of_fold(cached, fold)
        notes = []
        own = baseline is not None and run.folder.resolve() == baseline.folder.resolve()
        after = self._through(run, source, target, keep=own)
        if after is None:
            notes.append(
                f"'{run.component.name}' names no network that it segments with: nothing is measured after alignment."
            )
        before = None if baseline is None else self._through(baseline, source, target, keep=True)
        if before is None:
            notes.append(
                "no run that learned from the source alone lies beside it, so before alignment only pixels are measured: "
                "train `source_only` on the same data and name its folder with --baseline."
            )
            before = self._images(source, target)
        pairs = {"before": before, **({} if after is None else {"after": after})}
        made = self._shift(pairs, direction, row, run.settings.seed, notes)
        _write(run.files.shift, made_of, made)
        return _of_fold(made, fold)

    def _images(self, source: Prepared, target: Prepared) -> DomainPair:
        return DomainPair(*(view_of_images(self._sample(prepared)) for prepared in (source, target)))

    def _sample(self, prepared: Prepared) -> Slices:
        key = prepared.content_hash()
        if key not in self._samples:
            self._samples[key] = sample(prepared, self.slices, self.seed)
            if not len(self._samples[key].patients):
                raise DataError(f"{prepared.path} has no slice that is not blank: prepare it again.")
        return self._samples[key]

    def _through(self, run: TrainedRun, source: Prepared, target: Prepared, keep: bool) -> DomainPair | None:
        """Both domains through a run; None if its answers come from no segmentor that it names."""
        key = str(run.folder.resolve()), source.content_hash(), target.content_hash()
        if key in self._baselines:
            return self._baselines[key]
        loaded = load_run(whole(run), self.registry, self.device)
        seen = channels_seen(loaded.alignment)
        s, t = (
            view_through(loaded.alignment, self._sample(prepared.with_channels(seen)), of_source, loaded.device)
            for prepared, of_source in ((source, True), (target, False))
        )
        pair = None if s is None or t is None else DomainPair(s, t)
        if keep:
            self._baselines[key] = pair
        return pair

    def _made_of(
        self, run: TrainedRun, source: Prepared, target: Prepared, baseline: TrainedRun | None
    ) -> dict[str, Any]:
        return {
            "version": VERSION,
            "source": source.content_hash(),
            "target": target.content_hash(),
            "run": weights(run),
            "baseline": None if baseline is None else weights(baseline),
            "slices": self.slices,
            "seed": self.seed,
        }

    def _shift(self, pairs: dict[str, DomainPair], direction: str, row: str, seed: int, notes: list[str]) -> Shift:
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


def measure_shift(options: ShiftOptions, registry: Registry, tell: ReportDone) -> ShiftOfRuns:
    """What `attentkit shift` is asked for. ConfigError if its options do not go together."""
    meter = Meter(registry, options.device, options.slices, options.seed)
    places = options.places
    if len(places) not in (1, 2) or (len(places) == 1) != places[0].is_dir():
        raise ConfigError(
            "name two prepared files, as in `attentkit shift mr.h5 ct.h5`, or the folder of a run or of a comparison."
        )
    if len(places) == 1:
        if options.run or options.baseline or options.out:
            raise ConfigError("with a FOLDER, leave out --run, --baseline and --out: it holds all that is needed.")
        return shift_of_comparison(places[0], meter, tell)
    source, target = map(Prepared.open, places)
    if options.run is None:
        if options.baseline is not None:
            raise ConfigError("--baseline is the state before the alignment of a run: name that with --run.")
        made = meter.of_images(source, target)
    else:
        run = meter.runs.open(options.run)
        source, target = (domain.with_channels(run.domain.task.channels) for domain in (source, target))
        baseline = meter.runs.baseline_of(run) if options.baseline is None else meter.runs.open(options.baseline)
        made = meter.of_run(run, source, target, baseline)
    folder = options.out or options.run
    files: list[Path] = []
    if folder is not None:
        first = made.rows[0]
        files = [folder / "shift.csv"]
        write_shift(files[0], made.rows)
        files += shift_figure(made.panels, made.rows, title_of(first.direction, first.row), folder / "shift")
    return ShiftOfRuns(made.rows, made.notes, files, [])


def shift_of_comparison(out: Path, meter: Meter, tell: ReportDone) -> ShiftOfRuns:
    """Of every finished run below the folder of a comparison, or of the one run that `out` is.

    Writes out/shift.csv and, of the first seed of each row, shift-<direction>-<row>.png and .svg; RUN/shift.json holds what was
    measured, so that a second call measures only what is missing. A run that cannot be measured does not stop the others, and one
    that never read a source is noted. ConfigError if there is no finished run, or none that read a source.
    """
    rows: list[ShiftRow] = []
    notes: dict[str, None] = {}
    remembered = recall(out)
    if remembered and remembered.select != LAST:
        notes[f"measured at the end of training; the table shows the snapshots that {remembered.select} chose."] = None
    figures: dict[tuple[str, str], tuple[Shift, Path]] = {}
    failed: Failed = []
    unread: list[str] = []
    for folder in each(finished_runs(out), out, tell):
        try:
            run = meter.runs.open(folder)
            source, target = domains_of_run(run)
            if not is_read(source):
                unread.append(
                    f"{folder} never read a source, so there is no shift to measure; to a source that you have, type `attentkit "
                    f"shift SOURCE.h5 {target.path} --run {folder}`."
                )
                continue
            made = meter.of_run(run, source, target, meter.runs.baseline_of(run))
        except AttentKitError as error:
            failed.append((folder, error))
            continue
        rows += made.rows
        direction, label = made.rows[0].direction, made.rows[0].row
        notes.update(dict.fromkeys(f"{label}, {direction}: {note}" for note in made.notes))
        stem = out / ("shift" if folder == out else f"shift-{direction}-{slug(label)}")
        figures.setdefault((direction, label), (made, stem))
    if unread and not rows and not failed:
        raise ConfigError(unread[0])
    notes.update(dict.fromkeys(unread))
    files = [out / "shift.csv"] if rows else []
    if rows:
        write_shift(files[0], rows)
    for (direction, label), (made, stem) in figures.items():
        files += shift_figure(made.panels, made.rows, title_of(direction, label), stem)
    return ShiftOfRuns(rows, [*notes], files, failed)


def title_of(direction: str, row: str) -> str:
    """Heading of a figure."""
    return f"{row}: domain shift, {direction}" if row else f"Domain shift, {direction}"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _of_fold(made: Shift, fold: str) -> Shift:
    return made._replace(rows=[row._replace(fold=fold) for row in made.rows])


def _panels(space: str, found: dict[str, tuple[Sample, Sample]]) -> list[ShiftPanel]:
    """Two principal components of all slices that are given, one picture for each `when`."""
    vectors = np.concatenate([sample.vectors for pair in found.values() for sample in pair])
    points = principal_components(vectors, 2)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    panels, first = [], 0
    for when, (s, t) in found.items():
        n = len(s.vectors) + len(t.vectors)
        patients = [np.unique(sample.patients, return_inverse=True)[1] for sample in (s, t)]
        is_source = np.arange(n) < len(s.vectors)
        panels.append(ShiftPanel(space, when, points[first : first + n], is_source, np.concatenate(patients)))
        first += n
    return panels


def _write(path: Path, made_of: dict[str, Any], made: Shift) -> None:
    content = {
        "made_of": made_of,
        "rows": [[*row[3:6], *(None if math.isnan(v) else v for v in row[6:9])] for row in made.rows],
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
    """What `_write` wrote for the same things; None for anything else, which is then measured again."""
    try:
        content = read_json(path) or {}
        if content["made_of"] != made_of:
            return None
        rows = [
            ShiftRow(direction, row, seed, space, when, measure, _number(value), _number(spread), _number(zero))
            for space, when, measure, value, spread, zero in content["rows"]
        ]
        panels = [
            ShiftPanel(
                p["space"], p["when"], np.array(p["points"]), np.array(p["is_source"], bool), np.array(p["patients"])
            )
            for p in content["panels"]
        ]
        return Shift(rows, panels, [str(note) for note in content["notes"]])
    except (ValueError, KeyError, TypeError):
        return None
