"""What is odd about a case without being wrong for certain: told to the user, and kept in the prepared file."""

import numpy as np

from attent_kit.data.volumes import Volume


def image_doubts(volume: Volume, modality: str, window: bool) -> list[str]:
    """Sentences about an image: a header that does not say where right is, a CT that is perhaps not in HU."""
    doubts = []
    if not volume.placed:
        doubts.append(
            f"the header does not say where the patient's right is (no qform, no sform); taken as {volume.orientation}."
        )
    if modality == "ct" and window and volume.array.min() >= 0:
        doubts.append("no value is below 0, so this CT is perhaps not in HU.")
    return doubts


def label_doubts(labels: np.ndarray, organs: tuple[str, ...]) -> list[str]:
    """Sentences about labels [Z, H, W]: no organ at all, or an organ on the wrong side of the body.

    'right x' must lie right of 'left x', and the liver right of the spleen, by the centre of mass; the patient's right
    is at low columns.
    """
    columns = {}
    for index, organ in enumerate(organs, start=1):
        voxels = (labels == index).sum(axis=(0, 1))
        if voxels.any():
            columns[organ] = float(np.average(np.arange(voxels.size), weights=voxels))
    pairs = [(organ, "left " + organ.removeprefix("right ")) for organ in organs if organ.startswith("right ")]
    doubts = [] if columns else ["the label map holds none of the organs."]
    for right, left in [*pairs, ("liver", "spleen")]:
        if right in columns and left in columns and columns[right] >= columns[left]:
            doubts.append(f"the {right} lies on the left of the {left}: check the orientation and the label values.")
    return doubts
