"""One run from settings to scores."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from attent_kit import __version__
from attent_kit.build import build_alignment
from attent_kit.config import dump
from attent_kit.data.prepared.batches import Batches, training_batches
from attent_kit.data.prepared.distances import INSTEAD, stretched
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.imageless import without_images
from attent_kit.data.prepared.patches import patch_batches, refuse_parts
from attent_kit.data.prepared.unread import is_read
from attent_kit.data.scans.grids import refuse_sheared
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import channels_seen, patch_of, setup
from attent_kit.engine.run.device import launch_one_of, precision_of
from attent_kit.engine.run.domains import Reader, domains_seen
from attent_kit.engine.run.dropped import drop
from attent_kit.engine.run.exported import export_networks
from attent_kit.engine.run.folder import SECONDS_TO_TRY, Answers, Busy, RunFolder, RunKey, alone_in
from attent_kit.engine.run.heartbeat import Heartbeat, beating
from attent_kit.engine.run.predict import entropy
from attent_kit.engine.run.provenance import components_of, record, refuse_changed_file
from attent_kit.engine.run.ranks import Seat, ranks_of
from attent_kit.engine.run.record import NotFinite, Run
from attent_kit.engine.run.settings import RunSettings, pinned, refuse_source
from attent_kit.engine.run.stages import parts_of, total_steps
from attent_kit.engine.run.warm_start import Started, fitting, start_from, with_digest
from attent_kit.engine.snapshots.selection import load_selected, refuse_selection, write_selected
from attent_kit.engine.snapshots.snapshots import Snapshots, load_selectors
from attent_kit.engine.train.again import load_answering
from attent_kit.engine.train.evaluate import Names, score_run, scores_there
from attent_kit.engine.train.fit import Progress, fit, follow, refuse_uneven
from attent_kit.engine.train.kept import keep_slices, slice_to_show
from attent_kit.engine.train.longer import take_over
from attent_kit.engine.train.monitor import monitor_of
from attent_kit.engine.train.tracking import Trackers, Tracking
from attent_kit.errors import ConfigError, DataError
from attent_kit.interfaces import Alignment, Segmentor, Task
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST, Score, write_scores
from attent_kit.selectors import Selector
from attent_kit.tracker import TrackedRun


class TrainOptions(NamedTuple):
    """What is asked of a run besides its settings: by default the answers of its last step, of a run that stands alone."""

    row: str | None = None
    """Names the method in the scores."""
    direction: str | None = None
    """Names the domains in the scores."""
    select: str = LAST
    """What chooses the snapshot that is exported, predicted and scored."""
    trackers: Trackers = MappingProxyType({})
    """They are told how it goes."""
    store: Path | None = None
    """Where trackers may keep what several runs share; by default the run's folder."""
    shared: Path | None = None
    """Folder in which runs leave the result of a first stage for others of the same recipe."""
    continues: RunFolder | None = None
    """A finished run of the same settings but for `more_steps`, from whose end it goes on."""
    read: Reader = Prepared.open
    """Opens prepared files, which may be copies of those that the settings name."""
    seat: Seat | None = None
    """The place of this process among those of the run, if something else has started them all."""


class TrainWatcher(NamedTuple):
    """Who is told how a run goes."""

    opened: Callable[[str, int], None] = lambda name, steps: None
    """All is built and nothing is trained yet: the name of the method, and how many steps it has."""
    stepped: Callable[[Progress], None] = lambda progress: None
    """A step is done."""
    warned: Callable[[str], None] = lambda sentence: None
    """Training seems to go wrong."""
    started: Callable[[str], None] = lambda sentence: None
    """Networks have taken over the weights of another run: which of them."""


ALONE, UNHEARD = TrainOptions(), TrainWatcher()


