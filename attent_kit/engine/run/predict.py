"""Images in, labels out: on prepared slices, in batches that fit the device."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from attent_kit.data.prepared.batches import memory_format
from attent_kit.data.prepared.file import Prepared
from attent_kit.errors import RunError, out_of_memory
from attent_kit.interfaces import Alignment

Answer = TypeVar("Answer")
SLICES_AT_ONCE = 16
"""Size of a batch to begin with; it is halved as often as the device has too little memory."""


@torch.inference_mode()
def segment_slices(alignment: Alignment, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Class probabilities of target slices: [Z, C, H, W] in [-1, 1] -> float32 [K, Z, H, W].

    RunError if not even one slice fits the memory of the device.
    """
    alignment.eval()
    parts = in_batches(lambda x_t: alignment.predict(x_t).float().softmax(1).cpu(), images, device)
    assert parts is not None
    return torch.cat(parts).movedim(1, 0).numpy()


def slices_as_source(alignment: Alignment, images: np.ndarray, device: torch.device) -> np.ndarray | None:
    """Target slices in source style, [Z, C, H, W]; None if the method has no translator. RunError as `segment_slices`."""
    return _translated(alignment, alignment.as_source, images, device)


def slices_as_target(alignment: Alignment, images: np.ndarray, device: torch.device) -> np.ndarray | None:
    """Source slices, or translated ones, in target style; else as `slices_as_source`."""
    return _translated(alignment, alignment.as_target, images, device)


def entropy(probabilities: Iterable[np.ndarray]) -> np.ndarray:
    """Normalized entropy, 0 where one class is certain, 1 where all are alike: K arrays of one shape -> that shape, float32.

    Classes are taken one by one, so that one of them is in memory.
    """
    total, classes = np.float32(0), 0
    for p in probabilities:
        total = total - p * np.log(np.maximum(p, np.finfo(np.float32).tiny))
        classes += 1
    return np.asarray(total / np.float32(math.log(classes)), np.float32).clip(0, 1)


def segment_case(alignment: Alignment, prepared: Prepared, case: str, device: torch.device) -> np.ndarray:
    """Labels of one case on the grid of the file that it came from: uint8 [X, Y, Z]."""
    probabilities = segment_slices(alignment, prepared.slices(case), device)
    return prepared.grid(case).to_native(probabilities)


@torch.inference_mode()
def _translated(
    alignment: Alignment, translator: Callable[[Tensor], Tensor | None], images: np.ndarray, device: torch.device
) -> np.ndarray | None:
    alignment.eval()

    def translate(x: Tensor) -> Tensor | None:
        translated = translator(x)
        return None if translated is None else translated.float().cpu()

    parts = in_batches(translate, images, device)
    return None if parts is None else torch.cat(parts).numpy()


class _TooLarge(Exception):
    """A batch did not fit the memory of the device."""


def in_batches(
    answer: Callable[[Tensor], Answer | None], images: np.ndarray, device: torch.device
) -> list[Answer] | None:
    """What is answered to all images, batch by batch; None where nothing is answered to the first. RunError as above."""
    parts: list[Answer] = []
    start, at_once = 0, min(SLICES_AT_ONCE, len(images))
    while start < len(images):
        try:
            part = _answer(answer, images[start : start + at_once], device)
        except _TooLarge:
            if at_once == 1:
                height, width = images.shape[2:]
                raise RunError(
                    f"{device.type} has too little memory for a single slice of {height} x {width} pixels: end what else "
                    "uses it, or choose another --device."
                ) from None
            at_once //= 2
            continue
        if part is None:
            return None
        parts.append(part)
        start += at_once
    return parts


def _answer(answer: Callable[[Tensor], Answer | None], images: np.ndarray, device: torch.device) -> Answer | None:
    try:
        x = torch.from_numpy(np.ascontiguousarray(images)).to(device).float()
        return answer(x.contiguous(memory_format=memory_format(device)))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Out of the handler, whose traceback would keep what the attempt has allocated.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise _TooLarge
