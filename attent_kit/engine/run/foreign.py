"""Weights that another program has saved, as a start: a state dict of the segmentor, under its own names or under others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.reading import of_git

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_INSIDE = ("state_dict", "model_state_dict", "network_weights", "model")
"""Where training programs keep the state dict in what they save."""
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
        said = str(error).partition("\n")[0]
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
    """The one exchange of beginnings with which every weight of `here` is there; None if there is none."""
    wanted = [name for name in here if not name.endswith(_COUNTED)]
    anchor = wanted[0]
    for cut in range(len(anchor)):
        if cut and anchor[cut - 1] != ".":
            continue
        ending, new = anchor[cut:], anchor[:cut]
        for name in there:
            if not name.endswith(ending):
                continue
            names = {name.removesuffix(ending): new}
            renamed = {_begun_anew(other, names) for other in there}
            if all(other in renamed for other in wanted):
                return names
    return None


def _example(there: Mapping[str, Tensor], guess: Mapping[str, str]) -> str:
    ((old, new),) = guess.items()
    name = next(name for name in there if name.startswith(old))
    return f"'{name}' is '{new + name.removeprefix(old)}' here"
