"""What a request comes to before anything is run: its rows, its cells, and what they would cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attent_kit.asked import refuse_unknown_selection, suite_file
from attent_kit.config import dump, read_toml, validate
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.compare.ablation import ablate
from attent_kit.engine.compare.cells import domain_files
from attent_kit.engine.compare.content import located, superseded
from attent_kit.engine.compare.external import External, externals_of, refuse_externals
from attent_kit.engine.compare.foresight import foresee
from attent_kit.engine.compare.patients import choose_folds, notes, refuse_another_split, refuse_patients
from attent_kit.engine.compare.price import Price, price
from attent_kit.engine.compare.resources import node_hours
from attent_kit.engine.compare.results import labels_in
from attent_kit.engine.compare.search import chosen, refuse_objective, refuse_search, studies_of
from attent_kit.engine.compare.suite import Cell, Suite, expand, joined, narrow, read_suite
from attent_kit.engine.compare.vary import vary
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.engine.conduct.watcher import Watcher
from attent_kit.engine.jobs.plan import Planned, planned, shapes
from attent_kit.engine.jobs.settings import Launching, launching
from attent_kit.engine.run.device import launch, refuse_misnamed, several, together
from attent_kit.engine.run.processor import on_processor, processes
from attent_kit.engine.run.provenance import explained
from attent_kit.engine.run.ranks import refuse_starter
from attent_kit.engine.train.tracking import Trackers, find_trackers
from attent_kit.errors import ConfigError
from attent_kit.naming import names_a_file
from attent_kit.registry import Registry
from attent_kit.report.comparisons import choose_reference
from attent_kit.report.power import Power


@dataclass(frozen=True)
class CellGrid:
    """Everything that a request asks for, checked, with nothing run and nothing written."""

    suite: Suite
    """With the rows, seeds and directions that are asked for; `cells` has the folds."""
    whole: Suite
    """The same suite with the rows that are not asked for, too."""
    cells: tuple[Cell, ...]
    """A run for each row, direction, seed and fold, where it lies or will lie."""
    superseded: Mapping[Path, Mapping[Path, list[str]]]
    """By the folder of a cell: runs of other options, data or versions that it takes the place of, and in what they differ."""
    out: Path
    reference: str | None
    devices: tuple[str, ...]
    trackers: Trackers
    left_out: tuple[str, ...]
    """A sentence for each row without a term that is not a row of its own."""
    notes: tuple[str, ...] = ()
    """A sentence for whatever should be known of the patients that are trained on and tested."""
    launching: Launching | None = None
    """What starts the runs as jobs that outlive this process; None for processes of this machine."""
    job_device: str = "auto"
    """What `--device` says to a job that has a GPU."""
    devices_per_run: int = 1
    """How many devices train a run together; each of `devices` stands for so many."""
    externals: tuple[External, ...] = ()
    """Rows of label maps that other tools have made, one for each direction: scored, never trained."""

    @property
    def title(self) -> str:
        return self.suite.title or self.suite.name

    @property
    def power(self) -> Mapping[str, Power]:
        """What the tests of each direction could see, before anything is trained."""
        return foresee(self.suite, self.cells, self.externals)


def expanded(request: CompareRequest, registry: Registry) -> CellGrid:
    """The grid of a request; ConfigError or DataError for what cannot be run."""
    refuse_starter()
    whole, narrowed = _suites(request, registry)
    out = Path(request.out or Path("runs", narrowed.name))
    files = domain_files(narrowed, out)
    refuse_unknown_selection(request.select, registry)
    words, reference = request.set_words, request.reference
    left_out: list[str] = []
    if request.ablate is not None:
        apart = ablate(narrowed, request.ablate, registry, words, alone=not request.alignments)
        narrowed, reference, left_out = apart.suite, reference or apart.full, apart.left_out
    narrowed = vary(narrowed, registry, files, out, request.vary_words, words)
    whole = joined(whole, narrowed)
    externals = _externals(whole, narrowed, out)
    cells = choose_folds(expand(narrowed, registry, files, out, words, request.select), request.folds)
    refuse_patients(cells)
    refuse_externals(externals)
    if narrowed.search is not None:
        refuse_search(whole, expand(whole, registry, files, out, words), registry)
        studies = studies_of(narrowed, cells, registry, out)
        refuse_objective(studies)
        cells = chosen(studies, cells)
    cells = located(cells, registry)
    if reference is not None:
        # A wrong label is met before anything is trained.
        there = labels_in(out, whole, registry, words)
        named = [*(cell.row for cell in cells), *(each.row for each in externals), *there]
        choose_reference(reference, [*dict.fromkeys(named)])
    trackers = find_trackers(request.track, registry)
    jobs = _launching(request, narrowed, registry)
    if jobs is not None and narrowed.search is not None:
        raise ConfigError(
            f"[search] trains its trials on this machine, since each follows from those before it, and {jobs.name} takes runs "
            "that are known beforehand: type --launcher local, with --devices for several, or write the options of its "
            "search.csv into the suite in place of [search]."
        )
    devices = _devices(request, cells) if jobs is None else ("auto",)
    for file in files.values() if narrowed.phantom is None else ():
        refuse_another_split(narrowed, Prepared.open(file))
    known = superseded([cell for cell in cells if cell.trials_left is None], registry)
    older = {cell.folder: known.get(cell.folder, {}) for cell in cells}
    noted = tuple(notes(cells, narrowed.shared_patients))
    return CellGrid(
        narrowed, whole, tuple(cells), older, out, reference, devices, trackers, tuple(left_out), noted,
        jobs, request.devices[0] if request.devices else "auto", request.devices_per_run, tuple(externals),
    )  # fmt: skip


def priced(request: CompareRequest, registry: Registry, watcher: Watcher | None = None) -> Price:
    """What a request would cost, from a few measured steps of each row; nothing is kept."""
    grid = expanded(request, registry)
    with (watcher or Watcher()).during("rows") as tell:
        found = price(grid.suite, grid.cells, registry, grid.devices, tell, grid.devices_per_run)
    found = found._replace(power=grid.power, externals=grid.externals)
    if grid.launching is None:
        return found
    resources = {row.label: grid.launching.jobs.of(row.resources, grid.devices_per_run) for row in grid.suite.rows}
    runs = [(cost.seconds, resources[cost.cell.row]) for cost in found.cells if cost.seconds]
    return found._replace(hours=node_hours(grid.launching.name, runs))


def _externals(whole: Suite, chosen: Suite, out: Path) -> list[External]:
    """Those of the rows and directions that are asked for."""
    rows = {row.label for row in chosen.rows}
    made = externals_of(whole, domain_files(whole, out), out)
    return [each for each in made if each.row in rows and each.direction in chosen.directions]


def planned_jobs(grid: CellGrid, registry: Registry) -> list[Planned]:
    """The jobs of a grid with a launcher; none without one. ConfigError if the networks of a row do not go together."""
    if grid.launching is None:
        return []
    rows = shapes(grid.suite, grid.cells, registry)
    return planned(grid.suite, grid.cells, rows, grid.launching, registry, grid.out, grid.devices_per_run)


def _launching(request: CompareRequest, suite: Suite, registry: Registry) -> Launching | None:
    """What starts jobs; None where that is processes of this machine, which take --devices."""
    found = launching(suite.launcher, request.launcher, request.launch, registry)
    if found is None or not found.kind.outlives:
        if request.stage_data:
            raise ConfigError(
                "--stage-data copies files for jobs on other machines: name a --launcher, or leave it out."
            )
        return None
    if len(request.devices) > 1:
        raise ConfigError(
            f"--devices {','.join(request.devices)} are of this machine: with --launcher {found.name} say how many GPUs a run "
            "has, as in --launch gpus=1."
        )
    for device in request.devices:
        refuse_misnamed(device, request.devices_per_run)
    for row in suite.rows:
        try:
            found.jobs.of(row.resources, request.devices_per_run)
        except ConfigError as error:
            raise ConfigError(f"row '{row.label}': {error}") from None
    return found


def _suites(request: CompareRequest, registry: Registry) -> tuple[Suite, Suite]:
    """The suite that a request names, and that with the rows, seeds and directions that it asks for."""
    suite = request.suite if isinstance(request.suite, Suite) else suite_file(str(request.suite), registry)
    if isinstance(suite, Suite) and request.variant is not None:
        raise ConfigError(f"variant '{request.variant}': name the file of the suite, which holds its variants.")
    try:
        whole = suite if isinstance(suite, Suite) else read_suite(suite, registry, request.variant)
        if request.channels is not None:
            whole = validate(Suite, {**dump(whole), "channels": request.channels}, registry)
        return whole, narrow(whole, registry, request.alignments, request.seeds, request.directions)
    except ConfigError as error:
        name = suite.name if isinstance(suite, Suite) else read_toml(suite).get("name")
        if request.out is None and not names_a_file(name):
            raise
        raise explained(error, Path(request.out or Path("runs", str(name))), registry) from None


def _devices(request: CompareRequest, cells: Sequence[Cell]) -> tuple[str, ...]:
    """The devices by their whole names, "1" is cuda:1; left out, a GPU or the cores of the processor."""
    names = tuple(f"cuda:{word}" if word.isdigit() else word for word in request.devices)
    if not names:
        raise ConfigError("--devices: name at least one, for example --devices cuda:0,cuda:1.")
    each = request.devices_per_run
    if names == ("auto",) and on_processor("auto"):
        return (several("cpu", each),) * max(1, processes(each * len(cells)) // each)
    for device in names:
        launch(device)
    if each == 1:
        return names
    if len(names) == 1:
        return (several(names[0], each),)
    if len(names) % each or any("+" in name for name in names):
        raise ConfigError(
            f"--devices {','.join(request.devices)} are {len(names)}, which cannot be dealt to runs of {each} devices: name "
            f"{each * max(1, len(names) // each)} of them, or another --devices-per-run."
        )
    return tuple(together(names[n : n + each]) for n in range(0, len(names), each))
