"""What a run writes down while it goes: settings, environment, data, losses, speed."""

import difflib
import json
import math
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from attent_kit import __version__
from attent_kit.config import dump, read_toml, to_toml
from attent_kit.data.prepared.familiar import Familiar
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.unread import is_read
from attent_kit.engine.run.device import in_words
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.provenance import record
from attent_kit.engine.run.settings import RunSettings, shaping
from attent_kit.errors import ConfigError, RunError
from attent_kit.files import parse_object, read_json, read_signed, write_signed, write_text
from attent_kit.registry import Component, installed_version

if sys.platform != "win32":
    import resource


class NotFinite(RunError):
    """A loss is NaN or infinite, so that nothing can be trained any more."""

    def __init__(self, sentence: str, step: int, stage: str) -> None:
        super().__init__(sentence)
        self.step, self.stage = step, stage


class Run:
    """One folder, which belongs to one configuration."""

    def __init__(self, folder: RunFolder, settings: RunSettings, components: Sequence[Component] = ()) -> None:
        """Open or make the folder; refuse one that another configuration made, and print what differs.

        `components`: the method and its networks.
        """
        self.folder = folder
        self.settings = settings
        self.components = list(components)
        self.config = dump(settings)
        """What config.toml holds. For a run that goes on, what it held before: the same but for what does not shape it."""
        self._pending: list[tuple[int, str, dict[str, Tensor]]] = []
        if (
            not folder.is_run
            and folder.path.exists()
            and any(not p.name.startswith(".") for p in folder.path.iterdir())
        ):
            raise ConfigError(f"{folder} holds other files and no run. Name a new or empty folder with --out.")
        if folder.has_results:
            before = read_toml(folder.config)
            _refuse_another(folder, before, self.config)
            self.config = before
        else:
            write_text(folder.config, to_toml(self.config))

    def write_domain(self, source: Prepared, target: Prepared, learnt: Mapping[str, Any] | None = None) -> None:
        """domain.json: what prediction must know of the target, so that a run no longer needs its prepared files; what the
        run was trained on, so that an image unlike that is noticed; and a digest of this.

        `learnt`: of a source that is not read, what the run that this one starts from says of it; None if that was said before.
        """
        domain = {name: getattr(target, name) for name in ("domain", "modality", "organs")}
        domain |= {**target.slicing.to_dict(), "channels": target.channels}
        familiar = Familiar.of(target)
        domain |= {
            "intensity": target.intensity.to_dict(),
            "training": familiar.to_dict() if familiar else None,
            "source": {"domain": source.domain, "modality": source.modality, "cases": len(source.ids("train"))},
            "phantom": [prepared.domain for prepared in (source, target) if prepared.manifest["phantom"]],
        }
        if not is_read(source):
            learnt = read_signed(self.folder.domain) or {} if learnt is None else learnt
            domain["source"] = learnt.get(
                "source", {"domain": source.domain, "modality": source.modality, "cases": None}
            )
            domain["phantom"] = [*dict.fromkeys([*learnt.get("phantom", ()), *domain["phantom"]])]
        write_signed(self.folder.domain, domain)

    def write_environment(
        self, device: torch.device, precision: str, started: Sequence[str] | None = None, devices: int = 1
    ) -> None:
        """env.json: what the run was computed with; `started` are the networks that have begun with weights of another run, None
        if that was said before. `devices`: how many such devices train it together."""
        warm = (read_json(self.folder.environment) or {}).get("warm_start")
        if started is not None and self.settings.warm_start is not None:
            warm = {**self.settings.warm_start.model_dump(mode="json"), "networks": [*started]}
        environment = {
            "attent_kit": __version__,
            "plugins": {component.distribution: component.version for component in self.components},
            "components": record(self.components),
            "command": sys.argv,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": in_words(device),
            **({"devices_per_run": devices} if devices > 1 else {}),
            "threads": torch.get_num_threads(),
            "precision": precision,
            "packages": packages(),
            **({"warm_start": warm} if warm else {}),
        }
        write_text(self.folder.environment, json.dumps(environment, indent=2) + "\n")

    def write_speed(
        self, stage: str, steps: int, seconds: float, device: torch.device, snapshots: float, captured: bool = False
    ) -> None:
        """speed.json: steps of a stage that this process trained, their wall time, and its peak memory in MiB so far.

        `snapshots`: seconds that snapshots took, which are not in `seconds`. `captured`: whether a CUDA graph repeated steps.
        """
        stages = read_json(self.folder.speed) or {}
        stages[stage] = {
            "steps": steps,
            "seconds": round(seconds, 2),
            "steps_per_second": round(steps / seconds, 3),
            "snapshot_seconds": round(snapshots, 2),
            "peak_memory_MiB": _peak_memory(device),
            **({"captured": True} if captured else {}),
        }
        write_text(self.folder.speed, json.dumps(stages, indent=2) + "\n")

    def log(self, step: int, stage: str, losses: Mapping[str, Tensor]) -> dict[str, float] | None:
        """Remember a step's losses on the device. Every `log_steps` steps they are read, averaged and written."""
        self._pending.append((step, stage, {name: loss.detach() for name, loss in losses.items()}))
        if (step + 1) % self.settings.log_steps == 0:
            return self.flush()
        return None

    def flush(self) -> dict[str, float] | None:
        """Write the pending losses as one line of log.jsonl: their means over the steps since the last line.

        NotFinite if one of them is not finite.
        """
        if not self._pending:
            return None
        step, stage, _ = self._pending[-1]
        values: dict[str, list[Tensor]] = {}
        for _, s, losses in self._pending:
            for name, loss in losses.items() if s == stage else ():
                values.setdefault(name, []).append(loss.float())
        self._pending.clear()
        # A step may leave out a loss that it did not need: each is averaged over the steps that have it.
        # One wait for the device. Added up in double precision: then it does not matter where a checkpoint cut a line.
        flat = iter(torch.stack([loss for v in values.values() for loss in v]).tolist() if values else [])
        means = {name: statistics.fmean(islice(flat, len(v))) for name, v in values.items()}
        bad = [name for name, mean in means.items() if not math.isfinite(mean)]
        if bad:
            sentence = (
                f"{', '.join(bad)} of stage '{stage}' is no longer a finite number at step {step}. Lower the learning rate "
                f"(`attentkit show` lists the options) and train into another --out."
            )
            raise NotFinite(sentence, step, stage)
        try:
            with open(self.folder.log, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "stage": stage, **means}) + "\n")
        except OSError as error:
            raise RunError(
                f"{self.folder.log} could not be written ({error.strerror}). The last checkpoint is unchanged: "
                f"make room and start the same command again."
            ) from None
        return means

    def rewind_log(self, step: int) -> None:
        """Drop log lines of steps that will be trained again."""
        path = self.folder.log
        if path.exists():
            kept = [line for line in path.read_bytes().splitlines() if _step(line) < step]
            write_text(path, "".join(line.decode() + "\n" for line in kept))


