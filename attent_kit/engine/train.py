"""One run from settings to scores."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from attent_kit import __version__
from attent_kit.build import build_alignment
from attent_kit.config import read_toml
from attent_kit.data.batches import training_batches
from attent_kit.data.prepared import Prepared
from attent_kit.engine import checkpoint
from attent_kit.engine.content import components_of
from attent_kit.engine.device import launch
from attent_kit.engine.evaluate import score_run
from attent_kit.engine.fit import Progress, Report, fit
from attent_kit.engine.heartbeat import beating
from attent_kit.engine.run import SECONDS_TO_TRY, Busy, Run, alone_in
from attent_kit.engine.settings import RunSettings, pinned
from attent_kit.engine.showcase import keep_translations
from attent_kit.errors import DataError
from attent_kit.interfaces import Alignment, Task
from attent_kit.registry import Registry
from attent_kit.report.scores import Score


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
) -> list[Score]:
    """Train what is not yet trained, predict the target's test cases, score them; everything lies in `folder`.

    `row` and `direction` name the method and the domains in the scores. `shared` is a folder in which runs leave the
    result of a first stage for others of the same recipe. `opened` is called once all is built and before training.
    """
    fabric = launch(device, settings.precision)
    source, target = Prepared.open(settings.data.source), Prepared.open(settings.data.target)
    task = task_of(source, target)
    settings = pinned(settings, source.content_hash(), target.content_hash())
    components = components_of(settings, registry)
    with alone_in(folder):
        resumes = (folder / "checkpoint.ckpt").exists()
        alignment = build_alignment(settings.alignment, registry, task, settings.seed, empty=resumes)
        run = Run(folder, settings, components)
        with beating(folder, str(fabric.device)) as beat:
            precision = str(fabric.strategy.precision.precision)
            run.write_domain(source, target)
            if not run.scores.exists():
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
            first = alignment.stages()[0].steps
            with trained_by_one(stage_file) as release:

                def tell(progress: Progress) -> None:
                    if progress.step > first:
                        release()
                    beat(progress.stage, progress.step, progress.steps, progress.losses)
                    report(progress)

                fit(alignment, batches, run, fabric, tell, stage_file)
            steps = total_steps(alignment)
            beat("predict", steps, steps)
            facts = {"config": checkpoint.fingerprint(read_toml(folder / "config.toml")), "steps": steps}
            checkpoint.export_segmentor(folder / "segmentor.safetensors", alignment, facts)
            keep_translations(alignment, run, target, fabric.device)
            names = row or settings.alignment.name, direction or f"{source.domain}2{target.domain}"
            return score_run(alignment, run, target, fabric.device, *names)


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
