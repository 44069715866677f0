"""Folds of a target: its labelled cases, dealt by patient, each tested once; and a source without the patients of a fold.

Both are the prepared file with other splits. Nothing is copied.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from attent_kit.data.prepared.file import Case, Prepared
from attent_kit.data.sets.splits import SPLITS, WHOLE, Fold, deal
from attent_kit.errors import DataError


def patients_of(prepared: Prepared) -> dict[str, str]:
    """The patient of each case: the case itself, where its data set does not say more."""
    return {record["id"]: str(record.get("patient") or record["id"]) for record in prepared.manifest["cases"]}


def folds_of(target: Prepared, parts: int, seed: int) -> list[tuple[str, ...]]:
    """The labelled cases of each fold, sorted; whatever the splits of the file are.

    DataError if there are fewer patients with labels than folds, or if the file does not hold the labels as they were drawn.
    """
    patients = patients_of(target)
    labelled = {case.id: patients[case.id] for case in target.cases if case.has_labels}
    count = len({*labelled.values()})
    if count < parts:
        fewer = f"ask for {count} folds or fewer" if count > 1 else "folds need two at least, so leave them out"
        raise DataError(
            f"{target.path} has {count} patient{'' if count == 1 else 's'} with labels, and {parts} folds would leave one "
            f"without any: {fewer}, or prepare more cases with --labels."
        )
    lacking = [r["id"] for r in target.manifest["cases"] if r["id"] in labelled and not _can_be_scored(r)]
    if lacking:
        raise DataError(
            f"{target.path} was prepared by an earlier version, which kept the labels of {lacking[0]} for training alone: run "
            "`attentkit prepare` again, with the same options, for a file whose folds can be scored."
        )
    return deal(labelled, parts, seed)


def in_fold(target: Prepared, fold: Fold, seed: int) -> Prepared:
    """The target as a run on one fold sees it: the cases of the fold in test, all others in train.

    An unlabelled scan of a patient who is tested is in neither.
    """
    tested, patients = {*folds_of(target, fold.parts, seed)[fold.number]}, patients_of(target)
    away = {patients[case] for case in tested}
    splits = {
        case: ("test",) if case in tested else () if patient in away else ("train",)
        for case, patient in patients.items()
    }
    return _with_splits(target, splits, fold)


def all_folds(target: Prepared) -> Prepared:
    """The target with every labelled case in test: what all folds test together. For pictures; nothing trains on it."""
    splits = {case.id: ("test",) if case.has_labels else ("train",) for case in target.cases}
    return _with_splits(target, splits)


def without_tests(target: Prepared) -> Prepared:
    """The target with nobody to test; whom it trains on stays as it is."""
    splits = {case.id: tuple(s for s in case.splits if s != "test") for case in target.cases}
    return _with_splits(target, splits, target.fold)


def without_patients(source: Prepared, target: Prepared, by_name: bool = True) -> Prepared:
    """The source without what shows a patient whom the target tests; the same object if there is nothing of the kind.

    DataError if no training case is left.
    """
    met = meetings(source.cases, source, target, by_name)
    away = {*met.people, *met.images}
    if not away & {*source.ids("train"), *source.ids("val")}:
        return source
    kept = {c.id: tuple(s for s in c.splits if s == "test") if c.id in away else c.splits for c in source.cases}
    if not any("train" in splits for splits in kept.values()):
        raise DataError(
            f"fold {target.fold} of {target.path} tests every patient that {source.path} trains on, so that nothing is left to "
            "train on: ask for more folds, or prepare a source of other patients."
        )
    return _with_splits(source, kept, source.fold)


class Meetings(NamedTuple):
    """Cases of a source that show whom a target tests."""

    people: tuple[str, ...]
    """By their names, sorted."""
    images: tuple[str, ...]
    """The very same images, whatever they are called."""


def meetings(cases: Sequence[Case], source: Prepared, target: Prepared, by_name: bool = True) -> Meetings:
    """Those of the source's `cases` that are of a patient in the target's test cases; `by_name` if a name means one patient in
    both domains."""
    ours, theirs, tested = patients_of(source), patients_of(target), {*target.ids("test")}
    names = {theirs[case] for case in tested} if by_name else set()
    seen = {digest for case, digest in _images(target).items() if case in tested}
    images = _images(source)
    ids = sorted(case.id for case in cases)
    return Meetings(
        tuple(case for case in ids if ours[case] in names), tuple(case for case in ids if images[case] in seen)
    )


def _images(prepared: Prepared) -> dict[str, str]:
    return {record["id"]: str(record["image"]["sha256"]) for record in prepared.manifest["cases"]}


def _can_be_scored(record: Mapping[str, object]) -> bool:
    splits = record["splits"]
    assert isinstance(splits, Collection)
    return "truth" in record or bool({"val", "test"} & {*splits})


def _with_splits(prepared: Prepared, splits: Mapping[str, tuple[str, ...]], fold: Fold = WHOLE) -> Prepared:
    cases = [{**record, "splits": list(splits[record["id"]])} for record in prepared.manifest["cases"]]
    members = {name: [case for case, own in sorted(splits.items()) if name in own] for name in SPLITS}
    several = [case for case, own in splits.items() if len(own) > 1]
    changed = {"cases": cases, "splits": members, "shared_cases": several, "split": None}
    return Prepared(prepared.path, {**prepared.manifest, **changed}, fold)
