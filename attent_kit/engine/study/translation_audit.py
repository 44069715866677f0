"""What a method's translation does to anatomy: G(x) against x, slice by slice, on validation and test cases of the target.

There are no pairs of the two domains, so nothing says what a translation should look like; whether it kept what is in the image
can be measured all the same. `edge` and `self-similarity` compare both images (`attent_kit.metrics.structure`). `agreement` and
`volume-drift` compare what a judge finds in G(x) with what should be there.

The judge is a segmentor that reads source style: the run that learned from the source alone, so that all methods of a comparison
have the same judge, which was not adapted to a translator's mistakes; or without one, the method's own segmentor if it
learned from source images as they are. What should be there is the truth where cases are labelled, which grades and nothing else;
without labels it is what the judge finds in x itself, and low agreement then says that the translation changed what a network
sees, for better or worse.

Like the shift, this is measured with the weights at the end of training, whichever snapshot of the run was scored.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.workers import ReportDone
from attent_kit.engine.apply.trained import LoadedRun, TrainedRun, load_run
from attent_kit.engine.run.assemble import segmentor_of
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.predict import slices_as_source
from attent_kit.engine.run.probe import Probe, answering, probe
from attent_kit.engine.study.runs import (
    Failed,
    OpenedRuns,
    domains_of_run,
    each,
    finished_runs,
    weights,
    whole,
)
from attent_kit.errors import AttentKitError, ConfigError, DataError
from attent_kit.files import read_json, write_text
from attent_kit.interfaces import Alignment
from attent_kit.metrics.structure import agreement, edge_agreement, edges, self_similarity, volume_drift
from attent_kit.registry import Registry
from attent_kit.report.translation_audit import (
    DRIFT,
    TranslationAuditRow,
    WorstSlice,
    read_translation_audit,
    translation_audit_figure,
    worst_slices,
    write_translation_audit,
)

VERSION = 1
WORST_CASES = 2
"""Cases that each measure contributes to the picture, with their worst slice."""
MOVED = 2
"""Pixels by which images are moved to show what a large change is."""
BY_SLICE = ("edge", "self-similarity", "agreement")


class TranslationAudit(NamedTuple):
    """What was found in one run."""

    rows: list[TranslationAuditRow]
    judge: str
    """Who segments; empty if there is nobody who could."""
    expected: str
    """What the judge's answer is compared with; empty without a judge."""
    moved: dict[str, float]
    """By measure, for scale: the mean of images compared with themselves MOVED pixels aside."""
    files: list[Path]


class TranslationAudits(NamedTuple):
    """What was found in a comparison."""

    audits: dict[Path, TranslationAudit]
    """By the run's folder."""
    failed: Failed


class TranslatesNothing(ConfigError):
    """The method has no translation to source style."""


@dataclass(frozen=True)
class TranslationAuditOptions:
    """Which translations are to be audited, and how."""

    folder: Path
    """Folder of a run, or of a comparison, whose finished runs are audited if they translate."""
    baseline: Path | None = None
    """Run that learned from the source alone, to judge the translations of a single run; None takes the one beside it."""
    device: str = "auto"


def audit_translations(options: TranslationAuditOptions, registry: Registry, tell: ReportDone) -> TranslationAudits:
    """What `attentkit audit` is asked for: one run, or every finished run that translates, and one that fails does not stop the
    others. ConfigError if its options do not go together, TranslatesNothing if there is no run that translates."""
    if options.baseline is None:
        return _below(options.folder, registry, options.device, tell)
    if not RunFolder(options.folder).is_run:
        raise ConfigError("--baseline judges a single run: name its folder in place of the comparison's.")
    runs = OpenedRuns(registry)
    run, baseline = runs.open(options.folder), runs.open(options.baseline)
    return TranslationAudits({options.folder: audit_translation(run, runs, options.device, baseline)}, [])


def _below(out: Path, registry: Registry, device: str, tell: ReportDone) -> TranslationAudits:
    """Every finished run below `out` that translates, or the run that `out` is. A run that fails does not stop the others.

    TranslatesNothing if there is no run that translates.
    """
    runs = OpenedRuns(registry)
    audits: dict[Path, TranslationAudit] = {}
    failed: Failed = []
    for folder in each(finished_runs(out), out, tell):
        try:
            audits[folder] = audit_translation(runs.open(folder), runs, device)
        except TranslatesNothing:
            if folder == out:
                raise
        except AttentKitError as error:
            failed.append((folder, error))
    if not audits and not failed:
        raise TranslatesNothing(f"no method in {out} translates images to source style: there is nothing to audit.")
    return TranslationAudits(audits, failed)


