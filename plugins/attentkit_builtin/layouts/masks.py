"""Masks -> one label map: grey levels of CHAOS, and one mask per organ."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from attent_kit.errors import DataError
from attent_kit.layouts import CHAOS_GREY_BANDS, TASK_ORGANS, Entry, LabelMap
from attentkit_builtin.layouts.folders import listing

FOUR_ORGANS = LabelMap.of({organ: value for value, organ in enumerate(TASK_ORGANS, start=1)})
"""Liver 1, right kidney 2, left kidney 3, spleen 4: what label maps are made with here."""
STRAY_SHARE = 1e-3
"""Share of the masked pixels that may have a grey level in no band, as at a blurred border, before a mask is refused."""


MOST_ORGANS = 254
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
            f"{source} holds the values {listing([str(v) for v in values])}, where a mask has one besides 0: write 1 where "
            "the organ is, and 0 elsewhere."
        )
    return mask != 0


def of_all_cases(masks: Mapping[str, Collection[str]], place: Path) -> LabelMap:
    """The organs that any case has a mask of, ours first, 1 for the first; `masks` has the organs of each case.

    DataError if there is none, or more than a label map holds.
    """
    every = {organ for own in masks.values() for organ in own}
    if not 1 <= len(every) <= MOST_ORGANS:
        raise DataError(f"{place} holds masks of {len(every)} organs: keep those of 1 to {MOST_ORGANS}.")
    ordered = [*(organ for organ in TASK_ORGANS if organ in every), *sorted(every - {*TASK_ORGANS})]
    return LabelMap.of({organ: value for value, organ in enumerate(ordered, start=1)})


def named_in(entry: Entry, organs: Sequence[str]) -> list[str]:
    """Those of the organs that a case has masks of."""
    annotated = entry.organs if isinstance(entry.organs, frozenset) else frozenset()
    return [organ for organ in organs if organ in annotated]


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


def join(
    organs: Sequence[str], masks: Sequence[np.ndarray], values: Sequence[int] | None = None
) -> tuple[np.ndarray, list[str]]:
    """One label map from one mask per organ, 1 for the first or as `values` say; doubts: what two share belongs to the first."""
    labels = np.zeros_like(masks[0], np.uint8)
    doubts, given = [], values or range(1, len(organs) + 1)
    for n, (organ, mask, value) in enumerate(zip(organs, masks, given, strict=True)):
        for earlier, other in zip(organs[:n], given[:n], strict=True):
            if count := int(((labels == other) & mask).sum()):
                doubts.append(
                    f"{count} voxels are in the masks of {earlier} and of {organ}, and are given to the {earlier}."
                )
        labels[mask & (labels == 0)] = value
    return labels, doubts
