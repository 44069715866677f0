"""Organs and their label values as a dataset.json names them, in either direction."""

import re
from pathlib import Path
from typing import Any

from attent_kit.errors import AttentKitError, DataError
from attent_kit.layouts import LabelMap
from attentkit_builtin.layouts.folders import shown

BACKGROUND = {"background", "bg", "clear label", "unlabeled", "unlabelled", "none"}
IGNORE = "ignore"
"""What nnU-Net calls voxels that nobody has labelled."""


def organs_of(labels: Any, source: Path) -> tuple[LabelMap, int | None]:
    """The label map of a dataset.json, and the value that means 'ignore' if it has one.

    The Medical Segmentation Decathlon writes value to name, {"1": "liver"}; nnU-Net v2 writes name to value, {"liver": 1},
    or to a list of values where a region is made of several. Regions that share a value are refused: a voxel has one label.
    """
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{source}: 'labels' must be an object such as {{\"liver\": 1}}: write what each value means.")
    named: dict[str, tuple[int, ...]] = {}
    for name, values in _by_name(labels, source):
        if not name.isprintable() or not name.strip():
            raise DataError(f"{source}: {name[:60]!r} in 'labels' cannot name an organ: use letters and digits.")
        if name in named:
            raise DataError(f"{source}: two values are called '{name}': give each organ its own name.")
        named[name] = values
    _check_background(named, source)
    ignore = next((values[0] for name, values in named.items() if name.lower() == IGNORE), None)
    organs = {name: values for name, values in named.items() if values != (0,) and name.lower() != IGNORE}
    if not organs:
        raise DataError(f"{source}: 'labels' names no organ: write what each value means, as in {{\"liver\": 1}}.")
    _check_regions(organs, source)
    try:
        return LabelMap.of(organs), ignore
    except AttentKitError as error:
        raise DataError(f"{source}: {error}") from None


def _by_name(labels: dict[str, Any], source: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Pairs of name and values, whichever of the two came first."""
    if all(isinstance(name, str) for name in labels.values()):
        if wrong := [value for value in labels if not re.fullmatch("[0-9]{1,9}", value)]:
            raise DataError(f"{source}: 'labels' has {wrong[0][:60]!r} where a whole number belongs: write 1, 2, ...")
        return [(name, (int(value),)) for value, name in labels.items()]
    pairs = []
    for name, values in labels.items():
        several = values if isinstance(values, list) else [values]
        if not several or not all(type(value) is int and 0 <= value < 2**31 for value in several):
            raise DataError(
                f"{source}: 'labels' gives {name[:60]!r} the value {shown(values)}, where a whole number of 0 or more "
                "belongs, or a list of them."
            )
        pairs.append((name, tuple(dict.fromkeys(several))))
    return pairs


def _check_background(named: dict[str, tuple[int, ...]], source: Path) -> None:
    for name, values in named.items():
        if (0 in values) != (name.strip().lower() in BACKGROUND) or (0 in values and len(values) > 1):
            raise DataError(
                f"{source}: 'labels' gives '{name}' the value {', '.join(map(str, values))}, but 0 is the background and "
                "nothing else: number the organs from 1."
            )


def _check_regions(organs: dict[str, tuple[int, ...]], source: Path) -> None:
    owner: dict[int, str] = {}
    for name, values in organs.items():
        for value in values:
            if owner.setdefault(value, name) != name:
                raise DataError(
                    f"{source}: the regions '{owner[value]}' and '{name}' share the value {value}, and a voxel has one label: "
                    "give organs that do not overlap, or read the folders with the layout 'pairs' and name them by --organs."
                )
