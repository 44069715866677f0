"""Prepared slices -> Batch. The batch of a step is a function of (seed, step): a resumed run sees what it would have seen.

Slices of both domains are shuffled by epoch, each domain on its own. They are kept on the device where they fit into
half of its free memory, and read from the prepared file batch by batch where they do not.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attent_kit.data.prepared.augment import Augmentation, random_affine, random_bend, warp
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.unread import is_read
from attent_kit.data.workers import host_memory
from attent_kit.errors import DataError
from attent_kit.interfaces import Batch
from attent_kit.objectives import may_be


class TrainingSlices(Protocol):
    """Training slices of one domain."""

    count: int
    unknown: Tensor | None
    """[count, K] bool, organs that the case of each slice does not annotate; None if there is none, or without labels."""

    def take(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Images [B, C, H, W] float32 and labels [B, H, W] int64, or None where the labels are not to be seen."""
        ...


class ResidentSlices:
    """All slices on the device, in half precision, each once; images are stacks of neighbours."""

    def __init__(
        self,
        slices: np.ndarray,
        channels: np.ndarray,
        labels: np.ndarray | None,
        device: torch.device,
        unknown: Tensor | None = None,
    ) -> None:
        """Slices [M, H, W], and which of them are the channels of each image, [count, C]."""
        self.count = len(channels)
        self.unknown = unknown
        self.slices = torch.from_numpy(slices).to(device)
        self.channels = torch.from_numpy(channels).to(device)
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)

    def take(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor | None]:
        index = torch.from_numpy(rows).to(device, non_blocking=True)
        channels = self.channels.index_select(0, index)
        x = self.slices.index_select(0, channels.flatten()).unflatten(0, channels.shape).float()
        return x, None if self.labels is None else self.labels.index_select(0, index).long()


class StreamedSlices:
    """Slices that are read from the prepared file when a batch asks for them."""

    def __init__(self, prepared: Prepared, cases: tuple[str, ...], with_labels: bool, as_source: bool = False) -> None:
        self.prepared = prepared
        self.with_labels = with_labels
        self.rows = prepared.index(cases, as_source)
        self.count = len(self.rows)
        self.unknown = unknown_organs(prepared, self.rows) if with_labels else None

    def take(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor | None]:
        chosen = [self.rows[row] for row in rows]
        x = np.stack([self.prepared.image_row(case, z) for case, z in chosen])
        images = _to(torch.from_numpy(x).float(), device)
        if not self.with_labels:
            return images, None
        y = np.stack([self.prepared.label_row(case, z) for case, z in chosen])
        return images, _to(torch.from_numpy(y).long(), device)


