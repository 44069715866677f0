"""What this machine offers: devices, memory, disk, decoders, extras, plugins. Facts that other parts decide by, asked once."""

import platform
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import NamedTuple

import torch

from attent_kit.data.workers import host_memory
from attent_kit.engine.run.device import in_words, launch, works
from attent_kit.engine.run.record import packages
from attent_kit.errors import AttentKitError
from attent_kit.registry import installed_version

DISTRIBUTION = "attent-kit"
FOR_PEOPLE = ("dicom", "onnx", "search", "tensorboard", "wandb", "mlflow")
"""Extras that change what commands can do; the others are for those who work on attent-kit itself."""


class Machine(NamedTuple):
    """What runs would be computed with here."""

    python: str
    platform: str
    packages: dict[str, str]
    """Versions."""
    devices: dict[str, str]
    """Name, as --device takes it, and what it is."""
    auto: str
    """The one that --device auto takes."""
    computes: bool
    """Whether that one adds two numbers."""
    precision: str
    """What precision auto is on it: bf16-mixed if it computes in bfloat16."""
    threads: int
    """Of torch, in this process."""
    memory_free: int
    """Bytes that are free for this process, as far as the system says."""
    disk: Path
    """Where the disk was asked."""
    disk_free: int
    """Bytes."""
    codecs: dict[str, bool]
    """Ways in which DICOM stores pixels, and whether they can be read; empty without pydicom."""
    extras: dict[str, list[str]]
    """Optional dependencies, and which distributions of each are missing."""
    set_aside: dict[str, str]
    """Installed plugins that did not load, and why."""


def machine(place: Path, set_aside: Mapping[str, str]) -> Machine:
    """The machine, with the disk that `place` is on, or will be on."""
    fabric = launch()
    return Machine(
        platform.python_version(),
        platform.platform(),
        packages(),
        _devices(),
        str(fabric.device),
        works("auto"),
        str(fabric.strategy.precision.precision),
        torch.get_num_threads(),
        host_memory(),
        place,
        _free(place),
        _codecs(),
        {name: _missing(name) for name in FOR_PEOPLE},
        dict(set_aside),
    )


def _devices() -> dict[str, str]:
    found = {"cpu": in_words(torch.device("cpu"))}
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        found[f"cuda:{index}"] = f"{in_words(torch.device('cuda', index))}, {memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Metal"
    return found


def _free(place: Path) -> int:
    """Bytes on the disk of a place that may not be there yet."""
    there = place.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return 0


def _codecs() -> dict[str, bool]:
    from attent_kit.data.scans.dicom_file import require_pydicom

    try:
        pydicom = require_pydicom()
    except AttentKitError:
        return {}
    found = {}
    for syntax in pydicom.uid.AllTransferSyntaxes:
        with suppress(NotImplementedError):  # videos and the like
            found[str(syntax.name)] = bool(pydicom.pixels.get_decoder(syntax).is_available)
    return found


def _missing(extra: str) -> list[str]:
    """Distributions of an extra that are not installed."""
    try:
        wanted = [line for line in requires(DISTRIBUTION) or () if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    except PackageNotFoundError:
        return []
    names = [match[0] for line in wanted if (match := re.match(r"[\w.-]+", line))]
    return [name for name in names if installed_version(name) is None]
