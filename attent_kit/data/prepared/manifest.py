"""The manifest of a prepared file as TOML beside it: what people read, compare and put under version control.

It holds neither a time nor a place, so that preparing the same data again gives the same bytes.
"""

import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import scipy
import tomli_w

from attent_kit import __version__
from attent_kit.data.prepared.file import FORMAT, Manifest
from attent_kit.data.prepared.hdf5 import Spoilt, text_in
from attent_kit.errors import ConfigError
from attent_kit.reading import json_in, text_of, toml_in

_HEAD = "# How the prepared file beside this one was made. `attentkit prepare` writes it; the same stands inside that file.\n\n"
_ONE_A_LINE = re.compile(r"\[\n((?: *[^\[\]\n]+,\n)+) *\]")
"""A short array as tomli_w writes it, one item per line; a text never holds a line break in TOML."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""


def beside(out: Path) -> Path:
    """ct.h5 -> ct.toml"""
    return out.with_suffix(".toml")


def to_toml(manifest: Manifest) -> str:
    """The manifest as TOML, which has no null: what is None is left out."""
    return _HEAD + _ONE_A_LINE.sub(_in_one_line, tomli_w.dumps(_without_none(manifest)))


def versions() -> dict[str, str]:
    """Of attent-kit, Python and the libraries that shape the bytes."""
    modules = {"numpy": np, "scipy": scipy, "nibabel": nibabel, "h5py": h5py}
    own = {"attent-kit": __version__, "python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    return own | {name: module.__version__ for name, module in modules.items()}


def refuse_to_overwrite(out: Path, inputs: Iterable[Path]) -> None:
    """ConfigError if writing `out` and its manifest would destroy an input, or a file that `prepare` has not written."""
    toml = beside(out)
    if toml == out:
        raise ConfigError(f"{out} is the name of the manifest: name the prepared file {out.with_suffix('.h5')}.")
    places = {out.resolve(), toml.resolve()}
    for path in inputs:
        if path.resolve() in places:
            raise ConfigError(f"{out} would overwrite {path}, which is an input: name another --out.")
    if toml.is_dir() or (toml.exists() and not _is_manifest(toml)):
        raise ConfigError(f"{toml} exists and is not the manifest of a prepared file: name another --out.")
    if out.exists() and not out.is_symlink() and not _is_prepared(out):
        raise ConfigError(f"{out} exists already and is not a prepared file: name another --out, or remove it.")


def _in_one_line(match: re.Match[str]) -> str:
    line = "[" + ", ".join(item.strip().removesuffix(",") for item in match[1].splitlines()) + "]"
    return line if len(line) <= 110 else match[0]


def _is_manifest(path: Path) -> bool:
    try:
        return toml_in(text_of(path)).get("format") == FORMAT
    except (OSError, ValueError):
        return False


def _is_prepared(path: Path) -> bool:
    """Whether it is one, or the beginning of one: a damaged one may be prepared again, and so may an empty file."""
    if path.stat().st_size == 0:
        return True
    try:
        with h5py.File(path, "r") as file:
            return json_in(text_in(file, "manifest"))["format"] == FORMAT
    except Spoilt:
        return True
    except (KeyError, ValueError, TypeError):
        return False
    except (OSError, RuntimeError):
        with path.open("rb") as damaged:
            return damaged.read(len(_SIGNATURE)) == _SIGNATURE


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value
