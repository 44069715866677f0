"""Which cases and slices of a prepared file the montage shows, and what it says about them."""

from pathlib import Path

import numpy as np

from attent_kit.data.prepared.file import Case, Prepared
from attent_kit.data.prepared.manifest import beside
from attent_kit.errors import ConfigError
from attent_kit.report.preview import CaseRow, View, is_montage, montage

CASES = 6
SLICES = 4


def refuse_preview(path: Path | None, out: Path) -> None:
    """ConfigError, before anything is read, if the picture of `out` cannot be written to `path`."""
    if path is None:
        return
    if path.suffix.lower() != ".png" or path.is_dir() or path.resolve() in (out.resolve(), beside(out).resolve()):
        raise ConfigError(f"{path}: the preview is a picture, so write a name that ends in .png.")
    if path.exists() and not is_montage(path):
        raise ConfigError(f"{path} exists already and is not a preview: name another --preview.")


def preview_of(domain: Prepared, path: Path) -> None:
    """A PNG of at most six cases, those with doubts before others: four axial slices and a coronal one of each."""
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
        "R is the patient's right; axial slices from the feet on the left to the head."
    )
    montage(rows, domain.organs, title, domain.manifest["decisions"], path)
    domain.close()


def slices_to_show(labels: np.ndarray | None, count: int) -> list[int]:
    """Slices spread evenly, from the feet up, over those with an organ, or over all `count` where none has one."""
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
    side = domain.grid(case.id).pixel * domain.size
    views = [
        View(f"slice {z + 1} of {case.slices}", images[z], None if labels is None else labels[z], side, side)
        for z in slices_to_show(labels, case.slices)
    ]
    row = domain.size // 2
    if labels is not None and labels.any():
        row = int((labels > 0).sum(axis=(0, 2)).argmax())
    # The slices of a coronal section are its rows, the head on top: out of order, they make an outline that is torn.
    height = case.slices * domain.grid(case.id).axial_spacing[0]
    across = None if labels is None else labels[::-1, row]
    return (*views, View("coronal, head on top", images[::-1, row], across, height, side))
