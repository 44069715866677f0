"""The loop. Every method is trained by it; it knows none of them."""

import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from filelock import FileLock
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.data.prepared.batches import Batches
from attent_kit.data.workers import host_memory
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import (
    load_network_states,
    load_optimizer_states,
    network_states,
    optimizer_states,
    setup,
    train_only,
    trained_networks,
)
from attent_kit.engine.run.digest import on_cpu
from attent_kit.engine.run.labelled import Packed, is_due, labelled, labels_of, packed, unpacked
from attent_kit.engine.run.ranks import ProcessGroup, ranks_of
from attent_kit.engine.run.record import Run
from attent_kit.engine.run.settings import RunSettings
from attent_kit.engine.run.stages import Part, parts_of
from attent_kit.engine.snapshots.snapshots import Snapshots
from attent_kit.engine.train.capture import Captured, capturing
from attent_kit.engine.train.update import FabricUpdate
from attent_kit.errors import ConfigError, RunError
from attent_kit.interfaces import Alignment, Batch, Losses, Stage, Update

LEAST_FEATURES = 16
"""Times the memory of its images that a network keeps for its gradients at the least: the first block of a ResNet takes 48."""


class Progress(NamedTuple):
    """What the loop tells its watchers."""

    stage: str
    step: int
    """Steps done of the whole run."""
    steps: int
    """Steps of the whole run."""
    losses: dict[str, float] | None
    """Fresh averages, now and then."""
    scores: dict[str, float] | None = None
    """What each selector says about a snapshot that was just taken."""
    note: str | None = None
    """Something to know about how steps are taken."""


class StepWatcher(Protocol):
    """Who follows a run from its first step, or from where it goes on."""

    def begin(self, step: int) -> None:
        """Training begins, with `step` steps done."""

    def see(self, progress: Progress) -> None:
        """A step is done; its checkpoint is not yet written."""


def fit(
    alignment: Alignment,
    batches: Batches,
    run: Run,
    fabric: Fabric,
    watchers: Sequence[StepWatcher] = (),
    shared: Path | None = None,
    snapshots: Snapshots | None = None,
) -> bool:
    """Train all stages, from the run's checkpoint on if it has one; whether there was anything to train.

    Leaves the trained networks in `alignment`.

    `shared`: a file that holds the result of the first stage for every run of the same recipe; made if it is missing.
    """
    stepper = Stepper(alignment, batches, run.settings, fabric)
    optimizers, parts, ranks = stepper.optimizers, stepper.parts, ranks_of(fabric)
    first_part, total = parts[0], parts[-1].last
    first_step, stepper.pseudo = checkpoint.resume(run.folder.checkpoint, alignment, optimizers, fabric)
    _go_on_from(first_step, alignment, optimizers, run, snapshots, watchers)
    if total == 0 and not run.folder.checkpoint.exists():
        checkpoint.save(run.folder.checkpoint, alignment, optimizers, 0, fabric, run.config)
        alignment.eval()
        return True
    with ranks.together(needed=first_step < total):
        hand_out(ranks, stepper, first_step)
        if first_step == 0:
            refuse_beyond_memory(alignment.stages(), batches)
            with ranks.dealing():
                rehearse(alignment, optimizers, alignment.stages(), batches)
            # A stage that is taken over has no steps at which snapshots could be taken.
            looked_at = snapshots is not None and any(step <= first_part.last for step in snapshots.steps)
            if shared is not None and not looked_at and _adopt(shared, alignment, optimizers, first_part.stage):
                first_step = first_part.last
            hand_out(ranks, stepper, first_step)
        _train(stepper, first_step, run, watchers, shared, snapshots)
    alignment.eval()
    return first_step < total


