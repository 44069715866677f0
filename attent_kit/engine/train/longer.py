"""A run that goes on for more steps than it was asked for: in a folder of its own, so that the one that it goes on from stays."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attent_kit.config import read_toml
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.settings import shaping
from attent_kit.errors import ConfigError
from attent_kit.files import write_whole


def settings_of_more_steps(before: RunFolder, steps: int) -> dict[str, Any]:
    """Plain settings of a run that goes on for `steps` more; ConfigError if `before` is not a finished run."""
    if not before.is_run:
        raise ConfigError(
            f"{before} is not the folder of a run: type `attentkit train RUN --more-steps {steps}`, RUN being the folder of a "
            "finished one."
        )
    config = read_toml(before.config)
    if before.only_predicts:
        raise ConfigError(
            f"{before} keeps what predicts alone: its {before.checkpoint.name}, from which it would go on, was dropped. Train it "
            f"again with `attentkit train --config {before.config} --out ANOTHER`, or start a run from its weights with --from "
            f"{before}."
        )
    if not (before.checkpoint.exists() and before.has_scores):
        raise ConfigError(
            f"{before} is not a finished run with its checkpoint.ckpt: type `attentkit train --config {before.config} --out "
            f"{before}` first, which goes on where it stopped."
        )
    return {**config, "more_steps": [*config.get("more_steps", ()), steps]}


def folder_of_more_steps(before: RunFolder, steps: int) -> Path:
    """Where it goes if no folder is given: beside the other."""
    path = before.path.resolve() if before.path.name in ("", "..") else before.path
    return path.with_name(f"{path.name}-and-{steps}")


def refuse_other_settings(before: RunFolder, asked: Mapping[str, Any]) -> None:
    """ConfigError if more than the number of steps differs from what the run had: it would not be the same run that goes on."""
    there = read_toml(before.config)
    plain = [{**shaping(settings), "data": None, "more_steps": None} for settings in (there, asked)]
    if plain[0] != plain[1]:
        names = sorted(name for name in {**plain[0], **plain[1]} if plain[0].get(name) != plain[1].get(name))
        raise ConfigError(
            f"--more-steps goes on with {before} as it is, and other options are given ({', '.join(names)}): leave them out, or "
            f"start another run from its weights with --from {before}."
        )


def take_over(before: RunFolder, run: RunFolder, steps: int) -> None:
    """Everything that training goes on from: what was written on the way, and the checkpoint last.

    RunError if that is damaged, ConfigError if it is not after `steps`.
    """
    state = checkpoint.read(before.checkpoint)
    checkpoint.refuse_another_config(before.checkpoint, state, read_toml(before.config))
    if state.get("step") != steps:
        raise ConfigError(
            f"{before.checkpoint} is of step {state.get('step')} of {steps}: type `attentkit train --config {before.config} "
            f"--out {before}` first, which trains the rest."
        )
    for name in (run.log, run.selection, run.monitor, run.speed):
        _copy(before.path / name.name, name)
    for snapshot in before.all_snapshots():
        _copy(snapshot, run.snapshots / snapshot.name)
    checkpoint.write(run.checkpoint, {name: value for name, value in state.items() if name != "digest"})


def _copy(there: Path, here: Path) -> None:
    if there.exists():
        write_whole(here, lambda temporary: shutil.copyfile(there, temporary))
