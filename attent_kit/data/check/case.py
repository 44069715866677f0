"""One case by itself: do labels and image fit each other, does the body stand upright, are the organs there.

Shapes: Z H W slices of a case from the patient's feet to the head, rows from front to back, columns from right to left.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import rankdata

from attent_kit.data.doubts.case import NO_ORGAN
from attent_kit.data.doubts.findings import Finding, Severity
from attent_kit.data.doubts.sides import (
    Centre,
    Tilt,
    body_middle,
    by_lungs,
    by_organs,
    by_surroundings,
    centres,
    side_findings,
    upright_findings,
)
from attent_kit.data.doubts.slice_order import CLEAR_EVIDENCE, slice_order_evidence

COARSE = 64
"""Side in pixels of the slices in which body and lungs are looked for."""
PLANE = 160
"""Largest side in pixels of the slices in which labels are compared with the image."""
PRINT = (12, 32, 32)
"""Blocks of slices, rows and columns of a fingerprint."""
SPECK = 1.0
"""ml below which an organ is a speck."""


@dataclass(frozen=True)
class CheckedCase:
    """One case, as the checks see it."""

    image: np.ndarray = field(repr=False)
    """[Z, H, W] grey values."""
    labels: np.ndarray | None = field(repr=False)
    """[Z, H, W] class indices, 0 background, or None."""
    organs: tuple[str, ...]
    spacing: tuple[float, float, float]
    """mm between slices, rows and columns."""
    air_and_body: tuple[float, float] | None
    """Grey values below which a voxel is air and above which it is body, where they are known, as in CT."""
    annotated: tuple[str, ...] | None = None
    """Organs that the labels annotate; None stands for all."""


@dataclass(frozen=True)
class Trace:
    """What is kept of a case once its voxels are released: cases are compared by it."""

    data_set: str
    part: str
    case: str
    file: str
    splits: tuple[str, ...]
    """Empty where they are unknown."""
    shape: tuple[int, int, int]
    """Slices, rows and columns as scanned."""
    spacing: tuple[float, float, float]
    """mm between them."""
    content: str
    """Hash of the voxels."""
    fingerprint: np.ndarray = field(repr=False)
    labels: str = ""
    """Hash of the label map; "" if there is none, or no organ in it."""
    voxels: dict[str, int] | None = None
    """Number of each organ that the labels annotate; None without labels."""
    unread: bool = False
    """Whether it has labels that cannot be read, or laid on its image; then `voxels` is None."""
    slices: int = 0
    with_organ: int = 0
    source: str = ""
    """Hash of the file that a prepared case was made from."""
    patient: str = ""
    """PatientID, where it is known."""
    study: str = ""
    """StudyInstanceUID, where it is known."""


def case_findings(seen: CheckedCase) -> list[Finding]:
    """Everything that the labels and the image of one case tell, except for its grey values."""
    found = _organ_findings(seen)
    coarse = blocks(seen.image, (len(seen.image), COARSE, COARSE))
    organs = {} if seen.labels is None else centres(seen.labels, seen.organs, seen.spacing)
    tilt = _tilt(seen, coarse, organs)
    pixel = seen.spacing[2] * seen.image.shape[2] / coarse.shape[2]
    sides = side_findings(organs, body_middle(coarse, pixel))
    upright = upright_findings(tilt)
    turn, ratio = _best_turn(seen) if organs else ("", 1.0)
    if (severity := turn_severity(ratio)) is None:
        return [*found, *sides, *upright]
    found.append(
        Finding(
            severity, "fit",
            f"the labels fit the organs of the image {ratio:.1f} times better when they are turned {turn} "
            f"({CLEAR_EVIDENCE:g} times is clear){_who_is_turned(turn, tilt, organs, bool(sides))}",
            "look at the case with prepare --preview, then turn the image or the labels before they are prepared",
        )
    )  # fmt: skip
    # Labels that are turned against the image say nothing about how the image lies.
    return [*found, *(sides if turn == _UP else upright)]


def turn_severity(ratio: float) -> Severity | None:
    """How bad it is that labels fit the image so many times better when turned; None if that is not clear."""
    return None if ratio < CLEAR_EVIDENCE else "warning" if ratio < CLEAR_EVIDENCE**2 else "error"


def organ_medians(seen: CheckedCase) -> dict[str, float]:
    """Median grey value under the label of each organ."""
    if seen.labels is None:
        return {}
    masks = ((organ, seen.labels == n) for n, organ in enumerate(seen.organs, start=1))
    return {organ: float(np.median(seen.image[mask])) for organ, mask in masks if mask.any()}


def voxels_of(seen: CheckedCase) -> dict[str, int] | None:
    """Voxels of each organ that the labels annotate; None without labels."""
    if seen.labels is None:
        return None
    counts = np.bincount(seen.labels.reshape(-1), minlength=len(seen.organs) + 1)
    annotated = seen.organs if seen.annotated is None else seen.annotated
    return {organ: int(counts[n]) for n, organ in enumerate(seen.organs, start=1) if organ in annotated}


def content_hash(array: np.ndarray) -> str:
    """SHA-256 of an array [Z, H, W], the same however it lies in memory."""
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    for plane in array:
        digest.update(plane.tobytes())
    return digest.hexdigest()


def fingerprint(image: np.ndarray) -> np.ndarray:
    """[N] of length 1, by which copies of a volume are told from other volumes of the same size.

    Means of blocks: only their order counts, and only its brighter part, so that a window or 8 bits change little;
    then what is smooth is taken away, since all abdomens are alike in that. No two of the phantom's patients have a
    correlation above 0.45; a copy in a CT window has 0.94, a copy with a tenth of noise 0.98.
    """
    means = blocks(image, PRINT)
    ranks = np.maximum(rankdata(means).reshape(means.shape) / means.size, 0.6)
    detail = (ranks - uniform_filter(ranks, (1, 3, 3))).ravel()
    detail -= detail.mean()
    return (detail / max(float(np.linalg.norm(detail)), 1e-12)).astype(np.float32)


def blocks(image: np.ndarray, counts: tuple[int, int, int]) -> np.ndarray:
    """Means over so many blocks along each axis [Z, H, W], or as many as there are voxels: float32."""
    means = image
    for axis in (2, 1, 0):
        count = min(counts[axis], means.shape[axis])
        edges = np.linspace(0, means.shape[axis], count + 1).astype(int)
        sizes = np.diff(edges).reshape([-1 if other == axis else 1 for other in range(3)])
        means = np.add.reduceat(means, edges[:-1], axis=axis, dtype=np.float32) / sizes
    return means.astype(np.float32)


def _organ_findings(seen: CheckedCase) -> list[Finding]:
    voxels = voxels_of(seen)
    if voxels is None:
        return []
    if not any(voxels.values()):
        advice = "check the label values, --organs, or leave the label map out if nobody has drawn it"
        return [Finding("warning", "organs", NO_ORGAN.rstrip("."), advice)]
    found = []
    if missing := [organ for organ, count in voxels.items() if not count]:
        found.append(
            Finding(
                "note", "organs", f"has no voxel of {', '.join(missing)}",
                "nothing to do if the patient lacks it or the scan ends before it: it is counted as absent",
            )
        )  # fmt: skip
    ml = float(np.prod(seen.spacing)) / 1000
    for organ, count in voxels.items():
        if count and count * ml < SPECK:
            evidence_ = f"the {organ} has {count} voxel(s), {count * ml:.2g} ml"
            found.append(Finding("note", "organs", evidence_, "check whether it is a speck that was drawn by mistake"))
    return found


def _tilt(seen: CheckedCase, coarse: np.ndarray, organs: dict[str, Centre]) -> Tilt:
    """What organs, lungs and the surroundings of the liver say about up and down."""
    liver = next((n for n, organ in enumerate(seen.organs, start=1) if organ.lower() == "liver"), None)
    height = organs[seen.organs[liver - 1]].up if liver and seen.organs[liver - 1] in organs else None
    sign, words = 0, ""
    if seen.air_and_body is not None:
        sign, words = by_lungs(coarse, seen.spacing[0], *seen.air_and_body, height)
    if not sign and height is not None and seen.labels is not None:
        sign, words = by_surroundings(seen.image, seen.labels == liver, seen.spacing[0])
    return Tilt(*by_organs(organs), sign, words)


def _who_is_turned(turn: str, tilt: Tilt, organs: dict[str, Centre], on_wrong_side: bool) -> str:
    """Whether it is the image or its labels that must be turned, where the organs tell."""
    if turn == _UP and tilt.by_organs:
        wrong = "image" if tilt.by_organs > 0 else "labels"
        return f"; since {tilt.organs}, it is the {wrong} that must be turned"
    if turn == _ACROSS and len(organs) > 1:
        where, wrong = ("on the wrong side", "labels") if on_wrong_side else ("on the correct side", "image")
        return f"; since the organs of the labels are {where}, it is the {wrong} that must be turned"
    return ""


_UP, _ACROSS = "upside down", "from left to right"


def _best_turn(seen: CheckedCase) -> tuple[str, float]:
    """The turn of the labels after which they fit the image best, and how many times better than unturned."""
    assert seen.labels is not None
    every = max(1, -(-max(seen.image.shape[1:]) // PLANE))
    # `evidence` looks at steps along its first two axes, which are those in plane.
    image = np.ascontiguousarray(seen.image[:, ::every, ::every].transpose(2, 1, 0), np.float32)
    labels = np.ascontiguousarray(seen.labels[:, ::every, ::every].transpose(2, 1, 0))
    turned = {
        _UP: labels[:, :, ::-1],
        _ACROSS: labels[::-1],
        "from front to back": labels[:, ::-1],
        "by half a turn in plane": labels[::-1, ::-1],
    }
    if labels.shape[0] == labels.shape[1]:
        turned["with rows and columns exchanged"] = labels.transpose(1, 0, 2)
    ratios = {turn: 1 / slice_order_evidence(image, labels, other) for turn, other in turned.items()}
    best = max(ratios, key=ratios.__getitem__)
    return best, ratios[best]