def train(
    settings: RunSettings,
    folder: Path,
    registry: Registry,
    device: str = "auto",
    options: TrainOptions = ALONE,
    watcher: TrainWatcher = UNHEARD,
) -> list[Score]:
    """Train what is not yet trained, predict the target's test cases, score them; everything lies in `folder`.

    `device` may be several, as of `several`, which then train together; in a process that helps another there are no scores, and
    nothing is written. The snapshot that is chosen answers in a folder of its own unless it is the last; what a finished run has
    already is not made again.
    """
    fabric = launch_one_of(device, settings.precision, options.seat)
    ranks = ranks_of(fabric)
    refuse_source(settings, registry.alignment(settings.alignment.name))
    if _has_helped(settings, registry, fabric, options):
        return []
    source, target, task = _learnt_from(settings, registry, options.read)
    files = RunFolder(folder)
    settings = with_digest(pinned(settings, source.content_hash(), target.content_hash()), files.has_weights)
    refuse_selection(options.select, settings, files, target, registry)
    selectors = load_selectors(registry) if settings.snapshots else {}
    names = _names(settings, options, source, target)
    with alone_in(files), ExitStack() as closing:
        if files.only_predicts:
            return _answer_again(settings, files, registry, (task, target), fabric, names)
        alignment, run, started = _begun(settings, files, registry, task, target.size, options.continues, ranks.count)
        ranks.job = job_of_helpers(settings, source, target, device)
        beat = closing.enter_context(beating(files, str(fabric.device)))
        run.write_domain(source, target, started and started.source)
        if not files.all_answers():
            run.write_environment(fabric.device, precision_of(fabric), started and started.taken, ranks.count)
        if started is not None:
            watcher.started(started.sentence)
        _warn_of_distances(alignment, source, target, watcher)
        watcher.opened(settings.alignment.name, steps := total_steps(alignment, settings.more_steps))
        batches = batches_of(settings, source, target, fabric, alignment)
        seen_s, seen_t = (domain.with_channels(channels_seen(alignment)) for domain in (source, target))
        stage_file = options.shared and shared_stage_file(options.shared, alignment, run, source, target, fabric)
        snapshots = _snapshots(settings, files, selectors, seen_s, seen_t, fabric.device)
        monitor = monitor_of(alignment, run, seen_s, seen_t, fabric.device, watcher.warned)
        tracking = Tracking(options.trackers, tracked_run(names, run, options.store), watcher.warned)
        closing.callback(tracking.close)
        with trained_by_one(stage_file) as release:
            teller = _Teller(beat, watcher, release, parts_of(alignment)[0].stage.steps)
            try:
                trained = fit(alignment, batches, run, fabric, [teller, monitor, tracking], stage_file, snapshots)
            except NotFinite as error:
                monitor.not_finite(error)
                raise
        beat("predict", steps, steps)
        answers = files.answers(options.select)
        if not trained and (known := scores_there(answers, target)) is not None:
            return known
        monitor.end()
        scores = _answer(alignment, run, answers, target, fabric.device, names)
        tracking.end(scores, answers)
        return scores


def _names(settings: RunSettings, options: TrainOptions, source: Prepared, target: Prepared) -> Names:
    row, direction = options.row or settings.alignment.name, options.direction or f"{source.domain}2{target.domain}"
    return Names(row, direction, settings.seed, options.select, settings.data.part)


def _warn_of_distances(alignment: Alignment, source: Prepared, target: Prepared, watcher: TrainWatcher) -> None:
    if channels_seen(alignment) > 1 and (evidence := stretched([source, target])):
        watcher.warned(f"Nothing is resampled between slices, and {evidence}: {INSTEAD}.")


def _snapshots(
    settings: RunSettings, files: RunFolder, selectors: Mapping[str, Selector], source: Prepared, target: Prepared,
    device: torch.device,
) -> Snapshots:  # fmt: skip
    snapshots = Snapshots(files, settings.snapshots, selectors, source, target, settings.seed, device)
    snapshots.half = settings.half_snapshots
    return snapshots


def _learnt_from(settings: RunSettings, registry: Registry, read: Reader) -> tuple[Prepared, Prepared, Task]:
    """Source, target and what both agree to segment. DataError or ConfigError if the method cannot learn from them."""
    source, target = domains_seen(settings.data, read)
    task = task_of(source, target)
    refuse_labels(registry.alignment(settings.alignment.name), settings.alignment.name, source, target)
    refuse_left_out(settings, registry, source)
    return source, target, task


def _begun(
    settings: RunSettings,
    files: RunFolder,
    registry: Registry,
    task: Task,
    size: int,
    continues: RunFolder | None,
    devices: int,
) -> tuple[Alignment, Run, Started | None]:
    """The method, the run in its folder, and the run from whose weights it starts, if there is one. Nothing is written before
    all of that is possible, on so many devices."""
    components = components_of(settings, registry)
    goes_on = files if files.checkpoint.exists() else continues
    if goes_on is not None:
        refuse_changed_file(goes_on, components)
    alignment = build_alignment(settings.alignment, registry, task, settings.seed, empty=goes_on is not None)
    refuse_uneven(alignment, devices)
    warm = None if goes_on is not None else fitting(settings, alignment, task, size)
    run = Run(files, settings, components)
    if goes_on is not None and goes_on != files:
        take_over(goes_on, files, total_steps(alignment, (settings.more_steps or ())[:-1]))
    if warm is None:
        return alignment, run, None
    started, weights = warm
    start_from(alignment, weights)
    return alignment, run, started


