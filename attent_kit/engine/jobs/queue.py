"""The jobs of a comparison from the first submission to the last score, whatever becomes of machines in between.

A run's folder alone says what became of it: it is done when it has its scores, and failed when it says why. Everything else
that ends a job (a node that died, a time limit, a preemption) lost it: it is submitted again and goes on from its checkpoint.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attent_kit.engine.compare.cells import FailedCell
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.jobs.book import FOLDER, alone_at, is_cancelled, write_book
from attent_kit.engine.jobs.errand import Ear
from attent_kit.engine.jobs.plan import Planned, Shared, stage_job
from attent_kit.engine.jobs.processes import how, threads_on
from attent_kit.engine.jobs.settings import Launching
from attent_kit.engine.jobs.work import plain
from attent_kit.engine.run.heartbeat import now
from attent_kit.engine.run.processor import THREADS
from attent_kit.engine.train.fit import Interruption, interruptions
from attent_kit.errors import RunError
from attent_kit.launcher import JobState, Launcher
from attent_kit.registry import Registry

LOOKS_AFTER = 2
"""Looks at which a job is not in the queue before it counts as over: a scheduler may be slow to know it."""
REFUSALS = 30
"""Times in a row that a scheduler may not answer, or take nothing though nothing of ours is queued."""
UNSEEN = 2
"""Jobs that end before their worker could begin, where none ever did, before no more are submitted."""


@dataclass
class _Task:
    """A job that is to be done, however often it must be submitted."""

    planned: Planned
    ear: Ear
    state: str = "waiting"
    """waiting, submitted or over."""
    again_at: float = 0.0
    tries: int = 0
    """Jobs of it in a row that were lost and left no new checkpoint."""
    checkpoint: int = 0
    """What was known of its checkpoint when it was submitted."""
    came_after: bool = False
    """Whether it was submitted to come after another job."""
    unseen: int = 0
    """Looks in a row at which it was not in the queue."""
    said: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.planned.job.name

    @property
    def is_stage(self) -> bool:
        return self.planned.until is not None


class Queue:
    """Submits the jobs of a comparison, looks at all of them at once now and then, and submits again what was lost."""

    def __init__(
        self, plan: Sequence[Planned], launching: Launching, registry: Registry, out: Path, watcher: CellWatcher,
        told: dict[str, Any],
    ) -> None:  # fmt: skip
        """`told`: what every worker is told beside its cell, as `work` takes it."""
        self._tasks = {planned.job.name: _Task(planned, Ear(planned.errand)) for planned in plan}
        self._launching, self._settings = launching, launching.jobs
        self._registry, self._out, self._watcher, self._told = registry, out, watcher, told
        self._failed: list[FailedCell] = []
        self._refusals = 0
        self._said: set[str] = set()

    def run(self) -> list[FailedCell]:
        """Until every run is done or has failed; those that have failed. RunError if nothing can be run there at all.

        Ctrl-C ends the looking alone, and the jobs go on: called again, it finds them. `attentkit cancel` ends both.
        """
        with alone_at(self._out):
            launcher = self._launching.start(self._out / FOLDER)
            try:
                self._begin(launcher)
                with interruptions() as stop:
                    self._look_after(launcher, stop)
            finally:
                launcher.close()
        return self._failed

    def _begin(self, launcher: Launcher) -> None:
        """Find jobs of an earlier call, and refuse what cannot be run before anything is submitted."""
        alive = {state.name for state in launcher.look([*self._tasks]) if state.state != "ended"}
        for name in alive:
            self._tasks[name].state = "submitted"
        launcher.check([task.planned.job for task in self._tasks.values() if task.name not in alive])
        if alive:
            self._watcher.said(f"{len(alive)} jobs of an earlier call go on.")
            for task in self._tasks.values():
                # What has failed while nobody looked is said now, and not tried again.
                if task.name in alive or task.is_stage:
                    continue
                failure = task.planned.cell.run.read_failure()
                if failure is not None:
                    self._give_up(task, str(failure.get("error")))
        self._note()

    def _note(self) -> None:
        jobs = {task.name: (task.planned.cell.run.name, task.planned.errand) for task in self._tasks.values()}
        write_book(self._out, self._launching, jobs)

    def _look_after(self, launcher: Launcher, stop: Interruption) -> None:
        while self._open():
            try:
                self._settle(launcher)
                self._submit(launcher)
                self._refusals = 0
            except _NothingRuns as error:
                launcher.stop([task.name for task in self._open() if task.state == "submitted"])
                raise RunError(str(error)) from None
            except RunError as error:
                self._refused(error)
            until = time.monotonic() + self._settings.seconds
            while self._open() and time.monotonic() < until:
                if is_cancelled(self._out):
                    self._watcher.said("The jobs were cancelled. Start the same command again to go on.")
                    raise KeyboardInterrupt
                if stop.requested:
                    self._watcher.said(
                        f"The jobs go on: start the same command again to wait for them, or type `attentkit cancel {self._out}`."
                        if launcher.outlives
                        else "The jobs end with this command, each after saving."
                    )
                    raise KeyboardInterrupt
                time.sleep(min(0.2, self._settings.seconds))

    def _open(self) -> list[_Task]:
        return [task for task in self._tasks.values() if task.state != "over"]

    def _refused(self, error: RunError) -> None:
        """A scheduler that does not answer, or takes nothing more, is asked again; for how long depends on whether jobs run."""
        self._refusals += 1
        if self._refusals > REFUSALS:
            raise error
        if str(error) not in self._said:
            self._said.add(str(error))
            self._watcher.said(f"{error} It is tried again.")

    # What became of them

    def _settle(self, launcher: Launcher) -> None:
        submitted = [task for task in self._tasks.values() if task.state == "submitted"]
        states = {state.name: state for state in launcher.look([task.name for task in submitted])} if submitted else {}
        for task in submitted:
            state = states.get(task.name)
            if state is not None and state.state == "queued":
                task.unseen = 0
                continue
            for heard in task.ear.hear():
                task.said.add(heard.event)
                if heard.event == "warned":
                    self._watcher.warned(task.planned.cell, heard.sentence)
                elif heard.event == "refused":
                    raise _NothingRuns(heard.sentence)
            task.unseen = 0 if state is not None else task.unseen + 1
            if (state is not None and state.state == "ended") or task.unseen >= LOOKS_AFTER:
                self._ended(task, state)

    def _ended(self, task: _Task, state: JobState | None) -> None:
        """A job is over. Where its run lies is known only now: a process of another suite may have begun one in between."""
        (cell,) = located([task.planned.cell], self._registry)
        failure = cell.run.read_failure()
        if cell.done:
            task.state = "over"
            if not task.is_stage:
                self._watcher.finished(cell)
        elif task.is_stage and "staged" in task.said:
            task.state = "over"
        elif failure is not None and "busy" not in task.said:
            self._give_up(task, str(failure.get("error")))
        else:
            self._lost(task, cell, state)

    def _give_up(self, task: _Task, sentence: str) -> None:
        """A run is not tried again; of a shared stage another run that needs it is to train it."""
        task.state = "over"
        cell, error = task.planned.cell, RunError(sentence)
        if cell.key not in {failed.key for failed, _ in self._failed}:
            self._failed.append((cell, error))
            self._watcher.failed(cell, error)
        if not task.is_stage:
            return
        sharing = task.planned.sharing
        for other in self._open():
            if other.planned.cell.key == cell.key:
                other.state = "over"
        heirs = [other for other in self._open() if other.planned.sharing == sharing]
        if len(heirs) > 1 and sharing is not None:
            self._hand_on(task, heirs, sharing)

    def _hand_on(self, task: _Task, heirs: Sequence[_Task], sharing: Shared) -> None:
        cell, job = heirs[0].planned.cell, heirs[0].planned.job
        resources = {"gpus": job.gpus, "cpus": job.cpus, "minutes": job.minutes, "memory": job.memory}
        stage = stage_job(cell, sharing, task.planned.until or 0, resources, self._registry, self._out)
        if stage.job.name not in self._tasks:
            # Before those that need it.
            self._tasks = {stage.job.name: _Task(stage, Ear(stage.errand)), **self._tasks}
            for heir in heirs:
                heir.planned = heir.planned._replace(job=heir.planned.job._replace(after=(stage.job.name,)))
            self._note()

    def _lost(self, task: _Task, cell: Cell, state: JobState | None) -> None:
        """Submit it again, unless that has been in vain too often."""
        task.state, task.unseen = "waiting", 0
        name = cell.name + (" (first stage)" if task.is_stage else "")
        if "busy" in task.said or (task.came_after and "began" not in task.said):
            # Another process is at work on it; or what it comes after was lost, and its scheduler gave it up.
            task.again_at = time.monotonic() + (3 * self._settings.seconds if "busy" in task.said else 0.0)
            return
        task.tries = 0 if _stamp(cell) != task.checkpoint else task.tries + 1
        why = _words(state, "stopped" in task.said)
        if "began" not in task.said:
            self._refuse_blind(task, why)
        if task.tries > self._settings.retries:
            self._give_up(
                task,
                f"its job was lost {task.tries} times without a new checkpoint; the last one {why}. Its log is "
                f"{task.planned.errand.log}.{task.planned.errand.last_words()}",
            )
            return
        begins = "goes on from its checkpoint" if _stamp(cell) else "begins anew, having no checkpoint yet"
        self._watcher.said(f"{name}: its job {why} before it was done; it is submitted again and {begins}.")

    def _refuse_blind(self, task: _Task, why: str) -> None:
        """Jobs that never begin are all alike: the node does not see the disk, or Python."""
        task.said.add("blind")
        blind = sum("blind" in other.said for other in self._tasks.values())
        ever = any({"began", "finished", "staged"} & other.said for other in self._tasks.values())
        if not ever and (blind >= UNSEEN or task.tries >= UNSEEN):
            errand = task.planned.errand
            raise _NothingRuns(
                f"a job {why} before its worker had begun: the node may not see {errand.file} or {errand.argv[0]}. Put --out and "
                f"Python on a disk that all machines share; what it printed, if anything, is in {errand.log}."
                f"{errand.last_words()}"
            )

    # What is next

    def _submit(self, launcher: Launcher) -> None:
        """As many as the queue may hold."""
        counted = Counter(task.state for task in self._tasks.values())
        room = self._settings.queued - counted["submitted"]
        for task in [task for task in self._tasks.values() if task.state == "waiting"]:
            if room <= 0:
                return
            before = self._waits_for(task)
            if task.again_at > time.monotonic() or any(other.state == "waiting" for other in before):
                continue
            self._submit_one(launcher, task, tuple(other.name for other in before))
            room -= 1

    def _submit_one(self, launcher: Launcher, task: _Task, after: tuple[str, ...]) -> None:
        cell, errand = task.planned.cell, task.planned.errand
        cell.run.failed.unlink(missing_ok=True)
        errand.events.unlink(missing_ok=True)
        device = "cpu" if task.planned.job.gpus == 0 and self._told["device"] == "auto" else self._told["device"]
        threads = threads_on("cpu") if device == "cpu" else os.environ.get(THREADS)
        told = {**self._told, "device": device, "threads": threads, "out": str(self._out), "began": now()}
        errand.write([plain(cell)], **told, until=task.planned.until, alone=True)
        launcher.submit(task.planned.job._replace(after=after))
        task.came_after = bool(after)
        task.ear, task.said, task.checkpoint = Ear(errand), task.said & {"blind"}, _stamp(cell)
        task.state = "submitted"

    def _waits_for(self, task: _Task) -> list[_Task]:
        """The jobs that it comes after and that are not over."""
        before = (self._tasks.get(name) for name in task.planned.job.after)
        return [other for other in before if other is not None and other.state != "over"]


class _NothingRuns(RunError):
    """No job can be run there."""


def _stamp(cell: Cell) -> int:
    """What changes with the checkpoint; 0 if there is none."""
    try:
        return cell.run.checkpoint.stat().st_mtime_ns
    except OSError:
        return 0


def _words(state: JobState | None, saved: bool) -> str:
    """How a job ended: "left the queue", "ended on node3 (node fail)", "was told to end on node3"."""
    if saved:
        return f"was told to end{f' on {state.where}' if state and state.where else ''}"
    if state is None:
        return "left the queue"
    where = f" on {state.where}" if state.where else ""
    why = state.why or ("" if state.code is None else how(state.code))
    return f"ended{where}{f' ({why})' if why else ''}"
