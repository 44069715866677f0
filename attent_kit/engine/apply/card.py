"""What lies beside label maps: which run made them from what, and what they are not good for. Plain values for JSON.

It has no date in it and no place on this machine, so that the same run on the same image gives the same bytes.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attent_kit import __version__
from attent_kit.data.scans.volumes import Volume
from attent_kit.engine.apply.inputs import Input
from attent_kit.engine.apply.trained import Domain, LoadedRun, TrainedRun
from attent_kit.engine.run.assemble import patch_of
from attent_kit.engine.run.device import in_words
from attent_kit.engine.run.record import packages
from attent_kit.files import sha256
from attent_kit.interfaces import Patch

FORMAT = "attent-kit prediction"
ADAPTED = (
    "Its networks adapt to each volume before they label it, so that no two volumes are labelled by the same ones."
)


class Image(NamedTuple):
    """One input as it was found."""

    input: Input
    facts: dict[str, Any]
    """Name, hashes and geometry."""
    notes: tuple[str, ...]
    doubts: tuple[str, ...]


def image_facts(given: Input, volume: Volume) -> dict[str, Any]:
    """What is written down of an image: its hashes and its grid, all of which the label map keeps."""
    return {
        **given.digest(),
        "kind": given.kind,
        "modality": given.series.modality if given.series else None,
        "shape": list(volume.array.shape),
        "spacing_mm": [round(mm, 5) for mm in volume.spacing],
        "orientation": volume.orientation,
        "origin_mm": [round(float(mm), 4) for mm in volume.affine[:3, 3]],
    }


def organ_volumes(labels: np.ndarray, organs: Sequence[str], volume: Volume) -> dict[str, float]:
    """ml of each organ in a label map of classes."""
    ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    counts = np.bincount(labels.ravel(order="K"), minlength=len(organs) + 1)
    return {organ: round(ml * int(counts[index]), 2) for index, organ in enumerate(organs, start=1)}


def card(
    run: TrainedRun, loaded: LoadedRun, images: Sequence[Image], outputs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All of it; `outputs` says for each image what was written and found."""
    return {
        "format": FORMAT,
        "version": 1,
        **run_card(run, loaded),
        "images": [
            {**image.facts, "notes": list(image.notes), "warnings": list(image.doubts), **output}
            for image, output in zip(images, outputs, strict=True)
        ],
        "computed_with": {
            "device": in_words(loaded.device),
            "precision": loaded.precision,
            "attent-kit": __version__,
            "python": platform.python_version(),
            **packages(*(["pydicom"] if any(image.input.series for image in images) else [])),
        },
    }


def run_card(run: TrainedRun, loaded: LoadedRun) -> dict[str, Any]:
    """What is to be known about a run, whatever it is applied to."""
    method: Any = type(loaded.alignment)
    data = run.config.get("data", {})
    domain = run.domain
    return {
        "run": {
            "folder": Path(os.path.abspath(run.folder)).name,
            "method": run.component.name,
            "summary": run.component.summary(),
            "paper": method.paper,
            "aligns": method.aligns,
            "plugin": {"distribution": run.component.distribution, "version": run.component.version},
            "seed": run.settings.seed,
            "steps": loaded.steps,
            "licence": run.pack.licence if run.pack else None,
            "weights": run.weights_digest(loaded.selection),
            "selection": loaded.selection,
            "snapshot": None
            if loaded.snapshot is None
            else {"name": loaded.snapshot.name, "sha256": sha256(loaded.snapshot)},
            "config": without_places({name: run.config[name] for name in run.config if name != "data"}),
        },
        "training": {
            "source": {**domain.source, "data_sha256": data.get("source_hash")},
            "target": {
                "domain": domain.name,
                "modality": domain.modality,
                "cases": domain.familiar.cases if domain.familiar else None,
                "data_sha256": data.get("target_hash"),
            },
            "target_labels_used": method.uses_target_labels,
            "phantom": list(domain.phantom),
        },
        "labels": {"background": 0} | {organ: index for index, organ in enumerate(domain.task.organs, start=1)},
        "slices": {**domain.slicing.to_dict(), "channels": domain.task.channels},
        "intensity": domain.intensity.to_dict(),
        "limits": [
            *limits(domain, method.uses_target_labels, patch_of(loaded.alignment)),
            *([ADAPTED] if method.adapts() else []),
        ],
    }


def limits(domain: Domain, target_labels_used: bool, patch: Patch | None = None) -> list[str]:
    """What the label maps are not good for, a sentence each; `patch` of a segmentor of volumes."""
    known = [
        "For research only: this is not a medical device, and no one has validated it for clinical use.",
        f"Only {', '.join(domain.task.organs)} are labelled; every other structure, healthy or not, is background.",
        "Each label is a network's guess, even where it is wrong; probabilities and entropy are its own and not calibrated.",
    ]
    if domain.phantom:
        known.insert(
            0,
            f"Trained on a phantom ({', '.join(domain.phantom)}), not on patients: what it says about a patient means nothing.",
        )
    cases = [
        f"{number} case(s) of {name}"
        for name, number in (
            (domain.source.get("domain"), domain.source.get("cases")),
            (domain.name, domain.familiar.cases if domain.familiar else None),
        )
        if name is not None and number is not None
    ]
    known.append(
        f"Its training data were {' and '.join(cases) or 'few cases'}: other scanners, protocols and diseases are new to it."
    )
    if not target_labels_used:
        known.append(
            f"No label of {domain.name} was used in training; only labelled cases can tell how good it is there."
        )
    across = (
        f"{domain.task.channels} neighbouring {domain.slicing.plane} slices"
        if domain.task.channels > 1
        else f"one {domain.slicing.plane} slice"
    )
    seen = f"{across} of {domain.size} x {domain.size} pixels"
    if patch is not None:
        D, H, W = patch.size
        seen = f"{D} {domain.slicing.plane} slices of {H} x {W} pixels, whatever lies between them in mm,"
    known.append(f"It sees {seen} at a time, and never the whole volume.")
    return known


def without_places(value: Any) -> Any:
    """The values, with only the last part of any absolute path."""
    if isinstance(value, Mapping):
        return {name: without_places(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value
