"""The whole `predict` of a run as one file for other programs, with the facts that they need around it."""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from attent_kit.data.space.slicing import ORDER, RULE
from attent_kit.engine.apply.card import run_card
from attent_kit.engine.apply.trained import Domain, LoadedRun, TrainedRun, load_run, open_run
from attent_kit.engine.run.assemble import patch_of, unwrapped
from attent_kit.engine.run.probe import networks_of_predict
from attent_kit.errors import ConfigError, RunError
from attent_kit.files import sha256, write_text, write_whole
from attent_kit.interfaces import Alignment
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST

FORMAT = "attent-kit export"
ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-3
"""Largest difference of a probability between the file and the run."""
SLICES = 3
"""Slices of a trial batch; not the number that the network is traced with, to show that the batch size is free."""


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported."""

    format: Literal["onnx", "torch-export"] = "onnx"
    output: Literal["logits", "probabilities"] = "logits"
    """What the file answers."""
    select: str = LAST
    """Snapshot of the run."""
    overwrite: bool = False
    """Whether existing files are replaced."""


class Predict(nn.Module):
    """The answer of a method to a batch of slices: [B, C, H, W] -> [B, K, H, W]."""

    def __init__(self, alignment: Alignment, output: str) -> None:
        super().__init__()
        self.alignment, self.output = alignment, output

    def forward(self, x: Tensor) -> Tensor:
        logits = self.alignment.predict(x).float()
        return logits.softmax(1) if self.output == "probabilities" else logits


def export_run(run: Path, out: Path, registry: Registry, options: ExportOptions = ExportOptions()) -> list[Path]:
    """OUT, the method's `predict` from a batch of slices, computed in float32; and beside it OUT's name with .json, the facts
    about what comes before and after. The files that are written.

    What was written is asked and compared with the run: RunError if it answers otherwise. ConfigError if the method cannot be
    exported, if what this needs is not installed, or if a file exists already.
    """
    facts = out.with_suffix(".json")
    if out.suffix != ENDINGS[options.format]:
        raise ConfigError(f"{out}: write a name that ends in {ENDINGS[options.format]}.")
    for path in (out, facts):
        if path.exists() and not options.overwrite:
            raise ConfigError(f"{path} exists already: name another file, or type --overwrite.")
    _require(options.format)
    trained = open_run(run, registry)
    if registry.alignment(trained.component.name).adapts():
        raise ConfigError(
            f"'{trained.component.name}' adapts to each volume before it predicts it, which no {options.format} file can hold: "
            "use `attentkit predict`, or export the run that it started from."
        )
    loaded = load_run(trained, registry, "cpu", options.select)
    if patch_of(loaded.alignment) is not None:
        raise ConfigError(
            f"'{trained.component.name}' segments volumes by windows that slide, which no {options.format} file holds: use "
            "`attentkit predict`, or give others the run with `attentkit pack`."
        )
    predict = as_plain(loaded.alignment, options.output, trained.domain.size)
    domain = trained.domain
    # Beside it first: a file that is there is replaced by one that answers as the run does, or not at all.
    trial = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        write_model(trial, predict, _slices(domain, 2))
        _compare(trial, out, predict, _slices(domain, SLICES), options)
        trial.replace(out)
    except (OSError, RunError):
        raise
    except Exception as error:  # whatever an exporter says of code that it cannot follow
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"'{trained.component.name}' cannot be exported as {options.format} ({type(error).__name__}: {reason}): try the "
            "other --format, or tell the author of its plugin."
        ) from error
    finally:
        trial.unlink(missing_ok=True)
    write_text(facts, json.dumps(_facts(out, trained, loaded, options), indent=2, ensure_ascii=False) + "\n")
    return [out, facts]


def as_plain(alignment: Alignment, output: str, size: int) -> Predict:
    """The networks that `predict` calls as they are, without the wrappers that choose a precision; all others are left out."""
    called = networks_of_predict(alignment, size, torch.device("cpu"))
    for name, child in list(alignment.named_children()):
        setattr(alignment, name, unwrapped(child) if name in called else nn.Identity())
    return Predict(alignment, output).eval().requires_grad_(False)


def _slices(domain: Domain, count: int) -> Tensor:
    """Smooth random slices [count, C, H, W] in [-1, 1], the same ones always."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, domain.task.channels, 8, 8, generator=generator) * 2 - 1
    return nn.functional.interpolate(coarse, (domain.size, domain.size), mode="bilinear")


