"""What a selector is, and all that it may see of a snapshot: nothing of it comes from target labels.

Shapes: N target slices, M source slices, K classes, F feature channels, P positions, H W pixels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attent_kit.objectives import IGNORE


@dataclass(frozen=True)
class Look:
    """Answers of the networks of one snapshot to the same slices as at every other, on the CPU in float32.

    A field is None where the method or the data lack it.
    """

    p_t: Tensor
    """[N, K, H, W], class probabilities of target training slices."""
    source_ratios: Tensor
    """[K], share of each class in the labelled pixels of all source training slices; 0 each where the source is not read."""
    p_cycle: Tensor | None = None
    """[N, K, H, W], those of the same slices after a translation to source style and back."""
    p_s: Tensor | None = None
    """[M, K, H, W], class probabilities of source slices as the segmentor is trained on them."""
    y_s: Tensor | None = None
    """[M, H, W], labels of these slices, IGNORE where unknown; None if they come from cases that are trained on."""
    f_s: Tensor | None = None
    """[P, F], the segmentor's deepest features at positions of the source slices, seeded."""
    f_t: Tensor | None = None
    """[P, F], at positions of the target slices."""


class Selector(ABC):
    """A score of a snapshot from which one may guess, without target labels, how good it is on the target."""

    kind: ClassVar[str] = "selectors"
    better: ClassVar[Literal["higher", "lower"]]
    """Which of two scores speaks for a snapshot."""

    @abstractmethod
    def score(self, look: Look) -> float | None:
        """The score; None where the look lacks what it needs."""


def sample(rows: Tensor, count: int) -> Tensor:
    """At most `count` rows of [P, ...], the same ones whenever there are as many."""
    if len(rows) <= count:
        return rows
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count]
    return rows[chosen]


__all__ = ["IGNORE", "Look", "Selector", "sample"]
