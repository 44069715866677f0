"""The whole configuration of one run: what `config.toml` in a run folder holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from attent_kit.config import Choice, ComponentConfig, Resolver, merge, parse_set, put, validate
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.believed import MOST_CHANNELS
from attent_kit.data.sets.splits import WHOLE, Fold
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Alignment


class FoldSettings(ComponentConfig):
    """One fold of the target: its patients are tested, all others are trained on, whatever the splits of the file are."""

    number: int = Field(ge=0)
    """0 to parts - 1."""
    parts: int = Field(ge=2)
    """How many folds there are."""
    seed: int = Field(0, ge=0)
    """Seed of the dealing of patients."""
    shared_patients: bool = True
    """Whether cases of one name are of one patient in both domains: the source is then trained on without those that are
    tested."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "FoldSettings":
        if self.number >= self.parts:
            raise ValueError(f"there is no fold {self.number} of {self.parts}: they are 0 to {self.parts - 1}.")
        return self


class DataSettings(ComponentConfig):
    """The two domains of a run."""

    source: Path | None = None
    """Prepared file of the labelled source domain; a method that is source-free has none."""
    unread: str | None = None
    """What the source is called whose file a source-free method never opens."""
    target: Path
    """Prepared file of the target domain."""
    source_hash: str | None = None
    """SHA-256 of what the source file holds; written by the run, so that it never goes on with other data."""
    target_hash: str | None = None
    """SHA-256 of what the target file holds."""
    channels: int | None = None
    """Slices of a volume that the networks see at once, as channels: the one to segment, and as many neighbours below as above it
    (2.5-D). An odd number; None: what the files were prepared with, as a rule 1."""
    fold: FoldSettings | None = None
    """Which part of the target is tested; None leaves that to the file."""
    untested: Literal[True] | None = None
    """True where nobody is tested, as in a trial of a search, which may know nothing of what will be."""

    @field_validator("channels")
    @classmethod
    def _has_a_middle(cls, channels: int | None) -> int | None:
        return None if channels is None else odd(channels)

    @property
    def part(self) -> Fold:
        """The fold, or WHOLE."""
        return WHOLE if self.fold is None else Fold(self.fold.number, self.fold.parts)


def odd(channels: int) -> int:
    """The number of channels; ValueError for one without a slice in the middle, or of more than a file may have."""
    if not 1 <= channels <= MOST_CHANNELS or channels % 2 == 0:
        raise ValueError(
            f"{channels} slices cannot be the channels: the one to segment lies in the middle of them, so write an odd number up "
            f"to {MOST_CHANNELS - 1}, as in 3."
        )
    return channels


class WarmStart(ComponentConfig):
    """Another run, from whose weights a run starts."""

    run: Path
    """Its folder; or a file of weights of the segmentor alone, which another program has saved."""
    names: dict[str, str] | None = None
    """Of a file of weights: what names begin with there, and here, as in { "model." = "" }."""
    digest: str | None = None
    """SHA-256 of its networks; written by the run, so that it is never taken for one that started from others."""


class RunSettings(ComponentConfig):
    """One run: a method, two domains, a seed."""

    alignment: Choice[Alignment]
    """The method and its options."""
    data: DataSettings
    """The two domains."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, batches and everything else that is random."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Arithmetic of the networks; auto takes bfloat16 where the hardware has it. Losses are always float32."""
    augmentation: Augmentation = Augmentation()
    """Random affine maps of training slices."""
    save_seconds: float = Field(120.0, ge=0)
    """Time between two checkpoints in seconds. Stopping at any moment costs at most this much."""
    log_steps: int = Field(20, ge=1)
    """Steps whose losses are averaged into one line of log.jsonl."""
    capture: bool = False
    """Whether a CUDA GPU repeats the steps of a stage as one recorded graph, where that proves to be the same: less time for
    Python, other rounding."""
    snapshots: int = Field(5, ge=0)
    """Steps, evenly spaced over the stages that train what predicts, whose networks are kept and scored for --select."""
    half_snapshots: bool = False
    """Whether snapshots are kept in half precision. Selectors then look at the rounded weights, which are those that a choice
    exports; training and the last snapshot, whose weights are the checkpoint's, are as ever."""
    keep: Literal["all", "training", "prediction"] = "all"
    """What stays of a run once it is scored: all; what training for more steps needs, without snapshots; or what prediction
    needs, without the checkpoint, too."""
    more_steps: tuple[PositiveInt, ...] | None = Field(None, min_length=1)
    """Steps by which the last stage goes on after its end, one number for each `train RUN --more-steps`."""
    warm_start: WarmStart | None = None
    """The run from whose weights this one starts, as `train --from RUN` names it; networks that it lacks start afresh."""


def refuse_source(settings: RunSettings, method: type[Alignment]) -> None:
    """ConfigError if a method that learns from the source has none, or if one that is source-free has no other start."""
    name, data = settings.alignment.name, settings.data
    if not method.source_free:
        if data.source is None:
            raise ConfigError(f"'{name}' learns from a source: name its prepared file with --source.")
        return
    if data.source is not None:
        raise ConfigError(f"'{name}' is source-free and never opens {data.source}: leave out data.source.")
    if settings.warm_start is None:
        raise ConfigError(
            f"'{name}' is source-free: it starts from a trained run and never reads the source. Type --from RUN, the folder of a "
            'run of any method, or a file of weights; in a suite write start = "LABEL OF A ROW".'
        )


def pinned(settings: RunSettings, source_hash: str, target_hash: str) -> RunSettings:
    """The settings with the hashes of the data; ConfigError if they name others. A source that is not read has none."""
    data = settings.data
    if data.source is None:
        source_hash = data.source_hash or ""
    for name, found in (("source", source_hash), ("target", target_hash)):
        expected = getattr(data, f"{name}_hash")
        if expected and expected != found:
            raise ConfigError(
                f"data.{name}: {getattr(data, name)} no longer holds what this run was made with (its hash is {found[:12]}, "
                f"not {expected[:12]}). Restore the file, or train into another --out."
            )
    data = data.model_copy(update={"source_hash": source_hash or None, "target_hash": target_hash})
    return settings.model_copy(update={"data": data})


def shaping(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings of a run without those that do not shape its result."""
    kept = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
    if isinstance(start := kept.get("warm_start"), Mapping):
        # What it starts from counts, not where that lies.
        kept["warm_start"] = {name: value for name, value in start.items() if name != "run"}
    return kept


_MAY_CHANGE = ("save_seconds", "log_steps", "capture", "snapshots", "half_snapshots", "keep")


def run_settings(data: Mapping[str, Any], registry: Resolver) -> RunSettings:
    """Validated settings."""
    return validate(RunSettings, data, registry)


def override(data: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """`--set` laid over `data`. A path that does not start with a top-level setting belongs to the alignment."""
    over: dict[str, Any] = {}
    for path, value in parse_set(words):
        put(over, path if path[0] in RunSettings.model_fields else ["alignment", *path], value)
    merged = merge(data, over)
    for name in ("source", "target"):
        if name in over.get("data", {}) and f"{name}_hash" not in over["data"]:
            merged["data"].pop(f"{name}_hash", None)
    return merged
