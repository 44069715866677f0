"""What a segmentor meets in prepared files, organ by organ: sizes, grey values, contrast, texture, outlines, field of view.

    python benchmarks/phantom_vs_real.py ct.h5 mr.h5

Of every labelled case, and of each organ that it annotates, in slices as they are trained on, [-1, 1]:

    pixels      of the organ in all slices, in cm³ of the patient
    grey        mean inside its outline
    SD          inside its outline: noise, texture and uneven fields together
    contrast    grey inside minus grey of the ring 2 to 3 pixels outside
    CNR         |contrast| over the root mean square of both SDs
    lag 1       correlation of neighbours along a row, inside: 0 is white noise, 1 is smooth
    edge        mean gradient on the outline per pixel, over |contrast|: how sharp it is

Printed as a Markdown table, mean ± SD over cases.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from attent_kit.data.prepared.file import Prepared

COLUMNS = ("cm³", "grey", "SD", "contrast", "CNR", "lag 1", "edge")
FEWEST = 20
"""Pixels of an organ below which nothing is said of it."""


def organ_facts(x: np.ndarray, organ: np.ndarray, millilitres: float) -> list[float] | None:
    """COLUMNS of one organ of one case: x and organ [Z, H, W]; None where there is too little of it."""
    if organ.sum() < FEWEST:
        return None
    inside, ring, edges, left, right = [], [], [], [], []
    for image, mask in zip(x, organ, strict=True):
        if not mask.any():
            continue
        core = ndimage.binary_erosion(mask)
        inside.append(image[core if core.any() else mask])
        ring.append(image[ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask)])
        gradient = np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1)) / 8
        edges.append(gradient[mask & ~core])
        both = core[:, 1:] & core[:, :-1]
        left.append(image[:, :-1][both])
        right.append(image[:, 1:][both])
    a, b, e, p, q = map(np.concatenate, (inside, ring, edges, left, right))
    contrast = float(a.mean() - b.mean())
    noise = float(np.sqrt((a.var() + b.var()) / 2))
    lag = float(np.corrcoef(p, q)[0, 1]) if len(p) > FEWEST and p.std() > 0 and q.std() > 0 else float("nan")
    sharp = float(e.mean() / abs(contrast)) if abs(contrast) > 0.02 else float("nan")
    return [organ.sum() * millilitres, a.mean(), a.std(), contrast, abs(contrast) / max(noise, 1e-6), lag, sharp]


def frame_facts(x: np.ndarray) -> tuple[float, float]:
    """Share of the frame that the body fills, and share of the frame's border on which it is cut off, in slices with a body."""
    filled, cut = [], []
    for image in x:
        body = ndimage.binary_fill_holes(ndimage.binary_opening(image > -0.9))
        if body.any():
            filled.append(body.mean())
            cut.append(np.concatenate([body[0], body[-1], body[:, 0], body[:, -1]]).mean())
    return float(np.mean(filled)), float(np.mean(cut))


def table(path: Path) -> list[str]:
    """Lines of Markdown about one prepared file."""
    prepared = Prepared.open(path)
    facts: dict[str, list[list[float]]] = {organ: [] for organ in prepared.organs}
    frames, hidden = [], dict.fromkeys(prepared.organs, 0)
    cases = [case for case in prepared.cases if case.has_labels]
    for case in cases:
        x = prepared.slices(case.id)[:, prepared.channels // 2].astype(np.float32)
        y = prepared.label_slices(case.id)
        frames.append(frame_facts(x[list(case.kept)]))
        grid = prepared.grid(case.id)
        millilitres = grid.pixel**2 * float(np.abs(np.linalg.det(np.array(grid.affine)[:3, :3]))) / 1000
        millilitres /= float(np.prod(sorted(case.spacing)[:2]))
        for n, organ in enumerate(prepared.organs, start=1):
            if organ in case.annotated:
                found = organ_facts(x, y == n, millilitres)
                if found is None:
                    hidden[organ] += 1
                else:
                    facts[organ].append(found)
    filled, cut = np.mean(frames, axis=0)
    lines = [
        f"**{path.name}**: {len(cases)} cases, {prepared.size} px of {prepared.grid(cases[0].id).pixel:.1f} mm, body fills "
        f"{100 * filled:.0f} % of a frame and is cut on {100 * cut:.1f} % of its border.",
        "",
        "| organ | " + " | ".join(COLUMNS) + " | not there |",
        "|---|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for organ, found in facts.items():
        cells = [f"{np.nanmean(column):.3g} ± {np.nanstd(column):.2g}" for column in zip(*found, strict=True)]
        lines.append(f"| {organ} | {' | '.join(cells)} | {hidden[organ]} |")
    return [*lines, ""]


def main(words: Sequence[str]) -> None:
    print("\n".join(line for word in words for line in table(Path(word))))


if __name__ == "__main__":
    main(sys.argv[1:])
