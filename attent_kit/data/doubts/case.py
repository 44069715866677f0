"""What is odd about a case without being wrong for certain: told to the user by `prepare`, and kept in the prepared file.

`attentkit check` looks closer, with the same measurements: `attent_kit.data.check.check`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from attent_kit.data.doubts.sides import centres, crossed
from attent_kit.data.scans.grids import SHEAR, shear
from attent_kit.data.scans.nifti_file import unit_of
from attent_kit.data.scans.volumes import Volume
from attent_kit.errors import DataError

LABELS = 128
"""Most different values that a label map has: an image has more."""
SAMPLES = 2**20
"""Number of voxels, evenly spaced, in which values are looked for."""
MUCH = 0.4
"""Share of slices without an organ from which on labelled scans show much else than the region of the organs. With half of
them of pelvis and legs, CT to MR lost most of its Dice (benchmarks/results/chaos-diagnosis.md)."""
NO_ORGAN = "the label map holds none of the organs."


def like_labels(array: np.ndarray) -> str:
    """What shows that an array is a label map and not an image, or "": few whole values, and most voxels have one of them."""
    flat = array.ravel(order="K")
    values, counts = np.unique(flat[:: -(-flat.size // SAMPLES)], return_counts=True)
    if values.size > LABELS or (values != np.rint(values)).any() or 2 * counts.max() < counts.sum():
        return ""
    share = 100 * counts.max() / counts.sum()
    return f"holds {values.size} whole values, and {share:.0f} % of its voxels are {values[counts.argmax()]:g}, as in a label map"


def refuse_label_map(image: Volume) -> None:
    """DataError for an image that is a label map."""
    if evidence := like_labels(image.array):
        raise DataError(
            f"{image.path} {evidence}: say so in its name, as in case1_labels.nii.gz beside case1.nii.gz, or name the folder "
            "of the label maps with --labels."
        )


def image_doubts(volume: Volume, modality: str, window: bool) -> list[str]:
    """Sentences about an image: a header that does not say where right is, a CT that is perhaps not in HU."""
    doubts = [*([] if volume.placed else [unplaced(volume)]), *grid_doubts(volume)]
    if modality == "ct" and window and volume.array.min() >= 0:
        doubts.append("no value is below 0, so this CT is perhaps not in HU.")
    return doubts


def grid_doubts(volume: Volume) -> list[str]:
    """Sentences about a grid whose header does not count in mm, or whose axes are not at right angles."""
    doubts = []
    if (unit := unit_of(volume.header)[0]) != "mm":
        spacing = " x ".join(f"{side:.4g}" for side in volume.spacing)
        doubts.append(f"the header counts in {unit}, so a voxel is taken as {spacing} mm: check that this is its size.")
    if (degrees := shear(volume.affine)) > SHEAR:
        doubts.append(
            f"the axes are {degrees:.1f} degrees off a right angle (a sheared affine), so slices are cut along them, and "
            "distances in mm are wrong: resample it to a grid with right angles."
        )
    return doubts


def unplaced(volume: Volume) -> str:
    """What to say about a header without an orientation."""
    return f"the header does not say where the patient's right is (no qform, no sform); taken as {volume.orientation}."


def label_doubts(labels: np.ndarray, organs: Sequence[str]) -> list[str]:
    """Sentences about labels [Z, H, W]: no organ at all, or an organ on the wrong side of the body.

    'right x' must lie right of 'left x', and the liver right of the spleen, by the centre of mass; the patient's right
    is at low columns.
    """
    found = centres(labels, organs)
    doubts = [] if found else [NO_ORGAN]
    return doubts + [
        f"the {right} lies on the left of the {left}: check the orientation and the label values."
        for right, left in crossed(found)
    ]


def without_organs(cases: Sequence[tuple[int, int]]) -> list[str]:
    """A sentence if much of the labelled cases shows none of the organs; how many slices each has, and how many with an organ."""
    slices, seen = (sum(numbers) for numbers in zip(*cases, strict=True)) if cases else (0, 0)
    if not seen or slices - seen < MUCH * slices:
        return []
    return [
        f"{slices - seen} of {slices} slices of {len(cases)} labelled case(s) show no organ, as those of pelvis and legs: "
        "prepare it with --foreground-only if it is a source, which would teach what a target may not show."
    ]


def organs_never_seen(voxels: Iterable[Mapping[str, int]], organs: Sequence[str]) -> list[str]:
    """Sentences about organs that no case of a data set has, though some annotate them, or that none annotates; `voxels` counts
    in each labelled case what it annotates."""
    counts = list(voxels)
    found = []
    for organ in organs if counts else ():
        if not any(organ in of_case for of_case in counts):
            found.append(
                f"no case annotates the organ '{organ}': prepare labels of it too, or name the other organs alone."
            )
        elif not any(of_case.get(organ) for of_case in counts):
            found.append(f"no case has the organ '{organ}': check its value in the label map.")
    return found
