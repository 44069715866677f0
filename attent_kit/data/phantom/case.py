"""One patient in one scanner: the grid, partial volume, and the volume as it is stored."""

from dataclasses import dataclass, field

import numpy as np

from attent_kit.data.phantom import ct, mr
from attent_kit.data.phantom.anatomy import tissue_map
from attent_kit.data.phantom.frame import HALF_WIDTH
from attent_kit.data.phantom.patient import MODALITIES, random_patient
from attent_kit.data.phantom.shapes import smooth_noise, turn
from attent_kit.data.phantom.tissues import LABEL, ORGANS

SPLITS = ("train", "val", "test")
TEXTURE_GRAIN = 11.0
"""Distance in mm over which the texture inside an organ changes."""


@dataclass(frozen=True)
class PhantomSize:
    """Grid of one size and its patients: counts are (train, val, test), ranges are (lowest, highest)."""

    pixels: int
    mr: tuple[int, int, int]
    ct: tuple[int, int, int]
    mr_spacing_z: tuple[float, float]
    ct_spacing_z: tuple[float, float]
    ct_extra: tuple[float, float] = (0, 0)
    """Millimetres that a CT covers beyond the four organs."""
    ct_samples: tuple[int, int] = (2, 2)
    mr_samples: tuple[int, int] = (2, 3)
    """Points per voxel and axis, in plane and through plane, whose mean is the voxel."""

    @property
    def mr_patients(self) -> int:
        return sum(self.mr)

    @property
    def ct_patients(self) -> int:
        return sum(self.ct)

    @property
    def patients(self) -> tuple[int, int]:
        """Of both modalities, MR first."""
        return self.mr_patients, self.ct_patients

    def split(self, modality: str, patient: int) -> str:
        """The part that a patient (from 1) belongs to: the first are for training, the last for the test."""
        edges = np.cumsum(getattr(self, modality))
        return SPLITS[int(np.searchsorted(edges, patient))]


SIZES: dict[str, PhantomSize] = {
    "small": PhantomSize(64, (7, 1, 16), (7, 1, 16), (7.0, 8.0), (5.0, 6.0)),
    "medium": PhantomSize(128, (10, 2, 4), (12, 2, 4), (7.0, 9.0), (4.0, 5.0), (0, 30)),
    "full": PhantomSize(256, (14, 2, 4), (21, 3, 6), (5.5, 8.5), (2.5, 3.0), (40, 130), (1, 1), (1, 2)),
}


@dataclass(frozen=True)
class PhantomCase:
    """A volume as stored: `image` int16 and `labels` uint8 [i, j, k] in the order of `codes`, `affine` to RAS mm."""

    image: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    codes: str
    facts: dict = field(default_factory=dict)
    """What phantom.toml says about the case: spacing in mm, organ volumes in ml, protocol, missing organs."""


def phantom_case(modality: str, patient: int, size: PhantomSize, seed: int) -> PhantomCase:
    """The volume of one patient (numbered from 1); the same four arguments always give the same volume."""
    if not 1 <= patient <= (count := sum(getattr(size, modality))):
        raise ValueError(f"{modality} patients of this size are numbered 1 to {count}, not {patient}.")
    domain = MODALITIES.index(modality)
    person = random_patient(modality, patient, seed)
    rng = np.random.default_rng([seed, domain, patient, 2])
    is_ct = modality == "ct"
    # Golden-ratio steps: any run of patients covers the range of protocols.
    spread = (np.random.default_rng([seed, domain, 3]).uniform() + 0.618034 * patient) % 1
    scan = (ct if is_ct else mr).random_scan(rng, spread)
    shape, spacing, direction, center = random_grid(is_ct, size, person.scale, rng)
    in_plane, through = size.ct_samples if is_ct else size.mr_samples
    thickness = 1.0 if is_ct else 0.85
    x, y, z = sample_points(shape, spacing, direction, center, in_plane, through, thickness)
    tissue = tissue_map(person, x, y, z, rng)
    extent = [n * d for n, d in zip(shape, spacing, strict=True)]
    texture = smooth_noise(rng, tissue.shape, [int(e / TEXTURE_GRAIN) for e in extent])
    if is_ct:
        fine = ct.attenuation(scan, tissue, texture, x, y, rng)
        image = ct.acquire(scan, voxel_means(fine, shape), spacing[0], rng)
    else:
        image = mr.acquire(scan, voxel_means(mr.signal(scan, tissue, texture, rng), shape), rng)
    labels = majority(LABEL[tissue], shape)
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    codes = "LAS" if is_ct and patient % 2 else "RAS" if is_ct else "LPS"
    voxel = float(np.prod(spacing)) / 1000
    facts = {
        "modality": modality,
        "split": size.split(modality, patient),
        "shape": list(shape),
        "spacing_mm": [round(float(d), 4) for d in spacing],
        "axes": codes,
        "organ_ml": {organ: round(voxel * int((labels == k).sum()), 1) for k, organ in enumerate(ORGANS, start=1)},
        "missing": list(person.missing),
        "shrunken": list(person.shrunken),
        **scan.facts(),
    }
    return PhantomCase(*stored_as(codes, image, labels, affine), codes, facts)


