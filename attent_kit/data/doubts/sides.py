"""Where the organs of an abdomen lie, and what it means if they lie elsewhere.

Slices [Z, H, W] run from feet to head, rows from front to back, columns from the patient's right to left, as in
`attent_kit.data.space.geometry`. The liver lies on the right, the spleen on the left, and the kidneys below the middle of the
liver. On real scans: liver 65 mm right of the middle of the body, kidneys 66 and 80 mm beside it, spleen 115 mm left; the
right kidney's centre 45 mm below that of the liver. Fewer than one patient in ten thousand has it all mirrored (situs inversus).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_fill_holes

from attent_kit.data.doubts.findings import Finding
from attent_kit.data.sets.synonyms import words_of

CLEARLY = 15.0
"""mm to the right or left from which a side is believed; up or down, 10 mm are enough."""
HIGHER = 10.0
LUNGS = 2.0
"""mm: air of the lungs as the height of a body that is all air; less is the bases of lungs, or gas in the bowel."""


class Centre(NamedTuple):
    """Centre of mass of an organ in mm from the feet, from the front and from the patient's right, and its volume."""

    up: float
    back: float
    left: float
    ml: float


def centres(labels: np.ndarray, organs: Sequence[str], spacing: Sequence[float] = (1, 1, 1)) -> dict[str, Centre]:
    """The centre of every organ that is there; labels [Z, H, W] are class indices, spacing is mm along them."""
    found = {}
    for index, organ in enumerate(organs, start=1):
        mask = labels == index
        if not mask.any():
            continue
        place = []
        for axis, step in enumerate(spacing):
            counts = mask.sum(axis=tuple({0, 1, 2} - {axis}))
            place.append(float(np.average(np.arange(counts.size), weights=counts)) * step)
        up, back, left = place
        found[organ] = Centre(up, back, left, float(mask.sum() * np.prod(spacing) / 1000))
    return found


def side_pairs(organs: Sequence[str]) -> list[tuple[str, str]]:
    """(right x, left x) of the organs that come in two."""
    by_words = {words_of(organ): organ for organ in organs}
    pairs = []
    for words, organ in by_words.items():
        other = (words - {"right"}) | {"left"}
        if "right" in words and other in by_words:
            pairs.append((organ, by_words[other]))
    return pairs


def crossed(found: Mapping[str, Centre]) -> list[tuple[str, str]]:
    """Pairs (a, b) where a should lie right of b and does not, however small the distance."""
    liver, spleen = _called(found, "liver"), _called(found, "spleen")
    pairs = side_pairs(list(found)) + ([(liver, spleen)] if liver and spleen else [])
    return [(right, left) for right, left in pairs if found[right].left >= found[left].left]


def side_findings(found: Mapping[str, Centre], middle: float | None) -> list[Finding]:
    """Organs on the wrong side, and whether the image or the labels are to blame.

    `middle` is where the middle of the body lies, in mm from the patient's right as in `Centre.left`, or None. If liver and
    kidneys are on the wrong side, the image is mirrored together with its labels; if the kidneys alone are, their labels
    are exchanged.
    """
    frame, said = _frame(found, middle)
    wrong = [(r, ell) for r, ell in side_pairs(list(found)) if found[r].left - found[ell].left > CLEARLY]
    right = [(r, ell) for r, ell in side_pairs(list(found)) if found[ell].left - found[r].left > CLEARLY]
    pairs = ", ".join(
        f"the {r} lies {found[r].left - found[ell].left:.0f} mm on the left of the {ell}" for r, ell in wrong
    )
    single = "" if wrong or right else _single(found, middle)
    crossed_names = pairs or single
    if crossed_names and frame < 0:
        return [_side(f"{said}, and {crossed_names}, so the image is mirrored with its labels", _UNMIRROR)]
    if crossed_names and frame > 0:
        return [
            _side(
                f"{crossed_names}, while {said}, so right and left are exchanged in the labels",
                "exchange the two values with --organs, or in the label files",
            )
        ]
    if crossed_names:
        return [
            _side(
                f"{crossed_names}; without liver and spleen nothing tells whether the image is mirrored or the labels are "
                "exchanged",
                "look at the case with prepare --preview, and correct the header or the labels",
            )
        ]
    if frame >= 0:
        return []
    liver, spleen = _called(found, "liver"), _called(found, "spleen")
    if right and liver and spleen and found[spleen].ml > found[liver].ml:
        return [
            _side(
                f"{said}, the kidneys are on the correct side, and the spleen has {found[spleen].ml:.0f} ml, the liver "
                f"{found[liver].ml:.0f} ml, so these two are exchanged in the labels",
                "exchange the values of liver and spleen with --organs, or in the label files",
            )
        ]
    if right:
        return [
            Finding(
                "warning", "sides",
                f"{said}, but the kidneys are on the correct side: the label values mean other organs, or the image is mirrored "
                "and its kidneys were named as they appear in it, or the patient has situs inversus",
                "check --organs, and look at the case with prepare --preview",
            )
        ]  # fmt: skip
    return [_side(f"{said}, so the image is mirrored with its labels, or the patient has situs inversus", _UNMIRROR)]


