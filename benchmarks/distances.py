"""Time the scoring of four organs beside MONAI and surface-distance, in one process on one thread.

    python benchmarks/distances.py

Prints a table and writes results/distances.md. The volume is made here: four organs of adult size with wavy surfaces
and a prediction whose surface is off by a few mm. MONAI and surface-distance start from masks cut out beforehand, this
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
from attent_kit.metrics import protocol

SHAPE, SPACING = (512, 512, 150), (0.75, 0.75, 2.0)
CENTRE_RADIUS = {  # mm
    "liver": ((130, 200, 150), (85, 65, 70)),
    "right kidney": ((120, 250, 90), (26, 26, 52)),
    "left kidney": ((265, 255, 95), (26, 26, 52)),
    "spleen": ((290, 235, 150), (42, 30, 50)),
}
ORGANS = tuple(CENTRE_RADIUS)
TOLERANCE = 2.0
"""mm, of the surface Dice."""
REPEATS = 5


def main() -> None:
    warnings.simplefilter("ignore")
    prediction, truth = volume(np.random.default_rng(0))
    masks = [(prediction == label, truth == label) for label in range(1, len(ORGANS) + 1)]
    contenders = {
        "attent-kit, protocol 3d-mm: Dice, ASSD and HD95 in mm and voxels, surface Dice, volumes": lambda: own(
            prediction, truth
        ),
        "MONAI, compute_average_surface_distance, _hausdorff_distance and _surface_dice": monai_metrics(masks),
        "MONAI, the first two from one search of its internal function, without surface Dice": monai_once(masks),
        "surface-distance, average, robust Hausdorff and surface Dice from one search": lambda: surface_distance(masks),
    }
    results, times = {}, {name: [] for name in contenders}
    for repeat in range(REPEATS + 1):  # the first warms up
        for name, run in contenders.items():
            start = time.perf_counter()
            results[name] = run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    ours, monai, once, theirs = (np.array(found) for found in results.values())
    np.testing.assert_allclose(ours, monai, rtol=1e-6)
    np.testing.assert_allclose(ours[:, :2], once, rtol=1e-6)
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=1e-6)
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


def own(prediction, truth):
    """ASSD and HD95 in mm and surface Dice of each organ, of all rows."""
    rows = protocol("3d-mm").rows(prediction, truth, ORGANS, SPACING)
    value = {(row.organ, row.metric, row.unit): row.value for row in rows}
    wanted = (("assd", "mm"), ("hd95", "mm"), ("nsd 2 mm", "fraction"))
    return [tuple(value[organ, *metric] for metric in wanted) for organ in ORGANS]


def monai_metrics(masks):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    torch.set_num_threads(1)
    batches = [[torch.from_numpy(mask)[None, None] for mask in pair] for pair in masks]
    options = {"include_background": True, "spacing": SPACING}

    def run():
        return [
            (
                compute_average_surface_distance(*pair, symmetric=True, **options).item(),
                compute_hausdorff_distance(*pair, percentile=95, **options).item(),
                compute_surface_dice(*pair, class_thresholds=[TOLERANCE], use_subvoxels=True, **options).item(),
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


def surface_distance(masks):
    import surface_distance as package

    found = [package.compute_surface_distances(truth, prediction, SPACING) for prediction, truth in masks]
    return [
        (
            float(np.mean(package.compute_average_surface_distance(one))),
            package.compute_robust_hausdorff(one, 95),
            package.compute_surface_dice_at_tolerance(one, TOLERANCE),
        )
        for one in found
    ]


def table(times: dict[str, list[float]]) -> str:
    own_times = next(iter(times.values()))
    versions = ("numpy", "scipy", "torch", "monai", "surface-distance")
    lines = [
        "# Scoring four organs",
        "",
        f"`python benchmarks/distances.py`, {datetime.date.today()}, one thread of {processor()}, Python "
        f"{platform.python_version()}, attent-kit {__version__}, "
        + ", ".join(f"{name} {version(name)}" for name in versions)
        + ".",
        "",
        f"A made-up volume of {SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]} voxels of {SPACING[0]} x {SPACING[1]} x "
        f"{SPACING[2]} mm with liver, kidneys and spleen; {REPEATS} repeats, taken in turn. The machine was shared with "
        f"other work, load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores, so seconds are not those of an idle "
        "one; a ratio is of two runs that followed each other, and the median of those is given. attent-kit starts from "
        "label maps, all others from masks cut out beforehand. ASSD and HD95 agree with MONAI's, and the surface Dice "
        f"within {TOLERANCE:g} mm with both, to 1e-6; surface-distance weighs the other two by area, which is another "
        "definition.",
        "",
        "| what is computed | median s | range s | attent-kit takes |",
        "|---|---|---|---|",
    ]
    for name, seconds in times.items():
        ratio = statistics.median(own / other for own, other in zip(own_times, seconds, strict=True))
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        lines.append(f"| {name} | {statistics.median(seconds):.2f} | {spread} | {ratio:.2f} of it |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
