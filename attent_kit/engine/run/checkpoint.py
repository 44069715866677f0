"""Everything that a run needs to go on as if it had never stopped, in one file.

The batch and the random numbers of a step are functions of (seed, step), and a learning rate is a function of the step,
so the state is: networks, image pools, optimizers, and the number of the next step.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.engine.run.assemble import (
    load_network_states,
    load_optimizer_states,
    network_states,
    optimizer_states,
    segmentor_of,
    unwrapped,
)
from attent_kit.errors import RunError
from attent_kit.files import write_whole
from attent_kit.interfaces import Alignment

FORMAT = 1
_KEYS = {"format", "networks", "optimizers"}
FACTS = "attent_kit"
"""Key of what an exported segmentor says of itself."""


def save(path: Path, alignment: Alignment, optimizers: dict[str, Optimizer], step: int, fabric: Fabric) -> None:
    """Write the state before step number `step`, atomically."""
    state = {
        "format": FORMAT,
        "step": step,
        "networks": network_states(alignment),
        "optimizers": optimizer_states(optimizers),
        "precision": fabric.strategy.precision.state_dict(),  # the loss scale of 16-mixed
    }
    write_whole(path, lambda temporary: torch.save(state, temporary))


def resume(path: Path, alignment: Alignment, optimizers: dict[str, Optimizer], fabric: Fabric) -> int:
    """Restore what `save` wrote and return the number of the next step; 0 if there is no checkpoint."""
    if not path.exists():
        return 0
    state = restore(path, alignment, optimizers, fabric.device, whole=True)
    fabric.strategy.precision.load_state_dict(state["precision"])
    return int(state["step"])


def load_networks(path: Path, alignment: Alignment, device: Any) -> int:
    """Restore the networks alone, as for prediction, and return how many steps they are trained."""
    return int(restore(path, alignment, None, device, whole=True)["step"])


def restore(
    path: Path, alignment: Alignment, optimizers: dict[str, Optimizer] | None, device: Any, whole: bool = False
) -> dict[str, Any]:
    """Fill networks and optimizers from the file and return its contents; RunError if they do not fit.

    `whole`: every network must be in the file. Otherwise it may hold some of them, as that of a shared stage does.
    """
    state = read(path, device)
    try:
        if whole and state["networks"].keys() != network_states(alignment).keys():
            raise KeyError("networks")
        load_network_states(alignment, state["networks"])
        if optimizers is not None:
            load_optimizer_states(optimizers, state["optimizers"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{path} does not fit the networks of this run: it is damaged, or the code of the method has changed "
            f"since. Delete it to train from the start."
        ) from error
    return state


def read(path: Path, device: Any) -> dict[str, Any]:
    """The raw contents of a checkpoint."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:
        raise RunError(
            f"the device has too little memory to load {path}. Free some, or choose another --device."
        ) from None
    except OSError:
        raise
    except Exception as error:
        raise RunError(f"{path} is no readable checkpoint. Delete it to train from the start.") from error
    if not isinstance(state, dict) or _KEYS - state.keys():
        raise RunError(f"{path} is no checkpoint of attent-kit. Delete it to train from the start.")
    if state["format"] != FORMAT:
        raise RunError(f"{path} was written by another version of attent-kit. Train into another --out.")
    return state


def export_segmentor(path: Path, alignment: Alignment, made_by: Mapping[str, Any]) -> bool:
    """The weights of the alignment's segmentor as safetensors, which load without the method's plugin.

    That is the network that its `predict` calls, or where it calls several, the first Segmentor among them. Beside its name
    `made_by` is kept in the file, as JSON. False if the alignment has no network that is a Segmentor.
    """
    name = segmentor_of(alignment)
    if name is None:
        return False
    state = unwrapped(getattr(alignment, name)).state_dict()
    weights: dict[str, Tensor] = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    # One key, since safetensors writes several in any order.
    facts = {FACTS: json.dumps({**made_by, "network": name}, sort_keys=True)}
    write_whole(path, lambda temporary: save_file(weights, temporary, facts))
    return True


def load_segmentor(path: Path, alignment: Alignment) -> dict[str, Any]:
    """Fill the network that `predict` calls from an exported file; what the file says of itself, empty if nothing.

    RunError if the file is damaged or holds another network.
    """
    name = alignment.predicts_with
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(FACTS, "{}"))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no mapping
    except OSError:
        raise
    except Exception as error:
        raise RunError(f"{path} is no readable safetensors file: copy it again.") from error
    if not isinstance(facts, dict):
        facts = {}
    if facts.get("network", name) != name:
        raise RunError(
            f"{path} holds the network '{facts['network']}', and '{name}' is needed: copy checkpoint.ckpt too."
        )
    try:
        unwrapped(getattr(alignment, name)).load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not fit the network of config.toml beside it: copy both from one run, and check that the code of "
            "the method has not changed since."
        ) from error
    return facts


def fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 of what in a run's config.toml shapes its networks: the method with all its options, and the seed."""
    shaping = {name: config.get(name) for name in ("alignment", "seed")}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True, default=str).encode()).hexdigest()
