"""How the volumes of a domain become slices: the one place that says which voxels a slice shows.

What `prepare` does to a case, `predict` does to a new image, by the same `Slicing`, which prepared files and runs keep.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from attent_kit.data.space.body import AIR, COARSE, HU, NOTCH, SHARE, THIN, air_and_threshold, body_of, middle_of
from attent_kit.data.space.geometry import PLANES, Grid
from attent_kit.errors import ConfigError, did_you_mean

CENTRES = ("grid", "body")
RULE = (
    f"body: above {HU:g} HU in a CT, else above {100 * SHARE:g} % of the 99.5th percentile; averaged to pixels of about "
    f"{COARSE:g} mm, opened by {THIN} pixels in axial slices, the largest connected part, closed by {NOTCH} pixels, holes "
    f"filled, and grown by a pixel. All else becomes air, {AIR:g} HU or the value of the padding, and nothing is below it; then "
    "percentiles are taken. The square lies about the middle of the body's box, its median over slices"
)
"""In words, for those who must do the same elsewhere."""
ORDER = {
    "axial": "axial slices from feet to head: rows from anterior to posterior, columns from the patient's right to left",
    "sagittal": "sagittal slices from the patient's right to left: rows from head to feet, columns from anterior to posterior",
    "coronal": "coronal slices from anterior to posterior: rows from head to feet, columns from the patient's right to left",
}
"""Of slices, rows and columns, in words."""
_USUAL = {"centre": "grid", "plane": "axial"}
NO_BODY = (
    "no body stands out from its surroundings, so slices are centred on the grid and nothing around it is cleared."
)


class Placed(NamedTuple):
    """An image as its slices are made, and where they lie."""

    array: np.ndarray
    """[X, Y, Z] grey values; with `centre` "body", those of air wherever the body is not."""
    grid: Grid
    body: np.ndarray | None = None
    """[X, Y, Z] boolean, True where the body is; None where it was not looked for, or not found."""
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slicing:
    """Side and place of the slices of a domain.

    Slicing(256)                              # the whole field of view
    Slicing(64, 5.0, "body")                  # 320 mm around the body, and nothing beside it
    """

    size: int
    """Side of a slice in pixels."""
    pixel: float | None = None
    """Side of a pixel in mm; None where `size` pixels span each field of view."""
    centre: str = "grid"
    """"grid": the square lies about the centre of the field of view. "body": about that of the patient's body, and what is not
    body, such as the table, becomes air."""
    plane: str = "axial"
    """Or "sagittal" or "coronal", along which slices are cut."""

    def __post_init__(self) -> None:
        if self.centre not in CENTRES:
            raise ConfigError(
                f"slices cannot be centred on '{self.centre}'.{did_you_mean(self.centre, CENTRES)} There are: "
                f"{', '.join(CENTRES)}."
            )

    def place(self, array: np.ndarray, affine: np.ndarray, modality: str) -> Placed:
        """An image [X, Y, Z] of a modality, and the grid of its slices. Its labels are not asked."""
        grid = Grid.of(array.shape, affine, self.size, self.pixel, self.plane)
        if self.centre == "grid":
            return Placed(array, grid)
        air, threshold = air_and_threshold(array, modality)
        axial = grid.cut("axial")
        body = body_of(axial.planes(array), threshold, axial.planes_spacing)
        if body is None:
            return Placed(array, grid, doubts=(NO_BODY,))
        there = np.zeros(array.shape, bool)
        axial.planes(there)[...] = body
        cleared = np.where(there, np.maximum(array, np.float32(air)), np.float32(air))
        return Placed(cleared, replace(grid, middle=middle_of(grid.planes(there))), there)

    def grid(self, record: Mapping[str, Any]) -> Grid:
        """The grid of a case of a prepared file."""
        return Grid.of(
            record["shape"], np.array(record["affine"]), self.size, self.pixel, self.plane, record.get("middle")
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the names of manifests and domain.json; what is not there is as always. `from_dict` reads it."""
        unusual = {name: value for name in _USUAL if (value := getattr(self, name)) != _USUAL[name]}
        return {"size": self.size, "pixel_mm": self.pixel, **unusual}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Slicing":
        """What `to_dict` wrote. KeyError, ValueError or TypeError for anything else."""
        size, pixel = int(values["size"]), values["pixel_mm"]
        centre, plane = (values.get(name, usual) for name, usual in _USUAL.items())
        if size < 1 or (pixel is not None and not pixel > 0) or centre not in CENTRES or plane not in PLANES:
            raise ValueError("size, pixel_mm, centre or plane is impossible")
        return cls(size, None if pixel is None else float(pixel), centre, plane)


def across(grid: Grid) -> str:
    """What shows that a scan was acquired in another plane than that of its slices, or ""."""
    if grid.acquired in (None, grid.plane):
        return ""
    along = grid.cut(str(grid.acquired)).planes_spacing
    mm = f"{along[0]:.3g} mm apart with pixels of {max(along[1:]):.3g} mm"
    return f"it was acquired in {grid.acquired} slices, {mm}, and is cut into {grid.plane} ones"