def random_grid(
    is_ct: bool, size: PhantomSize, scale: np.ndarray, rng: np.random.Generator
) -> tuple[tuple[int, int, int], np.ndarray, np.ndarray, np.ndarray]:
    """Shape, spacing [3] mm, direction [3, 3] and centre [3] mm of a volume that covers the four organs."""
    fov = 2 * HALF_WIDTH * scale[0] * (rng.uniform(1.04, 1.13) if is_ct else rng.uniform(1.03, 1.10))
    dz = rng.uniform(*(size.ct_spacing_z if is_ct else size.mr_spacing_z))
    extra = rng.uniform(*size.ct_extra) if is_ct else 0.0
    bottom, top = -116 * scale[2] - rng.uniform(0, 8) - 0.7 * extra, 92 * scale[2] + rng.uniform(0, 8) + 0.3 * extra
    spacing = np.array([fov / size.pixels, fov / size.pixels, round(dz, 2)])
    shape = (size.pixels, size.pixels, int(np.ceil((top - bottom) / dz)))
    direction = np.eye(3) if is_ct else turn(*rng.normal(0, [1.5, 1.0, 1.0]))
    center = np.array([rng.normal(0, 4), rng.normal(-4 if is_ct else 0, 4), (bottom + top) / 2])
    return shape, spacing, direction, center


def sample_points(
    shape: tuple[int, int, int],
    spacing: np.ndarray,
    direction: np.ndarray,
    center: np.ndarray,
    in_plane: int,
    through: int,
    thickness: float,
) -> list[np.ndarray]:
    """World x, y, z in mm, each [X, Y, Z] float32: several points per voxel, over `thickness` of the slice distance."""
    ticks = []
    for n, d, samples, width in zip(shape, spacing, (in_plane, in_plane, through), (1, 1, thickness), strict=True):
        inside = ((np.arange(samples) + 0.5) / samples - 0.5) * width
        ticks.append(((np.arange(n) - (n - 1) / 2)[:, None] + inside).ravel() * d)
    u, v, w = np.ix_(*(t.astype(np.float32) for t in ticks))
    m, c = direction.astype(np.float32), center.astype(np.float32)
    return [m[k, 0] * u + m[k, 1] * v + m[k, 2] * w + c[k] for k in range(3)]


def voxel_means(fine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Mean of the points of each voxel: partial volume."""
    return np.asarray(voxel_sums(fine, shape) / np.float32(fine.size // np.prod(shape)), np.float32)


def voxel_sums(fine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Sum of the points of each voxel, in the order in which numpy's mean over these axes adds them, a few times as fast."""
    sx, sy, sz = (points // voxels for points, voxels in zip(fine.shape, shape, strict=True))
    rows = (sum(fine[a::sx, b::sy, c::sz] for c in range(sz)) for a in range(sx) for b in range(sy))
    return np.asarray(sum(rows))


def majority(fine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The label that most points of a voxel carry, the lowest where two tie."""
    counts = [voxel_sums((fine == k).view(np.uint8), shape) for k in range(len(ORGANS) + 1)]
    return np.argmax(np.stack(counts), axis=0).astype(np.uint8)


def stored_as(
    codes: str, image: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same volume with its axes reversed where `codes` differ from RAS."""
    flips = tuple(axis for axis, (code, ras) in enumerate(zip(codes, "RAS", strict=True)) if code != ras)
    affine = affine.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
        affine[:3, axis] *= -1
    return np.ascontiguousarray(np.flip(image, flips)), np.ascontiguousarray(np.flip(labels, flips)), affine
