"""Prepared volumes -> Batch of patches. The batch of a step is a function of (seed, step), as that of slices is.

Cases of both domains are shuffled by epoch, each domain on its own, and a patch is drawn from each: around a labelled voxel, so
often as `Patch.foreground` says, or anywhere. Its slices are turned, scaled, moved and bent in their plane, all alike, about the
middle of the patch; between slices nothing moves. What lies outside of the volume repeats its edge.
"""

from collections.abc import Sequence
from typing import NoReturn
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attent_kit.data.prepared.augment import Augmentation, random_affine, random_bend
from attent_kit.data.prepared.batches import Batches, fits, memory_format, training_cases, unknown_organs
from attent_kit.data.prepared.file import IGNORE, Prepared
from attent_kit.data.prepared.unread import is_read
from attent_kit.errors import ConfigError, DataError
from attent_kit.interfaces import Patch
from attent_kit.objectives import may_be

VOXELS_KNOWN = 10_000
"""Of each organ of a case, where patches may lie around them; nnU-Net has as many."""


class TrainingVolumes:
    """Training cases of one domain, on the device where they fit, and read where they do not."""

    def __init__(self, prepared: Prepared, with_labels: bool, device: torch.device, resident: bool) -> None:
        self.prepared, self.with_labels, self.device = prepared, with_labels, device
        self.cases = prepared.ids("train")
        self.count = len(self.cases)
        self.unknown = unknown_organs(prepared, [(case, 0) for case in self.cases]) if with_labels else None
        self.sizes = [(prepared.case(case).slices, prepared.size, prepared.size) for case in self.cases]
        self.voxels = [self._labelled(case) for case in self.cases] if with_labels else [[]] * self.count
        """Of each case, of each organ that it labels: where, [n, 3]."""
        self._kept = [self._read(case, slice(None)) for case in self.cases] if resident else None

    def take(self, case: int, first: int, depth: int) -> tuple[Tensor, Tensor | None]:
        """`depth` slices from `first`, which may lie outside: [D, H, W] float32, and labels uint8 where they may be seen."""
        rows = torch.arange(first, first + depth).clamp(0, self.sizes[case][0] - 1)
        low, high = int(rows[0]), int(rows[-1]) + 1
        if self._kept is None:
            x, y = self._read(self.cases[case], slice(low, high))
        else:
            whole = self._kept[case]
            x, y = whole[0][low:high], None if whole[1] is None else whole[1][low:high]
        rows = (rows - low).to(self.device)
        return x[rows].float(), None if y is None else y[rows]

    def _read(self, case: str, rows: slice) -> tuple[Tensor, Tensor | None]:
        x = torch.from_numpy(self.prepared.volume(case, rows)).to(self.device)
        if not self.with_labels:
            return x, None
        return x, torch.from_numpy(self.prepared.label_slices(case)[rows]).to(self.device)

    def _labelled(self, case: str) -> list[np.ndarray]:
        labels = self.prepared.label_slices(case)
        rng, found = np.random.default_rng(crc32(case.encode())), []
        for organ in np.unique(labels[(labels > 0) & (labels != IGNORE)]):
            where = np.flatnonzero(labels == organ)
            where = where if len(where) <= VOXELS_KNOWN else rng.choice(where, VOXELS_KNOWN, replace=False)
            found.append(np.stack(np.unravel_index(where, labels.shape), axis=1))
        return found