def audit_translation(
    run: TrainedRun, runs: OpenedRuns, device: str, baseline: TrainedRun | None = None
) -> TranslationAudit:
    """Audit a run and write translation_audit.csv, .json, .png and .svg into its folder, unless they are there of the same.

    TranslatesNothing if there is nothing to audit, DataError if there is no validation or test case.
    """
    folder, registry = run.folder, runs.registry
    refusal = f"'{run.component.name}' translates no images to source style: there is nothing to audit in {folder}."
    if registry.alignment(run.component.name).as_source is Alignment.as_source:
        raise TranslatesNothing(refusal)
    whole(run)
    _, target = domains_of_run(run)
    baseline = baseline or runs.baseline_of(run)
    made_of = {
        "version": VERSION,
        "target": target.content_hash(),
        "run": weights(run),
        "judge": None if baseline is None else weights(baseline),
    }
    files = run.files
    paths = [files.audit, files.audit_facts, *(files.audit.with_suffix(ending) for ending in (".png", ".svg"))]
    known = _known(paths, made_of)
    if known is not None:
        return known
    auditor = _TranslationAuditor(run, target, registry, device, baseline)
    rows = auditor.rows()
    if rows is None:
        raise TranslatesNothing(refusal)
    _write(files, made_of, rows, auditor)
    return TranslationAudit(rows, auditor.judge_name, auditor.expected, auditor.moved(), paths)


def _write(
    files: RunFolder, made_of: dict[str, Any], rows: list[TranslationAuditRow], auditor: "_TranslationAuditor"
) -> None:
    worst = [
        auditor.picture(why, row)
        for why, row in worst_slices(of_full_slices(rows, auditor.organs), BY_SLICE, WORST_CASES)
    ]
    write_translation_audit(files.audit, rows)
    title = f"{auditor.run_name}, {files.path.name}: slices whose translation keeps least, by rule"
    translation_audit_figure(worst, auditor.target.organs, auditor.names, title, files.audit.with_suffix(""))
    facts = {"judge": auditor.judge_name, "expected": auditor.expected, "moved": auditor.moved()}
    write_text(files.audit_facts, json.dumps({"made_of": made_of, **facts}, indent=2) + "\n")


def of_full_slices(rows: list[TranslationAuditRow], organs: dict[tuple[str, int], int]) -> list[TranslationAuditRow]:
    """Rows without the agreement of slices that show fewer organs than another of their case: a few pixels at the end of an
    organ are missed by the best segmentors, and would fill the picture. `organs` counts them by case and slice."""
    fullest: dict[str, int] = {}
    for (case, _), count in organs.items():
        fullest[case] = max(count, fullest.get(case, 0))
    return [
        row
        for row in rows
        if row.measure != BY_SLICE[2] or (row.slice is not None and organs[row.case, row.slice] == fullest[row.case])
    ]


class _Translated(NamedTuple):
    """Slices of a case: Z of them, middle channel."""

    x: np.ndarray
    """[Z, H, W] in [-1, 1]."""
    y: np.ndarray
    """[Z, H, W] in [-1, 1], x in source style."""
    expected: np.ndarray
    """[Z, H, W] class indices."""
    found: np.ndarray
    """[Z, H, W] class indices; all 0 without a judge."""