def _has_helped(settings: RunSettings, registry: Registry, fabric: Fabric, options: TrainOptions) -> bool:
    """Meet the other processes, where something has started all; whether this is not the first of them, which is the run."""
    if options.seat is None:
        return False
    ranks_of(fabric).meet()
    if options.seat.rank:
        help_to_train(settings, registry, fabric, options.read)
    return options.seat.rank > 0


def job_of_helpers(settings: RunSettings, source: Prepared, target: Prepared, device: str) -> dict[str, Any]:
    """What a process has to know that this one starts to train beside it."""
    places = {"target": target.path.absolute()} | ({"source": source.path.absolute()} if is_read(source) else {})
    data = settings.data.model_copy(update=places)
    return {"settings": dump(settings.model_copy(update={"data": data})), "device": device}


def help_to_train(settings: RunSettings, registry: Registry, fabric: Fabric, read: Reader = Prepared.open) -> None:
    """Train a run beside the first of its processes, which hands out the weights; the others are there already.

    RunError where one of them is lost.
    """
    with ranks_of(fabric).together():
        source, target = domains_seen(settings.data, read)
        alignment = build_alignment(settings.alignment, registry, task_of(source, target), settings.seed, empty=True)
        follow(alignment, batches_of(settings, source, target, fabric, alignment), settings, fabric)


def batches_of(
    settings: RunSettings, source: Prepared, target: Prepared, fabric: Fabric, alignment: Alignment
) -> Batches:
    """The batches of a run, whole in each of its processes."""
    seed, labels = settings.seed, alignment.uses_target_labels
    if (patch := patch_of(alignment)) is not None:
        return patch_batches((source, target), patch, settings.augmentation, seed, fabric.device, labels)
    shown = source if alignment.uses_source_images else without_images(source)
    return training_batches(shown, target, settings.augmentation, seed, fabric.device, labels)


class _Teller:
    """Passes on how far a run is, and frees a shared stage with the first step after it."""

    def __init__(self, beat: Heartbeat, watcher: TrainWatcher, release: Callable[[], None], first: int) -> None:
        self._beat, self._stepped, self._warned = beat, watcher.stepped, watcher.warned
        self._release, self._first = release, first

    def begin(self, step: int) -> None:
        """Nothing is told before a step is done."""

    def see(self, progress: Progress) -> None:
        """A step is done."""
        if progress.step > self._first:
            self._release()
        self._beat(progress.stage, progress.step, progress.steps, progress.losses)
        if progress.note:
            self._warned(progress.note)
        self._stepped(progress)


def _answer(
    alignment: Alignment, run: Run, answers: Answers, target: Prepared, device: torch.device, names: Names
) -> list[Score]:
    """Choose the snapshot, export it, answer with it, and drop what the run is not to keep."""
    chosen = load_selected(names.selection, alignment, run.folder, target, device)
    config = checkpoint.fingerprint(run.config)
    steps = total_steps(alignment, run.settings.more_steps)
    facts = {"config": config, "steps": steps, "components": record(run.components)}
    if chosen is not None:
        facts |= {"steps": chosen, "selection": names.selection}
        write_selected(answers, names.selection, chosen)
    export_networks(answers.segmentor, alignment, target.size, device, facts)
    scores = _score(alignment, answers, target, device, names)
    drop(run.folder, run.settings.keep)
    return scores


def _answer_again(
    settings: RunSettings, files: RunFolder, registry: Registry, of: tuple[Task, Prepared], fabric: Fabric, names: Names
) -> list[Score]:
    """The answers of a finished run that keeps what predicts alone."""
    task, target = of
    run, answers = Run(files, settings, components_of(settings, registry)), files.answers(names.selection)
    if (known := scores_there(answers, target)) is not None:
        return known
    alignment = build_alignment(settings.alignment, registry, task, settings.seed, empty=True)
    setup(alignment, fabric)
    load_answering(run, answers, alignment, target.size, fabric.device)
    # Whatever of the slices its networks can no longer show was kept when they all were there.
    return _score(alignment, answers, target, fabric.device, names, shows=not answers.slices.exists())


def _score(
    alignment: Alignment, answers: Answers, target: Prepared, device: torch.device, names: Names, shows: bool = True
) -> list[Score]:
    """Predict and score the test cases; where it `shows` something of them, keep the slices of figures."""
    entropies: dict[str, np.ndarray] = {}

    def see(case: str, probabilities: np.ndarray) -> None:
        if alignment.adapts():
            entropies[case] = entropy(probabilities[:, slice_to_show(target, case)])

    scores = score_run(alignment, answers, target, device, names, see)
    if shows:
        keep_slices(alignment, answers, target.with_channels(channels_seen(alignment)), device, scores, entropies)
    write_scores(answers.scores, scores, vouched=True)
    return scores


