"""Which cases are for training, for validation and for testing. A case is a patient: its slices stay together."""

from collections.abc import Mapping, Sequence

import numpy as np

from attent_kit.errors import ConfigError, did_you_mean

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}

Split = Mapping[str, Sequence[str]] | Mapping[str, float]


def divide(cases: Sequence[str], split: Split | None, seed: int) -> dict[str, tuple[str, ...]]:
    """Cases of 'train', 'val' and 'test', each sorted.

    Lists of cases are taken as they are; a case may stand in several, and if 'train' is not named, it is the rest.
    Fractions are dealt out by `seed`, whatever the order of `cases`, and each fraction above 0 gets a case at least.
    None means 0.7, 0.1 and 0.2, and with fewer than three cases all of them in every split.
    """
    cases = sorted(cases)
    if split is None:
        if len(cases) < len(SPLITS):
            return {name: tuple(cases) for name in SPLITS}
        split = FRACTIONS
    if unknown := [name for name in split if name not in SPLITS]:
        raise ConfigError(
            f"no split is called '{unknown[0]}': use {', '.join(SPLITS)}.{did_you_mean(unknown[0], SPLITS)}"
        )
    if all(isinstance(share, int | float) for share in split.values()):
        return _dealt(cases, split, seed)
    return _listed(cases, split)


def _listed(cases: list[str], split: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    for name, members in split.items():
        if isinstance(members, str | int | float):
            raise ConfigError(f"split '{name}' must be a list of cases, as the other splits are, not {members!r}.")
        for case in members:
            if case not in cases:
                raise ConfigError(
                    f"split '{name}' names the case '{case}', which is not there.{did_you_mean(case, cases)} "
                    f"There are: {', '.join(cases[:20])}{', ...' if len(cases) > 20 else ''}."
                )
    named = {case for members in split.values() for case in members}
    rest = {"train": [case for case in cases if case not in named], "val": (), "test": ()}
    return {name: tuple(sorted(set(split.get(name, rest[name])))) for name in SPLITS}


def _dealt(cases: list[str], split: Mapping[str, float], seed: int) -> dict[str, tuple[str, ...]]:
    total = sum(split.values())
    shares = {name: float(split.get(name, 0)) for name in SPLITS}
    if min(shares.values()) < 0 or abs(total - 1) > 1e-6:
        raise ConfigError(f"the fractions of the split add up to {total:g}: they must be 0 or more and add up to 1.")
    wanted = [name for name in SPLITS if shares[name] > 0]
    if len(cases) < len(wanted):
        raise ConfigError(
            f"{len(cases)} case{'s' if len(cases) > 1 else ''} cannot be divided into {', '.join(wanted)}: list the "
            f"cases of each split instead; the same one may stand in several, as in train={cases[0]} test={cases[0]}."
        )
    counts = {name: max(1, int(shares[name] * len(cases))) for name in wanted}
    while sum(counts.values()) != len(cases):
        missing = {name: shares[name] * len(cases) - counts[name] for name in wanted}
        if sum(counts.values()) < len(cases):
            counts[max(missing, key=missing.__getitem__)] += 1
        else:
            counts[min((n for n in wanted if counts[n] > 1), key=missing.__getitem__)] -= 1
    order = [cases[i] for i in np.random.default_rng(seed).permutation(len(cases))]
    dealt, first = dict.fromkeys(SPLITS, ()), 0
    for name in reversed(wanted):
        dealt[name], first = tuple(sorted(order[first : first + counts[name]])), first + counts[name]
    return dealt
