"""Memory and time of `predict` and `evaluate` on a large CT, beside those of the networks alone, in one process each.

    python benchmarks/prediction.py [--method source_only] [--set segmentor.encoder=resnet34] [--shape 512,512,300] [--write]

The CT is made here: a body with organs and noise in HU, as NIfTI with 16-bit voxels, compressed. The run has the networks of the
method with the weights that they begin with, since neither time nor memory depends on what they have learnt, and slices of
256 x 256 pixels. Networks are timed within the very process that predicts. With one thread the ratio of processor times says the
same on a machine that has other things to do; wall time is given beside it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

RESULT = Path(__file__).parent / "results" / "prediction.md"
ORGANS = ("liver", "right kidney", "left kidney", "spleen")
DATA = {"source": "mr.h5", "target": "ct.h5", "source_hash": "none", "target_hash": "none"}


def main() -> None:
    """Print a Markdown table, and write the result file if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", default="source_only")
    parser.add_argument("--set", dest="words", action="append", default=[], metavar="OPTION=VALUE")
    parser.add_argument("--shape", default="512,512,300", help="voxels along X, Y and Z")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--note", default="", help="a few words in the heading of the table")
    parser.add_argument("--write", action="store_true", help=f"leave the table in {RESULT.name}, below what is there")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = measured(Path(folder), options)
    print("\n".join(lines))
    if options.write:
        before = RESULT.read_text(encoding="utf-8") if RESULT.exists() else "# Prediction and scoring of a large CT\n"
        RESULT.write_text(before.rstrip() + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def measured(place: Path, options: argparse.Namespace) -> list[str]:
    """The table, from a child process for each command."""
    import torch

    shape = tuple(int(word) for word in options.shape.split(","))
    write_ct(place / "ct.nii.gz", place / "truth.nii.gz", shape)
    make_run(place / "run", options.method, options.words)
    labels = place / "labels.nii.gz"
    predicted = of_child(options, "predict", place / "run", place / "ct.nii.gz", labels)
    scored = of_child(options, "evaluate", labels, place / "truth.nii.gz")
    networks = predicted["networks"]
    words = " ".join(
        ["--method", options.method, *(f"--set {word}" for word in options.words), f"--shape {options.shape}"]
    )
    return [
        f"## {options.note or options.method}",
        "",
        f"`python benchmarks/prediction.py {words} --device {options.device}`, {date.today()}, {processor()}, torch "
        f"{torch.__version__}, one thread. {' x '.join(map(str, shape))} voxels.",
        "",
        "| | processor time, s | wall time, s | processor time / networks | peak memory, GiB |",
        "|---|---:|---:|---:|---:|",
        f"| networks alone | {networks['cpu']:.1f} | {networks['wall']:.1f} | 1 | |",
        *(
            f"| `{name}` | {found['cpu']:.1f} | {found['wall']:.1f} | {found['cpu'] / networks['cpu']:.2f} | "
            f"{found['peak'] / 2**30:.2f} |"
            for name, found in (("predict", predicted), ("evaluate", scored))
        ),
        "",
        "The command's start and its imports are included: "
        f"{predicted['start']:.1f} s of processor time of `predict`, {scored['start']:.1f} s of `evaluate`.",
    ]


def of_child(options: argparse.Namespace, *words: object) -> dict[str, Any]:
    """What a process of its own says of a command."""
    command = [sys.executable, __file__, "--device", options.device, "--child", *map(str, words)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(answer.stderr)
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def child(words: list[str], device: str) -> dict[str, Any]:
    """Run a command in this process; seconds of it and of its networks, and its peak memory in bytes."""
    import torch

    from attent_kit.cli import run
    from attent_kit.engine.run import predict

    torch.set_num_threads(1)
    start, networks = time.process_time(), {"cpu": 0.0, "wall": 0.0}
    predict.adapted = timed(predict.adapted, networks)  # type: ignore[assignment]
    more = ["-d", device] if words[0] == "predict" else []
    sys.stdout, real = sys.stderr, sys.stdout
    code = run([*words, *more])
    sys.stdout = real
    if code:
        raise SystemExit(code)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    return {
        "cpu": time.process_time(), "wall": time.time() - began(), "start": start, "networks": networks, "peak": peak,
    }  # fmt: skip


def timed(adapted: Callable[..., Any], into: dict[str, float]) -> Callable[..., Any]:
    """What hands out the `predict` of a volume, with a clock around each call of it."""

    @contextmanager
    def clocked(*given: Any) -> Iterator[Callable[[Any], Any]]:
        with adapted(*given) as predict:

            def asked(x: Any) -> Any:
                cpu, wall = time.process_time(), time.perf_counter()
                answer = predict(x)
                into["cpu"] += time.process_time() - cpu
                into["wall"] += time.perf_counter() - wall
                return answer

            yield asked

    return clocked


def began() -> float:
    """When this process did, in seconds since the epoch; on systems without /proc, when this module was imported."""
    try:
        return Path("/proc/self").stat().st_ctime
    except OSError:
        return _IMPORTED


_IMPORTED = time.time()


def write_ct(image: Path, labels: Path, shape: tuple[int, ...]) -> None:
    """A body in air with four ellipsoids for organs, in HU, and the label map of these."""
    x, y, z = (np.linspace(-1, 1, count, dtype=np.float32) for count in shape)
    inside = (x[:, None] / 0.8) ** 2 + (y[None] / 0.6) ** 2
    truth = np.zeros(shape, np.uint8)
    for value, (cx, cy, cz, radius) in enumerate(
        ((-0.35, -0.1, 0.2, 0.3), (-0.3, 0.25, -0.1, 0.13), (0.3, 0.25, -0.1, 0.13), (0.45, 0.0, 0.25, 0.15)), start=1
    ):
        distance = (x - cx)[:, None, None] ** 2 + (y - cy)[None, :, None] ** 2 + ((z - cz) / 1.5)[None, None] ** 2
        truth[(distance < radius**2) & (truth == 0)] = value
    generator = np.random.default_rng(0)
    greys = np.array([20, 110, 160, 160, 120], np.int16)
    array = np.empty(shape, np.int16)
    for slice_ in range(shape[2]):
        noise = generator.normal(0, 12, shape[:2]).astype(np.int16)
        array[..., slice_] = np.where(inside < 1, greys[truth[..., slice_]] + noise, -1000)
    affine = np.diag([-0.75, -0.75, 1.5, 1.0])
    for path, values in ((image, array), (labels, truth)):
        made = nib.Nifti1Image(values, affine)
        made.set_qform(affine, 1)
        made.set_sform(affine, 1)
        nib.save(made, path)


def make_run(folder: Path, method: str, words: list[str]) -> None:
    """The folder of a run as `train` leaves it, but that its networks are those that it would have begun with."""
    import torch

    from attent_kit.build import build_alignment
    from attent_kit.config import dump, to_toml
    from attent_kit.engine.run import checkpoint
    from attent_kit.engine.run.exported import export_networks
    from attent_kit.engine.run.settings import override, run_settings
    from attent_kit.files import write_signed
    from attent_kit.interfaces import Task
    from attent_kit.plugins import load

    registry, task = load().registry, Task(1, ORGANS)
    settings = run_settings(
        override({"alignment": {"name": method}, "data": DATA, "precision": "32-true"}, words), registry
    )
    config = dump(settings)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    facts = {
        "domain": "ct", "modality": "ct", "organs": list(ORGANS), "size": 256, "channels": 1, "pixel_mm": None,
        "intensity": {"kind": "window", "low": -125.0, "high": 275.0}, "training": None, "phantom": [],
        "source": {"domain": "mr", "modality": "mr", "cases": 1},
    }  # fmt: skip
    write_signed(folder / "domain.json", facts)
    alignment = build_alignment(settings.alignment, registry, task, 0)
    made_by = {"config": checkpoint.fingerprint(config)}
    export_networks(folder / "segmentor.safetensors", alignment, 64, torch.device("cpu"), made_by)


def processor() -> str:
    """Its name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


if __name__ == "__main__":
    main()
