"""Masks -> one label map: grey levels of CHAOS, and one mask per organ."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from attent_kit.errors import DataError
from attent_kit.layouts import CHAOS_GREY_BANDS, TASK_ORGANS, LabelMap
from attentkit_builtin.layouts.folders import listing

FOUR_ORGANS = LabelMap.of({organ: value for value, organ in enumerate(TASK_ORGANS, start=1)})
"""Liver 1, right kidney 2, left kidney 3, spleen 4: what label maps are made with here."""
STRAY_SHARE = 1e-3
"""Share of the masked pixels that may have a grey level in no band, as at a blurred border, before a mask is refused."""


MOST_SHARED = 0.05
"""Share of the smaller of two organs that lies in both masks before they are refused; borders are drawn twice."""


def decode(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CHAOS grey levels to the values of `FOUR_ORGANS`, uint8, and where there is a level that is in no band and not 0."""
    labels = np.zeros_like(grey, np.uint8)
    for value, (above, to) in enumerate(CHAOS_GREY_BANDS, start=1):
        labels[(grey > above) & (grey <= to)] = value
    return labels, (grey != 0) & (labels == 0)


def decoded(grey: np.ndarray, source: Path) -> tuple[np.ndarray, list[str]]:
    """Labels of CHAOS grey levels, and doubts: strays are background. DataError if they are above STRAY_SHARE."""
    labels, stray = decode(grey)
    count, share = int(stray.sum()), stray.sum() / max(np.count_nonzero(grey), 1)
    if share > STRAY_SHARE:
        levels = [str(level) for level in np.unique(grey[stray])]
        raise DataError(
            f"{source}: {count} of {np.count_nonzero(grey)} masked pixels have grey levels that mean no organ "
            f"({listing(levels)}), so these masks use another coding: write them with 63 for the liver, 126 right kidney, "
            "189 left kidney and 252 spleen, as CHAOS has them."
        )
    return labels, [f"{count} pixels have a grey level that means no organ, and are background."] if count else []


def binary(mask: np.ndarray, source: Path) -> np.ndarray:
    """A mask as booleans. DataError if it holds more than one value besides 0."""
    values = np.unique(mask[mask != 0])
    if values.size > 1:
        raise DataError(
            f"{source} holds the values {listing([str(v) for v in values])}, where a mask has one besides 0."
        )
    return mask != 0


def in_every_case(masks: Mapping[str, Collection[str]], place: Path) -> tuple[LabelMap, tuple[str, ...]]:
    """The organs that have a mask in every case, ours first, 1 for the first; and a sentence about the others, if there are any.

    `masks` has the organs of each case. An organ that some cases lack is in none: nobody knows whether it is absent there, or
    only not drawn. DataError if no organ is left.
    """
    every = sorted({organ for own in masks.values() for organ in own})
    shared = [organ for organ in every if all(organ in own for own in masks.values())]
    if not shared:
        lists = "; ".join(f"{case}: {', '.join(own) or 'none'}" for case, own in list(masks.items())[:3])
        raise DataError(f"{place}: no organ has a mask in every case ({lists}): give cases that share one.")
    shared = [*(organ for organ in TASK_ORGANS if organ in shared), *(o for o in shared if o not in TASK_ORGANS)]
    rest = [organ for organ in every if organ not in shared]
    said = (f"left out, since not every case has a mask of it: {', '.join(rest)}.",) if rest else ()
    return LabelMap.of({organ: value for value, organ in enumerate(shared, start=1)}), said


def require_apart(organs: Sequence[str], masks: Sequence[np.ndarray], place: Path) -> None:
    """DataError if two of the four organs share more than MOST_SHARED of the smaller one: one is not what it is called."""
    ours = [(organ, mask) for organ, mask in zip(organs, masks, strict=True) if organ in TASK_ORGANS]
    for n, (organ, mask) in enumerate(ours):
        for other, earlier in ours[:n]:
            share = np.count_nonzero(mask & earlier) / max(min(mask.sum(), earlier.sum()), 1)
            if share > MOST_SHARED:
                raise DataError(
                    f"{place}: the masks of {other} and of {organ} share {100 * share:.0f} % of the smaller one, so one of them "
                    "is not what it is called: look at both."
                )


def join(organs: Sequence[str], masks: Sequence[np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """One label map, 1 for the first organ, from one mask per organ; doubts: what two masks share belongs to the first."""
    labels = np.zeros_like(masks[0], np.uint8)
    doubts = []
    for value, (organ, mask) in enumerate(zip(organs, masks, strict=True), start=1):
        for other, earlier in enumerate(organs[: value - 1], start=1):
            if count := int(((labels == other) & mask).sum()):
                doubts.append(
                    f"{count} voxels are in the masks of {earlier} and of {organ}, and are given to the {earlier}."
                )
        labels[mask & (labels == 0)] = value
    return labels, doubts
