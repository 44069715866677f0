"""Everything that a run needs to continue as if it had never stopped, in one file.

The batch and the random numbers of a step are functions of (seed, step), and a learning rate is a function of the step,
so the state is: networks, image pools, optimizers, the number of the next step, and labels of the target where a stage makes
some.

Every file of weights carries a digest of all that it holds, which is compared whenever it is read.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.engine.run.assemble import (
    load_network_states,
    load_optimizer_states,
    network_states,
    optimizer_states,
)
from attent_kit.engine.run.digest import digest, on_cpu
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.labelled import Packed
from attent_kit.errors import RunError
from attent_kit.files import write_whole
from attent_kit.interfaces import Alignment
from attent_kit.reading import json_in, of_git

FORMAT = 1
_KEYS = {"format", "networks", "optimizers", "digest"}
FACTS = "attent_kit"
"""Key of what exported weights say about themselves."""


def save(
    path: Path,
    alignment: Alignment,
    optimizers: dict[str, Optimizer],
    step: int,
    fabric: Fabric,
    config: Mapping[str, Any],
    pseudo: Packed | None = None,
) -> None:
    """Write the state before step number `step`, and the fingerprint of the run's config.toml, atomically. `pseudo`: the labels
    of the target that the stage at hand goes on with."""
    state = {
        "step": step,
        "config": fingerprint(config),
        "networks": network_states(alignment),
        "optimizers": optimizer_states(optimizers),
        "precision": fabric.strategy.precision.state_dict(),  # the loss scale of 16-mixed
        **({} if pseudo is None else {"pseudo": pseudo}),
    }
    write(path, state)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write networks, optimizers and whatever else belongs to them, with their digest, atomically."""
    whole = on_cpu({**state, "format": FORMAT})
    whole["digest"] = digest(_signed(whole))
    write_whole(path, lambda temporary: torch.save(whole, temporary))


def resume(
    path: Path, alignment: Alignment, optimizers: dict[str, Optimizer], fabric: Fabric
) -> tuple[int, Packed | None]:
    """Restore what `save` wrote and return the number of the next step, 0 if there is no checkpoint, and labels of the target."""
    if not path.exists():
        return 0, None
    state = restore(path, alignment, optimizers, whole=True)
    fabric.strategy.precision.load_state_dict(state["precision"])
    return int(state["step"]), state.get("pseudo")


def load_networks(path: Path, alignment: Alignment, config: Mapping[str, Any]) -> int:
    """Restore the networks alone, as for prediction, and return how many steps they were trained for.

    RunError if they were trained with another config.toml than the one beside them says.
    """
    state = restore(path, alignment, None, whole=True)
    refuse_another_config(path, state, config)
    return int(state["step"])


def refuse_another_config(path: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """RunError unless the contents of a checkpoint say that they were trained with this config.toml."""
    if state.get("config") != fingerprint(config):
        raise RunError(
            f"{RunFolder(path.parent).config} is not what {path} was trained with: copy both again from one run, or train into "
            "another --out."
        )


def restore(
    path: Path, alignment: Alignment, optimizers: dict[str, Optimizer] | None, whole: bool = False
) -> dict[str, Any]:
    """Fill networks and optimizers from the file and return its contents; RunError if they do not fit.

    `whole`: every network must be in the file. Otherwise it may hold some of them, as that of a shared stage does.
    """
    state = read(path)
    try:
        if whole and state["networks"].keys() != network_states(alignment).keys():
            raise KeyError("networks")
        load_network_states(alignment, state["networks"])
        if optimizers is not None:
            load_optimizer_states(optimizers, state["optimizers"])
    except torch.OutOfMemoryError:
        raise RunError(
            f"the device has too little memory to load {path}. Free some, or choose another --device."
        ) from None
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{path} does not fit the networks of this run: it is damaged, or the code of the method has changed "
            f"since. Delete it to train from the start."
        ) from error
    return state


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU. RunError if a single bit of them is not as it was written."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        sentence = of_git(path) or f"{path} is not a readable checkpoint. Delete it to train from the start."
        raise RunError(sentence) from error
    if not isinstance(state, dict) or _KEYS - state.keys():
        raise RunError(f"{path} is not a checkpoint of attent-kit. Delete it to train from the start.")
    if state["format"] != FORMAT:
        raise RunError(f"{path} was written by another version of attent-kit. Train into another --out.")
    if state["digest"] != digest(_signed(state)):
        raise RunError(
            f"{path} has changed since it was written: its contents do not match its digest. Copy it again from where it came "
            "from, or delete it to train from the start."
        )
    return state


def _signed(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the digest of a file is made of: everything but itself."""
    return {name: value for name, value in state.items() if name != "digest"}


def write_weights(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Weights as safetensors, with plain facts about them and the digest of both, atomically."""
    content = packed_weights(weights, facts)
    # Bytes of our own: safetensors would make a file that only its owner may read.
    write_whole(path, lambda temporary: _write(temporary, content))


def packed_weights(weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """The same as bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    plain = json_in(json.dumps(facts))  # as it will be read
    signed = {**plain, "digest": digest([plain, tensors])}
    # One key, since safetensors writes several in any order.
    return to_safetensors(tensors, {FACTS: json.dumps(signed, sort_keys=True)})


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of a file of `write_weights`, and the facts about them. RunError if a bit of either has changed."""
    return weights_in(path.read_bytes(), path)


def weights_in(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same of the bytes of such a file."""
    try:
        weights = from_safetensors(content)
        header = json_in(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts = json_in(header.get("__metadata__", {}).get(FACTS, "{}"))
    except Exception as error:
        raise RunError(of_git(path) or f"{path} is not a readable safetensors file: copy it again.") from error
    if not isinstance(facts, dict) or "digest" not in facts:
        raise RunError(
            f"{path} carries no digest, so attent-kit did not write it: copy {path.name} again from the folder of the run."
        )
    expected = facts.pop("digest")
    if expected != digest([facts, weights]):
        raise RunError(
            f"{path} has changed since it was written: its contents do not match its digest. Copy {path.name} again from the "
            "folder of the run."
        )
    return weights, facts


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 of what in a run's config.toml shapes its networks: the method with all its options, seed, arithmetic,
    augmentation and data, wherever these lie."""
    shaping = {name: config.get(name) for name in ("alignment", "seed", "precision", "augmentation")}
    data = config.get("data")
    if isinstance(data, Mapping):
        shaping["data"] = {name: value for name, value in data.items() if name not in ("source", "target")}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True, default=str).encode()).hexdigest()
