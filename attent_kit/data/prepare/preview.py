"""Which cases and slices of a prepared file the montage shows, and what it says about them."""

from pathlib import Path

import numpy as np

from attent_kit.data.prepared.file import Case, Prepared
from attent_kit.data.prepared.manifest import beside
from attent_kit.data.space.geometry import Grid, spacing_to_axial, to_axial
from attent_kit.errors import ConfigError
from attent_kit.report.preview import CaseRow, View, is_montage, montage

CASES = 6
SLICES = 4
_ORDER = {
    "axial": "axial slices from the feet on the left to the head",
    "sagittal": "sagittal slices from the patient's right on the left to the patient's left",
    "coronal": "coronal slices from the front on the left to the back",
}
_SIDES = {"axial": ("R", "L"), "sagittal": ("A", "P"), "coronal": ("R", "L")}
"""What columns begin and end with."""


def refuse_preview(path: Path | None, out: Path) -> None:
    """ConfigError, before anything is read, if the picture of `out` cannot be written to `path`."""
    if path is None:
        return
    if path.suffix.lower() != ".png" or path.is_dir() or path.resolve() in (out.resolve(), beside(out).resolve()):
        raise ConfigError(f"{path}: the preview is a picture, so write a name that ends in .png.")
    if path.exists() and not is_montage(path):
        raise ConfigError(f"{path} exists already and is not a preview: name another --preview.")


def preview_of(domain: Prepared, path: Path) -> None:
    """A PNG of at most six cases, those with doubts before others: four of its slices and a section across them of each."""
    records = {record["id"]: record for record in domain.manifest["cases"]}
    rows = []
    for case in _cases_to_show(domain):
        record = records[case.id]
        x, y, z = record["shape"]
        spacing = " x ".join(f"{s:.3g}" for s in case.spacing)
        facts = [f"{', '.join(case.splits)}; {x}x{y}x{z}, {spacing} mm, {record['orientation']}"]
        if case.has_labels:
            ml = float(np.prod(case.spacing)) / 1000
            found = [f"{organ} {n * ml:.0f} ml" for organ, n in record["labels"]["voxels"].items()]
            unknown = [organ for organ in domain.organs if organ not in case.annotated]
            facts.append(", ".join(found) + (f"; not annotated: {', '.join(unknown)}" if unknown else ""))
        else:
            facts.append("no labels")
        facts.extend(record["decisions"])
        rows.append(CaseRow(case.id, tuple(facts), tuple(record["doubts"]), _views(domain, case)))
    grey = domain.intensity
    scale = f"{grey.low:g} to {grey.high:g}" if grey.low is not None and grey.high is not None else grey.kind
    title = (
        f"{domain.domain}: {len(domain.cases)} case(s), {len(rows)} shown. Grey values {scale}. "
        f"{'Centred on the body, and air around it. ' if domain.centre == 'body' else ''}"
        f"R is the patient's right{', A the front' if domain.plane == 'sagittal' else ''}; {_ORDER[domain.plane]}."
    )
    montage(rows, domain.organs, title, domain.manifest["decisions"], path)
    domain.close()


def slices_to_show(labels: np.ndarray | None, count: int) -> list[int]:
    """Slices spread evenly over those with an organ, or over all `count` where none has one."""
    with_organ = [] if labels is None else np.flatnonzero(labels.any(axis=(1, 2))).tolist()
    candidates = with_organ or list(range(count))
    middles = [int((2 * n + 1) * len(candidates) / (2 * SLICES)) for n in range(SLICES)]
    return [candidates[n] for n in dict.fromkeys(middles)]


def _cases_to_show(domain: Prepared) -> list[Case]:
    doubtful = {record["id"] for record in domain.manifest["cases"] if record["doubts"]}
    first = [case for case in domain.cases if case.id in doubtful][:CASES]
    rest = [case for case in domain.cases if case.id not in doubtful]
    free = min(CASES - len(first), len(rest))
    spread = [rest[int((2 * n + 1) * len(rest) / (2 * free))] for n in range(free)]
    return sorted([*first, *spread], key=lambda case: case.id)


def _views(domain: Prepared, case: Case) -> tuple[View, ...]:
    images = domain.slices(case.id)[:, domain.channels // 2].astype(np.float32)
    labels = domain.label_slices(case.id) if case.has_labels else None
    grid = domain.grid(case.id)
    side = grid.pixel * domain.size
    views = [
        View(
            f"slice {z + 1} of {case.slices}",
            images[z],
            None if labels is None else labels[z],
            side,
            side,
            _SIDES[grid.plane],
        )
        for z in slices_to_show(labels, case.slices)
    ]
    return (*views, _across(images, labels, grid))


def _across(images: np.ndarray, labels: np.ndarray | None, grid: Grid) -> View:
    """A section across all slices, where one that is out of order makes an outline that is torn: coronal, of coronal slices
    axial. It goes through the most of the organs."""
    axial = to_axial(images, grid.plane)
    drawn = None if labels is None else to_axial(labels, grid.plane)
    up, back, left = (
        count * mm
        for count, mm in zip(
            axial.shape, spacing_to_axial((grid.distance, grid.pixel, grid.pixel), grid.plane), strict=True
        )
    )
    level = grid.plane == "coronal"
    others = (1, 2) if level else (0, 2)
    middle = axial.shape[0 if level else 1] // 2
    if drawn is not None and drawn.any():
        middle = int((drawn > 0).sum(axis=others).argmax())
    section = middle if level else (slice(None, None, -1), middle)
    return View(
        "axial, front on top" if level else "coronal, head on top", axial[section], None if drawn is None else drawn[section],
        back if level else up, left, _SIDES["axial"],
    )  # fmt: skip
