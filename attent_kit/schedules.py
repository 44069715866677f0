"""Learning-rate schedules: fraction of the stage that is done -> multiplier. Stateless, so nothing of them is checkpointed."""

from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(fraction: float) -> float:
    """1 throughout."""
    return 1.0


def poly(power: float = 0.9) -> Schedule:
    """(1 - fraction) ** power: DeepLab, AdaptSegNet, ADVENT."""
    return lambda fraction: max(0.0, 1.0 - fraction) ** power


def steps_down(factor: float, times: int) -> Schedule:
    """Multiplied by `factor` at the end of each of `times` equal parts: SIFA-v1 has 0.9 after every second of 20 epochs."""
    return lambda fraction: factor ** int(min(fraction, 1.0) * times)


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """`factor` times the schedule."""
    return lambda fraction: factor * schedule(fraction)


def first_part(schedule: Schedule, part: float) -> Schedule:
    """The schedule as far as the fraction `part` of its length: AdaptSegNet stops poly after 150 of 250 thousand steps."""
    return lambda fraction: schedule(fraction * part)


def linear_after(start: float = 0.5) -> Schedule:
    """1 until `start`, then linearly to 0 at the end: CycleGAN's 100 + 100 epochs with start 0.5."""
    return lambda fraction: 1.0 if fraction <= start or start >= 1.0 else max(0.0, (1.0 - fraction) / (1.0 - start))
