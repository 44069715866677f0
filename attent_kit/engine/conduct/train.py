"""One run from a request to its scores: `train(TrainRequest("attent", source="mr.h5", target="ct.h5"), load().registry)`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.config import as_words, dump, merge, read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.unread import is_read
from attent_kit.data.sets.splits import WHOLE, Fold
from attent_kit.engine.compare.patients import met_by_name, refuse_same_images
from attent_kit.engine.run.device import several
from attent_kit.engine.run.domains import domains_seen
from attent_kit.engine.run.folder import Answers, RunFolder, RunKey
from attent_kit.engine.run.provenance import explained
from attent_kit.engine.run.ranks import Seat, seat_found
from attent_kit.engine.run.settings import RunSettings, override, run_settings
from attent_kit.engine.train import train as engine
from attent_kit.engine.train.longer import folder_of_more_steps, refuse_other_settings, settings_of_more_steps
from attent_kit.engine.train.tracking import find_trackers
from attent_kit.engine.train.train import TrainOptions, TrainWatcher
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.files import read_signed
from attent_kit.registry import Registry
from attent_kit.report.scores import AVERAGE, LAST, Scores, Summary, summarise


@dataclass(frozen=True)
class TrainRequest:
    """A method, two domains and a seed; each as the option of `attentkit train` of that name."""

    alignment: Path | str | None = None
    """The method; that of `config` if it is None. With `more_steps` the folder of a finished run."""
    config: Path | str | None = None
    """TOML of a whole run, such as a run's config.toml."""
    data: Path | str | None = None
    """TOML with source and target."""
    source: Path | str | None = None
    """Prepared file of the labelled domain."""
    target: Path | str | None = None
    """Prepared file of the domain to adapt to."""
    set: Sequence[str] | Mapping[str, Any] = ()
    """Options over all others: "segmentor.encoder=resnet34", or {"segmentor.encoder": "resnet34"}."""
    channels: int | None = None
    """Neighbouring slices that the networks see as channels (2.5-D), an odd number; what the files were prepared with if None."""
    seed: int | None = None
    device: str = "auto"
    out: Path | str | None = None
    """Folder of the run; runs/SOURCE2TARGET/ALIGNMENT/seedN if it is None."""
    select: str = LAST
    """Snapshot that is exported and scored: last, a selector, or target-oracle."""
    track: Sequence[str] = ()
    """Names of trackers."""
    from_run: Path | str | None = None
    """Folder of a run from whose weights each network starts that both have alike."""
    devices_per_run: int | None = None
    """Devices of this machine that train the run together; what torchrun has started if it is None, and else one."""
    nodes: int | None = None
    """Machines with so many devices, where torchrun or srun has started a process for each."""
    more_steps: int | None = None
    """Steps by which the last stage of the run `alignment` goes on, in `out`; that run stays as it is."""


class TrainResult(NamedTuple):
    """A finished run."""

    settings: RunSettings
    run: RunFolder
    """Its folder."""
    select: str
    scores: Scores
    """Empty if no test case of the target has labels."""
    rank: int = 0
    """Of several processes that torchrun or srun has started this one; only the first, 0, has scores."""

    @property
    def answers(self) -> Answers:
        """Predictions and scores of the snapshot that was chosen."""
        return self.run.answers(self.select)

    @property
    def dice(self) -> list[Summary]:
        """Dice of each organ and their average, over the test cases."""
        return list(summarise(self.scores, "dice", "cases"))

    def __repr__(self) -> str:
        average = [f": Dice {100 * dice.mean:.1f} %" for dice in self.dice if dice.organ == AVERAGE]
        return f"<{self.settings.alignment.name} in {self.run.path}{''.join(average)}>"

    def __rich__(self) -> Any:
        return self.scores.__rich__()

    def _repr_html_(self) -> str:
        return self.scores._repr_html_()


