"""Weights that another program has saved, as a start: a state dict of the segmentor, under its own names or under others."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.reading import of_git

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_INSIDE = ("state_dict", "model_state_dict", "network_weights", "model")
"""Where training programs keep the state dict in what they save."""
MOST_EXCHANGES = 8
"""Of beginnings of names that are guessed."""
_COUNTED = "num_batches_tracked"
"""Not a weight: old files lack it."""


def is_foreign(path: Path) -> bool:
    """Whether a start is a file of weights rather than the folder of a run."""
    return path.is_file() or (path.suffix in ENDINGS and not path.is_dir())


def read_foreign(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by their names there. ConfigError if there are none; no code in the file is run."""
    if not path.is_file():
        raise ConfigError(f"--from {path}: there is no such file. Name a file of weights, or the folder of a run.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch's own words would talk people into running what is in the file.
        code = isinstance(error, UnpicklingError)
        said = "it holds more than tensors, or something else" if code else str(error).partition("\n")[0]
        raise ConfigError(
            of_git(path)
            or f"--from {path}: it cannot be read as weights ({said}). Save `model.state_dict()` alone with torch.save."
        ) from error
    for name in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    found = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found:
        raise ConfigError(f"--from {path}: it holds no weights. Save `model.state_dict()` into it.")
    return found


def named_as_here(
    there: Mapping[str, Tensor], here: Mapping[str, Tensor], names: Mapping[str, str], path: Path
) -> dict[str, Tensor]:
    """The weights of a file under the names that they have in a network whose state is `here`.

    `names`: what a name there begins with -> what it begins with here. ConfigError, with what to type, if a weight is missing.
    """
    renamed = {_begun_anew(name, names): value for name, value in there.items()}
    found = {
        name: renamed[name] if name in renamed else here[name]
        for name in here
        if name in renamed or name.endswith(_COUNTED)
    }
    lacking = [name for name in here if name not in found]
    if not lacking:
        return found
    first = lacking[0]
    guess = _prefixes(there, here)
    if guess is not None and not names:
        told = ", ".join(f'"{old}" = "{new}"' for old, new in guess.items())
        raise ConfigError(
            f"--from {path}: its weights have other names: {_example(there, guess)}. Type --set 'warm_start.names={{{told}}}'."
        )
    near = did_you_mean(first, renamed)
    raise ConfigError(
        f"--from {path}: {len(lacking)} of the segmentor's {len(here)} weights are not there under their names, the first is "
        f"'{first}'.{near} If names there only begin otherwise, type --set 'warm_start.names={{\"THERE\" = \"HERE\"}}'; if it is "
        "another network, choose it with --set segmentor=NAME."
    )


def _begun_anew(name: str, names: Mapping[str, str]) -> str:
    """A name with its beginning exchanged: the longest that fits."""
    for old in sorted(names, key=len, reverse=True):
        if name.startswith(old):
            return names[old] + name.removeprefix(old)
    return name


def _prefixes(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, str] | None:
    """The fewest exchanges of beginnings found with which every weight of `here` is there; None if there are none.

    Each is the one that brings most weights to their names, and more than one, or the last.
    """
    names: dict[str, str] = {}
    lacking = _lacking(there, here, names)
    while lacking and len(names) < MOST_EXCHANGES:
        tried = [{**names, **one} for one in _exchanges(there, here, lacking[0])]
        best = min(tried, key=lambda each: len(_lacking(there, here, each)), default=names)
        left = _lacking(there, here, best)
        if left and len(lacking) - len(left) < 2:
            return None
        names, lacking = best, left
    return None if lacking else names


def _lacking(there: Mapping[str, Tensor], here: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
    """Weights of `here` that no name of `there` becomes."""
    renamed = {_begun_anew(name, names) for name in there}
    return [name for name in here if name not in renamed and not name.endswith(_COUNTED)]


def _exchanges(there: Mapping[str, Tensor], here: Mapping[str, Tensor], wanted: str) -> Iterator[dict[str, str]]:
    """Beginnings of names there, and what they begin with here, so that one of its weights becomes the `wanted` one."""
    cuts = [0, *(n + 1 for n, letter in enumerate(wanted) if letter == ".")]
    for cut in cuts:
        ending, new = wanted[cut:], wanted[:cut]
        for name, value in there.items():
            if name.endswith(ending) and value.shape == here[wanted].shape and name != wanted:
                yield {name.removesuffix(ending): new}


def _example(there: Mapping[str, Tensor], guess: Mapping[str, str]) -> str:
    name = next(name for name in there if _begun_anew(name, guess) != name)
    return f"'{name}' is '{_begun_anew(name, guess)}' here"