class Batches:
    """Batches of both domains."""

    def __init__(
        self,
        source: TrainingSlices | None,
        target: TrainingSlices,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
    ) -> None:
        """`source`: None where it is not read."""
        self.source, self.target = source, target
        self.augmentation = augmentation
        self.seed = seed
        self.device = device
        self._permutations: dict[tuple[int, int], np.ndarray] = {}
        self._pseudo: Tensor | None = None

    @property
    def pseudo(self) -> Tensor | None:
        """Labels of every training slice of the target that a stage has made, [N, H, W] uint8; None where none has."""
        return self._pseudo

    @pseudo.setter
    def pseudo(self, labels: Tensor | None) -> None:
        fit = labels is not None and fits(labels.numel() // 2, self.device)
        self._pseudo = labels.to(self.device if fit else "cpu") if labels is not None else None

    def whole_target(self, size: int) -> "WholeSet":
        """Every training slice of the target once, as it is, `size` at a time."""
        return WholeSet(self.target, size, self.device)

    def batch(self, step: int, size: int) -> Batch:
        """The batch of `size` slices per domain that belongs to this step."""
        generator = torch.Generator().manual_seed(_mix(self.seed, 2, step))
        if self.source is None:
            x_t, *of_t = self._draw(1, self.target, step, size, generator, self.pseudo)
            return Batch(x_t[:0], torch.empty(0, *x_t.shape[2:], dtype=torch.int64, device=self.device), x_t, *of_t)
        x_s, y_s, _ = self._draw(0, self.source, step, size, generator)
        x_t, *of_t = self._draw(1, self.target, step, size, generator, self.pseudo)
        assert y_s is not None
        return Batch(x_s, y_s, x_t, *of_t)

    def _draw(
        self, domain: int, slices: TrainingSlices, step: int, size: int, generator: torch.Generator,
        pseudo: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        """Images, labels, and of the labels `pseudo` of all slices those of these, moved as they are."""
        positions = range(step * size, (step + 1) * size)
        rows = [self._permutation(domain, p // slices.count, slices.count)[p % slices.count] for p in positions]
        x, y = slices.take(np.asarray(rows), self.device)
        affine = random_affine(size, self.augmentation, generator).to(self.device, non_blocking=True)
        bend = random_bend(size, self.augmentation, generator)
        bend = None if bend is None else bend.to(self.device, non_blocking=True)
        if pseudo is not None:
            own = pseudo.index_select(0, torch.from_numpy(np.asarray(rows)).to(pseudo.device))
            _, pseudo = warp(x, own.to(self.device).long(), affine, bend)
        x, y = warp(x, y, affine, bend)
        if y is not None and slices.unknown is not None:
            y = may_be(y, slices.unknown[torch.from_numpy(np.asarray(rows))].to(self.device, non_blocking=True))
        return x.contiguous(memory_format=memory_format(self.device, x.ndim - 2)), y, pseudo

    def _permutation(self, domain: int, epoch: int, count: int) -> np.ndarray:
        key = domain, epoch
        if key not in self._permutations:
            for old in [k for k in self._permutations if k[0] == domain and k[1] < epoch - 1]:
                del self._permutations[old]
            self._permutations[key] = np.random.default_rng((self.seed, domain, epoch)).permutation(count)
        return self._permutations[key]


class WholeSet:
    """Every training slice of a domain once, in order and not moved, so many at a time: may be gone through several times."""

    def __init__(self, slices: TrainingSlices, size: int, device: torch.device) -> None:
        self._slices, self._size, self._device = slices, size, device

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, self._slices.count, self._size):
            rows = np.arange(first, min(first + self._size, self._slices.count))
            x, _ = self._slices.take(rows, self._device)
            yield x.contiguous(memory_format=memory_format(self._device))


def training_batches(
    source: Prepared,
    target: Prepared,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
    uses_target_labels: bool,
    resident: bool | None = None,
) -> Batches:
    """Batches of the training cases. Target labels are not even read unless `uses_target_labels`."""
    return Batches(
        _slices(source, True, device, resident, as_source=True) if is_read(source) else None,
        _slices(target, uses_target_labels, device, resident, as_source=False),
        augmentation,
        seed,
        device,
    )


def _slices(
    prepared: Prepared, with_labels: bool, device: torch.device, resident: bool | None, as_source: bool
) -> TrainingSlices:
    cases = training_cases(prepared, with_labels)
    if resident is None:
        resident = fits(len(prepared.index(cases, as_source)) * prepared.size**2, device)
    if not resident:
        return StreamedSlices(prepared, cases, with_labels, as_source)
    labels = prepared.labels(cases, as_source) if with_labels else None
    unknown = unknown_organs(prepared, prepared.index(cases, as_source)) if with_labels else None
    return ResidentSlices(*prepared.stacks(cases, as_source), labels, device, unknown)


def training_cases(prepared: Prepared, with_labels: bool) -> tuple[str, ...]:
    """The training cases. DataError if there is none, or if labels are wanted and one has none."""
    cases = prepared.ids("train")
    if not cases:
        raise DataError(f"{prepared.path} has no training case. Run `attentkit prepare` again with another split.")
    unlabelled = [case.id for case in prepared.cases_in("train") if not case.has_labels]
    if with_labels and unlabelled:
        raise DataError(
            f"{prepared.path}: training case {unlabelled[0]} has no labels, which this run needs. "
            f"Run `attentkit prepare` again with --labels."
        )
    return cases


def fits(pixels: int, device: torch.device) -> bool:
    """Whether so many, in half precision, fit into half of the free memory of a device."""
    return 2 * pixels < _free_memory(device) / 2


def unknown_organs(prepared: Prepared, rows: Sequence[tuple[str, int]]) -> Tensor | None:
    """Organs that the case of each slice (case, z) does not annotate: [N, K] bool, background first and always False; None if
    all cases annotate all."""
    by_case = {case: list(prepared.unknown(case)) for case in dict.fromkeys(case for case, _ in rows)}
    if not any(by_case.values()):
        return None
    unknown = np.zeros((len(rows), len(prepared.organs) + 1), bool)
    for n, (case, _) in enumerate(rows):
        unknown[n, by_case[case]] = True
    return torch.from_numpy(unknown)


def memory_format(device: torch.device, dims: int = 2) -> torch.memory_format:
    """Channels last for slices on a GPU. On a CPU instance norms of translators are several times slower in that layout."""
    return torch.channels_last if device.type == "cuda" and dims == 2 else torch.contiguous_format


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return host_memory()


def _to(x: Tensor, device: torch.device) -> Tensor:
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def _mix(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
