"""What a run leaves for prediction: every network that `predict` calls, in one safetensors file, and nothing that only training
needs.

    network.encoder.conv1.weight   the segmentor, under its own names, so that it loads without attent-kit
    G_ts/model.0.weight            another network that `predict` calls, after its attribute's name
    /step                          a buffer of the method itself

Where `predict` is its segmentor alone the file holds nothing else. `networks` among its facts says what it holds; a file without
that is of an earlier attent-kit and holds the segmentor, whatever `predict` calls.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import load_network_states, network_states, segmentor_of
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.probe import networks_of_predict
from attent_kit.errors import ConfigError, RunError
from attent_kit.interfaces import Alignment

States = dict[str, dict[str, Tensor]]
"""State of each network by its name; under "" the buffers of the method itself."""


def networks_to_predict(alignment: Alignment, size: int, device: torch.device) -> list[str]:
    """Names of the networks that prediction needs: the one that the method names, or those that `predict` calls on a blank
    image with a side of `size` pixels."""
    if alignment.predicts_with:
        return [alignment.predicts_with]
    return networks_of_predict(alignment, size, device)


def export_networks(
    path: Path, alignment: Alignment, size: int, device: torch.device, made_by: Mapping[str, Any]
) -> None:
    """Write them; `made_by` is kept in the file, as JSON, beside their names."""
    names, segmentor, states = (
        networks_to_predict(alignment, size, device),
        segmentor_of(alignment),
        network_states(alignment),
    )
    weights = dict(states[segmentor]) if segmentor in names else {}
    # What a method that predicts with its segmentor alone keeps for training stays out.
    for name in () if alignment.predicts_with else ("", *names):
        if name != segmentor:
            weights |= {f"{name}/{key}": value for key, value in states[name].items()}
    checkpoint.write_weights(path, weights, {**made_by, "network": segmentor, "networks": names})


def read_networks(path: Path) -> tuple[States, dict[str, Any]]:
    """The networks of an exported file and the facts about them. RunError if a bit of either has changed."""
    weights, facts = checkpoint.read_weights(path)
    segmentor = str(facts.get("network"))
    states: States = {str(name): {} for name in facts.get("networks") or [segmentor]}
    for key, value in weights.items():
        name, slash, inner = key.partition("/")
        if slash and (not name or name in states):
            states.setdefault(name, {})[inner] = value
        else:
            states.setdefault(segmentor, {})[key] = value
    return states, facts


def load_exported(
    path: Path, alignment: Alignment, size: int, device: torch.device
) -> tuple[dict[str, Any], frozenset[str]]:
    """Fill the networks that prediction needs from an exported file; what the file says about itself, and which they are.

    RunError if the file is damaged or holds other networks, ConfigError if it is an earlier one that lacks some.
    """
    states, facts = read_networks(path)
    needed = networks_to_predict(alignment, size, device)
    if lacking := [name for name in needed if name not in states]:
        held, wanted = (", ".join(map(repr, names)) for names in (states, lacking))
        sentence = (
            f"{path} holds {held}, and prediction needs {wanted}, too: copy {RunFolder(path.parent).checkpoint.name} of the run "
            "beside it."
        )
        raise RunError(sentence) if alignment.predicts_with else ConfigError(sentence)
    try:
        load_network_states(alignment, {name: state for name, state in states.items() if name in ("", *needed)})
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not fit the networks of config.toml beside it: copy both from one run, and check that the code of "
            "the method has not changed since."
        ) from error
    return facts, frozenset(needed)


def is_complete(path: Path) -> bool:
    """Whether an exported file is there and says that it holds all that prediction needs. RunError if it is damaged."""
    return path.exists() and bool(checkpoint.read_weights(path)[1].get("networks"))
