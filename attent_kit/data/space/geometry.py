"""From a volume to square slices, and from slices back to the volume's own grid.

Shapes: X Y Z the native array, any axis order; Z H W slices, H W = `size`; K classes.

Slices are what a radiologist sees, in one of three planes:

    axial       slices from feet to head, rows from front to back, columns from the patient's right to left
    coronal     slices from front to back, rows from head to feet, columns from the patient's right to left
    sagittal    slices from the patient's right to left, rows from head to feet, columns from front to back

An axial one is `ras[::-1, ::-1, :].transpose(2, 1, 0)`. In plane the slice is padded to a physical square
and resampled to `size` x `size`, so that no organ is stretched; a 512 x 512 slice of square pixels is plainly resized.
With a given pixel size in mm the slice is resampled to that instead, then cut or padded to `size` x `size` about its
centre. The square may lie around another point than the centre of the field of view: `attent_kit.data.space.slicing` says
where. The distance between slices is left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from scipy.sparse import csr_array

_PLANES = {
    name: axcodes2ornt(tuple(sides)) for name, sides in (("axial", "LPS"), ("sagittal", "PIL"), ("coronal", "LIP"))
}
"""The sides that columns, rows and slices run to."""
PLANES = tuple(_PLANES)
_TO_AXIAL = {"axial": (0, 1, 2), "sagittal": (1, 2, 0), "coronal": (1, 0, 2)}
"""Which axis of slices [Z, H, W] runs along the body, from front to back, and from side to side."""
COARSER = 1.5
"""How many times longer than the others a voxel is along the axis across which a scan was acquired, at least."""


def to_axial(slices: np.ndarray, plane: str) -> np.ndarray:
    """Slices [Z, H, W] of a plane as what lies in axial ones, not resampled: from feet, front and the patient's right. A view."""
    turned = slices.transpose(_TO_AXIAL[plane])
    return turned if plane == "axial" else turned[::-1]


def spacing_to_axial(spacing: tuple[float, float, float], plane: str) -> tuple[float, float, float]:
    """mm along the axes of `to_axial`, from those between slices, rows and columns."""
    up, back, left = (spacing[axis] for axis in _TO_AXIAL[plane])
    return up, back, left


