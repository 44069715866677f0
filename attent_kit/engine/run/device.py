"""Where a run computes, and how precisely."""

import logging
import os
import platform
from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from attent_kit.data.workers import cores
from attent_kit.engine.run.ranks import Seat, refuse_impossible
from attent_kit.engine.run.strategy import Seated, Several
from attent_kit.errors import ConfigError


def launch(device: str = "auto", precision: str = "auto", strategy: Several | None = None) -> Fabric:
    """A Fabric on `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, or on the first of what `several` has put together.

    `precision` is one of `auto`, `32-true`, `bf16-mixed`, `16-mixed`; auto is bf16-mixed where the hardware computes in
    bfloat16 (recent GPUs, CPUs with AVX512-BF16 or AMX) and 32-true elsewhere. Losses are always in float32.
    """
    device = parts_of(device)[0]
    refuse_misnamed(device)
    kind, _, index = _kind(device)
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
    if strategy is not None:
        fabric = Fabric(accelerator=kind, devices=devices, precision=precision, strategy=strategy, plugins=Seated())  # type: ignore[arg-type]
        fabric.launch()
        return fabric
    # A run is one process unless it is told otherwise. Left to find out, Fabric takes the tasks of a Slurm job for processes of
    # one run, and warns where Slurm is merely installed.
    alone = LightningEnvironment()
    return Fabric(accelerator=kind, devices=devices, precision=precision, plugins=alone)  # type: ignore[arg-type]


def launch_one_of(device: str, precision: str = "auto", seat: Seat | None = None) -> Fabric:
    """The Fabric of this process of a run on all devices of `several`: by default the first; with one device as `launch`."""
    parts = parts_of(device)
    count = len(parts) if seat is None else seat.processes
    if count == 1:
        return launch(device, precision)
    own = parts[0 if seat is None else seat.local]
    return launch(own, precision, Several(count, seat))


def several(device: str, count: int, seat: Seat | None = None) -> str:
    """The devices of a run on one machine, in one word: several("cuda", 2) is "cuda:0+cuda:1".

    ConfigError if there are not so many.
    """
    if count == 1:
        return device
    refuse_misnamed(device, count)
    kind = _kind(device)[0]
    refuse_impossible(kind, count)
    there = torch.cuda.device_count() if kind == "cuda" else cores()
    if kind == "cuda" and seat is not None and seat.starter == "srun" and there == 1:
        return "+".join(["cuda:0"] * count)  # Slurm shows each task its own GPU alone.
    if there < count:
        what = {"cuda": "CUDA device", "cpu": "core"}[kind] + ("" if there == 1 else "s")
        raise ConfigError(
            f"--devices-per-run {count} is more than this machine has: type at most {there}, for {there} {what}."
        )
    return "+".join(f"cuda:{n}" if kind == "cuda" else kind for n in range(count))


def refuse_misnamed(device: str, count: int = 1) -> None:
    """ConfigError for what names no device of any machine, or not `count` devices that train a run together."""
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdigit())):
        raise ConfigError(f"--device {device}: write auto, cpu, cuda, cuda:N or mps.")
    if count > 1 and colon:
        raise ConfigError(
            f"--device {device} is one device, and --devices-per-run {count} asks for {count}: type --device {kind}."
        )
    if count > 1 and kind == "mps":
        refuse_impossible(kind, count)


def together(devices: Sequence[str]) -> str:
    """These devices in one word, as `several` makes it. ConfigError if they are not of one kind, or one is named twice."""
    kinds = {_kind(device)[0] for device in devices}
    if len(kinds) > 1 or (kinds == {"cuda"} and len({*devices}) < len(devices)) or "cuda" in devices:
        raise ConfigError(
            f"--devices {','.join(devices)} cannot train one run together: name different GPUs, as in --devices cuda:0,cuda:1, "
            "or cpu for each."
        )
    refuse_impossible(kinds.pop(), len(devices))
    return "+".join(devices)


def parts_of(device: str) -> list[str]:
    """The devices that `several` has put together, or the one."""
    return device.split("+")


def _kind(device: str) -> tuple[str, str, str]:
    """ "cuda:1" as ("cuda", ":", "1"), with what auto comes to."""
    kind, colon, index = device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return kind, colon, index


def works(device: str) -> bool:
    """Whether the device computes: a GPU may be busy, or unusable for this process after an error."""
    try:
        return bool(torch.ones(1, device=launch(device).device).add(1).item() == 2)
    except RuntimeError:
        return False


def precision_of(fabric: Fabric) -> str:
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