def _step(line: bytes) -> float:
    """The step of a log line; a line cut off by a kill belongs to no step that is kept."""
    try:
        return float((parse_object(line) or {})["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _refuse_another(folder: RunFolder, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """ConfigError with the lines that differ, if the folder holds results of other settings."""
    old, new = shaping(there), shaping(asked)
    was, now = old.pop("data", None), new.pop("data")
    was = was if isinstance(was, dict) else {}
    hashes = [[data.get("source_hash"), data.get("target_hash")] for data in (was, now)]
    if was.get("channels") != now.get("channels") and hashes[0] != hashes[1]:
        old, new = (
            {**all_else, "channels": data.get("channels", "as prepared")} for all_else, data in ((old, was), (new, now))
        )
    for name in ("source", "target"):
        before, after = (data.get(f"{name}_hash", data.get(name)) for data in (was, now))
        if f"{name}_hash" not in now:
            before = was.get(name)
        # Where a file lies does not matter, what it holds does.
        if before != after and old == new:
            raise ConfigError(
                f"{now[name]} is not what the run in {folder} was made with. Restore the data, or name another folder "
                f"with --out."
            )
    if old == new:
        return
    lines = difflib.unified_diff(
        to_toml(old).splitlines(), to_toml(new).splitlines(), "there", "asked for", lineterm="", n=0
    )
    changed = "\n".join(f"  {line}" for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))
    raise ConfigError(
        f"{folder} holds a run of another configuration (- there, + asked for):\n{changed}\n"
        f"Name another folder with --out. There, --from {folder} starts from the weights of this run; `attentkit train "
        f"{folder} --more-steps N` goes on with it as it is."
    )


_PACKAGES = (
    "torch", "timm", "segmentation-models-pytorch", "lightning-fabric", "numpy", "scipy", "nibabel", "h5py", "pydantic",
)  # fmt: skip


def packages(*more: str) -> dict[str, str]:
    """Versions of the libraries that a run computes with, and of `more`."""
    return {name: installed_version(name) or "not installed" for name in (*_PACKAGES, *more)}


def _peak_memory(device: torch.device) -> int | None:
    """Of the device's memory, or of this process on a CPU, in MiB; None on Windows, which does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
