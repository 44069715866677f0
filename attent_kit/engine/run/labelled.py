"""Pseudo-labels by epoch: stages that label the whole target set now and then.

    before step 0 of the stage, and before each step that `label_every` divides:
    label(every training slice of the target, in order, not moved) -> labels that batches carry until the next time

The labels are a part of what a run needs to go on, and lie in its checkpoint: the networks that made them have moved since.
"""

import zlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from attent_kit.errors import ConfigError
from attent_kit.interfaces import Alignment, Batch, Stage
from attent_kit.objectives import IGNORE

Packed = dict[str, Tensor]
"""Labels as a checkpoint holds them: the bytes of their compressed form, and their shape."""


def is_due(stage: Stage, here: int) -> bool:
    """Whether the stage labels the target before its step number `here`."""
    if stage.label is None:
        return False
    return here == 0 or (stage.label_every > 0 and here % stage.label_every == 0)


def labels_of(alignment: Alignment, stage: Stage, slices: Iterable[Tensor]) -> Tensor:
    """What the stage says of all slices [B, C, H, W] of a set: [N, H, W] uint8. Leaves all networks in eval mode.

    ConfigError for answers that are not labels of these slices.
    """
    assert stage.label is not None
    alignment.eval()
    asked, answers = _Counted(slices), f"stage '{stage.name}' of {type(alignment).__name__}: label answers with"
    said: list[Tensor] = []
    with torch.no_grad():
        for y in stage.label(asked):
            if not isinstance(y, Tensor) or y.dtype != torch.int64:
                found = y.dtype if isinstance(y, Tensor) else type(y).__name__
                raise ConfigError(f"{answers} {found} in place of torch.int64.")
            unknown = y[((y < 0) | (y >= alignment.task.classes)) & (y != IGNORE)]
            if len(unknown):
                raise ConfigError(
                    f"{answers} {int(unknown[0])}, which is none of {alignment.task.classes} classes, nor IGNORE."
                )
            said.append(y.to(torch.uint8))
    if len(said) != len(asked.shapes):
        raise ConfigError(f"{answers} {len(said)} batches of labels for {len(asked.shapes)} of slices.")
    for y, wanted in zip(said, asked.shapes, strict=True):
        if list(y.shape) != wanted:
            raise ConfigError(f"{answers} labels {list(y.shape)} in place of {wanted}.")
    return torch.cat(said)


class _Counted:
    """Batches of slices, which remembers what labels of them look like."""

    def __init__(self, slices: Iterable[Tensor]) -> None:
        self._slices = slices
        self.shapes: list[list[int]] = []

    def __iter__(self) -> Iterator[Tensor]:
        self.shapes = []
        for x in self._slices:
            self.shapes.append([len(x), *x.shape[2:]])
            yield x


def labelled(alignment: Alignment, stage: Stage, batch: Batch) -> Batch:
    """The batch with what the stage says of its own target slices, as if they were the whole set; as it is if the stage says
    nothing, or has said it."""
    if stage.label is None or batch.pseudo_t is not None:
        return batch
    return batch._replace(pseudo_t=labels_of(alignment, stage, [batch.x_t]).long())


def packed(labels: Tensor) -> Packed:
    """Labels [N, H, W] uint8 for a checkpoint, on the CPU."""
    content = bytearray(zlib.compress(labels.cpu().numpy().tobytes(), level=1))
    return {"labels": torch.frombuffer(content, dtype=torch.uint8), "shape": torch.tensor(labels.shape)}


def unpacked(kept: Packed) -> Tensor:
    """The labels again."""
    content = bytearray(zlib.decompress(kept["labels"].numpy().tobytes()))
    return torch.frombuffer(content, dtype=torch.uint8).view(*kept["shape"].tolist())
