"""The jobs of a comparison: one for each run, and one for each first stage that several runs share."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from attent_kit.build import build_alignment
from attent_kit.engine.compare.content import content_of
from attent_kit.engine.compare.price import seen_by_networks
from attent_kit.engine.compare.suite import Cell, Suite
from attent_kit.engine.jobs.book import FOLDER
from attent_kit.engine.jobs.errand import Errand
from attent_kit.engine.jobs.settings import Launching
from attent_kit.engine.run.stages import parts_of, total_steps
from attent_kit.launcher import Job
from attent_kit.registry import Registry

Shared = tuple[object, ...]
"""What a first stage is known by that several runs share."""


class RowShape(NamedTuple):
    """What of a row's method shapes its jobs."""

    steps: int
    """Of all stages."""
    first: int
    """Of the first stage."""
    recipe: Shared | None
    """What that stage is known by, if others may share it."""


class Planned(NamedTuple):
    """A job, and what it is for."""

    job: Job
    cell: Cell
    """The run; of a shared stage one of those that need it."""
    errand: Errand
    until: int | None = None
    """Of a shared stage: its steps."""
    sharing: Shared | None = None
    """What the jobs of one shared stage have in common."""


def shapes(suite: Suite, cells: Sequence[Cell], registry: Registry) -> dict[str, RowShape]:
    """Of each row with a run that is not done; ConfigError if it cannot be built."""
    first = {cell.row: cell for cell in reversed(cells) if not cell.done}
    made = {}
    for row, cell in first.items():
        task, _ = seen_by_networks(suite, cell)
        alignment = build_alignment(cell.settings.alignment, registry, task, cell.settings.seed, empty=True)
        stage = parts_of(alignment)[0].stage
        shaped = stage.name, stage.steps, stage.batch_size, stage.recipe, cell.settings.data.channels
        recipe = None if stage.recipe is None else shaped
        made[row] = RowShape(total_steps(alignment, cell.settings.more_steps), stage.steps, recipe)
    return made


def planned(
    suite: Suite,
    cells: Sequence[Cell],
    rows: Mapping[str, RowShape],
    launching: Launching,
    registry: Registry,
    out: Path,
    devices: int = 1,
) -> list[Planned]:
    """The jobs of all runs that are not done, the longest first; a shared stage comes before those that need it, and so does the
    run that another starts from. A job is one process, which starts those on the others of `devices`."""
    resources = {row.label: launching.jobs.of(row.resources, devices) for row in suite.rows}
    missing = sorted((cell for cell in cells if not cell.done), key=lambda cell: -rows[cell.row].steps)
    groups: dict[Shared, list[Cell]] = {}
    for cell in missing:
        if (sharing := _sharing(cell, rows)) is not None:
            groups.setdefault(sharing, []).append(cell)
    stages = {
        sharing: stage_job(own[0], sharing, rows[own[0].row].first, resources[own[0].row], registry, out)
        for sharing, own in groups.items()
        if len(own) > 1
    }
    needed = {sharing: stage for sharing, stage in stages.items() if not _is_there(stage, out)}
    jobs = [*needed.values()]
    errands = {cell.key: Errand(out / FOLDER / f"{_name(cell, registry)}.json") for cell in missing}
    for cell in missing:
        sharing = _sharing(cell, rows)
        sharing = sharing if sharing in needed else None
        errand = errands[cell.key]
        after: tuple[str, ...] = () if sharing is None else (needed[sharing].job.name,)
        if cell.start is not None and cell.start.key in errands:
            after += (_unique(errands[cell.start.key], out),)
        job = Job(_unique(errand, out), errand.argv, errand.log, after=after, **resources[cell.row])
        jobs.append(Planned(job, cell, errand, None, sharing))
    return jobs


def stage_job(
    cell: Cell, sharing: Shared, steps: int, resources: Mapping[str, object], registry: Registry, out: Path
) -> Planned:
    """The job that trains the first stage of a run for all that share it."""
    errand = Errand(out / FOLDER / f"{_name(cell, registry)}-stage.json")
    job = Job(_unique(errand, out), errand.argv, errand.log, **resources)  # type: ignore[arg-type]  # by their names
    return Planned(job, cell, errand, steps, sharing)


def _sharing(cell: Cell, rows: Mapping[str, RowShape]) -> Shared | None:
    recipe = rows[cell.row].recipe
    return None if recipe is None else (cell.direction, cell.seed, cell.fold, *recipe)


def _is_there(stage: Planned, out: Path) -> bool:
    """Whether an earlier job has left the stage for others."""
    return stage.errand.has_said("staged") and any((out / "shared").glob(f"{(stage.sharing or ('',))[3]}-*.ckpt"))


def _name(cell: Cell, registry: Registry) -> str:
    """A name for the files of a run's job, which another content of the run does not have."""
    known_by = f"{cell.key.name} {_content(cell, registry)}"
    ending = hashlib.sha256(known_by.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_-]", "_", cell.key.name.replace("/", "-"))[:80] + f"-{ending}"


def _content(cell: Cell, registry: Registry) -> str:
    """What a run is made of; of the one that it starts from too, whose weights are not there yet."""
    if cell.start is None:
        return content_of(cell, registry).short
    afresh = replace(cell, start=None, settings=cell.settings.model_copy(update={"warm_start": None}))
    return f"{content_of(afresh, registry).short} {_content(cell.start, registry)}"


def _unique(errand: Errand, out: Path) -> str:
    """The name that a scheduler knows a job by, which no job of another comparison has."""
    return f"ak-{hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:8]}-{errand.file.stem}"
