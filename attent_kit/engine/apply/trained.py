"""A trained run as prediction needs it: its folder, whole or as three files, config.toml, domain.json and
segmentor.safetensors; or a pack."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attent_kit.asked import refuse_unknown_selection
from attent_kit.build import build_alignment
from attent_kit.config import read_toml
from attent_kit.data.prepared.familiar import Familiar
from attent_kit.data.space.intensity import Intensity
from attent_kit.data.space.slicing import Slicing
from attent_kit.engine.apply.pack import CONFIG, DOMAIN, ENVIRONMENT, WEIGHTS, Pack, read_pack
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import load_network_states, setup
from attent_kit.engine.run.device import launch, precision_of
from attent_kit.engine.run.exported import load_exported
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.probe import networks_of_predict
from attent_kit.engine.run.provenance import Record, missing, recorded, well_formed, what_to_type
from attent_kit.engine.run.settings import RunSettings, run_settings
from attent_kit.engine.run.stages import total_steps
from attent_kit.engine.snapshots.selection import chosen_step
from attent_kit.engine.snapshots.snapshots import load_snapshot
from attent_kit.errors import AttentKitError, ConfigError, RunError
from attent_kit.files import parse_object, parse_signed, sha256
from attent_kit.interfaces import Alignment, Task
from attent_kit.reading import toml_in
from attent_kit.registry import Component, Registry
from attent_kit.report.scores import LAST, read_scores
from attent_kit.report.selection import read_selection, steps_of


@dataclass(frozen=True)
class Domain:
    """What domain.json says about the domain that a run was adapted to, and of its training."""

    name: str
    modality: str
    task: Task
    slicing: Slicing
    """How volumes become slices."""
    intensity: Intensity
    familiar: Familiar | None
    """None where the target had no training case."""
    source: dict[str, Any]
    """Name, modality and number of training cases of the other domain."""
    phantom: tuple[str, ...]
    """The domains whose cases are a phantom."""

    @property
    def size(self) -> int:
        """Side of a slice in pixels."""
        return self.slicing.size


@dataclass(frozen=True)
class TrainedRun:
    """A folder or a pack that holds a trained run. Its weights are not loaded yet."""

    folder: Path
    """Of a pack, its file."""
    config: dict[str, Any]
    """config.toml as it is written."""
    settings: RunSettings
    component: Component
    """The method, with the plugin that offers it."""
    domain: Domain
    pack: Pack | None = None

    def weights(self, select: str = LAST) -> Path:
        """The file that the weights are read from: the pack, the checkpoint, or where there is none, what the run has exported
        of the snapshot that `select` chose."""
        if self.pack:
            return self.folder
        return self.files.checkpoint if self.is_whole else self.files.answers(select).segmentor

    @property
    def files(self) -> RunFolder:
        """What lies in the folder."""
        return RunFolder(self.folder)

    @property
    def is_whole(self) -> bool:
        """Whether all of its networks are there, or only those that predict."""
        return not self.pack and self.files.checkpoint.exists()

    def weights_digest(self, select: str = LAST) -> dict[str, str]:
        """Name and SHA-256 of the file of the weights."""
        if self.pack:
            return {"name": WEIGHTS, "sha256": self.pack.sha256(WEIGHTS)}
        file = self.weights(select)
        return {"name": file.name, "sha256": sha256(file)}


@dataclass(frozen=True)
class LoadedRun:
    """A method with its weights on a device."""

    alignment: Alignment
    device: torch.device
    precision: str
    steps: int
    """Number of steps that it was trained for."""
    networks: frozenset[str]
    """Names of those that have their weights: all of them, or only those that `predict` calls."""
    selection: str = LAST
    """What chose the snapshot whose weights they are."""
    snapshot: Path | None = None
    """The file of that snapshot; None where the checkpoint is all of it."""

    @property
    def whole(self) -> bool:
        """Whether every network has its weights."""
        return self.networks.issuperset(name for name, _ in self.alignment.named_children())


def open_run(path: Path, registry: Registry) -> TrainedRun:
    """ConfigError if a folder holds no trained run or if its plugin is missing, RunError if domain.json or a pack is damaged."""
    if path.is_file():
        return _open_pack(read_pack(path), registry)
    files = RunFolder(path)
    if not files.is_run or not (files.checkpoint.exists() or files.exported()):
        raise ConfigError(
            f"{path} does not hold a trained run: name a folder that `attentkit train` or `compare` made, or a zip of "
            "`attentkit pack`."
        )
    config = read_toml(files.config)
    component = _component(path, config, recorded(files), registry)
    return TrainedRun(path, config, run_settings(config, registry), component, read_domain(files.domain))


def _open_pack(pack: Pack, registry: Registry) -> TrainedRun:
    path = pack.path
    try:
        config = toml_in(pack.text(CONFIG))
        components = well_formed((parse_object(pack.text(ENVIRONMENT)) or {})["components"])
    except (ValueError, KeyError) as error:
        raise RunError(
            f"{path} is damaged: {CONFIG} or {ENVIRONMENT} in it cannot be read. Download it again."
        ) from error
    component = _component(path, config, components, registry)
    domain = domain_of(pack.text(DOMAIN), path / DOMAIN)
    return TrainedRun(path, config, run_settings(config, registry), component, domain, pack)


def load_run(run: TrainedRun, registry: Registry, device: str, select: str = LAST) -> LoadedRun:
    """The networks with the weights of the snapshot that `select` chooses.

    ConfigError if the training is not finished, RunError if the weights do not fit; as `chosen_step` for the selection.
    """
    refuse_unknown_selection(select, registry)
    fabric = launch(device, run.settings.precision)
    alignment = build_alignment(run.settings.alignment, registry, run.domain.task, run.settings.seed, empty=True)
    setup(alignment, fabric)
    networks = frozenset(name for name, _ in alignment.named_children())
    place = alignment, fabric.device, precision_of(fabric)
    if run.pack is not None:
        _refuse_select(run, select)
        steps, selection, found = _load_pack(run, run.pack, alignment, fabric.device)
        return LoadedRun(*place, steps, found, selection)
    if not run.is_whole:
        steps, found = _load_exported(run, select, alignment, fabric.device)
        return LoadedRun(*place, steps, found, select)
    steps = checkpoint.load_networks(run.weights(), alignment, run.config)
    total = total_steps(alignment, run.settings.more_steps)
    if steps < total:
        raise ConfigError(
            f"{run.folder} is trained to step {steps} of {total}: start its `attentkit train` again to finish it."
        )
    if select == LAST or not alignment.stages():
        return LoadedRun(*place, steps, networks, select)
    steps = chosen_step(select, run.files)
    load_snapshot(run.files, alignment, steps, steps_of(read_selection(run.files.selection)))
    snapshot = path if (path := run.files.snapshot(steps)).exists() else None
    return LoadedRun(*place, steps, networks, select, snapshot)


def _refuse_select(run: TrainedRun, select: str) -> None:
    if select != LAST:
        raise ConfigError(
            f"{run.folder} holds one set of weights and no snapshots: leave out --select, or name the whole run."
        )


def _load_exported(
    run: TrainedRun, select: str, alignment: Alignment, device: torch.device
) -> tuple[int, frozenset[str]]:
    """Fill the networks that `predict` calls with those that were exported; how many steps they are trained, and which they
    are."""
    file = run.weights(select)
    if not file.exists():
        there = ", ".join(answers.selection for answers in run.files.exported())
        raise ConfigError(
            f"{run.folder} has no checkpoint and no snapshots, only what it exported of --select {there}: choose that, or "
            "name the whole run."
        )
    facts, found = load_exported(file, alignment, run.domain.size, device)
    if facts.get("config") != checkpoint.fingerprint(run.config):
        raise ConfigError(
            f"{file} was trained with other options than config.toml of the run names: copy both from one run."
        )
    if select != LAST:
        return int(facts["steps"]), found
    return total_steps(alignment, run.settings.more_steps), found


def _load_pack(
    run: TrainedRun, pack: Pack, alignment: Alignment, device: torch.device
) -> tuple[int, str, frozenset[str]]:
    """Fill the networks that `predict` calls; how many steps they are trained, what chose them, and which they are."""
    weights, facts = checkpoint.weights_in(pack.files[WEIGHTS], pack.path / WEIGHTS)
    states: dict[str, dict[str, Any]] = {}
    for key, value in weights.items():
        name, _, inner = key.partition(".")
        states.setdefault(name, {})[inner] = value
    if facts.get("config") != checkpoint.fingerprint(run.config):
        raise RunError(f"{pack.path} was put together from two runs: make it again with `attentkit pack RUN run.zip`.")
    try:
        load_network_states(alignment, states)
        steps, selection = int(facts["steps"]), str(facts["selection"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{pack.path} does not fit the networks of '{run.component.name}': the code of the method has changed since. Ask for "
            f"a pack made with {run.component.distribution} {run.component.version}."
        ) from error
    found = frozenset(states)
    if lacking := set(networks_of_predict(alignment, run.domain.size, device)) - found:
        raise RunError(f"{pack.path} lacks the network {', '.join(sorted(lacking))}: ask for one of `attentkit pack`.")
    return steps, selection, found


def names_of(run: TrainedRun) -> tuple[str, str]:
    """Row and direction, as its scores name them."""
    for answers in run.files.all_answers():
        if scores := read_scores(answers.scores):
            return scores[0].alignment, scores[0].direction
    return run.component.name, f"{run.domain.source.get('domain', '')}2{run.domain.name}"


def read_domain(path: Path) -> Domain:
    """domain.json of a run. RunError if it is missing or damaged."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise _no_domain(path) from error
    return domain_of(text, path)


