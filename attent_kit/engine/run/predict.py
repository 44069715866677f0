"""Images in, labels out: on prepared slices, in batches that fit the device."""

import math
from collections.abc import Iterable

import numpy as np
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.adapt import adapted
from attent_kit.engine.run.assemble import patch_of
from attent_kit.engine.run.probe import Probe, probabilities, probe
from attent_kit.engine.run.windows import segment_windows
from attent_kit.interfaces import Alignment


def segment_slices(alignment: Alignment, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Class probabilities of the slices of a target volume, to which a method may adapt before: [Z, C, H, W] in [-1, 1] ->
    float32 [K, Z, H, W].

    RunError if not even one slice fits the memory of the device.
    """
    # In its place at once: a large CT has half a gigabyte of them, and would have it twice.
    answers = np.empty((0,), np.float32)
    done = 0
    with adapted(alignment, images, device) as predict:
        if (patch := patch_of(alignment)) is not None:
            return segment_windows(predict, alignment, patch, images, device)

        def keep(p: Probe) -> int:
            nonlocal answers, done
            part = probabilities(predict(p.x)).numpy()
            if not done:
                answers = np.empty((len(images), *part.shape[1:]), np.float32)
            answers[done : done + len(part)] = part
            done += len(part)
            return done

        probe(alignment, images, device, keep)
    return np.moveaxis(answers, 1, 0)


def slices_as_source(alignment: Alignment, images: np.ndarray, device: torch.device) -> np.ndarray | None:
    """Target slices in source style, [Z, C, H, W]; None if the method has no translator. RunError as `segment_slices`."""

    def translate(p: Probe) -> torch.Tensor | None:
        return None if p.translation is None else p.translation.float().cpu()

    parts = probe(alignment, images, device, translate)
    return None if parts is None else torch.cat(parts).numpy()


def entropy(classes: Iterable[np.ndarray]) -> np.ndarray:
    """Normalized entropy, 0 where one class is certain, 1 where all are alike: K arrays of one shape -> that shape, float32.

    Classes are taken one by one, so that one of them is in memory.
    """
    total, count = np.float32(0), 0
    for p in classes:
        total = total - p * np.log(np.maximum(p, np.finfo(np.float32).tiny))
        count += 1
    return np.asarray(total / np.float32(math.log(count)), np.float32).clip(0, 1)


def segment_case(alignment: Alignment, prepared: Prepared, case: str, device: torch.device) -> np.ndarray:
    """Labels of one case on the grid of the file that it came from: uint8 [X, Y, Z]."""
    return prepared.grid(case).to_native(segment_slices(alignment, prepared.slices(case), device))