_UNMIRROR = "correct left and right in the header of image and labels, or flip their slices from left to right"


def _side(evidence: str, advice: str) -> Finding:
    return Finding("error", "sides", evidence, advice)


def _frame(found: Mapping[str, Centre], middle: float | None) -> tuple[int, str]:
    """1 if liver and spleen say that left is left, -1 if they say that it is mirrored, 0 if nothing; and what they say."""
    liver, spleen = _called(found, "liver"), _called(found, "spleen")
    if liver and spleen and abs(apart := found[spleen].left - found[liver].left) > CLEARLY:
        side = "right" if apart > 0 else "left"
        return (1 if apart > 0 else -1), f"the {liver} lies {abs(apart):.0f} mm on the {side} of the {spleen}"
    for organ, sign in ((liver, 1), (spleen, -1)):
        if organ and middle is not None and abs(apart := middle - found[organ].left) > CLEARLY:
            side = "right" if apart > 0 else "left"
            return (sign if apart > 0 else -sign), f"the {organ} lies {abs(apart):.0f} mm {side} of the body's middle"
    return 0, ""


def _single(found: Mapping[str, Centre], middle: float | None) -> str:
    """What is said about a single kidney that is on the wrong side of the body."""
    if middle is None:
        return ""
    for name, sign in (("right kidney", 1), ("left kidney", -1)):
        organ = _called(found, name)
        if organ and sign * (found[organ].left - middle) > CLEARLY:
            side = "left" if sign > 0 else "right"
            return f"the {organ} lies {abs(found[organ].left - middle):.0f} mm {side} of the body's middle"
    return ""


class Tilt(NamedTuple):
    """What says that a stack is upright or upside down: 1 upright, -1 upside down, 0 nothing; and in words."""

    by_organs: int
    organs: str
    by_image: int
    image: str


def upright_findings(signs: Tilt) -> list[Finding]:
    """A stack that runs from head to feet: an error if organs and image both say so, a warning if one does."""
    said = [words for sign, words in ((signs.by_organs, signs.organs), (signs.by_image, signs.image)) if sign < 0]
    advice = "correct the direction of the slices in the header, or reverse the slices of image and labels"
    if len(said) == 2:
        return [
            Finding(
                "error",
                "upright",
                f"{said[0]}, and {said[1]}: the stack is upside down, both signs agree",
                advice,
            )
        ]
    if not said:
        return []
    if signs.by_organs + signs.by_image == 0:
        one, other = (signs.organs, signs.image) if signs.by_organs < 0 else (signs.image, signs.organs)
        return [
            Finding(
                "note", "upright", f"{one}, as in a stack that is upside down, but {other}: the signs disagree",
                "look at the case with prepare --preview",
            )
        ]  # fmt: skip
    return [Finding("warning", "upright", f"{said[0]}: the stack is likely upside down, by this sign alone", advice)]