def _train(
    stepper: "Stepper", first_step: int, run: Run, watchers: Sequence[StepWatcher], shared: Path | None,
    snapshots: Snapshots | None,
) -> None:  # fmt: skip
    """Every step that is left, and what is written of it."""
    alignment, optimizers, fabric = stepper.alignment, stepper.optimizers, stepper.fabric
    ranks, total = ranks_of(fabric), stepper.parts[-1].last
    saved = time.monotonic()
    with interruptions() as interruption:
        for part in stepper.parts:
            stage, first, last = part.stage, part.first, part.last
            began, began_at, saving, looking = time.monotonic(), max(first, first_step), 0.0, 0.0
            if fabric.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(fabric.device)
            for step, losses in stepper.steps(part, first_step):
                scores = None
                if snapshots is not None and snapshots.due(step + 1):
                    before = time.monotonic()
                    scores = snapshots.take(alignment, step + 1)
                    train_only(alignment, optimizers, stage)
                    looking += time.monotonic() - before
                logged, note = run.log(step, stage.name, losses), stepper.captured.told()
                progress = Progress(stage.name, step + 1, total, logged, scores, note)
                for watcher in watchers:
                    watcher.see(progress)
                stop = ranks.agree(interruption.requested)
                at_end = step + 1 == last
                if at_end:
                    seconds = time.monotonic() - began - saving - looking
                    run.write_speed(
                        part.name, last - began_at, seconds, fabric.device, looking, stepper.captured.repeats
                    )
                    if shared is not None and first == 0:
                        _offer(shared, alignment, optimizers, stage)
                saves = at_end or stop or time.monotonic() - saved >= run.settings.save_seconds
                if saves:
                    run.flush()
                    before = time.monotonic()
                    checkpoint.save(
                        run.folder.checkpoint, alignment, optimizers, step + 1, fabric, run.config, stepper.pseudo
                    )
                    saved = time.monotonic()
                    saving += saved - before
                # A run of one process may also end when it is asked to while it saves; several have agreed before.
                if stop or (saves and not ranks.met and interruption.requested):
                    raise KeyboardInterrupt


class Stepper:
    """Takes the steps of a run, in each of its processes: nothing here reads or writes a file of the run."""

    captured: Captured
    """What takes the steps of the part at hand, from the first of them on."""
    pseudo: Packed | None = None
    """Labels of the target that the stage at hand has made, as a checkpoint holds them."""

    def __init__(self, alignment: Alignment, batches: Batches, settings: RunSettings, fabric: Fabric) -> None:
        self.alignment, self.fabric = alignment, fabric
        self.optimizers = setup(alignment, fabric)
        self.parts = parts_of(alignment, settings.more_steps)
        self._batches, self._seed, self._capture = batches, settings.seed, settings.capture
        self._rates = {name: [group["lr"] for group in o.param_groups] for name, o in self.optimizers.items()}
        self._update, self._ranks = FabricUpdate(fabric, self.optimizers), ranks_of(fabric)

    def steps(self, part: Part, first: int) -> Iterator[tuple[int, Losses]]:
        """Each step of a part that is not before step `first` of the run, once it is taken, with its losses."""
        stage = part.stage
        self._go_on_with_labels(part, first)
        train_only(self.alignment, self.optimizers, stage)
        self.captured = self._capturing(stage)
        for step in range(max(part.first, first), part.last):
            # Counted within the stage: the segmentation stages of all methods see the same batches.
            here = part.in_stage(step)
            _set_learning_rates(self.optimizers, self._rates, stage, part.fraction(step))
            reseed = partial(seed_step, self._seed, here)
            if is_due(stage, here):
                reseed()
                self._label(stage)
            reseed()
            batch = self._batches.batch(here, stage.batch_size)
            with self._ranks.dealing():
                losses = self.captured(batch, reseed)
            yield step, losses

    def _go_on_with_labels(self, part: Part, first: int) -> None:
        """Give batches the labels that the stage has made before; none where it makes some first, or never."""
        if first >= part.last:
            return
        begins = is_due(part.stage, part.in_stage(max(part.first, first)))
        if part.stage.label is None or begins:
            self.pseudo = None
        elif self.pseudo is None:
            raise RunError(
                f"the checkpoint of this run holds no labels of the target, with which stage '{part.stage.name}' goes on: "
                "the code of the method has changed since. Delete it to train from the start."
            )
        self._batches.pseudo = None if self.pseudo is None else unpacked(self.pseudo)

    def _label(self, stage: Stage) -> None:
        slices = self._batches.whole_target(stage.batch_size)
        with self._ranks.dealing():
            labels = labels_of(self.alignment, stage, slices)
        self._batches.pseudo, self.pseudo = labels, packed(labels)
        train_only(self.alignment, self.optimizers, stage)

    def _capturing(self, stage: Stage) -> Captured:
        take = partial(_step, stage, self._update)
        return capturing(take, stage, self.alignment, self.optimizers, self.fabric, self._capture)


