"""One way to ask a method about slices: what it predicts, what its segmentor was given and answered, and its translations.

Whoever asks says what is to be kept of a batch; an answer that nobody asks for is never computed. Selectors, the monitor, the
slices that a run keeps, the shift between the domains and prediction itself all ask here.

    B slices of a batch, C channels, K classes, F feature channels

A segmentor of volumes is asked about the middle slice of each slab, whose slices come as channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from attent_kit.data.prepared.batches import memory_format
from attent_kit.engine.run.assemble import channels_seen, patch_of, unwrapped
from attent_kit.errors import RunError, out_of_memory
from attent_kit.interfaces import Alignment, Segmentation

Kept = TypeVar("Kept")
SLICES_AT_ONCE = 16
"""Size of the first batch; it is halved as often as the device has too little memory."""


class Seen(NamedTuple):
    """What a segmentor was given and what it made of that, on the device."""

    network: str
    """Its name in the alignment."""
    given: Tensor
    """[B, C, H, W]."""
    answer: Segmentation


class Probe:
    """A batch of slices and what a method makes of it, on the device. Each answer is computed once, when it is asked for."""

    def __init__(self, alignment: Alignment, x: Tensor) -> None:
        self.alignment = alignment
        self.x = x if patch_of(alignment) is None else x.unsqueeze(1)
        """[B, C, H, W]; of volumes [B, 1, D, H, W]."""

    @property
    def logits(self) -> Tensor:
        """[B, K, H, W], the answer of `predict` to target slices."""
        return in_the_middle(self._predicted[0])

    @property
    def probabilities(self) -> Tensor:
        """[B, K, H, W], the same as float32 probabilities on the CPU."""
        return probabilities(self.logits)

    @property
    def called(self) -> list[str]:
        """Names of the networks that `predict` calls, in the order of their first call."""
        return list(dict.fromkeys(call.network for call in self._predicted[1]))

    def seen(self, network: str | None = None) -> Seen | None:
        """What a segmentor saw last within `predict`: this one, or whichever was last. None if there was none."""
        answers = [
            Seen(call.network, in_the_middle(call.given), _in_the_middle_of(call.answer))
            for call in self._predicted[1]
            if isinstance(call.answer, Segmentation) and network in (None, call.network)
        ]
        return answers[-1] if answers else None

    def through(self, network: str, x: Tensor | None = None) -> Segmentation:
        """What a segmentor answers to the slices as they are, or to `x` in their place."""
        return _in_the_middle_of(getattr(self.alignment, network)(self.x if x is None else x))

    @cached_property
    def as_seen(self) -> Tensor | None:
        """As `x`, source slices as the segmentor of `predict` is trained on them; None if it never is."""
        return self.alignment.as_seen(self.x)

    @cached_property
    def translation(self) -> Tensor | None:
        """[B, C, H, W], target slices in source style; None if the method has no such translator."""
        return self.alignment.as_source(self.x)

    @cached_property
    def way_back(self) -> Tensor | None:
        """[B, C, H, W], the translation in target style again; None if the method lacks one of the two translators."""
        return None if self.translation is None else self.alignment.as_target(self.translation)

    @cached_property
    def _predicted(self) -> tuple[Tensor, list["Heard"]]:
        with overhear(self.alignment) as heard:
            return self.alignment.predict(self.x), heard


class Heard(NamedTuple):
    """One call of a network."""

    network: str
    """Its name in the alignment."""
    given: Any
    """Its first input; None where it is called by keywords alone."""
    answer: Any


@contextmanager
def overhear(alignment: Alignment) -> Iterator[list[Heard]]:
    """What the networks are given and answer within the block, in the order in which they are called."""
    heard: list[Heard] = []
    # Below Fabric's wrappers, so that it is what the network itself was given, in the precision of its weights.
    handles = [
        unwrapped(child).register_forward_hook(
            lambda module, given, answer, name=name: heard.append(Heard(name, given[0] if given else None, answer))
        )
        for name, child in alignment.named_children()
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def probe(
    alignment: Alignment, images: np.ndarray, device: torch.device, keep: Callable[[Probe], Kept | None]
) -> list[Kept] | None:
    """What `keep` makes of each batch of slices [N, C, H, W] in [-1, 1], in order; None where it makes nothing of the first.

    Leaves everything about the networks as it was. RunError if not even one slice fits the memory of the device.
    """
    with answering(alignment):
        at_once = SLICES_AT_ONCE if patch_of(alignment) is None else 1
        return in_batches(lambda x: keep(Probe(alignment, x)), images, device, at_once)


@contextmanager
def answering(alignment: Alignment) -> Iterator[None]:
    """Networks in eval mode and no gradients within the block; then each is in train or eval mode as it was."""
    modes = [(module, module.training) for module in (alignment, *alignment.children())]
    trained = _in_training(alignment)
    try:
        with torch.no_grad():
            if trained:
                alignment.eval()
            yield
    finally:
        # To tell hundreds of modules takes longer than to ask them. The alignment first, since it hands on its mode.
        for module, training in modes if trained or _in_training(alignment) else ():
            module.train(training)


def _in_training(alignment: Alignment) -> bool:
    return any(module.training for module in alignment.modules())


def networks_of_predict(alignment: Alignment, size: int, device: torch.device) -> list[str]:
    """Names of the networks that `predict` calls, seen on a blank image with a side of `size` pixels."""
    with answering(alignment):
        return Probe(alignment, torch.zeros(1, channels_seen(alignment), size, size, device=device)).called


def in_the_middle(x: Tensor) -> Tensor:
    """[B, C, D, H, W] -> [B, C, H, W] of the middle slice; what has no D is left as it is."""
    return x[:, :, x.shape[2] // 2] if isinstance(x, Tensor) and x.ndim == 5 else x


def _in_the_middle_of(answer: Segmentation) -> Segmentation:
    return Segmentation(*(None if x is None else in_the_middle(x) for x in answer))  # type: ignore[arg-type]  # each where it was


def probabilities(logits: Tensor) -> Tensor:
    """[B, K, H, W] -> the same, float32, on the CPU."""
    return logits.float().softmax(1).cpu()


class _TooLarge(Exception):
    """A batch did not fit the memory of the device."""


def in_batches(
    answer: Callable[[Tensor], Kept | None], images: np.ndarray, device: torch.device, most: int = SLICES_AT_ONCE
) -> list[Kept] | None:
    """What is answered to all images, batch by batch of `most` or fewer; None where nothing is answered to the first. RunError as
    above."""
    parts: list[Kept] = []
    start, at_once = 0, min(most, len(images))
    while start < len(images):
        try:
            part = _answer(answer, images[start : start + at_once], device)
        except _TooLarge:
            if at_once == 1:
                what, size = "slice" if images.ndim == 4 else "patch", " x ".join(map(str, images.shape[2:]))
                raise RunError(
                    f"{device.type} has too little memory for a single {what} of {size} pixels: end whatever else uses it, or "
                    "choose another --device."
                ) from None
            at_once //= 2
            continue
        if part is None:
            return None
        parts.append(part)
        start += at_once
    return parts


def _answer(answer: Callable[[Tensor], Kept | None], images: np.ndarray, device: torch.device) -> Kept | None:
    try:
        x = torch.from_numpy(np.ascontiguousarray(images)).to(device).float()
        return answer(x.contiguous(memory_format=memory_format(device, x.ndim - 2)))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Out of the handler, whose traceback would keep what the attempt has allocated.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise _TooLarge
