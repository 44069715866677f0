"""Small random maps of whole slices, affine and smooth, on the device of the images.

There is no left-right flip: left and right kidney are separate classes, and a flip would call one the other.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attent_kit.config import ComponentConfig


class Augmentation(ComponentConfig):
    """How far a training slice may be moved."""

    rotation: float = Field(10.0, ge=0, le=180)
    """Largest rotation in the slice plane, degrees, either way."""
    scale: float = Field(0.1, ge=0, lt=1)
    """Largest relative change of size, either way, for each axis on its own."""
    shift: float = Field(0.05, ge=0, lt=1)
    """Largest shift as a fraction of the field of view, either way, along each axis."""
    elastic: float = Field(0.0, ge=0, le=0.05)
    """Standard deviation of a smooth displacement as a fraction of the field of view, at its largest; each slice takes a part."""


def random_affine(batch: int, options: Augmentation, generator: torch.Generator) -> Tensor:
    """Matrices [B, 2, 3] from output to input coordinates in [-1, 1], drawn on the CPU."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(batch, generator=generator) * 2 - 1) * limit

    angle = uniform(math.radians(options.rotation))
    scale_x, scale_y = 1 + uniform(options.scale), 1 + uniform(options.scale)
    shift_x, shift_y = uniform(2 * options.shift), uniform(2 * options.shift)
    row_x = torch.stack([angle.cos() * scale_x, -angle.sin() * scale_x, shift_x], dim=1)
    row_y = torch.stack([angle.sin() * scale_y, angle.cos() * scale_y, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def random_bend(batch: int, options: Augmentation, generator: torch.Generator) -> Tensor | None:
    """Displacements [B, 2, 5, 5] at control points, in coordinates from -1 to 1, drawn on the CPU; None without `elastic`."""
    if options.elastic == 0:
        return None
    part = torch.rand(batch, 1, 1, 1, generator=generator)
    return 2 * options.elastic * part * torch.randn(batch, 2, 5, 5, generator=generator)


def warp(x: Tensor, y: Tensor | None, affine: Tensor, bend: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Images [B, C, H, W] linearly, labels [B, H, W] by nearest neighbour; outside lies the edge of the slice."""
    grid = F.affine_grid(affine, [x.shape[0], 1, *x.shape[2:]], align_corners=False)
    if bend is not None:
        grid = grid + F.interpolate(bend, x.shape[2:], mode="bicubic", align_corners=False).movedim(1, -1)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if y is not None:
        moved = F.grid_sample(
            y.unsqueeze(1).to(x.dtype), grid, mode="nearest", padding_mode="border", align_corners=False
        )
        y = moved.squeeze(1).long()
    return x, y