class PatchBatches(Batches):
    """Batches of both domains for a segmentor of volumes."""

    def __init__(
        self,
        source: TrainingVolumes | None,
        target: TrainingVolumes,
        patch: Patch,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
    ) -> None:
        """`source`: None where it is not read."""
        super().__init__(source, target, augmentation, seed, device)  # type: ignore[arg-type]  # drawn from here alone
        self.patch = patch

    def whole_target(self, size: int) -> NoReturn:
        """ConfigError: patches of volumes are drawn anywhere, so that there is no whole set of them."""
        raise ConfigError(
            "this method labels the whole target set now and then, and that is done slice by slice: choose a segmentor of "
            "slices, as in --set segmentor=smp."
        )

    def _draw(  # type: ignore[override]  # volumes in place of slices
        self, domain: int, volumes: TrainingVolumes, step: int, size: int, generator: torch.Generator,
        pseudo: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        depth, *plane = self.patch.size
        cases = [
            int(self._permutation(domain, p // volumes.count, volumes.count)[p % volumes.count])
            for p in range(step * size, (step + 1) * size)
        ]
        corners = [corner_of(volumes.sizes[c], volumes.voxels[c], self.patch, generator) for c in cases]
        drawn = [volumes.take(case, corner[0], depth) for case, corner in zip(cases, corners, strict=True)]
        affine, bend = (
            random_affine(size, self.augmentation, generator),
            random_bend(size, self.augmentation, generator),
        )
        grid = grid_of([corner[1:] for corner in corners], plane, volumes.sizes[0][1:], affine, bend).to(self.device)
        x = F.grid_sample(
            torch.stack([x for x, _ in drawn]), grid, mode="bilinear", padding_mode="border", align_corners=False
        ).unsqueeze(1)
        x = x.contiguous(memory_format=memory_format(self.device, 3))
        if not volumes.with_labels:
            return x, None, None
        labels = torch.stack([y for _, y in drawn if y is not None]).float()
        y = F.grid_sample(labels, grid, mode="nearest", padding_mode="border", align_corners=False).long()
        if volumes.unknown is not None:
            y = may_be(y, volumes.unknown[cases].to(self.device, non_blocking=True))
        return x, y, None


def corner_of(
    size: Sequence[int], voxels: Sequence[np.ndarray], patch: Patch, generator: torch.Generator
) -> tuple[int, int, int]:
    """First slice, row and column of a patch in a volume of that size: around one of the `voxels` of an organ drawn at random, or
    anywhere; as far inside as it fits, and about the middle along an axis that is shorter than the patch."""
    around, organ, voxel, *anywhere = torch.rand(6, generator=generator).tolist()
    found = []
    middle = None
    if voxels and around < patch.foreground:
        where = voxels[int(organ * len(voxels))]
        middle = where[int(voxel * len(where))]
    for axis, (whole, side) in enumerate(zip(size, patch.size, strict=True)):
        room = whole - side
        if room <= 0:
            found.append(-(-room // 2))
        elif middle is None:
            found.append(int(anywhere[axis] * (room + 1)))
        else:
            found.append(min(max(int(middle[axis]) - side // 2, 0), room))
    return found[0], found[1], found[2]


def grid_of(
    corners: Sequence[Sequence[int]], plane: Sequence[int], whole: Sequence[int], affine: Tensor, bend: Tensor | None
) -> Tensor:
    """Where the pixels of patches lie in their slices: [B, h, w, 2], x and y from -1 to 1.

    `corners`: first row and column of each patch of `plane` pixels in slices of `whole`; `affine` [B, 2, 3] and `bend`
    [B, 2, 5, 5] as of slices, about the middle of the patch.
    """
    (h, w), (H, W) = plane, whole
    y, x = (torch.arange(side) - (side - 1) / 2 for side in (h, w))
    offsets = torch.stack([(x * 2 / W).expand(h, w), (y * 2 / H)[:, None].expand(h, w)], dim=-1)
    corner = torch.tensor([list(c) for c in corners], dtype=torch.float32)
    middle = torch.stack([(2 * corner[:, 1] + w) / W - 1, (2 * corner[:, 0] + h) / H - 1], dim=-1) + affine[:, :, 2]
    grid = torch.einsum("bij,hwj->bhwi", affine[:, :, :2], offsets) + middle[:, None, None]
    if bend is None:
        return grid
    return grid + F.interpolate(bend, (h, w), mode="bicubic", align_corners=False).movedim(1, -1)


def patch_batches(
    domains: tuple[Prepared, Prepared],
    patch: Patch,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
    uses_target_labels: bool,
    resident: bool | None = None,
) -> PatchBatches:
    """Batches of patches of the training cases of source and target, as `training_batches` of slices."""
    source, target = (
        _volumes(domain, labels, device, resident) if is_read(domain) else None
        for domain, labels in zip(domains, (True, uses_target_labels), strict=True)
    )
    assert target is not None
    return PatchBatches(source, target, patch, augmentation, seed, device)


def _volumes(prepared: Prepared, with_labels: bool, device: torch.device, resident: bool | None) -> TrainingVolumes:
    cases = training_cases(prepared, with_labels)
    if resident is None:
        resident = fits(sum(prepared.case(case).slices for case in cases) * prepared.size**2, device)
    return TrainingVolumes(prepared, with_labels, device, resident)


def refuse_parts(prepared: Prepared) -> None:
    """DataError if slices of a training case are to be left out, since volumes are whole."""
    for case in prepared.cases_in("train"):
        if left_out := len(case.kept) - len(case.with_organ):
            raise DataError(
                f"{prepared.path} was prepared with --foreground-only, which leaves out {left_out} slices of training case "
                f"{case.id}, and a segmentor of volumes learns from whole ones: run `attentkit prepare` again without it."
            )
