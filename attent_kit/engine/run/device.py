"""Where a run computes, and how precisely."""

import logging
import os
import platform
from typing import TYPE_CHECKING

import torch

from attent_kit.errors import ConfigError

if TYPE_CHECKING:  # it imports the whole of torch.compile, which nobody needs who does not train
    from lightning_fabric import Fabric


def launch(device: str = "auto", precision: str = "auto") -> "Fabric":
    """A Fabric on `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `precision` is one of `auto`, `32-true`, `bf16-mixed`, `16-mixed`; auto is bf16-mixed where the hardware computes in
    bfloat16 (recent GPUs, CPUs with AVX512-BF16 or AMX) and 32-true elsewhere. Losses are always in float32.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    kind, _, index = device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdigit())):
        raise ConfigError(f"--device {device}: write auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {device}: no CUDA device can be used here. Type --device cpu, or leave it out.")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from cuda:0."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: no Metal device can be used here. Type --device cpu, or leave it out.")
    if precision == "auto":
        precision = "bf16-mixed" if _computes_in_bfloat16(kind) else "32-true"
    if kind == "cuda":
        # Slices have one size: let cuDNN time its kernels once. A resumed run on a GPU may differ in the last bits.
        torch.backends.cudnn.benchmark = True
    # Fabric announces its precision on every start; env.json says it.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    devices = [int(index)] if index else 1
    # A run is one process. Left to find out, Fabric takes the tasks of a Slurm job for processes of one run, and warns where
    # Slurm is merely installed.
    alone = LightningEnvironment()
    return Fabric(accelerator=kind, devices=devices, precision=precision, plugins=alone)  # type: ignore[arg-type]  # a Literal there


def works(device: str) -> bool:
    """Whether the device computes: a GPU may be busy, or unusable for this process after an error."""
    try:
        return bool(torch.ones(1, device=launch(device).device).add(1).item() == 2)
    except RuntimeError:
        return False


def precision_of(fabric: "Fabric") -> str:
    """The arithmetic that `auto` has come to."""
    return str(fabric.strategy.precision.precision)


def in_words(device: torch.device) -> str:
    """The name of the GPU, or of the processor with its kind: "cpu (name, 8 cores)"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({_processor()})"


def _computes_in_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        # Names of these probes carry an underscore; without them we stay in float32.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return f"{names[0]}, {os.cpu_count()} cores"
    except (OSError, IndexError):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
