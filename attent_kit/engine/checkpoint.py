"""Everything that a run needs to go on as if it had never stopped, in one file.

The batch and the random numbers of a step are functions of (seed, step), and a learning rate is a function of the step,
so the state is: networks, image pools, optimizers, and the number of the next step.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.engine.assemble import (
    load_network_states,
    load_optimizer_states,
    network_states,
    optimizer_states,
    unwrapped,
)
from attent_kit.errors import RunError
from attent_kit.files import write_whole
from attent_kit.interfaces import Alignment, Segmentor

FORMAT = 1
_KEYS = {"format", "networks", "optimizers"}


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


def export_segmentor(path: Path, alignment: Alignment) -> bool:
    """The weights of the alignment's segmentor as safetensors, which load without the method's plugin.

    False if the alignment has no network that is a Segmentor (or has several, of which the first is taken as its own).
    """
    for child in alignment.children():
        network = unwrapped(child)
        if isinstance(network, Segmentor):
            weights: dict[str, Tensor] = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            write_whole(path, partial(save_file, weights))
            return True
    return False
