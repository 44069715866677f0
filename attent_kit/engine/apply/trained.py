"""The folder of a trained run as prediction needs it, whole or in three files: config.toml, domain.json and
segmentor.safetensors, which is what one gives to others where the method's `predict` is its segmentor alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attent_kit.build import build_alignment
from attent_kit.config import read_toml
from attent_kit.data.prepared.familiar import Familiar
from attent_kit.data.space.intensity import Intensity
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import setup
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.provenance import missing, recorded, what_to_type
from attent_kit.engine.run.settings import RunSettings, run_settings
from attent_kit.engine.snapshots.selection import chosen_step, refuse_unknown
from attent_kit.engine.snapshots.snapshots import load_snapshot, snapshot_file
from attent_kit.engine.train.train import total_steps
from attent_kit.errors import AttentKitError, ConfigError, RunError
from attent_kit.interfaces import Alignment, Task
from attent_kit.registry import Component, Registry
from attent_kit.report.scores import LAST, read_scores
from attent_kit.report.selection import read_selection, steps_of

CHECKPOINT, SEGMENTOR = "checkpoint.ckpt", "segmentor.safetensors"


@dataclass(frozen=True)
class Domain:
    """What domain.json says of the domain that a run was adapted to, and of its training."""

    name: str
    modality: str
    task: Task
    size: int
    """Pixels of a side of a slice."""
    pixel: float | None
    """mm of a pixel; None where `size` pixels span each field of view."""
    intensity: Intensity
    familiar: Familiar | None
    """None for a run of a version that did not keep it."""
    source: dict[str, Any]
    """Name, modality and number of training cases of the other domain; empty for such a run."""
    phantom: tuple[str, ...]
    """The domains whose cases are a phantom."""


@dataclass(frozen=True)
class TrainedRun:
    """A folder that is found to hold a trained run. Its weights are not read yet."""

    folder: Path
    config: dict[str, Any]
    """config.toml as it is written."""
    settings: RunSettings
    component: Component
    """The method, with the plugin that offers it."""
    domain: Domain

    @property
    def weights(self) -> Path:
        """The file that the weights are read from: the checkpoint, or where there is none, the exported segmentor."""
        whole = self.folder / CHECKPOINT
        return whole if whole.exists() else self.folder / SEGMENTOR


@dataclass(frozen=True)
class Loaded:
    """A method with its weights on a device."""

    alignment: Alignment
    device: torch.device
    precision: str
    steps: int
    """Steps that it was trained."""
    whole: bool
    """Whether every network has its weights, or only the one that `predict` calls."""
    selection: str = LAST
    """What chose the snapshot whose weights they are."""
    snapshot: Path | None = None
    """The file of that snapshot; None where the checkpoint is all of it."""


def open_run(folder: Path, registry: Registry) -> TrainedRun:
    """ConfigError if the folder holds no trained run or if its plugin is missing, RunError if domain.json is damaged."""
    if not (folder / "config.toml").exists() or not any((folder / name).exists() for name in (CHECKPOINT, SEGMENTOR)):
        raise ConfigError(f"{folder} holds no trained run: name a folder that `attentkit train` or `compare` has made.")
    config = read_toml(folder / "config.toml")
    component = _component(folder, config, registry)
    return TrainedRun(folder, config, run_settings(config, registry), component, read_domain(folder / "domain.json"))


def load_run(run: TrainedRun, registry: Registry, device: str, select: str = LAST) -> Loaded:
    """The networks with the weights of the snapshot that `select` chooses.

    ConfigError if the training is not finished, RunError if the weights do not fit; as `chosen_step` for the selection.
    """
    refuse_unknown(select, registry)
    fabric = launch(device, run.settings.precision)
    alignment = build_alignment(run.settings.alignment, registry, run.domain.task, run.settings.seed, empty=True)
    whole = run.weights.name == CHECKPOINT
    if not whole and not alignment.predicts_with:
        raise ConfigError(
            f"{run.weights} is the segmentor alone, and '{run.component.name}' predicts with more networks than that: copy "
            f"{CHECKPOINT} of the run beside it, too."
        )
    setup(alignment, fabric)
    total = total_steps(alignment)
    if whole:
        steps = checkpoint.load_networks(run.weights, alignment)
        if steps < total:
            raise ConfigError(
                f"{run.folder} is trained to step {steps} of {total}: start its `attentkit train` again to finish it."
            )
    else:
        facts = checkpoint.load_segmentor(run.weights, alignment)
        if facts.get("config") not in (None, checkpoint.fingerprint(run.config)):
            raise ConfigError(
                f"{run.weights} was trained with other options than config.toml beside it names: copy both from one run."
            )
        steps = total
    snapshot = None
    if select != LAST:
        if not whole:
            raise ConfigError(
                f"{run.folder} holds one segmentor and no snapshots: leave --select out, or name the whole run."
            )
        steps = chosen_step(select, run.folder)
        load_snapshot(run.folder, alignment, steps, steps_of(read_selection(run.folder / "selection.csv")))
        snapshot = path if (path := snapshot_file(run.folder, steps)).exists() else None
    precision = str(fabric.strategy.precision.precision)
    return Loaded(alignment, fabric.device, precision, steps, whole, select, snapshot)


def names_of(run: TrainedRun) -> tuple[str, str]:
    """Row and direction, as its scores name them."""
    for pattern in ("scores.csv", "selections/*/scores.csv"):
        for file in sorted(run.folder.glob(pattern)):
            if scores := read_scores(file):
                return scores[0].alignment, scores[0].direction
    return run.component.name, f"{run.domain.source.get('domain', '')}2{run.domain.name}"


def read_domain(path: Path) -> Domain:
    """domain.json of a run. RunError if it is missing or damaged."""
    try:
        domain = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        pixel, training = domain.get("pixel_mm"), domain.get("training")
        if domain["size"] < 1 or domain["channels"] % 2 == 0 or (pixel is not None and not pixel > 0):
            raise ValueError("size, channels or pixel_mm cannot be")
        return Domain(
            name=str(domain["domain"]),
            modality=str(domain["modality"]),
            task=Task(int(domain["channels"]), tuple(str(organ) for organ in domain["organs"])),
            size=int(domain["size"]),
            pixel=None if pixel is None else float(pixel),
            intensity=Intensity.from_dict(domain["intensity"]),
            familiar=None if training is None else Familiar.from_dict(training),
            source=dict(domain.get("source", {})),
            phantom=tuple(str(name) for name in domain.get("phantom", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AttentKitError) as error:
        raise RunError(
            f"{path} is missing or damaged: start the run's `attentkit train` again, it writes it anew."
        ) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _component(folder: Path, config: dict[str, Any], registry: Registry) -> Component:
    """The method of the run; ConfigError that says what to type, if a plugin that it was trained with is not there."""
    if lacking := missing(recorded(folder), registry):
        raise ConfigError(what_to_type(folder, lacking))
    table = config.get("alignment")
    name = table.get("name") if isinstance(table, dict) else table
    if name not in [component.name for component in registry.of("alignments")]:
        raise ConfigError(
            f"{folder} was trained with the alignment '{name}', which is not installed: pip install the plugin that offers it."
        )
    return registry.find("alignments", str(name))
