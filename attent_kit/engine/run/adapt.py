"""Test-time adaptation: a method changes its networks for one volume, and afterwards they are as they were, to the bit.

Here alone `Alignment.adapt_to` is called: for `predict`, for the test cases of a run, and where target labels grade snapshots.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor

from attent_kit.data.prepared.batches import memory_format
from attent_kit.engine.run.assemble import unwrapped
from attent_kit.errors import RunError, out_of_memory
from attent_kit.interfaces import Alignment


@contextmanager
def adapted(alignment: Alignment, images: np.ndarray, device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """What predicts the slices of a volume [Z, C, H, W] in [-1, 1] within the block: [B, C, H, W] -> logits [B, K, H, W].

    Everything random in the adaptation follows from the content of the volume. RunError if the device has too little memory.
    """
    if not alignment.adapts():
        yield alignment.predict
        return
    with unchanged(alignment), _drawn_from(images, device):
        yield _adapt(alignment, images, device)


@contextmanager
def unchanged(alignment: Alignment) -> Iterator[None]:
    """Networks, weights, buffers, gradients and modes are after the block what they were before it, to the bit; inside it there
    are no gradients that training has left."""
    modules = [*alignment.modules()]
    modes = [module.training for module in modules]
    held = [[(own, dict(own)) for own in (m._modules, m._parameters, m._buffers)] for m in modules]
    tensors = [*alignment.parameters(), *alignment.buffers()]
    before = [(t, t.detach().clone(), t.requires_grad, t.grad) for t in tensors]
    for tensor in tensors:
        tensor.grad = None
    try:
        yield
    finally:
        for module, training, registered in zip(modules, modes, held, strict=True):
            module.training = training
            for own, was in registered:
                # A method may have put others in their place, or added some.
                own.clear()
                own.update(was)  # type: ignore[arg-type]  # each its own kind
        with torch.no_grad():
            for tensor, value, wanted, gradient in before:
                tensor.copy_(value)
                tensor.requires_grad_(wanted)
                tensor.grad = gradient


@contextmanager
def _drawn_from(images: np.ndarray, device: torch.device) -> Iterator[None]:
    """Random numbers that follow from the volume; afterwards the generators go on as if none had been drawn."""
    content = hashlib.sha256(f"{images.dtype} {images.shape};".encode())
    content.update(np.ascontiguousarray(images).data)
    seed = int.from_bytes(content.digest()[:4], "little")
    states = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _adapt(alignment: Alignment, images: np.ndarray, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(_in_float32(alignment))
            alignment.eval()
            x = torch.from_numpy(np.ascontiguousarray(images)).to(device).float()
            predict = alignment.adapt_to(x.contiguous(memory_format=memory_format(device)))
        alignment.eval()
        return predict
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Out of the handler, whose traceback would keep what the attempt has allocated.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise RunError(
        f"{device.type} has too little memory to adapt '{type(alignment).__name__}' to a volume of {len(images)} slices: lower "
        "the batch size of its adaptation (`attentkit show` names the option), or choose another --device."
    )


@contextmanager
def _in_float32(alignment: Alignment) -> Iterator[None]:
    """The networks without the wrappers that choose a precision: a loss scale belongs to training."""
    wrapped = dict(alignment.named_children())
    for name, child in wrapped.items():
        setattr(alignment, name, unwrapped(child))
    try:
        yield
    finally:
        for name, child in wrapped.items():
            setattr(alignment, name, child)
