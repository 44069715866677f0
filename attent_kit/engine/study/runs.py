"""The trained runs of a comparison that a study looks at: which exist, each opened once, and the baseline beside each."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.workers import ReportDone
from attent_kit.engine.apply.trained import TrainedRun, open_run
from attent_kit.engine.compare.results_folder import begun_in, is_shown, place_in_table, recall
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.domains import domains_seen
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.settings import pinned
from attent_kit.errors import AttentKitError, ConfigError, RunError
from attent_kit.registry import Registry

Failed = list[tuple[Path, AttentKitError]]
"""Runs for which nothing was measured, and why."""


class OpenedRuns:
    """Folders of trained runs, each opened once, whoever asks for it."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._opened: dict[Path, TrainedRun | AttentKitError] = {}

    def open(self, folder: Path) -> TrainedRun:
        """The run, with its folder as it is named here. Errors as `open_run`."""
        key = folder.resolve()
        if key not in self._opened:
            try:
                self._opened[key] = open_run(folder, self.registry)
            except AttentKitError as error:
                self._opened[key] = error
        found = self._opened[key]
        if isinstance(found, AttentKitError):
            raise found
        return replace(found, folder=folder)

    def baseline_of(self, run: TrainedRun) -> TrainedRun | None:
        """The run beside this one that learned from the source alone: of the same data, direction, seed and fold. None if
        there is none.

        Of several, the first in the table of the comparison, which begins with the row that the others are tested against, or
        else the one that was begun last.
        """
        folder = run.folder.resolve()
        found = []
        for beside in sorted(folder.parent.parent.glob("*/*")):
            files = RunFolder(beside)
            if _seed_of(files) != _seed_of(RunFolder(folder)) or not files.has_scores or is_shown(files) is False:
                continue
            try:
                other = self.open(beside)
                alone = self.registry.alignment(other.component.name).aligns_nothing()
            except AttentKitError:
                # A neighbour that cannot be read is not a baseline; whoever asks for it by name hears why.
                continue
            if alone and _hashes(other) == _hashes(run):
                found.append(other)
        shown = [other for other in found if is_shown(other.files)]
        if shown:
            return min(shown, key=lambda other: place_in_table(other.files))
        return max(found, key=lambda f: f.files.config.stat().st_mtime_ns, default=None)


def each(folders: list[Path], out: Path, tell: ReportDone) -> Iterator[Path]:
    """The folders one by one, each announced before its turn."""
    for done, folder in enumerate(folders):
        tell(str(folder.relative_to(out.parent)), done, len(folders))
        yield folder


def refuse_failed(failed: Failed) -> None:
    """RunError that lists the runs for which nothing was measured and why; for a single one, its own error."""
    if len(failed) == 1:
        raise failed[0][1]
    if failed:
        listed = "\n".join(f"  {folder}: {error}" for folder, error in failed)
        raise RunError(f"{len(failed)} runs could not be measured; the others are.\n{listed}")


def finished_runs(out: Path) -> list[Path]:
    """Folders of the runs with scores below `out`, seeds in order of their number; ConfigError if there is none."""
    if RunFolder(out).is_run:
        return [out]
    found = [run for run in begun_in(out, recall(out)) if run.has_scores]
    if not found:
        raise ConfigError(
            f"{out} holds no finished run: name the folder of a run, or of a comparison that `attentkit compare` made."
        )
    return [run.path for run in sorted(found, key=lambda run: (run.key or (), run.path.name))]


def domains_of_run(run: TrainedRun) -> tuple[Prepared, Prepared]:
    """The prepared files that the run was trained on, or what stands for a source that it never read. DataError if they are
    gone, ConfigError if they hold something else."""
    source, target = domains_seen(run.settings.data)
    pinned(run.settings, source.content_hash(), target.content_hash())
    return source, target


def weights(run: TrainedRun) -> str:
    """What tells the weights of one run from those of another."""
    path = run.files.answers().segmentor
    with open(path if path.exists() else run.weights(), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{checkpoint.fingerprint(run.config)} {digest}"


def whole(run: TrainedRun) -> TrainedRun:
    """The same run; ConfigError if not all of its networks are there."""
    if run.files.only_predicts:
        raise ConfigError(
            f"{run.folder} keeps what predicts alone, and how images reach it is measured too: train it again with `attentkit "
            f"train --config {run.files.config} --out ANOTHER`."
        )
    if not run.is_whole:
        raise ConfigError(
            f"{run.folder} holds only what `predict` calls, and how images reach it is measured too: name the folder of the "
            "whole run, with its checkpoint.ckpt."
        )
    return run


def _seed_of(run: RunFolder) -> object:
    """Seed and fold; the name of a run that does not lie where those of a comparison do."""
    return run.key[2:] if run.key else run.path.name


def _hashes(run: TrainedRun) -> tuple[str | None, str | None]:
    return run.settings.data.source_hash, run.settings.data.target_hash
