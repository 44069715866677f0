"""A comparison from a request to its tables: `compare(CompareRequest("phantom"), load().registry)`.

Stopping it and starting it again is the normal way to use it: what is finished is never run twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.compare.cells import (
    FailedCell,
    domain_files,
    longest_first,
    make_data,
    refuse_what_cannot_run,
    run_cells,
)
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.costs import measure_costs, read_costs
from attent_kit.engine.compare.external import External, done_externals, score_externals
from attent_kit.engine.compare.patients import notes
from attent_kit.engine.compare.results import Results, collect, standing
from attent_kit.engine.compare.results_folder import cases_tested, remember
from attent_kit.engine.compare.suite import Cell
from attent_kit.engine.conduct.grid import CellGrid, expanded, planned_jobs
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.engine.conduct.search import search_options, write_search
from attent_kit.engine.conduct.watcher import Watcher
from attent_kit.engine.jobs.processes import run_on
from attent_kit.engine.jobs.queue import Queue
from attent_kit.engine.jobs.settings import LOCAL
from attent_kit.engine.jobs.staging import hashes_of
from attent_kit.engine.publish.panels import panels
from attent_kit.engine.publish.report import write_report
from attent_kit.engine.run.domains import facts_in, target_seen
from attent_kit.engine.run.heartbeat import in_a_sentence
from attent_kit.engine.run.processor import one_thread
from attent_kit.engine.run.status import write_grid
from attent_kit.engine.study.runs import refuse_failed
from attent_kit.engine.study.shift import Meter, ShiftOfRuns, shift_of_comparison
from attent_kit.engine.study.translation_audit import (
    TranslatesNothing,
    TranslationAuditOptions,
    TranslationAudits,
    audit_translations,
)
from attent_kit.engine.train.train import TrainOptions
from attent_kit.errors import AttentKitError, DataError, RunError
from attent_kit.registry import Registry
from attent_kit.report.compared import Compared, ScoredRows, compared, daggered
from attent_kit.report.comparisons import Comparison
from attent_kit.report.published import read_published
from attent_kit.report.render import render
from attent_kit.report.scores import Scores
from attent_kit.report.searched import SearchedTrial, search_note
from attent_kit.report.table import Table, mark


@dataclass(frozen=True)
class CompareResult:
    """What a comparison has come to. It may be only a part of what was asked for: `check` says so."""

    grid: CellGrid
    """What was asked for."""
    cells: tuple[Cell, ...]
    """The runs that were asked for, where they lie now; `done` says which of them have scores."""
    scores: Scores
    """Of every finished run of the suite in the folder, as scores.csv has them."""
    compared: Compared
    """Tables, comparisons, ranks and costs."""
    files: tuple[Path, ...]
    failed: tuple[FailedCell, ...]
    """Cells that could not be run, each with its error."""
    left_out: tuple[str, ...]
    """Rows with a finished run, but not with this selection."""
    unseen: tuple[str, ...]
    """A sentence for each row with something in the folder that no table shows, and why."""
    damaged: tuple[str, ...]
    """A sentence for each file of scores that cannot be used."""
    shift: ShiftOfRuns | None = None
    """How far the domains are apart, if that was asked for."""
    audited: TranslationAudits | None = None
    """What translations do to anatomy, if that was asked for."""
    unmeasured: Exception | None = None
    """Why shift or audit are missing, or lack a run."""
    unreported: AttentKitError | None = None
    """Why there is no report."""

    @property
    def tables(self) -> Sequence[Table]:
        """Dice and surface distance of each direction, as printed."""
        return self.compared.tables

    @property
    def comparisons(self) -> Sequence[Comparison]:
        """Every row tested against the reference row."""
        return self.compared.comparisons

    def __rich__(self) -> Any:
        from rich.console import Group

        return Group(*(table.__rich__() for table in self.tables), self.compared.note)

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self.tables) + f"<p>{escape(self.compared.note)}</p>"

    @property
    def error(self) -> Exception | None:
        """What a command that asked for this ends with: the gravest of what went wrong; None if all is there."""
        if self.failed:
            runs = "\n".join(f"  {cell.name}: {error}" for cell, error in self.failed)
            damaged = "".join(f"\n{sentence}" for sentence in self.damaged)
            return RunError(
                f"{len(self.failed)} of {len(self.cells)} runs failed; the table shows the others.\n{runs}{damaged}"
            )
        if self.damaged:
            return DataError("\n".join(["some scores cannot be read; the table shows the others.", *self.damaged]))
        return self.unmeasured or self.unreported

    @property
    def besides(self) -> list[str]:
        """A sentence for each thing that went wrong and is not in `error`."""
        said = []
        if self.unreported and self.error is not self.unreported:
            said.append(f"No report: {self.unreported}")
        if self.unmeasured and self.error is not self.unmeasured:
            said.append(f"Shift: {in_a_sentence(self.unmeasured)}")
        return said

    def check(self) -> "CompareResult":
        """The same if all that was asked for is there; else `error` is raised."""
        if self.error:
            raise self.error
        return self


def compare(request: CompareRequest, registry: Registry, watcher: Watcher | None = None) -> CompareResult:
    """Run the missing cells of a comparison, and write and return what its scores come to.

    ConfigError or DataError, before anything is run, for what cannot be run. What fails later does not stop the rest: it is
    in the result, and `check` raises it.
    """
    watcher = watcher or Watcher()
    grid = expanded(request, registry)
    watcher.expanded(grid)
    with watcher.during("data") as tell:
        make_data(grid.suite, grid.out, tell)
    cells, failed = _run(request, grid, registry, watcher)
    if request.vary:
        with watcher.during("cost") as tell, one_thread(grid.devices[0]):
            measure_costs(cells, registry, grid.devices[0], tell)
    trials = write_search(grid, registry)
    results = collect(grid.out, grid.whole, cells, registry, request.set_words, request.select)
    found = _compared(request, grid, cells, results, trials)
    externals = _externals(grid, cells)
    files = render(found, {direction: panels(cells, direction, externals) for direction in _targets(cells)}, grid.out)
    result = CompareResult(
        grid, tuple(cells), Scores(results.scores), found, tuple(files), tuple(failed), tuple(results.left_out),
        tuple(results.unseen), tuple(results.damaged),
    )  # fmt: skip
    watcher.scored(result)
    if request.shift and result.scores:
        with one_thread(grid.devices[0]):
            result = _with_shift(result, registry, watcher)
    return _with_report(result, registry) if request.report else result


def _run(
    request: CompareRequest, grid: CellGrid, registry: Registry, watcher: Watcher
) -> tuple[list[Cell], list[FailedCell]]:
    """Train and score what is missing, here or in a process for each device; the cells where they lie now, and those that
    failed."""
    out, words, select = grid.out, request.set_words, request.select
    steps = refuse_what_cannot_run(grid.cells, registry, grid.devices_per_run)
    for sentence in () if grid.notes else notes(grid.cells, grid.suite.shared_patients):
        watcher.said(sentence)
    # The data are there now, and what they hold is part of what a cell is known by.
    cells = located(grid.cells, registry)
    if grid.externals:
        with watcher.during("external") as tell:
            score_externals(grid.externals, tell)
    write_grid(out, cells, grid.externals)
    whole, begun = standing(out, grid.whole, registry, words, select)
    counted = [*cells, *begun]
    remember(out, whole, counted, grid.reference, select, _externals(grid, counted))
    if grid.launching is not None:
        failed = _run_as_jobs(request, replace(grid, cells=tuple(cells)), registry, watcher)
        return located(cells, registry), failed

    def train(wanted: Sequence[Cell]) -> list[FailedCell]:
        with watcher.training(wanted):
            # A process that would find nothing to do is not started.
            devices = grid.devices[: sum(not cell.done for cell in wanted)]
            if len(devices) > 1 and LOCAL in [component.name for component in registry.of("launchers")]:
                return run_on(devices, longest_first(wanted, steps), registry, out, watcher, request.track)
            with one_thread(grid.devices[0]):
                return run_cells(wanted, registry, out, grid.devices[0], watcher, TrainOptions(trackers=grid.trackers))

    lost: list[FailedCell] = []
    if grid.suite.search is not None:
        ready, lost = search_options(grid, cells, registry, train)
        cells = located(ready, registry)
        write_grid(out, cells, grid.externals)
        remember(out, whole, [*cells, *begun], grid.reference, select, _externals(grid, counted))
    failed = train(cells)
    # Another process with another suite may have trained in a folder meanwhile.
    return located([*cells, *(cell for cell, _ in lost)], registry), [*lost, *failed]


def _run_as_jobs(request: CompareRequest, grid: CellGrid, registry: Registry, watcher: Watcher) -> list[FailedCell]:
    """Train and score what is missing in jobs of a launcher; the cells that failed."""
    assert grid.launching is not None
    told = {
        "device": grid.job_device,
        "devices_per_run": grid.devices_per_run,
        "trackers": [*grid.trackers],
        "with_parent": grid.launching.kind.holds_stdin,
        "copies": hashes_of(grid.cells) if request.stage_data else {},
    }
    with watcher.training(grid.cells):
        return Queue(planned_jobs(grid, registry), grid.launching, registry, grid.out, watcher, told).run()


def _externals(grid: CellGrid, cells: Sequence[Cell]) -> list[External]:
    """Those that the folder shows: asked for now, or scored by an earlier call."""
    directions = {cell.direction for cell in cells}
    there = done_externals(grid.whole, domain_files(grid.whole, grid.out), grid.out, directions)
    return [*dict.fromkeys([*grid.externals, *there])]


def _compared(
    request: CompareRequest, grid: CellGrid, cells: Sequence[Cell], results: Results, trials: Sequence[SearchedTrial]
) -> Compared:
    targets = _targets(cells)
    seen = sorted({c.id for t in targets.values() for c in t.cases if {"train", "test"} <= set(c.splits)})
    trained_on = f" Target cases both trained on and tested: {', '.join(seen)}." if seen else ""
    noted = "".join(f" {sentence}" for sentence in notes(cells, grid.suite.shared_patients))
    searched = f" {search_note(trials)}" if trials else ""
    scored = ScoredRows(
        grid.title,
        grid.suite.note + trained_on + noted + searched,
        results.scores,
        results.methods,
        results.titles,
        next(iter(targets.values())).organs,
        request.select,
        results.outcomes,
        read_published(grid.suite.published) if grid.suite.published else [],
        read_costs(grid.out, [method.label for method in results.methods]),
        cases_tested(cells),
        grid.suite.attribution,
    )
    reference = None if grid.reference is None else _marked(grid, request.select)
    return compared(daggered(scored), reference, request.slide_test)


def _marked(grid: CellGrid, select: str) -> str | None:
    """The label of the reference row as the tables have it: an external row has no snapshot that labels could have chosen."""
    label = grid.reference
    external = any(row.label == label and row.is_external for row in grid.whole.rows)
    return label if label is None or external else mark(label, select)


def _targets(cells: Sequence[Cell]) -> dict[str, Prepared]:
    """The target of each direction; of one with folds, one of them."""
    return {cell.direction: target_seen(cell.settings.data, facts_in) for cell in cells}


def _with_shift(result: CompareResult, registry: Registry, watcher: Watcher) -> CompareResult:
    """With what `attentkit shift` and `attentkit audit` would find in the folder. Tables and report are there whatever
    becomes of this."""
    out, device = result.grid.out, result.grid.devices[0]
    try:
        with watcher.during("shift") as tell:
            measured = shift_of_comparison(out, Meter(registry, device), tell)
        result = replace(result, shift=measured)
        try:
            with watcher.during("audit") as tell:
                audited = audit_translations(TranslationAuditOptions(out, device=device), registry, tell)
        except TranslatesNothing:
            audited = TranslationAudits({}, [])
        pictures = [audit.files[2] for audit in audited.audits.values()]
        result = replace(result, audited=audited, files=(*result.files, *measured.files, *pictures))
        # A run that allows neither counts once.
        refuse_failed([*dict([*audited.failed, *measured.failed]).items()])
    # Too little memory, or a mistake in a method, is not a reason to lose the report.
    except Exception as error:
        return replace(result, unmeasured=error)
    return result


def _with_report(result: CompareResult, registry: Registry) -> CompareResult:
    grid = result.grid
    try:
        files = write_report(grid.out, registry, grid.reference, result.compared)
    except AttentKitError as error:
        return replace(result, unreported=error)
    return replace(result, files=(*result.files, *files))