def write_model(path: Path, predict: Predict, example: Tensor) -> None:
    """A network as ONNX or torch.export, by the ending of the file, that takes any number of slices like the `example`."""
    dynamic = ({0: torch.export.Dim("batch")},)
    with _quietly():
        if path.suffix == ENDINGS["torch-export"]:
            exported = torch.export.export(predict, (example,), dynamic_shapes=dynamic)
            write_whole(path, lambda temporary: _save(exported, temporary))
            return
        program: Any = torch.onnx.export(
            predict, (example,), dynamo=True, dynamic_shapes=dynamic, input_names=["slices"], output_names=["answer"],
            external_data=False, verbose=False,
        )  # fmt: skip
    content = program.model_proto.SerializeToString()
    write_whole(path, lambda temporary: _write(temporary, content))


def _save(exported: Any, path: Path) -> None:
    # By an open file: torch insists on names that end in .pt2.
    with open(path, "wb") as file:
        torch.export.save(exported, file)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _require(format: str) -> None:
    if format != "onnx":
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--format onnx needs {error.name}: type pip install 'attent-kit[onnx]'.") from error


def _compare(path: Path, out: Path, predict: Predict, x: Tensor, options: ExportOptions) -> None:
    """RunError if the file at `path`, which is to become `out`, does not answer as the run does."""
    with torch.no_grad():
        expected = predict(x)
    found = torch.from_numpy(answer_of(path, x.numpy()))
    if options.output == "logits":
        expected, found = expected.softmax(1), found.softmax(1)
    apart = float((expected - found).abs().max()) if expected.shape == found.shape else float("inf")
    if not apart <= TOLERANCE:
        raise RunError(
            f"{out} would not answer as the run does: probabilities differ by up to {apart:.2g}. Try the other --format."
        )


def answer_of(path: Path, x: np.ndarray) -> np.ndarray:
    """What an exported file answers to a batch of slices: float32 [B, C, H, W] -> [B, K, H, W]."""
    if path.suffix == ENDINGS["onnx"]:
        import onnxruntime

        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["answer"], {"slices": x})[0])
    with torch.no_grad(), open(path, "rb") as file:
        return np.asarray(torch.export.load(file).module()(torch.from_numpy(x)).numpy())


def _facts(path: Path, run: TrainedRun, loaded: LoadedRun, options: ExportOptions) -> dict[str, Any]:
    """What is written beside the file: everything between a volume and its label map that is not in it."""
    domain = run.domain
    side, channels = domain.size, domain.task.channels
    return {
        "format": FORMAT,
        "version": 1,
        "file": {"name": path.name, "format": options.format, "sha256": sha256(path)},
        "input": {
            "name": "slices",
            "dtype": "float32",
            "shape": ["batch", channels, side, side],
            "range": [-1, 1],
            "channels": "neighbouring slices in their order, the one to segment in the middle; the first and last are repeated"
            if channels > 1
            else f"one {domain.slicing.plane} slice",
        },
        "output": {
            "name": "answer",
            "dtype": "float32",
            "shape": ["batch", domain.task.classes, side, side],
            "values": options.output,
        },
        "preprocessing": {
            "intensity": domain.intensity.to_dict(),
            "intensity_rule": "at or below low becomes -1, at or above high becomes 1, linear between; percentiles are the 0.5th "
            "and 99.5th of the voxels above the minimum of the volume",
            "orientation": ORDER[domain.slicing.plane],
            **domain.slicing.to_dict(),
            **({"centre_rule": RULE} if domain.slicing.centre == "body" else {}),
            "resampling": "padded with air to a physical square, then averaged by area where pixels become larger and linear "
            "where they become smaller"
            if domain.slicing.pixel is None
            else "to pixels of pixel_mm, averaged by area where pixels become larger and linear where they become smaller; then "
            "cut or padded with air to size about the centre",
        },
        "postprocessing": {
            "labels": "probabilities are resampled linearly to the native grid, then the largest wins"
            + ("; softmax over axis 1 makes probabilities of logits" if options.output == "logits" else ""),
        },
        **run_card(run, loaded),
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters print about their own progress."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