class _TranslationAuditor:
    """A run with its judge, on the device."""

    def __init__(
        self, run: TrainedRun, target: Prepared, registry: Registry, device: str, baseline: TrainedRun | None
    ) -> None:
        self.target, self.run_name = target, run.component.name
        self.run = load_run(run, registry, device)
        self.cases = sorted({case.id for split in ("val", "test") for case in target.cases_in(split) if case.kept})
        if not self.cases:
            raise DataError(
                f"{target.path} has no validation or test case with a slice that is not blank: prepare it with another split."
            )
        # One question for all cases: with one of them unlabelled, or labelled in part, no case is compared with the truth.
        self.by_truth = all(target.case(case).annotated == target.organs for case in self.cases)
        self.judge: LoadedRun | None = None
        self.judge_name = ""
        if baseline is not None:
            self.judge = load_run(baseline, registry, device)
            self.judge_name = f"{baseline.component.name} in {baseline.folder.name}"
        elif _reads_source_style(self.run, target):
            self.judge, self.judge_name = self.run, f"the segmentor of {run.component.name} itself"
        judged = self.judge is not None and segmentor_of(self.judge.alignment) is not None
        self.judge = self.judge if judged else None
        self.judge_name = self.judge_name if judged else ""
        self.expected = "" if self.judge is None else "truth" if self.by_truth else "what the judge finds in the image"
        self._moved: list[tuple[float, float]] = []
        self.organs: dict[tuple[str, int], int] = {}
        """How many are expected, by case and slice; filled by `rows`."""
        self.names = ("truth" if self.by_truth else "found in the image", "found in translation")

    def rows(self) -> list[TranslationAuditRow] | None:
        """All measures of all cases; None if the method translates nothing after all."""
        rows: list[TranslationAuditRow] = []
        for case in self.cases:
            kept = list(self.target.case(case).kept)
            seen = self.look(case, kept)
            if seen is None:
                return None
            for z, x, y, expected, found in zip(kept, *seen, strict=True):
                self.organs[case, z] = len(np.setdiff1d(expected, 0))
                rows += [
                    TranslationAuditRow(case, z, "edge", edge_agreement(x, y)),
                    TranslationAuditRow(case, z, "self-similarity", self_similarity(x, y)),
                ]
                aside = np.pad(x, ((0, 0), (MOVED, 0)), mode="edge")[:, : x.shape[1]]
                self._moved.append((edge_agreement(x, aside), self_similarity(x, aside)))
                if self.judge is not None:
                    rows.append(
                        TranslationAuditRow(case, z, "agreement", agreement(found, expected, len(self.target.organs)))
                    )
            for organ, name in enumerate(self.target.organs, start=1) if self.judge is not None else ():
                rows.append(
                    TranslationAuditRow(case, None, DRIFT + name, volume_drift(seen.found, seen.expected, organ))
                )
        return [row for row in rows if not np.isnan(row.value)]

    def look(self, case: str, slices: list[int]) -> _Translated | None:
        """These slices of a case; None if the method translates nothing."""
        images = self.target.slices(case)[slices]
        translated = slices_as_source(self.run.alignment, images, self.run.device)
        if translated is None:
            return None
        middle = self.target.channels // 2
        labels = self.target.label_slices(case)[slices] if self.by_truth else self._judged(images)
        return _Translated(
            images[:, middle].astype(np.float32), translated[:, middle], labels, self._judged(translated)
        )

    def moved(self) -> dict[str, float]:
        """`edge` and `self-similarity` of images and themselves aside, means over slices."""
        return dict(zip(BY_SLICE, np.mean(self._moved, axis=0).tolist(), strict=False))

    def picture(self, why: str, row: TranslationAuditRow) -> WorstSlice:
        assert row.slice is not None
        seen = self.look(row.case, [row.slice])
        assert seen is not None
        x, y, expected, found = (part[0] for part in seen)
        return WorstSlice(why, f"{row.case}, slice {row.slice}", x, y, (edges(x), edges(y)), expected, found)

    def _judged(self, images: np.ndarray) -> np.ndarray:
        """[Z, C, H, W] -> [Z, H, W] class indices."""
        if self.judge is None:
            return np.zeros((len(images), *images.shape[2:]), np.uint8)
        name = segmentor_of(self.judge.alignment) or ""

        def classes(p: Probe) -> torch.Tensor:
            return p.through(name).logits.argmax(1).to(torch.uint8).cpu()

        parts = probe(self.judge.alignment, images, self.judge.device, classes)
        assert parts is not None
        return torch.cat(parts).numpy()


def _reads_source_style(loaded: LoadedRun, target: Prepared) -> bool:
    """Whether the method's segmentor learned from source images as they are."""
    blank = torch.zeros((1, target.channels, target.size, target.size), device=loaded.device)
    with answering(loaded.alignment):
        seen = loaded.alignment.as_seen(blank)
    return seen is None or seen is blank


def _known(paths: list[Path], made_of: dict[str, Any]) -> TranslationAudit | None:
    """What was written for the same things; None if a file is missing or made from something else."""
    try:
        facts = read_json(paths[1]) or {}
        if facts["made_of"] != made_of or not all(path.exists() for path in paths):
            return None
        moved = {str(measure): float(value) for measure, value in facts["moved"].items()}
        return TranslationAudit(
            read_translation_audit(paths[0]), str(facts["judge"]), str(facts["expected"]), moved, paths
        )
    except (ValueError, KeyError, TypeError, AttributeError, DataError):
        return None
