"""One random patient: build, pose, and the organs that are small or gone."""

from dataclasses import dataclass, field

import numpy as np

from attent_kit.data.phantom.shapes import turn

MODALITIES = ("ct", "mr")
EVENT_EVERY = 12
"""One patient in so many has lost an organ, and one has a shrunken kidney."""


@dataclass(frozen=True)
class Patient:
    """What differs from the standard adult: `scale` [3], `rotation` [3, 3], `shift` [3] mm, `sizes` near 1."""

    scale: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    fat: float
    """Thickness of the subcutaneous fat relative to the standard."""
    waves: np.ndarray
    """[wave, 7]: amplitudes in mm (3), wave vector in 1/mm (3), phase."""
    missing: tuple[str, ...] = ()
    shrunken: tuple[str, ...] = ()
    sizes: dict[str, float] = field(default_factory=dict)
    moves: dict[str, np.ndarray] = field(default_factory=dict)

    def to_anatomy(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
        """World millimetres to millimetres of the standard adult, without the waves."""
        p = [v - np.float32(s) for v, s in zip((x, y, z), self.shift, strict=True)]
        m = (self.rotation.T / self.scale[:, None]).astype(np.float32)
        return tuple(m[k, 0] * p[0] + m[k, 1] * p[1] + m[k, 2] * p[2] for k in range(3))

    def displacement(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The waves' displacement [3, ...] in mm at points of the standard adult."""
        total = np.zeros((3, *x.shape), np.float32)
        for ax, ay, az, kx, ky, kz, phase in self.waves.astype(np.float32):
            wave = np.sin(2 * np.pi * (kx * x + ky * y + kz * z) + phase)
            for axis, amplitude in enumerate((ax, ay, az)):
                total[axis] += amplitude * wave
        return total


PARTS = ("liver", "left lobe", "right kidney", "left kidney", "spleen", "stomach", "gall bladder", "pancreas")


def random_patient(modality: str, patient: int, seed: int) -> Patient:
    """The patient of that number (from 1) in one domain; CT and MR never share one."""
    domain = MODALITIES.index(modality)
    rng = np.random.default_rng([seed, domain, patient, 0])
    block, place = divmod(patient - 1, EVENT_EVERY)
    # One draw per block of patients, so that a small test set cannot collect two of them by chance.
    events = np.random.default_rng([seed, domain, block, 1])
    lost, shrunken = events.permutation(EVENT_EVERY)[:2]
    lost_organ = ("right kidney", "left kidney", "spleen")[events.integers(3)]
    shrunken_kidney = ("right kidney", "left kidney")[events.integers(2)]
    body = rng.normal(1.0, 0.025)
    scale = body * np.clip(rng.normal(1.0, [0.02, 0.025, 0.025]), 0.93, 1.07)
    directions = rng.normal(size=(7, 3))
    wave_vectors = rng.normal(size=(7, 3))
    wave_vectors /= np.linalg.norm(wave_vectors, axis=1, keepdims=True) * rng.uniform(110, 240, (7, 1))
    return Patient(
        scale=np.clip(scale, 0.9, 1.1),
        rotation=turn(rng.normal(0, 1.5), rng.normal(0, 1.5), rng.normal(0, 2.5)),
        shift=rng.normal(0, [5, 5, 4]),
        fat=float(np.clip(rng.lognormal(0, 0.35), 0.5, 2.2)),
        waves=np.hstack([2.0 * directions, wave_vectors, rng.uniform(0, 2 * np.pi, (7, 1))]),
        missing=(lost_organ,) if place == lost else (),
        shrunken=(shrunken_kidney,) if place == shrunken else (),
        sizes={part: float(np.clip(rng.normal(1, 0.04), 0.9, 1.1)) for part in PARTS},
        moves={part: rng.normal(0, [3, 3, 5]) for part in PARTS},
    )
