"""Time ASSD and HD95 of four organs beside MONAI and surface-distance, in one process on one thread.

    python benchmarks/distances.py

Prints a table and writes results/distances.md. The volume is made here: four organs of adult size with wavy surfaces
and a prediction whose surface errs by a few mm. MONAI and surface-distance start from masks cut out beforehand, this
package from the label maps, so that its own cutting out is inside its time.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import datetime
import platform
import statistics
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from attent_kit import __version__
from attent_kit.metrics import organ_metrics, surfaces

SHAPE, SPACING = (512, 512, 100), (0.75, 0.75, 2.5)
CENTRE_RADIUS = {  # mm
    "liver": ((130, 200, 150), (85, 65, 70)),
    "right kidney": ((120, 250, 90), (26, 26, 52)),
    "left kidney": ((265, 255, 95), (26, 26, 52)),
    "spleen": ((290, 235, 150), (42, 30, 50)),
}
ORGANS = tuple(CENTRE_RADIUS)
REPEATS = 5


def main() -> None:
    warnings.simplefilter("ignore")
    prediction, truth = volume(np.random.default_rng(0))
    masks = [(prediction == label, truth == label) for label in range(1, len(ORGANS) + 1)]
    contenders = {
        "attent-kit, seven rows an organ: Dice, ASSD and HD95 in mm and voxels, volumes": lambda: own_rows(
            prediction, truth
        ),
        "attent-kit, ASSD and HD95 in mm": lambda: own_masks(masks),
        "MONAI, compute_average_surface_distance and compute_hausdorff_distance": monai_metrics(masks),
        "MONAI, its internal surface distances used for both": monai_once(masks),
        "surface-distance, average and robust Hausdorff distance": lambda: surface_distance_metrics(masks),
    }
    results, times = {}, {name: [] for name in contenders}
    for repeat in range(REPEATS + 1):  # the first warms up
        for name, run in contenders.items():
            start = time.perf_counter()
            results[name] = run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    ours, alone, monai, once, _ = results.values()
    for other in (alone, monai, once):
        np.testing.assert_allclose(ours, other, rtol=1e-6)
    report = table(times)
    print(report)
    (Path(__file__).parent / "results" / "distances.md").write_text(report, encoding="utf-8")


def volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth, uint8 labels."""
    prediction, truth = np.zeros((2, *SHAPE), np.uint8)
    for label, (centre, radius) in enumerate(CENTRE_RADIUS.values(), start=1):
        reach = [1.4 * r for r in radius]
        box = tuple(
            slice(max(0, int((c - d) / s)), min(n, int((c + d) / s) + 1))
            for c, d, s, n in zip(centre, reach, SPACING, SHAPE, strict=True)
        )
        x = [np.arange(side.start, side.stop) * s for side, s in zip(box, SPACING, strict=True)]
        grid = np.meshgrid(*x, indexing="ij", sparse=True)
        unit = np.sqrt(sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True)))
        depth = (unit - 1) * min(radius) + waves(rng, grid, amplitude=4, wavelength=40)
        truth[box][depth < 0] = label
        prediction[box][depth + waves(rng, grid, amplitude=2, wavelength=25) < 0] = label
    return prediction, truth


def waves(rng: np.random.Generator, grid: list[np.ndarray], amplitude: float, wavelength: float) -> np.ndarray:
    """A smooth random field in mm, a sum of plane waves."""
    count = 12
    field = 0
    for _ in range(count):
        direction = rng.normal(size=3) * 2 * np.pi / wavelength
        phase = sum(k * g for k, g in zip(direction, grid, strict=True)) + rng.uniform(0, 2 * np.pi)
        field = field + np.sin(phase)
    return amplitude * field / np.sqrt(count / 2)


def own_rows(prediction, truth):
    rows = organ_metrics(prediction, truth, ORGANS, SPACING)
    return [tuple(row.value for row in rows if (row.organ, row.unit) == (organ, "mm")) for organ in ORGANS]


def own_masks(masks):
    return [tuple(surfaces(*pair).metrics(SPACING)) for pair in masks]


def monai_metrics(masks):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    torch.set_num_threads(1)
    batches = [[torch.from_numpy(mask)[None, None] for mask in pair] for pair in masks]
    options = {"include_background": True, "spacing": SPACING}

    def run():
        return [
            (
                compute_average_surface_distance(*pair, symmetric=True, **options).item(),
                compute_hausdorff_distance(*pair, percentile=95, **options).item(),
            )
            for pair in batches
        ]

    return run


def monai_once(masks):
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    tensors = [[torch.from_numpy(mask) for mask in pair] for pair in masks]

    def run():
        found = [get_edge_surface_distance(*pair, spacing=SPACING, symmetric=True)[1] for pair in tensors]
        return [
            (torch.cat(both).mean().item(), max(torch.quantile(one, 0.95).item() for one in both)) for both in found
        ]

    return run


def surface_distance_metrics(masks):
    import surface_distance

    found = [surface_distance.compute_surface_distances(truth, prediction, SPACING) for prediction, truth in masks]
    return [
        (
            surface_distance.compute_average_surface_distance(one),
            surface_distance.compute_robust_hausdorff(one, 95),
        )
        for one in found
    ]


def table(times: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    first = next(iter(medians.values()))
    versions = ("numpy", "scipy", "torch", "monai", "surface-distance")
    lines = [
        "# ASSD and HD95 of four organs",
        "",
        f"`python benchmarks/distances.py`, {datetime.date.today()}, one thread of {processor()}, Python "
        f"{platform.python_version()}, attent-kit {__version__}, "
        + ", ".join(f"{name} {version(name)}" for name in versions)
        + ".",
        "",
        f"A made volume of {SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]} voxels of {SPACING[0]} x {SPACING[1]} x "
        f"{SPACING[2]} mm with liver, kidneys and spleen; median and range of {REPEATS} repeats, taken in turn, "
        f"at a load average of {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores. "
        "attent-kit's first row starts from label maps, all others from masks cut out beforehand. attent-kit and "
        "MONAI agree to 1e-6; surface-distance weighs by surface area, so its numbers differ a little by definition.",
        "",
        "| what is computed | median s | range s | attent-kit's first row takes |",
        "|---|---|---|---|",
    ]
    for name, seconds in times.items():
        ratio = f"{first / medians[name]:.2f} of it"
        lines.append(f"| {name} | {medians[name]:.2f} | {min(seconds):.2f}-{max(seconds):.2f} | {ratio} |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
