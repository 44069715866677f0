"""attent-kit from Python: `import attent_kit as ak`, and what the main commands do is a function.

    mr = ak.prepare("CHAOS/Train_Sets", "mr.h5", part="t2spir")
    ct = ak.prepare("BTCV/RawData", "ct.h5")
    trained = ak.train("attent", source="mr.h5", target="ct.h5", out="runs/attent", set={"segment_steps": 300})
    labels = ak.open_run("runs/attent").predict("new_ct.nii.gz").labels
    comparison = ak.compare("mine.toml", seeds=[0, 1, 2])

Each function takes what its command takes, under the same names, answers with a typed value, and raises the errors of the
command as exceptions: ConfigError, DataError and RunError, all of them an AttentKitError. Installed plugins are loaded at the
first call.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.plugins import load
from attent_kit.registry import ALL_KINDS, Component

if TYPE_CHECKING:
    from attent_kit.data.check.check import CheckResult
    from attent_kit.data.phantom.write import WrittenPhantom
    from attent_kit.data.prepared.file import Prepared
    from attent_kit.data.workers import ReportDone
    from attent_kit.engine.apply.model import Model
    from attent_kit.engine.conduct.compare import CompareResult
    from attent_kit.engine.conduct.doctor import Doctor
    from attent_kit.engine.conduct.train import TrainResult
    from attent_kit.engine.conduct.watcher import Watcher
    from attent_kit.engine.run.dropped import Keep
    from attent_kit.engine.train.train import TrainWatcher

Place = str | Path
T = TypeVar("T")


def components(kind: str | None = None) -> list[Component]:
    """Every installed component, kind by kind, or those of one kind: "alignments", "segmentors", "layouts", ...

    Each has a name, where it comes from, and `load()`, which is its class. ConfigError for an unknown kind.
    """
    if kind is not None and kind not in ALL_KINDS:
        raise ConfigError(
            f"there is no kind '{kind}'.{did_you_mean(kind, ALL_KINDS)} The kinds: {', '.join(ALL_KINDS)}."
        )
    registry = load().registry
    return [component for each in ALL_KINDS if kind in (None, each) for component in registry.of(each)]


def phantom(out: Place, **options: Any) -> "WrittenPhantom":
    """Write a labelled phantom, CT and MR abdomens of different patients; options as `attentkit phantom` has them.

    They are the fields of `PhantomOptions`: size, seed, layout, ... ConfigError if `out` holds something else.
    """
    from attent_kit.data.phantom.options import PhantomOptions
    from attent_kit.data.phantom.write import write_phantom

    return write_phantom(Path(out), _options(PhantomOptions, options))


def prepare(
    path: Place, out: Place, *, preview: Place | None = None, workers: int | None = None, **options: Any
) -> "Prepared":
    """Turn the data set at `path` into the prepared file `out`, and open it; options as `attentkit prepare` has them.

    They are the fields of `PrepareOptions`: part, labels, modality, organs, size (pixels), pixel (mm), split, ... `preview` is a
    picture of some cases to write. ConfigError for options that do not fit the data set, DataError for files that cannot be
    used, RunError where nothing can be written; an existing `out` is then as it was.
    """
    from attent_kit.data.prepare.options import PrepareOptions
    from attent_kit.data.prepare.prepare import prepare_data_set

    return prepare_data_set(
        Path(path), Path(out), load().registry, _options(PrepareOptions, options),
        preview=None if preview is None else Path(preview), workers=workers,
    )  # fmt: skip


def open_prepared(path: Place) -> "Prepared":
    """A file that `prepare` has written: its cases, organs and splits, and its slices.

    Those are [N, C, H, W] float16 in [-1, 1], their labels [N, H, W] uint8. DataError if the file is missing, damaged or of
    another format; what is damaged in a case is met when that case is read.
    """
    from attent_kit.data.prepared.file import Prepared

    return Prepared.open(Path(path))


def check(*paths: Place, **options: Any) -> "CheckResult":
    """Look for what is wrong with data sets or prepared files: findings, each with its numbers and what to do.

    Options are the fields of `CheckOptions`, as `attentkit check` has them. ConfigError for options that do not fit, DataError
    for a place that does not exist; whatever is wrong with the data itself is a finding.
    """
    from attent_kit.data.check.check import CheckOptions
    from attent_kit.data.check.check import check as look

    return look([Path(path) for path in paths], load().registry, _options(CheckOptions, options))


def train(alignment: str | None = None, *, watcher: "TrainWatcher | None" = None, **options: Any) -> "TrainResult":
    """Train a method on two prepared files and score it: `train("attent", source="mr.h5", target="ct.h5", out="runs/attent")`.

    Options are the fields of `TrainRequest`: source, target, set, seed, device, out, select, ... The same call goes on with a
    run that was stopped, and answers at once for one that is finished. ConfigError before anything is trained for what cannot
    be run; RunError if a loss is no longer finite.
    """
    from attent_kit.engine.conduct.train import TrainRequest
    from attent_kit.engine.conduct.train import train as conduct

    return conduct(_options(TrainRequest, {"alignment": alignment, **options}), load().registry, watcher)


def open_run(path: Place, device: str = "auto", select: str = "last") -> "Model":
    """A trained run, from its folder or from a zip of `attentkit pack`, ready to `predict` and `translate`.

    Answers are on the grid of the image, [X, Y, Z]: labels uint8, probabilities float32 [X, Y, Z, K], volumes in ml. ConfigError
    if there is no run or one of its plugins is missing; RunError if it is damaged.
    """
    from attent_kit.engine.apply.model import open_model

    return open_model(path, load().registry, device, select)


def compare(suite: Any = "phantom", *, watcher: "Watcher | None" = None, **options: Any) -> "CompareResult":
    """Run what is missing of a comparison: a TOML file, the name of an installed suite, or a `Suite`.

    Options are the fields of `CompareRequest`: alignments, seeds, directions, set, out, ablate, devices, ... A run that fails
    does not stop the others: it is in `failed`, and `check()` of the result raises what the command would end with. ConfigError
    or DataError before anything is trained for what cannot be run. Scores keep their units (fraction, mm); tables show %.
    """
    from attent_kit.engine.conduct.compare import compare as conduct
    from attent_kit.engine.conduct.request import CompareRequest

    return conduct(_options(CompareRequest, {"suite": suite, **options}), load().registry, watcher)


def doctor(place: Place | None = None, *, keep: "Keep" = "all", tell: "ReportDone | None" = None) -> "Doctor":
    """What this machine offers; and of a folder of results, a run or a prepared file, what is damaged, unfinished, held or
    superseded. Nothing is changed: `clean` of the result removes what may go. With `keep` "training" or "prediction" so may what
    finished runs have beyond that: snapshots, and checkpoints, too.

    Sizes are in bytes. ConfigError if there are no results at `place`, DataError for a file that is not a prepared one.
    """
    from attent_kit.engine.conduct.doctor import doctor as conduct

    aside = {f"{plugin.name} ({plugin.distribution} {plugin.version})": plugin.error for plugin in load().quarantined}
    return conduct(None if place is None else Path(place), aside, tell, keep)


def _options(model: Callable[..., T], given: dict[str, Any]) -> T:
    """The options model from keywords; ConfigError that names the nearest option for one that it has not."""
    known: Sequence[str] = [field.name for field in fields(model)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise ConfigError(f"there is no option '{name}'.{did_you_mean(name, known)} There are: {', '.join(known)}.")
    return model(**given)
