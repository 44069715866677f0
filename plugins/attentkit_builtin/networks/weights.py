"""Pretrained weights from a local file or folder."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attent_kit.errors import ConfigError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def is_path(weights: str) -> bool:
    """Whether the words name a file or folder rather than published weights: they end like one, or contain a separator."""
    return weights.endswith(SUFFIXES) or any(sign in weights for sign in ("/", os.sep)) or weights in (".", "..")


def load_encoder(encoder: nn.Module, path: Path, option: str = "encoder_weights") -> None:
    """Fill an encoder from a state dict saved by torchvision, timm, smp or this toolkit; its classification head, and
    whatever else is not a weight of the encoder, is dropped. A folder is read if it holds one such file.

    A first convolution with other input channels is adapted: summed for one channel, repeated and rescaled for more.
    ConfigError, which names the `option` that gave the path, if the file cannot be read or lacks a weight of the encoder.
    """
    path = _file(path, option)
    read = _read(path, option)
    given = {_flat(name): weight for name, weight in read.items()}
    own = encoder.state_dict()
    prefix = max(_prefixes(own, given), key=lambda p: sum(_plain(name, p) in given for name in own))
    found = {name: given[_plain(name, prefix)] for name in own if _plain(name, prefix) in given}
    # Not a weight: old files lack the count of batches seen.
    lacking = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    if lacking:
        first = ", ".join(f"'{name}'" for name in [*read][:3])
        raise ConfigError(
            f"{path}: {len(lacking)} of the encoder's {len(own)} weights are missing, the first is '{lacking[0]}'. "
            f"The file holds {len(read)}: {first or 'none'}{', ...' if len(read) > 3 else ''} "
            f"Give a file that was saved from the same encoder, or {option} = 'none'."
        )
    adapted = {name: _to_channels(weight, own[name]) for name, weight in found.items()}
    for name, weight in adapted.items():
        if weight.shape != own[name].shape:
            raise ConfigError(
                f"{path}: '{name}' is {_size(weight)} and the encoder's is {_size(own[name])}. "
                f"Give a file that was saved from the same encoder, or {option} = 'none'."
            )
    encoder.load_state_dict({**own, **adapted})


def _file(path: Path, option: str) -> Path:
    """The file of weights that is meant: the path itself, or what a folder holds of the first kind of SUFFIXES."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such file. Give a local file, or {option} = 'none'.")
    for suffix in SUFFIXES:
        found = sorted(file for file in path.iterdir() if file.suffix == suffix and file.is_file())
        if len(found) > 1:
            raise ConfigError(
                f"{path} holds {len(found)} {suffix} files: say which, as in {option} = '{path / found[0].name}'."
            )
        if found:
            return found[0]
    raise ConfigError(
        f"{path} holds no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file. Give one, or {option} = 'none'."
    )


def _read(path: Path, option: str) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"{path}: cannot be read as weights ({error}). Give another file, or {option} = 'none'."
        ) from error
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no state dict. Save `model.state_dict()` into it, or set {option} = 'none'.")
    return {name: weight for name, weight in content.items() if isinstance(weight, Tensor)}


def _flat(name: str) -> str:
    """timm flattens `stages.0.` of a saved model to `stages_0.` in an encoder: treat both alike."""
    return name.replace(".", "_")


def _plain(name: str, prefix: tuple[str, str]) -> str:
    """The name in the file for one of the encoder's, which carries our wrapper's prefix instead of the file's."""
    ours, theirs = prefix
    return theirs + _flat(name).removeprefix(ours)


def _prefixes(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[tuple[str, str]]:
    """What may stand before a name: nothing or `model.` in the encoder, any ending of another name in the file."""
    prefixes = []
    for ours in ("", "model_"):
        anchor = _flat(next(iter(own))).removeprefix(ours)
        prefixes += [(ours, name.removesuffix(anchor)) for name in given if name.endswith(anchor)]
    return prefixes or [("", "")]


def _to_channels(weight: Tensor, like: Tensor) -> Tensor:
    if weight.ndim != 4 or weight.shape[0] != like.shape[0] or weight.shape[2:] != like.shape[2:]:
        return weight
    before, after = weight.shape[1], like.shape[1]
    if before == after or before != 3:
        return weight
    if after == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(after) % before] * (before / after)


def _size(weight: Tensor) -> str:
    return " x ".join(map(str, weight.shape)) or "a scalar"