def domain_of(text: str | bytes, path: Path) -> Domain:
    """The same from the text of domain.json."""
    domain = parse_signed(text)
    if domain is None:
        raise _no_domain(path)
    try:
        training = domain["training"]
        if domain["channels"] % 2 == 0:
            raise ValueError("channels is impossible")
        return Domain(
            name=str(domain["domain"]),
            modality=str(domain["modality"]),
            task=Task(int(domain["channels"]), tuple(str(organ) for organ in domain["organs"])),
            slicing=Slicing.from_dict(domain),
            intensity=Intensity.from_dict(domain["intensity"]),
            familiar=None if training is None else Familiar.from_dict(training),
            source=dict(domain["source"]),
            phantom=tuple(str(name) for name in domain["phantom"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, AttentKitError) as error:
        raise _no_domain(path) from error


def _no_domain(path: Path) -> RunError:
    return RunError(f"{path} is missing or damaged: start the run's `attentkit train` again, it writes it anew.")


def _component(folder: Path, config: dict[str, Any], records: list[Record], registry: Registry) -> Component:
    """The method of the run; ConfigError that says what to type, if a plugin that it was trained with is missing."""
    if lacking := missing(records, registry):
        raise ConfigError(what_to_type(folder, lacking))
    table = config.get("alignment")
    name = table.get("name") if isinstance(table, dict) else table
    if name not in [component.name for component in registry.of("alignments")]:
        raise ConfigError(
            f"{folder} was trained with the alignment '{name}', which is not installed: pip install the plugin that offers it."
        )
    return registry.find("alignments", str(name))