def train(request: TrainRequest, registry: Registry, watcher: TrainWatcher | None = None) -> TrainResult:
    """Train what is not trained yet, and score it on the target's test cases.

    On a folder that holds an unfinished run of the same configuration, it continues where that stopped. ConfigError or DataError,
    before anything is trained, for what cannot be run.
    """
    seat = seat_found(request.devices_per_run, request.nodes)
    watcher = watcher if watcher and not (seat and seat.rank) else TrainWatcher()
    device = several(request.device, devices_of(request, seat), seat)
    words = as_words(request.set)
    before = _goes_on_with(request, registry)
    given = override(_given(request, words, registry), words)
    try:
        settings = run_settings(given, registry)
    except ConfigError as error:
        raise explained(error, _begun_in(request, given), registry) from None
    trackers = find_trackers(request.track, registry)
    for doubt in _doubts(settings):
        watcher.warned(doubt)
    folder = Path(request.out) if request.out else _folder(settings)
    if before is not None and request.more_steps is not None:
        refuse_other_settings(before, dump(settings))
        folder = Path(request.out) if request.out else folder_of_more_steps(before, request.more_steps)
    options = TrainOptions(select=request.select, trackers=trackers, continues=before, seat=seat)
    scores = engine.train(settings, folder, registry, device, options, watcher)
    return TrainResult(settings, RunFolder(folder), request.select, Scores(scores), seat.rank if seat else 0)


def devices_of(request: TrainRequest, seat: Seat | None) -> int:
    """How many devices of this machine train the run. ConfigError for none."""
    if (request.devices_per_run or 1) < 1:
        raise ConfigError(f"--devices-per-run {request.devices_per_run}: name at least one device.")
    if seat is None:
        return request.devices_per_run or 1
    return request.devices_per_run or seat.here


def _goes_on_with(request: TrainRequest, registry: Registry) -> RunFolder | None:
    """The run that is to go on for more steps; ConfigError if there is none, or if a run is named where a method belongs."""
    named = RunFolder(Path(request.alignment or ""))
    if request.more_steps is None:
        known = [component.name for component in registry.of("alignments")]
        if request.alignment and str(request.alignment) not in known and named.is_run:
            raise ConfigError(
                f"{named} is the folder of a run, and a method is wanted here. `attentkit train --config {named.config} --out "
                f"{named}` goes on with it if it was stopped, `attentkit train {named} --more-steps N` if it is finished."
            )
        return None
    if request.more_steps < 1:
        raise ConfigError(f"--more-steps {request.more_steps}: name at least one step.")
    if request.config or not request.alignment:
        raise ConfigError(
            f"--more-steps needs the folder of a finished run: type `attentkit train RUN --more-steps {request.more_steps}`."
        )
    if request.out and Path(request.out).resolve() == named.path.resolve():
        raise ConfigError(f"--out {request.out}: {named} stays as it is. Name another folder, or leave out --out.")
    return named


def _given(request: TrainRequest, words: Sequence[str], registry: Registry) -> dict[str, Any]:
    """Plain settings from all that a request names; ConfigError if the method or a domain is missing."""
    given: dict[str, Any] = read_toml(Path(request.config)) if request.config else {}
    if request.more_steps is not None:
        given = settings_of_more_steps(RunFolder(Path(str(request.alignment))), request.more_steps)
    elif request.alignment:
        given = merge(given, {"alignment": {"name": str(request.alignment)}})
    if request.data:
        beside = Path(request.data).parent
        files = read_toml(Path(request.data))
        given["data"] = {k: str(beside / v) if isinstance(v, str) else v for k, v in files.items()}
    for name, path in (("source", request.source), ("target", request.target)):
        if path:
            given["data"] = {**given.get("data", {}), name: str(path)}
            given["data"].pop(f"{name}_hash", None)
    if request.channels is not None:
        given["data"] = {**given.get("data", {}), "channels": request.channels}
        for name in ("source_hash", "target_hash"):
            given["data"].pop(name, None)
    if request.seed is not None:
        given["seed"] = request.seed
    if request.from_run:
        given["warm_start"] = {"run": str(request.from_run)}
    if "alignment" not in given:
        raise ConfigError("name the method to train, for example `attentkit train attent -s mr.h5 -t ct.h5`.")
    source_free = _source_free(given, registry)
    if not given.get("data", {}).keys() - {"channels"}:
        raise ConfigError(
            "name the two domains: `--source mr.h5 --target ct.h5`, or a TOML file with both in `--data`."
            if not source_free
            else "name the domain to adapt to: --target FILE.h5, a file that `attentkit prepare` made."
        )
    if source_free:
        _without_source(given)
    for name in ("target",) if source_free else ("source", "target"):
        if name not in given["data"] and not any(word.startswith(f"data.{name}=") for word in words):
            raise ConfigError(f"the {name} is missing: type --{name} FILE.h5, a file that `attentkit prepare` made.")
    return given


