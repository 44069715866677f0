"""T2-weighted fast spin echo with spectral fat suppression (SPIR): from tissues to signal.

    S = PD (1 - exp(-TR / T1)) exp(-TE / T2)

Relaxation times follow de Bazelaire et al., MR imaging relaxation times of abdominal and pelvic tissues, Radiology 230
(2004): T1 near 1.5 T, T2 of spleen and kidney between 1.5 and 3.0 T. The T2 of muscle, pancreas, stomach and bowel are
chosen for the contrast of clinical T2-SPIR images, within the range that authors report.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from attent_kit.data.phantom.shapes import smooth_noise
from attent_kit.data.phantom.tissues import Tissue

T = Tissue

# Proton density, T1 and T2 in ms, fraction of fat, relative texture.
PROPERTIES = {
    T.AIR: (0.0, 1000, 50, 0, 0.0),
    T.SKIN: (0.5, 400, 30, 0.2, 0.1),
    T.FAT: (0.95, 343, 68, 1, 0.15),
    T.MUSCLE: (0.9, 1000, 42, 0.05, 0.15),
    T.CORTICAL_BONE: (0.12, 500, 5, 0, 0.1),
    T.MARROW: (0.7, 549, 49, 0.45, 0.15),
    T.DISC: (0.8, 900, 70, 0, 0.15),
    T.CSF: (1.0, 3500, 1200, 0, 0.1),
    T.CORD: (0.8, 850, 75, 0, 0.05),
    T.LUNG: (0.12, 1200, 40, 0, 0.4),
    T.GAS: (0.01, 1000, 30, 0, 0.3),
    T.STOMACH_CONTENT: (0.9, 2000, 230, 0, 0.2),
    T.BOWEL_WALL: (0.9, 1000, 62, 0, 0.15),
    T.BOWEL_CONTENT: (0.9, 1800, 210, 0, 0.3),
    T.STOOL: (0.7, 700, 45, 0.1, 0.45),
    T.ARTERY: (0.10, 1400, 220, 0, 0.3),
    T.VEIN: (0.20, 1400, 190, 0, 0.3),
    T.HEART: (0.35, 1100, 60, 0, 0.4),
    T.BILE: (1.0, 2600, 500, 0, 0.06),
    T.URINE: (1.0, 3000, 700, 0, 0.1),
    T.PANCREAS: (0.9, 650, 54, 0.05, 0.15),
    T.ADRENAL: (0.8, 700, 60, 0, 0.1),
    T.LIVER: (0.9, 586, 46, 0.05, 0.08),
    T.HEPATIC_VESSEL: (0.5, 1400, 150, 0, 0.25),
    T.RIGHT_CORTEX: (0.95, 966, 78, 0, 0.07),
    T.RIGHT_MEDULLA: (0.98, 1412, 82, 0, 0.08),
    T.LEFT_CORTEX: (0.95, 966, 78, 0, 0.07),
    T.LEFT_MEDULLA: (0.98, 1412, 82, 0, 0.08),
    T.SPLEEN: (0.9, 1057, 70, 0, 0.06),
}
PD, T1, T2, FAT_FRACTION, TEXTURE = (np.array([PROPERTIES[tissue][k] for tissue in T], np.float32) for k in range(5))


@dataclass(frozen=True)
class MrScan:
    """One sequence: times in ms, suppressed fraction of fat, receiver gain, noise relative to liver."""

    repetition_time: float
    echo_time: float
    fat_suppression: float
    gain: float
    noise: float
    bias: float

    def facts(self) -> dict:
        return {"sequence": "T2-SPIR"} | {name: round(value, 3) for name, value in asdict(self).items()}


def random_scan(rng: np.random.Generator, spread: float) -> MrScan:
    """A sequence; `spread` in 0..1 places the echo time, so that a set of patients covers its range evenly."""
    return MrScan(
        repetition_time=float(rng.uniform(1500, 2600)),
        echo_time=float(58 + 24 * spread),
        fat_suppression=float(rng.uniform(0.80, 0.92)),
        gain=float(rng.uniform(0.85, 1.18)),
        noise=float(rng.uniform(0.045, 0.08)),
        bias=float(rng.uniform(0.06, 0.14)),
    )


def spin_echo(pd: np.ndarray, t1: np.ndarray, t2: np.ndarray, tr: float, te: float) -> np.ndarray:
    """Signal of a spin echo, relative to full magnetisation; times in ms."""
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def signal(scan: MrScan, tissue: np.ndarray, texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signal [X, Y, Z] of a fine tissue map, 100 about the liver's: suppression of fat fails here and there."""
    spread = rng.normal(1, [[0.03], [0.05], [0.05]], (3, len(T))).astype(np.float32)
    for left, right in ((T.LEFT_CORTEX, T.RIGHT_CORTEX), (T.LEFT_MEDULLA, T.RIGHT_MEDULLA)):
        spread[:, left] = spread[:, right]
    mean = spin_echo(PD * spread[0], T1 * spread[1], T2 * spread[2], scan.repetition_time, scan.echo_time)
    reference = spin_echo(PD, T1, T2, 2000.0, 70.0)[T.LIVER]
    mean = (100 * mean / reference).astype(np.float32)
    # Fat in a lipid-rich tissue is suppressed, its water is not.
    failure = np.clip(0.06 * smooth_noise(rng, tissue.shape, [4, 4, 3]), -0.1, 0.3)
    left_over = np.clip(1 - np.float32(scan.fat_suppression) + failure, 0.02, 1)
    out = mean[tissue] * (1 + TEXTURE[tissue] * texture)
    out *= 1 - FAT_FRACTION[tissue] * (1 - left_over)
    return np.maximum(out, 0)


def acquire(scan: MrScan, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Image, int16 [X, Y, Z]: coil shading, faint breathing ghost along the phase direction, Rician noise, gain."""
    image = gaussian_filter(clean, (0.4, 0.4, 0))
    ghost = np.roll(image, int(rng.integers(5, 9)) * clean.shape[1] // 64, axis=1)
    image = 0.97 * image + np.float32(0.03) * ghost
    bias = np.exp(np.float32(scan.bias) * smooth_noise(rng, clean.shape, [3, 3, 2]))
    u, v = (np.linspace(-1, 1, n, dtype=np.float32) for n in clean.shape[:2])
    surface_coil = 1 + 0.35 * (u[:, None] ** 2 + v[None, :] ** 2)
    image *= bias * surface_coil[..., None]
    sigma = np.float32(100 * scan.noise)
    real, imaginary = (sigma * rng.standard_normal(clean.shape, np.float32) for _ in range(2))
    magnitude = np.sqrt((image + real) ** 2 + imaginary**2) * np.float32(2.6 * scan.gain)
    return np.clip(magnitude.round(), 0, 32767).astype(np.int16)
