"""The search of options that a suite asks for: a study for each cell, whose trials are runs like any other.

OUT/search/DIRECTION/ROW-trial-N/seedN[-foldKofM]     a trial: the cell's run with other options, and with nobody to test

A study has no file of its own. What it asks next follows from the trials that are done, which are found where they lie, so that a
search that was stopped goes on at the trial where it was. Trials are trained without the cases that the cell tests, like the cell
itself, and scored on nothing: what judges them is a selector's score, which sees no target label.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.config import dump, put
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.rows import slug
from attent_kit.engine.compare.space import Dimension, Search, ask, require_sampler
from attent_kit.engine.compare.suite import Cell, Suite
from attent_kit.engine.compare.vary import names_beside
from attent_kit.engine.run.domains import domains_seen, facts_in
from attent_kit.engine.run.folder import SEARCHED, RunKey
from attent_kit.engine.run.settings import RunSettings, run_settings
from attent_kit.engine.snapshots.look import lacking_in, look_at_noise
from attent_kit.errors import ConfigError, DataError, did_you_mean
from attent_kit.registry import Registry
from attent_kit.report.outcomes import failed_checks
from attent_kit.report.scores import LAST, ORACLE
from attent_kit.report.selection import read_selection, steps_of

_NOT_SEARCHED = (
    "seed",
    "data",
    "alignment",
    "snapshots",
    "save_seconds",
    "log_steps",
    "capture",
    "more_steps",
    "warm_start",
)


class Tried(NamedTuple):
    """One set of options, tried for one cell."""

    number: int
    """From 1."""
    options: Mapping[str, Any]
    """Those that are searched, by name."""
    value: float | None
    """What the objective says of it; None if its training met NaN."""
    folder: Path


@dataclass(frozen=True)
class Study:
    """The search for the options of one cell."""

    cell: Cell
    """With the options that the suite gives."""
    search: Search
    dimensions: Mapping[str, Dimension]
    """Those of the space that its row has."""
    higher: bool
    """Whether a higher score of the objective is better."""
    out: Path
    registry: Registry

    @property
    def count(self) -> int:
        """Trials that it has when it is over."""
        return self.search.count(self.dimensions)

    @cached_property
    def _seed(self) -> int:
        key = [self.cell.direction, slug(self.cell.row), self.cell.seed, str(self.cell.fold)]
        return int(hashlib.sha256(repr(key).encode()).hexdigest()[:6], 16)

    def found(self) -> tuple[list[Tried], list[Cell]]:
        """The trials that are done, in their order, and those that can be run next: of a grid all that are left, else
        one; none if all are done."""
        trials: list[Tried] = []
        waiting: list[Cell] = []
        told: list[tuple[Mapping[str, Any], float | None]] = []
        for number in range(1, self.count + 1):
            options = ask(self.search, self.dimensions, told, self.higher, self._seed)
            cell = self.trial(number, options)
            value = self._value(cell)
            told.append((options, None if value is _WAITING else value))
            if value is not _WAITING:
                trials.append(Tried(number, options, value, cell.folder))
                continue
            waiting.append(cell)
            if self.search.sampler == "tpe":
                break
        return trials, waiting

    def trial(self, number: int, options: Mapping[str, Any]) -> Cell:
        """The run that tries these options, where it lies or will lie."""
        row = f"{self.cell.row}, trial {number}"
        settings = with_options(self.cell.settings, options, self.registry, untested=True)
        run = RunKey(self.cell.direction, slug(row), self.cell.seed, self.cell.fold).folder(self.out / SEARCHED)
        cell = Cell(row, self.cell.alignment, self.cell.direction, self.cell.seed, settings, run.path)
        return located([cell], self.registry)[0]

    def best(self, trials: Sequence[Tried]) -> Tried:
        """The trial with the best score, the first of equal ones. DataError if none has a score."""
        scored = [(trial.value, trial) for trial in trials if trial.value is not None]
        if not scored:
            raise DataError(
                f"{self.cell.name}: training met NaN with all options of [search], so that none can be chosen: narrow its space."
            )
        value = (max if self.higher else min)(value for value, _ in scored)
        return next(trial for own, trial in scored if own == value)

    def _value(self, cell: Cell) -> Any:
        """A score, None if training met NaN, or _WAITING."""
        if not cell.done:
            return None if met_nan(cell) else _WAITING
        rows = read_selection(cell.run.selection)
        end = max(steps_of(rows), default=0)
        found = [
            r.value for r in rows if (r.selector, r.step) == (self.search.objective, end) and math.isfinite(r.value)
        ]
        if not found:
            raise DataError(
                f"the objective '{self.search.objective}' of [search] has no score of {cell.run}: it takes what this method "
                'lacks, such as a translation back to the target. Choose another, as in objective = "im".'
            )
        return found[0]


_WAITING = object()


def studies_of(suite: Suite, cells: Sequence[Cell], registry: Registry, out: Path) -> dict[RunKey, Study]:
    """By cell, of those whose rows are searched."""
    search = suite.search
    if search is None:
        return {}
    better = registry.find("selectors", search.objective).load().better
    made = {}
    for cell in cells:
        dimensions = _dimensions(search, cell)
        named = cell.row in search.rows
        if cell.start is not None:
            continue
        if dimensions and (named or not (search.rows or registry.alignment(cell.alignment).uses_target_labels)):
            made[cell.key] = Study(cell, search, dimensions, better == "higher", out, registry)
    return made


def refuse_search(suite: Suite, cells: Sequence[Cell], registry: Registry) -> None:
    """ConfigError, before anything is trained, for an option that no row has, a value that one does not take, an objective that
    there is not, or a sampler that is not installed. `cells` are all of the suite."""
    search = suite.search
    if search is None:
        return
    require_sampler(search)
    names = [component.name for component in registry.of("selectors")]
    if search.objective not in names:
        labels = " It would see target labels." if search.objective == ORACLE else ""
        nearest = "" if search.objective in (LAST, ORACLE) else did_you_mean(search.objective, names)
        raise ConfigError(
            f"search.objective: '{search.objective}' is no label-free selector.{labels}{nearest} There are: {', '.join(names)}."
        )
    rows = {cell.row: cell for cell in reversed(cells)}
    if strange := [label for label in search.rows if label not in rows]:
        raise ConfigError(f"search.rows: no trained row is called '{strange[0]}'.{did_you_mean(strange[0], rows)}")
    for name in search.space:
        path = name.split(".")
        if path[0] in _NOT_SEARCHED:
            raise ConfigError(
                f"search.space.{name}: this is no option of a method that could be searched; leave it out."
            )
        known = dict.fromkeys(n for c in rows.values() for n in names_beside(_options(c, path), path))
        if path[-1] not in known:
            raise ConfigError(
                f"search.space.{name}: no row of this suite has such an option.{did_you_mean(path[-1], known)}"
            )
    for cell in rows.values():
        if not cell.settings.snapshots and _dimensions(search, cell):
            raise ConfigError("settings.snapshots: a search judges the last snapshot of a trial: write 1 or more.")
        for name, dimension in _dimensions(search, cell).items():
            for value in dimension.samples:
                try:
                    with_options(cell.settings, {name: value}, registry, untested=True)
                except ConfigError as error:
                    raise ConfigError(f"search.space.{name}, row '{cell.row}': {error}") from None
    if begun := [label for label in search.rows if rows[label].start is not None]:
        raise ConfigError(
            f"search.rows: '{begun[0]}' starts from another row, which is not trained while options are searched: leave it out, "
            "or give it the folder of a run as its start."
        )
    if searched := [label for label in search.rows if not _dimensions(search, rows[label])]:
        raise ConfigError(f"search.rows: '{searched[0]}' has none of the options of the space: leave it out.")


def refuse_objective(studies: Mapping[RunKey, Study]) -> None:
    """DataError, before anything is trained, if the data lack what the objective is computed from."""
    known = set()
    for study in studies.values():
        cell, objective = study.cell, study.search.objective
        if (cell.direction, cell.fold, cell.row) in known or not _has_data(cell):
            continue
        known.add((cell.direction, cell.fold, cell.row))
        source, target = domains_seen(cell.settings.data.model_copy(update={"untested": True}), facts_in)
        reason = lacking_in(source)
        selector = study.registry.find("selectors", objective).load()()
        if reason and selector.score(look_at_noise(source, len(target.organs) + 1)) is None:
            raise DataError(
                f"search.objective: '{objective}' would have no score of {cell.name}: {reason}. Run `attentkit prepare` again "
                'with --val, or choose an objective that sees the target alone, as in objective = "im".'
            )


def chosen(studies: Mapping[RunKey, Study], cells: Sequence[Cell]) -> list[Cell]:
    """The cells with the options that their searches have found; those whose search is not over say how many trials it lacks."""
    made = []
    for cell in cells:
        study = studies.get(cell.key)
        if study is None:
            made.append(cell)
            continue
        trials, _ = study.found() if _has_data(cell) else ([], [])
        if len(trials) < study.count:
            made.append(replace(cell, trials_left=study.count - len(trials)))
        else:
            best = study.best(trials)
            settings = with_options(study.cell.settings, best.options, study.registry)
            made.append(replace(cell, settings=settings, trials_left=None))
    return made


def _has_data(cell: Cell) -> bool:
    """Whether the prepared files are there; those of a phantom are made when it is first run."""
    data = cell.settings.data
    return all(file.exists() for file in (data.source, data.target) if file is not None)


def met_nan(cell: Cell) -> bool:
    """Whether the training of a trial ended in NaN, which it would again."""
    return "not-finite" in (failed_checks(cell.run.monitor) or ())


def with_options(
    settings: RunSettings, options: Mapping[str, Any], registry: Registry, untested: bool = False
) -> RunSettings:
    """Settings with other options, named as for `--set`; `untested` with nobody to test. ConfigError for a value that is none."""
    plain = dump(settings)
    for name, value in options.items():
        path = name.split(".")
        put(plain if path[0] in RunSettings.model_fields else plain["alignment"], path, value)
    if untested:
        plain["data"]["untested"] = True
    return run_settings(plain, registry)


def _dimensions(search: Search, cell: Cell) -> dict[str, Dimension]:
    """Those of options that the row of a cell has."""
    found = {}
    for name, dimension in search.dimensions.items():
        path = name.split(".")
        if path[-1] in names_beside(_options(cell, path), path):
            found[name] = dimension
    return found


def _options(cell: Cell, path: Sequence[str]) -> Any:
    return cell.settings if path[0] in RunSettings.model_fields else cell.settings.alignment.options