def tracked_run(names: Names, run: Run, store: Path | None) -> TrackedRun:
    """What a tracker is told about a run before it begins."""
    title = RunKey(names.direction, names.row, names.seed, names.fold).name
    return TrackedRun(title, run.folder.path, store or run.folder.path, run.config, 0, None)


def task_of(source: Prepared, target: Prepared) -> Task:
    """What both domains agree to segment. DataError too for a test case on whose grid no distance can be measured."""
    for name in ("organs", "size", "channels", "plane"):
        ours, theirs = getattr(source, name), getattr(target, name)
        if ours != theirs:
            instead = f" Or say it for both, as in --channels {ours}." if name == "channels" else ""
            raise DataError(
                f"{source.path} and {target.path} differ in {name}: {_words(ours)} and {_words(theirs)}. "
                f"Run `attentkit prepare` on both with the same options.{instead}"
            )
    for case in target.cases_in("test"):
        if case.has_labels:
            advice = (
                "resample it to a grid with right angles and run `attentkit prepare` again, or leave it out of the test"
            )
            refuse_sheared(np.array(target.grid(case.id).affine), f"the test case '{case.id}' of {target.path}", advice)
    return Task(channels=source.channels, organs=tuple(source.organs))


def refuse_labels(method: type[Alignment], name: str, source: Prepared, target: Prepared) -> None:
    """DataError for an organ that no case annotates whose labels the method would learn from, ConfigError for cases that do not
    annotate every organ if the method does not take such cases."""
    for domain in (source, target) if method.uses_target_labels else (source,):
        training = [case for case in domain.cases_in("train") if case.has_labels]
        if training and (never := [o for o in domain.organs if not any(o in case.annotated for case in training)]):
            raise DataError(
                f"no training case of {domain.path} annotates the {never[0]}, so nothing can be learnt about it: run `attentkit "
                "prepare` again with labels of it (--add), or without it in --organs."
            )
        partial = next((case for case in training if case.annotated != domain.organs), None)
        if partial and not method.takes_partial_labels:
            lacking = [organ for organ in domain.organs if organ not in partial.annotated]
            raise ConfigError(
                f"'{name}' does not take partial labels, and training case {partial.id} of {domain.path} does not annotate "
                f"{', '.join(lacking)}: leave the method out, or prepare with complete cases for training (--train). Its author "
                "can declare takes_partial_labels."
            )


def refuse_left_out(settings: RunSettings, registry: Registry, source: Prepared) -> None:
    """DataError for a source of whose volumes slices are left out, where a segmentor of volumes is to learn from it."""
    segmentors = [c.name for c in components_of(settings, registry) if c.kind == Segmentor.kind]
    if any(registry.segmentor(name).dims == 3 for name in segmentors):
        refuse_parts(source)


def shared_stage_file(
    folder: Path, alignment: Alignment, run: Run, source: Prepared, target: Prepared, fabric: Fabric
) -> Path | None:
    """Where runs of this first stage leave and find its result; the name is a hash of all that shapes it."""
    stage = parts_of(alignment)[0].stage
    if stage.recipe is None:
        return None
    # The method itself is not among them: methods of any distribution share what their recipes say is alike.
    networks = [c for c in run.components if c.kind != Alignment.kind]
    versions = sorted({f"{c.distribution} {c.version}" for c in networks})
    computed = (fabric.device.type, precision_of(fabric), __version__, *versions)
    shaping = [
        stage.name, stage.steps, stage.batch_size, stage.recipe, run.settings.seed, computed,
        run.settings.augmentation.model_dump(), source.content_hash(), target.content_hash(),
    ]  # fmt: skip
    if run.settings.warm_start is not None:
        shaping.append(run.settings.warm_start.digest)
    name = hashlib.sha256(json.dumps(shaping, default=repr).encode()).hexdigest()[:16]
    return folder / f"{stage.name}-{name}.ckpt"


@contextmanager
def trained_by_one(stage_file: Path | None) -> Iterator[Callable[[], None]]:
    """Claim a shared stage that nobody has finished yet, until the returned function is called: others would only train it too.

    Busy if another process is training it.
    """
    if stage_file is None or stage_file.exists():
        yield lambda: None
        return
    stage_file.parent.mkdir(parents=True, exist_ok=True)
    claim = FileLock(f"{stage_file}.claim", timeout=SECONDS_TO_TRY)
    try:
        claim.acquire()
    except Timeout:
        sentence = f"another process trains the stage that {stage_file} will hold: wait for it."
        raise Busy(sentence, Path(claim.lock_file)) from None
    try:
        yield claim.release
    finally:
        claim.release()


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
