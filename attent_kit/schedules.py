"""Learning-rate schedules: fraction of the stage that is done -> multiplier. Stateless, so nothing of them is checkpointed."""

from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(fraction: float) -> float:
    """1 throughout."""
    return 1.0


def poly(power: float = 0.9) -> Schedule:
    """(1 - fraction) ** power: DeepLab, AdaptSegNet, ADVENT."""
    return lambda fraction: max(0.0, 1.0 - fraction) ** power


def linear_after(start: float = 0.5) -> Schedule:
    """1 until `start`, then linearly to 0 at the end: CycleGAN's 100 + 100 epochs with start 0.5."""
    return lambda fraction: 1.0 if fraction <= start or start >= 1.0 else max(0.0, (1.0 - fraction) / (1.0 - start))