def follow(alignment: Alignment, batches: Batches, settings: RunSettings, fabric: Fabric) -> None:
    """Take the steps of `fit` beside the first process of a run, which has all its files."""
    stepper, ranks = Stepper(alignment, batches, settings, fabric), ranks_of(fabric)
    first_step = hand_out(ranks, stepper)
    if first_step == 0:
        with ranks.dealing():
            rehearse(alignment, stepper.optimizers, alignment.stages(), batches)
        first_step = hand_out(ranks, stepper)
    with interruptions() as interruption:
        for part in stepper.parts:
            for _ in stepper.steps(part, first_step):
                if ranks.agree(interruption.requested):
                    return


def hand_out(ranks: ProcessGroup, stepper: "Stepper", step: int = 0) -> int:
    """Networks, image pools, optimizers and labels of the first process to all others, and the number of the next step."""
    if not ranks.met:
        return step
    alignment, optimizers, precision = stepper.alignment, stepper.optimizers, stepper.fabric.strategy.precision
    own = [step, network_states(alignment), optimizer_states(optimizers), precision.state_dict(), stepper.pseudo]
    step, networks, stepped, scale, pseudo = ranks.from_first(None if ranks.rank else on_cpu(own))
    if ranks.rank:
        stepper.pseudo = pseudo
        load_network_states(alignment, networks)
        load_optimizer_states(optimizers, stepped)
        precision.load_state_dict(scale)
    return int(step)


def refuse_uneven(alignment: Alignment, count: int) -> None:
    """ConfigError if the slices of a step cannot be shared by so many processes in equal parts."""
    for stage in alignment.stages():
        if stage.batch_size % count:
            options = type(alignment.config).model_fields
            name = next((n for n in (f"{stage.name}_batch_size", "batch_size") if n in options), "its batch size")
            nearest = count * max(1, round(stage.batch_size / count))
            raise ConfigError(
                f"stage '{stage.name}' has {stage.batch_size} slices of each domain in a step, which {count} devices cannot "
                f"share in equal parts: type --set {name}={nearest}, or another --devices-per-run."
            )


def _go_on_from(
    step: int, alignment: Alignment, optimizers: dict[str, Optimizer], run: Run, snapshots: Snapshots | None,
    watchers: Sequence[StepWatcher],
) -> None:  # fmt: skip
    """Log, watchers and snapshots as they were after that step."""
    run.rewind_log(step)
    for watcher in watchers:
        watcher.begin(step)
    if snapshots is not None:
        parts = parts_of(alignment, run.settings.more_steps)
        snapshots.plan(alignment, optimizers, parts)
        snapshots.rewind(step, parts[-1].last)
        snapshots.complete(alignment, step)


