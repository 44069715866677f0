"""Images in, labels out: on prepared slices and on whole volumes."""

import numpy as np
import torch

from attent_kit.data.batches import memory_format
from attent_kit.data.prepared import Prepared
from attent_kit.interfaces import Alignment

SLICES_AT_ONCE = 16


@torch.inference_mode()
def segment_slices(alignment: Alignment, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Class probabilities of target slices: [Z, C, H, W] in [-1, 1] -> float32 [K, Z, H, W]."""
    alignment.eval()
    parts = []
    for x_t in _chunks(images, device):
        logits = alignment.predict(x_t)
        parts.append(logits.float().softmax(1).cpu())
    return torch.cat(parts).movedim(1, 0).numpy()


@torch.inference_mode()
def slices_as_source(alignment: Alignment, images: np.ndarray, device: torch.device) -> np.ndarray | None:
    """Target slices in source style, [Z, C, H, W]; None if the method has no translator."""
    alignment.eval()
    parts = []
    for x_t in _chunks(images, device):
        x_ts = alignment.as_source(x_t)
        if x_ts is None:
            return None
        parts.append(x_ts.float().cpu())
    return torch.cat(parts).numpy()


def segment_case(alignment: Alignment, prepared: Prepared, case: str, device: torch.device) -> np.ndarray:
    """Labels of one case on the grid of the file that it came from: uint8 [X, Y, Z]."""
    probabilities = segment_slices(alignment, prepared.slices(case), device)
    return prepared.grid(case).to_native(probabilities)


def _chunks(images: np.ndarray, device: torch.device):  # type: ignore[no-untyped-def]
    for start in range(0, len(images), SLICES_AT_ONCE):
        x = torch.from_numpy(np.ascontiguousarray(images[start : start + SLICES_AT_ONCE])).to(device).float()
        yield x.contiguous(memory_format=memory_format(device))
