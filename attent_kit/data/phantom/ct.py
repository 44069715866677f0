"""Attenuation of each tissue, contrast enhancement, table and noise: from tissues to Hounsfield units."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from attent_kit.data.phantom.shapes import smooth_noise
from attent_kit.data.phantom.tissues import Tissue, table

T = Tissue

# HU without contrast agent, and what a full portal-venous enhancement adds.
PLAIN = table(
    {T.AIR: -1000, T.SKIN: 10, T.FAT: -98, T.MUSCLE: 52, T.CORTICAL_BONE: 450, T.MARROW: 125, T.DISC: 85,
     T.CSF: 12, T.CORD: 38, T.LUNG: -830, T.GAS: -960, T.STOMACH_CONTENT: 14, T.BOWEL_WALL: 38, T.BOWEL_CONTENT: 22,
     T.STOOL: 5, T.ARTERY: 42, T.VEIN: 42, T.HEART: 42, T.BILE: 8, T.URINE: 6, T.PANCREAS: 38, T.ADRENAL: 30,
     T.LIVER: 57, T.HEPATIC_VESSEL: 42, T.RIGHT_CORTEX: 33, T.RIGHT_MEDULLA: 30, T.LEFT_CORTEX: 33,
     T.LEFT_MEDULLA: 30, T.SPLEEN: 47}
)  # fmt: skip
GAIN = dict.fromkeys(T, 0.0) | {
    T.MUSCLE: 12, T.SKIN: 10, T.MARROW: 10, T.CORD: 6, T.BOWEL_WALL: 48, T.ARTERY: 112, T.VEIN: 110, T.HEART: 95,
    T.PANCREAS: 52, T.ADRENAL: 45, T.LIVER: 50, T.HEPATIC_VESSEL: 116, T.RIGHT_CORTEX: 170, T.RIGHT_MEDULLA: 138,
    T.LEFT_CORTEX: 170, T.LEFT_MEDULLA: 138, T.SPLEEN: 96,
}  # fmt: skip
TEXTURE = table(
    dict.fromkeys(T, 5.0)
    | {T.AIR: 0, T.FAT: 9, T.MUSCLE: 9, T.CORTICAL_BONE: 70, T.MARROW: 30, T.LUNG: 45, T.GAS: 10, T.BOWEL_CONTENT: 14,
       T.STOMACH_CONTENT: 12, T.STOOL: 55, T.HEART: 9, T.PANCREAS: 10, T.LIVER: 5, T.SPLEEN: 5}
)  # fmt: skip
NOISE_SIGMA = 0.604
"""Gaussian, in pixels, that leaves white noise with the correlation of real abdominal CT, 0.45 between neighbours."""


@dataclass(frozen=True)
class CtScan:
    """One CT protocol: `enhancement` 0 is no contrast agent, 1 a full portal-venous phase; noise SD in HU at 1.5 mm."""

    enhancement: float
    noise: float
    oral_contrast: float
    """HU that a positive oral contrast agent adds to stomach and bowel content; 0 where none was drunk."""
    table_height: float

    def facts(self) -> dict:
        return {"contrast_phase": "portal venous"} | {name: round(value, 3) for name, value in asdict(self).items()}


def random_scan(rng: np.random.Generator, spread: float) -> CtScan:
    """A protocol; `spread` in 0..1 places the enhancement, so that a set of patients covers its range evenly."""
    return CtScan(
        enhancement=float(0.6 + 0.5 * spread),
        noise=float(rng.uniform(15, 25)),
        # Bands of the enhancement range, so that about a third of any few patients have drunk some.
        oral_contrast=float(rng.uniform(90, 150)) * (int(6 * spread) % 3 == 1),
        table_height=float(rng.uniform(4, 14)),
    )


def attenuation(
    scan: CtScan, tissue: np.ndarray, texture: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Hounsfield units [X, Y, Z] of a fine tissue map in world coordinates x, y (mm), without noise; adds the table."""
    individual = rng.normal(1, 0.07, len(T)).astype(np.float32)
    for left, right in ((T.LEFT_CORTEX, T.RIGHT_CORTEX), (T.LEFT_MEDULLA, T.RIGHT_MEDULLA)):
        individual[left] = individual[right]
    mean = PLAIN + np.float32(scan.enhancement) * table(GAIN) * individual
    mean = mean + rng.normal(0, 3, len(T)).astype(np.float32) * (TEXTURE > 0)
    mean[[T.STOMACH_CONTENT, T.BOWEL_CONTENT]] += np.float32(scan.oral_contrast) * np.array([0.8, 1], np.float32)
    hu = mean[tissue] + TEXTURE[tissue] * texture
    body = np.flatnonzero((tissue != T.AIR).any(axis=(0, 2)))
    back = y[:, body[0]].min() - scan.table_height if len(body) else -150.0
    sag = np.abs(y - np.float32(back - 8) - x * x / np.float32(2600))
    plate = (sag < 5) & (np.abs(x) < 205) & (tissue == T.AIR)
    hu[plate] = np.where(sag[plate] > 2.5, np.float32(-250), np.float32(-870))
    return hu


def acquire(scan: CtScan, hu: np.ndarray, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """Image in HU, int16 [X, Y, Z]: point spread, correlated noise that is stronger in the middle of the body.

    A `pixel` wider than 1.5 mm averages noise away.
    """
    image = gaussian_filter(hu, (0.35, 0.35, 0))
    noise = gaussian_filter(rng.standard_normal(hu.shape, np.float32), (NOISE_SIGMA, NOISE_SIGMA, 0), mode="wrap")
    u, v = (np.linspace(-1, 1, n, dtype=np.float32) for n in hu.shape[:2])
    strength = 1.15 - 0.45 * (u[:, None] ** 2 + v[None, :] ** 2)
    image += (
        np.float32(scan.noise * np.sqrt(1.5 / pixel)) * noise / noise.std() * np.clip(strength, 0.6, None)[..., None]
    )
    shade = smooth_noise(rng, hu.shape, [4, 4, 3])
    image[hu > -200] += 2 * shade[hu > -200]
    return np.clip(image.round(), -1000, 3000).astype(np.int16)