def _source_free(given: Mapping[str, Any], registry: Registry) -> bool:
    """Whether the method is; a name that there is not is met when the settings are read."""
    method = given["alignment"]
    name = str(method.get("name") if isinstance(method, Mapping) else method)
    known = [component.name for component in registry.of("alignments")]
    return name in known and registry.alignment(name).source_free


def _without_source(given: dict[str, Any]) -> None:
    """The settings of a source-free method: a source that is named is not even opened. The start says what it is called, and how
    the segmentor is built, where nothing else does."""
    data = {name: value for name, value in given["data"].items() if name not in ("source", "source_hash")}
    start = RunFolder(Path(str(given.get("warm_start", {}).get("run", ""))))
    said = (read_signed(start.domain) or {}).get("source")
    if isinstance(said, Mapping) and "domain" in said:
        data.setdefault("unread", str(said["domain"]))
    given["data"] = data
    if start.is_run:
        built = read_toml(start.config).get("alignment")
        method = {"name": given["alignment"]} if isinstance(given["alignment"], str) else given["alignment"]
        if isinstance(built, Mapping) and "segmentor" in built:
            given["alignment"] = {"segmentor": built["segmentor"], **method}


def _doubts(settings: RunSettings) -> list[str]:
    """What a person will want to know before the run; DataError if a prepared file cannot be read, or if the source trains on the
    very images that are tested."""
    source, target = domains_seen(settings.data)
    said = []
    if settings.data.source is not None and settings.data.source.resolve() == settings.data.target.resolve():
        said.append("source and target are the same file.")
    if settings.data.fold is None and is_read(source):
        direction = f"{source.domain}2{target.domain}"
        refuse_same_images(source, target, direction)
        if met := met_by_name(source, target, direction):
            said.append(f"{met}: prepare the two with splits that keep them apart.")
    if not any(case.has_labels for case in target.cases_in("test")):
        said.append("the target has no labelled test case, so the run will not be scored.")
    return said


def _folder(settings: RunSettings) -> Path:
    """Where a run goes if no folder is given."""
    source, target = domains_seen(settings.data)
    return _place(f"{source.domain}2{target.domain}", settings.alignment.name, settings.seed, settings.data.part)


def _begun_in(request: TrainRequest, given: Mapping[str, Any]) -> Path:
    """The folder of the run that a request may go on with, though its settings do not fit."""
    if request.out or request.config:
        return Path(request.out) if request.out else Path(request.config).parent  # type: ignore[arg-type]
    try:
        method = given["alignment"]
        name = method.get("name") if isinstance(method, dict) else method
        data = given["data"]
        source = data.get("unread") or Prepared.open(Path(str(data["source"]))).domain
        return _place(f"{source}2{Prepared.open(Path(str(data['target']))).domain}", str(name), given.get("seed", 0))
    except (AttentKitError, OSError, KeyError, TypeError):
        return Path("runs")


def _place(direction: str, alignment: str, seed: int, fold: Fold = WHOLE) -> Path:
    return RunKey(direction, alignment, seed, fold).folder(Path("runs")).path
