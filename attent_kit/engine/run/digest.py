"""SHA-256 of what a file of weights holds: tensors bit by bit, and the plain values beside them."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of tensors and plain values, nested in mappings, lists and tuples; on whichever device they are."""
    found = hashlib.sha256()
    for part in _parts(value):
        found.update(part)
    return found.hexdigest()


def on_cpu(value: Any) -> Any:
    """The same nest of mappings, lists and tuples with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {name: on_cpu(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_cpu(inner) for inner in value)
    return value


def _parts(value: Any) -> Iterator[Any]:
    """The bytes of a value, each part after a word that says what it is, so that no two values have the same bytes."""
    if isinstance(value, Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)};".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        # Sorted: safetensors keeps names in an order of its own.
        for name in sorted(value, key=lambda name: (type(name).__name__, name)):
            yield from _parts(name)
            yield from _parts(value[name])
    elif isinstance(value, (list, tuple)):
        yield f"sequence {len(value)};".encode()
        for inner in value:
            yield from _parts(inner)
    else:
        word = repr(value).encode()
        yield f"{type(value).__name__} {len(word)};".encode()
        yield word
