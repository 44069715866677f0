"""A trained run applied to NIfTI volumes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attent_kit.build import build_alignment
from attent_kit.config import read_toml
from attent_kit.data.intensity import Intensity
from attent_kit.data.layouts import find_pairs
from attent_kit.data.prepared import encode
from attent_kit.data.volumes import read_volume, write_labels
from attent_kit.engine import checkpoint
from attent_kit.engine.assemble import setup
from attent_kit.engine.device import launch
from attent_kit.engine.predict import segment_slices
from attent_kit.engine.settings import run_settings
from attent_kit.errors import ConfigError, RunError
from attent_kit.interfaces import Task
from attent_kit.registry import Registry


def predict_volumes(
    run: Path,
    images: Path,
    out: Path,
    registry: Registry,
    device: str,
    report: Callable[[str, int, int], None],
    overwrite: bool = False,
) -> list[Path]:
    """Label maps of one volume or of a folder of them, each on its own grid; the files written.

    ConfigError, before anything is computed, if a file to write is there already, unless `overwrite`; never an input.
    """
    if not (run / "config.toml").exists() or not (run / "checkpoint.ckpt").exists():
        raise ConfigError(f"{run} holds no trained run: name a folder that `attentkit train` or `compare` has made.")
    config = read_toml(run / "config.toml")
    _require_alignment(run, config, registry)
    settings = run_settings(config, registry)
    pairs = find_pairs(images)
    if images.is_dir() and out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, but {images} is a folder: name a folder to write to.")
    if not images.is_dir() and not out.is_dir() and not out.name.endswith((".nii", ".nii.gz")):
        raise ConfigError(f"{out}: write a name that ends in .nii.gz, or an existing folder.")
    inputs = {pair.image.resolve() for pair in pairs}
    paths = [out / pair.image.name if images.is_dir() or out.is_dir() else out for pair in pairs]
    for path in paths:
        if path.resolve() in inputs:
            raise ConfigError(f"{path} is an input: name another place to write to.")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} is there already: name another place, or type --overwrite.")
    fabric = launch(device, settings.precision)
    task, size, intensity = _domain(run)
    alignment = build_alignment(settings.alignment, registry, task, settings.seed, empty=True)
    setup(alignment, fabric)
    steps = checkpoint.load_networks(run / "checkpoint.ckpt", alignment, fabric.device)
    if steps < (total := sum(stage.steps for stage in alignment.stages())):
        raise ConfigError(
            f"{run} is trained to step {steps} of {total}: start its `attentkit train` again to finish it."
        )
    for done, (pair, path) in enumerate(zip(pairs, paths, strict=True)):
        report(pair.case, done, len(pairs))
        volume = read_volume(pair.image)
        slices, grid = encode(volume, size, intensity, task.channels)
        labels = grid.to_native(segment_slices(alignment, slices, fabric.device))
        write_labels(path, labels, volume.affine, volume.header)
    return paths


def _require_alignment(run: Path, config: dict[str, Any], registry: Registry) -> None:
    """ConfigError that says what to install, if the plugin that the run was trained with is not there."""
    name = config.get("alignment", {}).get("name")
    if name in [component.name for component in registry.of("alignments")]:
        return
    try:
        made_by = json.loads((run / "env.json").read_text(encoding="utf-8"))["plugins"]
        wanted = " ".join(f"{distribution}=={version}" for distribution, version in made_by.items())
    except (OSError, ValueError, KeyError, AttributeError):
        wanted = "the plugin that offers it"
    raise ConfigError(f"{run} was trained with the alignment '{name}', which is not installed: pip install {wanted}.")


def _domain(run: Path) -> tuple[Task, int, Intensity]:
    """What domain.json says: the task, pixels of a side of a slice, and how grey values were scaled."""
    try:
        domain = json.loads((run / "domain.json").read_text(encoding="utf-8"))
        task = Task(domain["channels"], tuple(domain["organs"]))
        return task, int(domain["size"]), Intensity.from_dict(domain["intensity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{run / 'domain.json'} is missing or damaged: start the run's `attentkit train` again, it writes it anew."
        ) from error