def by_organs(found: Mapping[str, Centre]) -> tuple[int, str]:
    """Whether the kidneys lie below the middle of the liver, as they do in a patient who stands on the feet."""
    liver = _called(found, "liver")
    kidneys = [found[k] for k in (_called(found, "right kidney"), _called(found, "left kidney")) if k]
    if not liver or not kidneys:
        return 0, ""
    above = float(np.mean([kidney.up for kidney in kidneys])) - found[liver].up
    words = f"the kidneys' centre lies {abs(above):.0f} mm {'above' if above > 0 else 'below'} the liver's"
    return (-1 if above > HIGHER else 1 if above < -HIGHER else 0), words


def by_lungs(coarse: np.ndarray, step: float, air: float, body: float, liver: float | None) -> tuple[int, str]:
    """Whether the air inside the body lies above the liver, or above the middle of the scan: the lungs of a CT.

    `coarse` is [Z, H, W] with large pixels, `step` the mm between its slices; below `air` is air, above `body` is body.
    `liver` is the height of the liver's centre in mm.
    """
    share = np.empty(len(coarse))
    for z, plane in enumerate(coarse):
        outline = binary_fill_holes(plane > body)
        share[z] = (outline & (plane < air)).sum() / max(outline.sum(), 1)
    # Gas in the bowel takes up to a twentieth of a slice.
    lungs = np.clip(share - 0.05, 0, None)
    if lungs.sum() * step < LUNGS:
        return 0, ""
    height = float(np.average(np.arange(lungs.size), weights=lungs)) * step
    if liver is not None:
        above, of = height - liver, "of the liver's centre"
    else:
        above, of = height - step * (lungs.size - 1) / 2, "of the middle of the scan"
    sign = int(np.sign(above)) if abs(above) > 2 * HIGHER else 0
    return sign, f"the air of the lungs lies {abs(above):.0f} mm {'above' if above > 0 else 'below'} the height {of}"


def by_surroundings(image: np.ndarray, liver: np.ndarray, step: float) -> tuple[int, str]:
    """Whether it is darker above the liver, where the lungs are, than below it: in CT and, less clearly, in MR.

    `image` and the mask `liver` are [Z, H, W], `step` mm apart; what lies 8 to 25 mm from the liver is compared.
    """
    columns = np.nonzero(liver.any(axis=0))
    if not columns[0].size:
        return 0, ""
    top, bottom = len(liver) - 1 - liver[::-1].argmax(axis=0)[columns], liver.argmax(axis=0)[columns]
    near, far = max(1, int(np.ceil(8 / step))), max(1, int(25 / step))
    level = float(np.percentile(image, 1))
    inside = float(np.median(image[liver])) - level
    found = []
    for edge, way in ((top, 1), (bottom, -1)):
        values = []
        for away in range(near, far + 1):
            z = edge + way * away
            there = (z >= 0) & (z < len(image))
            values.append(image[z[there], columns[0][there], columns[1][there]])
        pooled = np.concatenate(values) if values else np.empty(0)
        # A liver that the scan cuts off has nothing beyond its end.
        if pooled.size < 0.25 * columns[0].size or inside <= 0:
            return 0, ""
        found.append((float(np.median(pooled)) - level) / inside)
    above, below = found
    sign = 1 if above < 0.8 * below else -1 if below < 0.8 * above else 0
    words = f"it is {100 * above:.0f} % as bright above the liver as in it, and {100 * below:.0f} % below it"
    return sign, words


def body_middle(coarse: np.ndarray, pixel: float) -> float | None:
    """mm from the patient's right to the middle of the body; `coarse` [Z, H, W], whose columns are `pixel` mm wide.

    The body is what is brighter than the air around it; None where there is nothing.
    """
    dark, bright = np.percentile(coarse, (1, 99))
    columns = (coarse > dark + 0.15 * (bright - dark)).sum(axis=(0, 1))
    if not columns.any():
        return None
    return (float(np.average(np.arange(columns.size), weights=columns)) + 0.5) * pixel


def _called(found: Mapping[str, Centre], name: str) -> str | None:
    """The organ of that name, whatever its capitals and the order of its words."""
    return next((organ for organ in found if words_of(organ) == words_of(name)), None)
