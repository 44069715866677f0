"""The numbers by which CHAOS and BTCV call their cases, so that a named split finds its test cases in the phantom."""

from itertools import chain, count, islice

from attent_kit.data.phantom.options import PhantomOptions
from attent_kit.data.sets.splits import tested_numbers

CHAOS_MR = (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)
CHAOS_CT = (1, 2, 5, 6, 8, 10, 14, 16, 18, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30)
"""The labelled cases of CHAOS; further patients are numbered from 41."""
BTCV = (*range(1, 11), *range(21, 41))
"""The labelled cases of BTCV; further patients are numbered from 41."""


def tested_by(options: PhantomOptions, modality: str, patients: int) -> tuple[int, ...]:
    """The test cases of the named split; none where the phantom has too few patients to train and test by it."""
    tested = tested_numbers(options.split, modality)
    return tested if patients > len(tested) else ()


def case_numbers(known: tuple[int, ...], patients: int, tested: tuple[int, ...] = ()) -> list[int]:
    """The number of each patient: the last ones, who are for testing, have those of `tested`, the first ones the others of
    `known` and then from 41."""
    others = (number for number in chain(known, count(41)) if number not in tested)
    return [*islice(others, patients - len(tested)), *tested]


def split_facts(facts: dict, number: int, tested: tuple[int, ...]) -> dict:
    """What phantom.toml says about a case: whether the named split tests on it, where it does so on any."""
    return facts | {"split": "test" if number in tested else "train"} if tested else facts