def rehearse(alignment: Alignment, optimizers: dict[str, Optimizer], stages: Sequence[Stage], batches: Batches) -> None:
    """One step of every stage that updates nothing, so that a mistake in the last stage is met before the first is trained.

    Buffers that a forward changes, such as those of BatchNorm and image pools, are put back.
    """
    before = {name: {k: v.clone() for k, v in state.items()} for name, state in network_states(alignment).items()}
    for stage in stages:
        if stage.label is not None:
            batches.whole_target(stage.batch_size)  # or says why there is none
        seed_step(0, 0)
        batch = labelled(alignment, stage, batches.batch(0, stage.batch_size))
        train_only(alignment, optimizers, stage)
        seed_step(0, 0)
        _step(stage, lambda optimizer, loss, when=None: None, batch)
    load_network_states(alignment, before)


def refuse_beyond_memory(stages: Sequence[Stage], batches: Batches) -> None:
    """RunError for a batch that no network could take in the memory of this machine: a system that runs out of it kills without
    a word. A GPU says so itself."""
    if batches.device.type != "cpu":
        return
    one = batches.batch(0, 1)
    bytes_of_one, room = one.x_s.nbytes + one.x_t.nbytes, host_memory()
    for stage in stages:
        needed = stage.batch_size * bytes_of_one
        if needed * LEAST_FEATURES > room:
            raise RunError(
                f"stage '{stage.name}' has {stage.batch_size} slices per step: their images alone are {needed / 2**30:.1f} GB, "
                f"networks need at least {LEAST_FEATURES} times that, and {room / 2**30:.1f} GB are free. Lower its batch size "
                "(`attentkit show` names the option)."
            )


def _step(stage: Stage, update: Update, batch: Batch) -> Losses:
    try:
        return stage.step(batch, update)
    except torch.OutOfMemoryError:
        raise RunError(
            f"the device has too little memory for stage '{stage.name}' with {stage.batch_size} slices per step. Lower its "
            f"batch size (`attentkit show` names the option)."
        ) from None


class Interruption:
    """Whether somebody asked the loop to stop after the step at hand."""

    requested = False


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Turn SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 into a request, so that a step is never cut in half.

    A second SIGINT is immediate. The others are what schedulers send, several of them one after another, before they kill.
    """
    interruption = Interruption()
    before: dict[int, Any] = {}
    asked = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]

    def request(number: int, frame: object) -> None:
        if interruption.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        interruption.requested = True

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, request) for number in asked}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def seed_step(seed: int, step: int) -> None:
    """Everything random in a step follows from the seed and the step's number in its stage, in torch, numpy and random."""
    mixed = int(np.random.SeedSequence((seed, 1, step)).generate_state(1, np.uint32)[0])
    # What torch.manual_seed does, without writing down for devices that are not there who asked for it: that takes longer
    # than a small network's forward pass.
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mixed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)


def _set_learning_rates(
    optimizers: dict[str, Optimizer], base_rates: dict[str, list[float]], stage: Stage, fraction: float
) -> None:
    for name in stage.trains:
        schedule = stage.schedule[name] if isinstance(stage.schedule, Mapping) else stage.schedule
        multiplier = schedule(fraction)
        for group, rate in zip(optimizers[name].param_groups, base_rates[name], strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * multiplier)
            else:
                group["lr"] = rate * multiplier


def _adopt(shared: Path, alignment: Alignment, optimizers: dict[str, Optimizer], stage: Stage) -> bool:
    """Take over the result of an equal stage that another run has trained."""
    with FileLock(f"{shared}.lock"):
        if stage.recipe is None or not shared.exists():
            return False
        checkpoint.restore(shared, alignment, optimizers)
    return True


def _offer(shared: Path, alignment: Alignment, optimizers: dict[str, Optimizer], stage: Stage) -> None:
    """Leave the result of this stage for runs of the same recipe."""
    if stage.recipe is None:
        return
    networks = trained_networks(alignment, optimizers, stage)
    state: dict[str, Any] = {
        "networks": {name: s for name, s in network_states(alignment).items() if name in networks},
        "optimizers": {name: s for name, s in optimizer_states(optimizers).items() if name in stage.trains},
    }
    shared.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{shared}.lock"):
        checkpoint.write(shared, state)
