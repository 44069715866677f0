"""One run from settings to scores."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout

from attent_kit import __version__
from attent_kit.build import build_alignment
from attent_kit.config import read_toml
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.folder import SECONDS_TO_TRY, Busy, NotFinite, Run, alone_in, place_of
from attent_kit.engine.run.heartbeat import beating
from attent_kit.engine.run.provenance import components_of, record, refuse_changed_file
from attent_kit.engine.run.settings import RunSettings, pinned
from attent_kit.engine.snapshots.selection import load_selected, refuse_selection, write_selected
from attent_kit.engine.snapshots.snapshots import Snapshots, load_selectors
from attent_kit.engine.train.evaluate import is_answered, score_run
from attent_kit.engine.train.fit import Progress, Report, fit
from attent_kit.engine.train.kept import keep_slices
from attent_kit.engine.train.monitor import monitor_of
from attent_kit.engine.train.tracking import Trackers, Tracking
from attent_kit.errors import DataError
from attent_kit.interfaces import Alignment, Task
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST, Score, read_scores


def train(
    settings: RunSettings,
    folder: Path,
    registry: Registry,
    device: str = "auto",
    row: str | None = None,
    direction: str | None = None,
    shared: Path | None = None,
    report: Report = lambda progress: None,
    opened: Callable[[Alignment], None] = lambda alignment: None,
    select: str = LAST,
    warned: Callable[[str], None] = lambda sentence: None,
    trackers: Trackers = MappingProxyType({}),
    store: Path | None = None,
) -> list[Score]:
    """Train what is not yet trained, predict the target's test cases, score them; everything lies in `folder`.

    The snapshot that `select` chooses is exported, predicted and scored, in a folder of its own unless it is the last; what
    is there of a finished run is not made again.

    `row` and `direction` name the method and the domains in the scores. `shared` is a folder in which runs leave the
    result of a first stage for others of the same recipe. `opened` is called once all is built and before training,
    `warned` with a sentence whenever training seems to go wrong. `trackers` are told how it goes; they may keep what
    several runs share in `store`, by default `folder`.
    """
    fabric = launch(device, settings.precision)
    source, target = Prepared.open(settings.data.source), Prepared.open(settings.data.target)
    task = task_of(source, target)
    settings = pinned(settings, source.content_hash(), target.content_hash())
    components = components_of(settings, registry)
    refuse_selection(select, settings, folder, target, registry)
    selectors = load_selectors(registry) if settings.snapshots else {}
    with alone_in(folder), ExitStack() as closing:
        resumes = (folder / "checkpoint.ckpt").exists()
        if resumes:
            refuse_changed_file(folder, components)
        alignment = build_alignment(settings.alignment, registry, task, settings.seed, empty=resumes)
        run = Run(folder, settings, components)
        beat = closing.enter_context(beating(folder, str(fabric.device)))
        precision = str(fabric.strategy.precision.precision)
        run.write_domain(source, target)
        place = place_of(folder, select)
        if not (folder / "scores.csv").exists() and not (folder / "selections").exists():
            run.write_environment(fabric.device, precision)
        opened(alignment)
        batches = training_batches(
            source, target, settings.augmentation, settings.seed, fabric.device, alignment.uses_target_labels
        )
        stage_file = None
        if shared is not None:
            versions = sorted({f"{c.distribution} {c.version}" for c in components})
            computed = (fabric.device.type, precision, __version__, *versions)
            stage_file = shared_stage_file(shared, alignment, settings, source, target, computed)
        snapshots = Snapshots(folder, settings.snapshots, selectors, source, target, settings.seed, fabric.device)
        monitor = monitor_of(alignment, run, source, target, fabric.device, warned)
        names = row or settings.alignment.name, direction or f"{source.domain}2{target.domain}"
        title = f"{names[1]}/{names[0]}/seed{settings.seed}"
        tracking = Tracking(trackers, title, folder, store or folder, read_toml(folder / "config.toml"), warned)
        closing.callback(tracking.close)
        first, steps = alignment.stages()[0].steps, total_steps(alignment)
        with trained_by_one(stage_file) as release:

            def tell(progress: Progress) -> None:
                if progress.step > first:
                    release()
                beat(progress.stage, progress.step, progress.steps, progress.losses)
                report(progress)

            try:
                trained = fit(alignment, batches, run, fabric, tell, stage_file, snapshots, [monitor, tracking])
            except NotFinite as error:
                monitor.not_finite(error)
                raise
        beat("predict", steps, steps)
        if not trained and is_answered(place, target) and (place / "segmentor.safetensors").exists():
            # A damaged file is made again.
            with suppress(DataError):
                return read_scores(place / "scores.csv")
        monitor.end()
        step = load_selected(select, alignment, folder, target, fabric.device)
        config = checkpoint.fingerprint(read_toml(folder / "config.toml"))
        facts = {"config": config, "steps": steps, "components": record(components)}
        if step is not None:
            facts |= {"steps": step, "selection": select}
            write_selected(place, select, step)
        checkpoint.export_segmentor(place / "segmentor.safetensors", alignment, facts)
        scores = score_run(alignment, place, target, fabric.device, *names, settings.seed, select)
        keep_slices(alignment, place, target, fabric.device, scores)
        tracking.end(scores, place)
        return scores


def task_of(source: Prepared, target: Prepared) -> Task:
    """What both domains agree to segment."""
    for name in ("organs", "size", "channels"):
        ours, theirs = getattr(source, name), getattr(target, name)
        if ours != theirs:
            raise DataError(
                f"{source.path} and {target.path} differ in {name}: {_words(ours)} and {_words(theirs)}. "
                f"Run `attentkit prepare` on both with the same options."
            )
    return Task(channels=source.channels, organs=tuple(source.organs))


def total_steps(alignment: Alignment) -> int:
    """Steps of all stages together."""
    return sum(stage.steps for stage in alignment.stages())


def shared_stage_file(
    folder: Path,
    alignment: Alignment,
    settings: RunSettings,
    source: Prepared,
    target: Prepared,
    computed: tuple[str, ...],
) -> Path | None:
    """Where runs of this first stage leave and find its result; the name is a hash of all that shapes it.

    `computed`: device kind, arithmetic, and versions of the code.
    """
    stage = alignment.stages()[0]
    if stage.recipe is None:
        return None
    shaping = [
        stage.name, stage.steps, stage.batch_size, stage.recipe, settings.seed, computed,
        settings.augmentation.model_dump(), source.content_hash(), target.content_hash(),
    ]  # fmt: skip
    name = hashlib.sha256(json.dumps(shaping, default=repr).encode()).hexdigest()[:16]
    return folder / f"{stage.name}-{name}.ckpt"


@contextmanager
def trained_by_one(stage_file: Path | None) -> Iterator[Callable[[], None]]:
    """Claim a shared stage that nobody has finished yet, until the answer is called: the others would only train it too.

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
