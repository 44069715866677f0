"""Whom a comparison trains on and tests: refused and said before anything is trained."""

from collections.abc import Sequence

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.folds import all_folds, meetings
from attent_kit.data.sets.splits import WHOLE, numbers_in, tested_numbers
from attent_kit.engine.compare.suite import Cell, Suite
from attent_kit.engine.run.domains import domains_seen, facts_in
from attent_kit.errors import ConfigError, DataError

MOST_NAMED = 5


def refuse_patients(cells: Sequence[Cell]) -> None:
    """DataError if a target cannot be dealt into the folds that are asked for, if a fold leaves nothing to train on, or if a
    source trains on the very images that are tested. Cells whose data are not there yet are passed over."""
    for cell in _of_each_data(cells):
        data = cell.settings.data
        source, target = domains_seen(data, facts_in)
        if cell.fold == WHOLE:
            refuse_same_images(source, target, cell.direction, ", or write folds = 5 in the suite")


def refuse_same_images(source: Prepared, target: Prepared, direction: str, otherwise: str = "") -> None:
    """DataError if a source trains on the very images that a target tests, unless the two are one file. `otherwise` is what else
    helps."""
    if source.path.resolve() == target.path.resolve():
        return
    if same := meetings(source.cases_in("train"), source, target).images:
        raise DataError(
            f"{direction}: {_listed(same)} of {source.path} {_are(same)} for training there, and tested as the same "
            f"image in {target.path}: prepare the two with splits that keep them apart{otherwise}."
        )


def met_by_name(source: Prepared, target: Prepared, direction: str) -> str:
    """What is to be known of cases of one name in the source's training and the target's test; empty if there are none, or if the
    two are one file."""
    if source.path.resolve() == target.path.resolve():
        return ""
    same = meetings(source.cases_in("train"), source, target).people
    if not same:
        return ""
    return (
        f"{direction}: {_listed(same)} {_are(same)} in the source's training and in the target's test. If they are the "
        "same people, scores are not those of unseen patients"
    )


def notes(cells: Sequence[Cell], by_name: bool) -> list[str]:
    """A sentence for each direction with the same patients on both sides, and one for each target whose grey values were
    measured on what folds test. `by_name` if a name means one patient in both domains."""
    said: dict[str, None] = {}
    for cell in _of_each_data(cells):
        source = facts_in(cell.settings.data.source)  # type: ignore[arg-type]  # those of `_of_each_data` have one
        target = facts_in(cell.settings.data.target)
        if cell.fold != WHOLE:
            said |= dict.fromkeys([*_left_out(cell, source, target, by_name), *_measured(target)])
        elif by_name and (met := met_by_name(source, target, cell.direction)):
            said[f"{met}, and folds = 5 in the suite keeps them apart; if not, write shared_patients = false."] = None
    return [*said]


def choose_folds(cells: Sequence[Cell], numbers: Sequence[int]) -> list[Cell]:
    """The cells of these folds, or all. ConfigError for a fold that there is not."""
    if not numbers:
        return [*cells]
    parts = {cell.fold.parts for cell in cells}
    if parts == {WHOLE.parts}:
        raise ConfigError("--folds chooses from the folds of a suite, and this one has none: write folds = 5 in it.")
    count = max(parts)
    for number in numbers:
        if not 0 <= number < count:
            raise ConfigError(
                f"--folds {','.join(map(str, numbers))}: the suite has {count} folds, 0 to {count - 1}, as in --folds 0,1."
            )
    return [cell for cell in cells if cell.fold.number in numbers]


def _of_each_data(cells: Sequence[Cell]) -> list[Cell]:
    """A cell that reads its source for each pair of domains and fold whose files are there."""
    there = [c for c in cells if (d := c.settings.data).source is not None and d.source.exists() and d.target.exists()]
    return [*{(c.direction, c.fold): c for c in reversed(there)}.values()][::-1]


def _left_out(cell: Cell, source: Prepared, target: Prepared, by_name: bool) -> list[str]:
    """Of all folds together."""
    trained = [case for case in source.cases if {"train", "val"} & {*case.splits}]
    met = meetings(trained, source, all_folds(target), by_name)
    both = sorted({*met.people, *met.images})
    if not both:
        return []
    names = (
        ""
        if not met.people
        else ("; if cases of one name are different people, write shared_patients = false in the suite")
    )
    return [
        f"{cell.direction}: {_listed(both)} {_are(both)} in both domains, and left out of the source where the target tests "
        f"them{names}."
    ]


def _measured(target: Prepared) -> list[str]:
    tested = {case.id for case in target.cases if case.has_labels} & {*target.manifest["measured_on"]}
    if target.intensity.kind != "percentiles" or not tested:
        return []
    return [
        f"The grey values of {target.domain} are scaled by constants of its training cases, those that folds test among them; no "
        "label is used for that, and `attentkit prepare --per-volume` measures each by itself."
    ]


def _listed(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - MOST_NAMED} more" if len(cases) > MOST_NAMED else ""
    return ", ".join(cases[:MOST_NAMED]) + more


def _are(cases: Sequence[str]) -> str:
    return "is" if len(cases) == 1 else "are"


def refuse_another_split(suite: Suite, prepared: Prepared) -> None:
    """DataError if the suite names a split, and the test cases of the prepared file are not exactly those."""
    if suite.split is None:
        return
    wanted, tested = tested_numbers(suite.split, prepared.modality), prepared.ids("test")
    if sorted(map(numbers_in, tested)) == [[number] for number in wanted] and not {*tested} & {*prepared.ids("train")}:
        return
    own = f"the split '{prepared.split}'" if prepared.split else ", ".join(tested) or "none"
    raise DataError(
        f"{prepared.path}: the suite tests on the {prepared.modality} cases {', '.join(map(str, wanted))}, all others are "
        f"for training; this file tests on {own}. Run `attentkit prepare` again with --split {suite.split}."
    )