@dataclass(frozen=True)
class Grid:
    """A native grid together with the slices that are made from it."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    """[4, 4], voxel index to mm in RAS."""
    size: int
    """Side of a slice in pixels."""
    fixed_pixel: float | None = None
    """Side of a pixel in mm where it is given; None where `size` pixels span the field of view."""
    plane: str = "axial"
    middle: tuple[float, float] | None = None
    """Native row and column, as indices in `planes`, around which the square lies; None for the centre of the plane."""

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        affine: np.ndarray,
        size: int,
        pixel: float | None = None,
        plane: str = "axial",
        middle: Sequence[float] | None = None,
    ) -> "Grid":
        """The grid of an array of `shape` placed by `affine`; `pixel` in mm, or None for the whole field of view."""
        x, y, z = (int(n) for n in shape)
        placed = tuple(tuple(float(a) for a in row) for row in affine)
        around = None if middle is None else (float(middle[0]), float(middle[1]))
        return cls((x, y, z), placed, int(size), pixel, plane, around)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between voxel centres along the native X, Y, Z."""
        x, y, z = nib.affines.voxel_sizes(np.array(self.affine))
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """Three letters, the patient's side that each native axis points to."""
        return "".join(nib.aff2axcodes(np.array(self.affine)))

    @property
    def acquired(self) -> str | None:
        """The plane across which voxels are clearly the longest, so that the scan was acquired in it; None if in no one."""
        found = [(self.cut(plane).distance, plane) for plane in PLANES]
        (_, (second, _), (longest, plane)) = sorted(found)
        return plane if longest >= COARSER * second else None

    def cut(self, plane: str) -> "Grid":
        """The same grid in slices of another plane and of its whole field of view."""
        return Grid(self.shape, self.affine, self.size, plane=plane)

    @property
    def planes_shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns of `planes`."""
        columns, rows, slices = (self.shape[n] for n in self._native_axes)
        return slices, rows, columns

    @property
    def planes_spacing(self) -> tuple[float, float, float]:
        """mm between slices, rows and columns of `planes`."""
        columns, rows, slices = (self.spacing[n] for n in self._native_axes)
        return slices, rows, columns

    @property
    def pixel(self) -> float:
        """mm that one pixel of a slice is wide and high."""
        return self.fixed_pixel or self._columns.square * self._columns.spacing / self.size

    @property
    def resolution(self) -> float:
        """mm below which a slice shows nothing: its own pixel or the native one, whichever is coarser."""
        return max(self.pixel, self._rows.spacing, self._columns.spacing)

    @property
    def distance(self) -> float:
        """mm from one slice to the next."""
        return self.spacing[self._native_axes[2]]

    def to_slices(self, array: np.ndarray) -> np.ndarray:
        """An image [X, Y, Z] as [Z, H, W] float32: averaged over area where it shrinks, linear where it grows.

        What lies outside the native field of view takes the minimum of the array, which is air.
        """
        planes = self.planes(array)
        air = np.float32(array.min())
        rows, columns = self._rows.forward(), self._columns.forward()
        slices = np.empty((len(planes), self.size, self.size), np.float32)
        for z, plane in enumerate(planes):
            slices[z] = _resample(plane.astype(np.float32) - air, rows, columns)
        slices += air
        return slices

    def labels_to_slices(self, labels: np.ndarray) -> np.ndarray:
        """A label map [X, Y, Z] as [Z, H, W] uint8: each pixel takes the label that fills most of it, 0 outside."""
        # At half size an edge often divides a pixel into equal parts. Always background would take 2 to 3 % of a liver
        # or a spleen away, always the same side would move them, so ties go both ways, as on a chessboard.
        planes = np.ascontiguousarray(self.planes(labels))
        ways = [_each_vote(planes, self._rows.forward(by), self._columns.forward(by)) for by in (-1 / 64, 1 / 64)]
        return np.where(np.indices(ways[0].shape[1:]).sum(axis=0) % 2, ways[1], ways[0])

    def outside(self, labels: np.ndarray) -> float:
        """Share of the labelled voxels of [X, Y, Z] whose centre no slice covers: 0 where slices span the field of view."""
        if self.fixed_pixel is None and self.middle is None:
            return 0.0
        rows, columns = self._rows.covered(), self._columns.covered()
        planes = self.planes(labels) > 0
        return 1 - planes[:, rows][:, :, columns].sum() / max(planes.sum(), 1) if planes.any() else 0.0

    def to_native(self, array: np.ndarray) -> np.ndarray:
        """Slices back on the native grid: labels [Z, H, W] or scores [K, Z, H, W] -> labels [X, Y, Z] uint8.

        Scores (logits or probabilities) are interpolated linearly, then the largest wins; so do the labels, as one-hot.
        """
        rows, columns = self._rows.back(), self._columns.back()
        if array.ndim == 3:
            planes = _each_vote(array, rows, columns)
        else:
            planes = np.empty((array.shape[1], rows.shape[0], columns.shape[0]), np.uint8)
            for z in range(array.shape[1]):
                scores = [_resample(plane.astype(np.float32), rows, columns) for plane in array[:, z]]
                planes[z] = np.argmax(scores, axis=0)
        return self._native(planes)

    def score_to_native(self, score: np.ndarray, outside: float) -> np.ndarray:
        """One score of slices [Z, H, W] on the native grid: [X, Y, Z] float32, linear in plane as for `to_native`.

        Voxels that no slice covers take the value `outside`.
        """
        rows, columns = self._rows.back(), self._columns.back()
        planes = np.stack([_resample(plane.astype(np.float32), rows, columns) for plane in score])
        beyond_rows, beyond_columns = (np.asarray(weights.sum(axis=1)).ravel() == 0 for weights in (rows, columns))
        planes[:, beyond_rows, :] = outside
        planes[:, :, beyond_columns] = outside
        return self._native(planes)

    def _native(self, planes: np.ndarray) -> np.ndarray:
        """[slices, rows, columns] in native pixels -> [X, Y, Z]."""
        turn = ornt_transform(_PLANES[self.plane], io_orientation(np.array(self.affine)))
        return np.ascontiguousarray(apply_orientation(planes.transpose(2, 1, 0), turn))

    def planes(self, array: np.ndarray) -> np.ndarray:
        """An array [X, Y, Z] as the slices that it has, [slices, rows, columns] as above but not resampled: a view."""
        if tuple(array.shape) != self.shape:
            raise ValueError(f"array of shape {array.shape} on a grid of shape {self.shape}")
        turn = ornt_transform(io_orientation(np.array(self.affine)), _PLANES[self.plane])
        return apply_orientation(array, turn).transpose(2, 1, 0)

    @cached_property
    def _rows(self) -> "_Axis":
        return self._axis(1)

    @cached_property
    def _columns(self) -> "_Axis":
        return self._axis(0)

    @property
    def _native_axes(self) -> list[int]:
        """Along which native axis columns, rows and slices follow each other."""
        native = np.argsort(io_orientation(np.array(self.affine))[:, 0])
        return [int(native[int(axis)]) for axis in _PLANES[self.plane][:, 0]]

    def _axis(self, which: int) -> "_Axis":
        native = self._native_axes[:2]
        side = max(self.shape[n] * self.spacing[n] for n in native)
        if self.fixed_pixel is not None:
            side = self.size * self.fixed_pixel
        count, spacing = self.shape[native[which]], self.spacing[native[which]]
        square = side / spacing
        # Headers round: 512 pixels that differ by a millionth are a square.
        square = float(round(square)) if abs(square - round(square)) < 1e-2 else square
        middle = None if self.middle is None else self.middle[1 - which]
        return _Axis(count, spacing, square, self.size, middle)


@dataclass(frozen=True)
class _Axis:
    """One in-plane axis: `count` native pixels, set to a whole pixel on a square `square` pixels wide, so that the pixel
    `middle`, or their centre where that is None, comes to lie in its middle."""

    count: int
    spacing: float
    square: float
    size: int
    middle: float | None = None

    @property
    def before(self) -> int:
        """Pixels of the square before the first native one; negative where the square leaves native ones out."""
        if self.middle is not None:
            return round(self.square / 2 - self.middle - 0.5)
        return int((self.square - self.count) // 2)

    def covered(self) -> slice:
        """The native pixels whose centre lies in the square."""
        return slice(max(-self.before, 0), max(int(np.ceil(self.square - self.before - 0.5)), 0))

    def forward(self, shift: float = 0.0) -> csr_array:
        step = self.square / self.size
        weights = _by_area if step > 1 else _linear
        return weights(self.count, self.size, -self.before + shift, step)

    def back(self) -> csr_array:
        step = self.size / self.square
        return _linear(self.size, self.count, self.before * step, step)


def _by_area(count: int, outputs: int, start: float, step: float) -> csr_array:
    """[outputs, count], share of pixel i in output j, which covers start + j * step to start + (j + 1) * step."""
    low = start + step * np.arange(outputs)[:, None]
    pixel = np.arange(count)
    shared = np.minimum(low + step, pixel + 1) - np.maximum(low, pixel)
    return csr_array((shared.clip(0) / step).astype(np.float32))


def _linear(count: int, outputs: int, start: float, step: float) -> csr_array:
    """[outputs, count], weights of linear interpolation at the centre of output j; zero outside the pixels."""
    centre = start + step * (np.arange(outputs)[:, None] + 0.5) - 0.5
    inside = (centre >= -0.5) & (centre <= count - 0.5)
    weights = 1 - np.abs(np.arange(count) - centre.clip(0, count - 1))
    return csr_array((weights.clip(0) * inside).astype(np.float32))


def _resample(plane: np.ndarray, rows: csr_array, columns: csr_array) -> np.ndarray:
    return (columns @ (rows @ plane).T).T


def _each_vote(planes: np.ndarray, rows: csr_array, columns: csr_array) -> np.ndarray:
    labels = np.zeros((len(planes), rows.shape[0], columns.shape[0]), np.uint8)
    for z, plane in enumerate(planes):
        names = [0, *(n for n in np.unique(plane) if n != 0)]
        if len(names) > 1:
            votes = [_resample((plane == name).astype(np.float32), rows, columns) for name in names[1:]]
            background = 1 - np.sum(votes, axis=0)
            labels[z] = np.array(names, np.uint8)[np.argmax([background, *votes], axis=0)]
    return labels
