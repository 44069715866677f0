"""Which cases are for training, for validation and for testing. A case is a patient: its slices stay together."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from typing_extensions import TypeIs

from attent_kit.errors import ConfigError, DataError, did_you_mean

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}

Split = Mapping[str, Sequence[str]] | Mapping[str, float]

NAMED: dict[str, dict[str, tuple[int, ...]]] = {
    # The author of SIFA, github.com/cchen-cc/SIFA issues 34 and 43.
    "sifa-abdominal": {"ct": (1, 9, 30, 32, 33, 39), "mr": (1, 13, 32, 38)},
    # As printed in preprocess.ipynb of github.com/CSCYQJ/MICCAI23-ProtoContra-SFDA (seed 999), whose last cell puts CT 24 in
    # the place of 9. Its scores are not comparable with those of the split above.
    "protocontra": {"ct": (2, 9, 10, 35, 36, 40), "mr": (2, 8, 31, 34)},
}
"""Numbers of the test cases by name of the split and modality: CT of BTCV, T2-SPIR MR of CHAOS. All others are for training."""


def divide(cases: Sequence[str], split: Split | None, seed: int) -> dict[str, tuple[str, ...]]:
    """Cases of 'train', 'val' and 'test', each sorted.

    Lists of cases are taken as they are; a case may stand in several, and if 'train' is not named, it is the rest.
    Fractions are dealt out by `seed`, whatever the order of `cases`, and each fraction above 0 gets at least one case.
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
    if _are_shares(split):
        return _dealt(cases, split, seed)
    return _listed(cases, split)


def _are_shares(split: Split) -> TypeIs[Mapping[str, float]]:
    return all(isinstance(share, int | float) for share in split.values())


class Fold(NamedTuple):
    """Part `number` of `parts` of all patients is for testing, the others are for training."""

    number: int
    """0 to parts - 1."""
    parts: int

    @classmethod
    def parse(cls, text: str) -> "Fold":
        """`0/5` is the first of five; ConfigError for anything else than K/N with 0 <= K < N and N >= 2."""
        match = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text)
        number, parts = (int(n) for n in match.groups()) if match else (0, 0)
        if not number < parts or parts < 2:
            raise ConfigError(f"'{text}' is not a fold: write K/N with K from 0 to N-1, as 0/5 for the first of five.")
        return cls(number, parts)

    def __str__(self) -> str:
        return "" if self.parts == 1 else f"{self.number}/{self.parts}"


WHOLE = Fold(0, 1)
"""All patients at once, whose text is empty: the splits are as they are."""


def divide_into_folds(
    cases: Sequence[str], fold: Fold, seed: int, patients: Mapping[str, str] = MappingProxyType({})
) -> dict[str, tuple[str, ...]]:
    """Cases of one fold, dealt as by `deal`: over all folds each is tested on exactly once. None is for validation.

    `patients` names the patient of a case, where that is not the case itself.
    """
    scans = {case: patients.get(case, case) for case in cases}
    if (count := len({*scans.values()})) < fold.parts:
        raise ConfigError(f"{count} case(s) cannot be dealt into {fold.parts} folds: ask for fewer, as in --fold 0/2.")
    test = deal(scans, fold.parts, seed)[fold.number]
    return {"train": tuple(sorted({*cases} - {*test})), "val": (), "test": test}


def deal(patients: Mapping[str, str], parts: int, seed: int) -> list[tuple[str, ...]]:
    """The cases of each of `parts` folds, sorted; `patients` names the patient of each case.

    All scans of a patient are in one fold. Folds are as equal in cases as that allows, none is empty as long as there are
    as many patients, and nothing depends on the order of `patients`.
    """
    scans: dict[str, list[str]] = {}
    for case in sorted(patients):
        scans.setdefault(patients[case], []).append(case)
    ordered = sorted(scans)
    drawn = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    folds: list[list[str]] = [[] for _ in range(parts)]
    # Those with most scans first, each into the first of the smallest folds.
    for patient in sorted(drawn, key=lambda patient: -len(scans[patient])):
        min(folds, key=len).extend(scans[patient])
    return [tuple(sorted(fold)) for fold in folds]


def named_split(name: str) -> dict[str, tuple[int, ...]]:
    """Numbers of the test cases by modality; ConfigError with the nearest name if there is no such split."""
    if name not in NAMED:
        raise ConfigError(f"no split is named '{name}'.{did_you_mean(name, NAMED)} There are: {', '.join(NAMED)}.")
    return NAMED[name]


def tested_numbers(name: str, modality: str) -> tuple[int, ...]:
    """Numbers of the test cases of one modality in a named split, ascending."""
    by_modality = named_split(name)
    if modality not in by_modality:
        raise ConfigError(
            f"the split '{name}' has no cases of modality '{modality}', only of {' and '.join(by_modality)}: "
            "list the test cases with --test instead."
        )
    return by_modality[modality]


def numbers_in(case: str) -> list[int]:
    """The numbers in the name of a case: "img0001", "0001", "1" and "case_01" hold 1 alone."""
    return [int(digits) for digits in re.findall(r"[0-9]+", case)]


def split_by_name(name: str, modality: str, cases: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Cases of a named split, matched by the number in the name of each; none is for validation.

    DataError for a case with no number or several, for two cases of one number, and for a test case that is not there.
    """
    wanted, by_number = tested_numbers(name, modality), dict[int, str]()
    for case in sorted(cases):
        if len(numbers := numbers_in(case)) != 1:
            raise DataError(
                f"the split '{name}' goes by the number of a case, and '{case}' has {len(numbers) or 'no'} "
                f"number{'s' * (len(numbers) > 1)}: name the files as in img0001.nii.gz, or list the test cases with --test."
            )
        if (other := by_number.setdefault(numbers[0], case)) != case:
            raise DataError(f"'{other}' and '{case}' are both case {numbers[0]} of the split '{name}': remove one.")
    if missing := [str(number) for number in wanted if number not in by_number]:
        raise DataError(
            f"the split '{name}' tests on case {', '.join(missing)}, which is not there: add what is missing, or list "
            "the test cases with --test."
        )
    test = tuple(by_number[number] for number in wanted)
    return {"train": tuple(sorted({*cases} - {*test})), "val": (), "test": test}


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
    dealt: dict[str, tuple[str, ...]] = dict.fromkeys(SPLITS, ())
    first = 0
    for name in reversed(wanted):
        dealt[name], first = tuple(sorted(order[first : first + counts[name]])), first + counts[name]
    return dealt
