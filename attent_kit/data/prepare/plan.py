"""What is to be prepared: cases, modality, organs and splits, settled from file names before a volume is read."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.organs import DataSet, DomainMaps, domain_maps
from attent_kit.data.scans.volumes import read_labels, read_volume
from attent_kit.data.sets.layout import Entry, Layout, Scan
from attent_kit.data.sets.pairs import Pair
from attent_kit.data.sets.splits import SPLITS, Fold, Split, divide, divide_into_folds, split_by_name
from attent_kit.errors import AttentKitError, ConfigError, DataError, RunError
from attent_kit.naming import LONGEST_NAME, names_a_file


class PairList(Layout):
    """Images and label maps that somebody has matched already, such as those of the phantom."""

    def __init__(self, pairs: Sequence[Pair | tuple[str, Path, Path | None]]) -> None:
        whole = [pair if isinstance(pair, Pair) else Pair(*pair) for pair in pairs]
        self.pairs = [p._replace(image=Path(p.image), labels=p.labels and Path(p.labels)) for p in whole]
        folders = {os.path.abspath(pair.image.parent) for pair in self.pairs}
        super().__init__(Path(os.path.commonpath(folders)) if folders else Path())
        self.origin = "pairs"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Never: it is made from pairs, not found."""
        return False

    def entries(self) -> list[Entry]:
        """One per pair."""
        pairs = sorted(self.pairs, key=lambda pair: pair.case)
        return [
            Entry(p.case, (p.image,), (p.labels,) if p.labels else (), organs=p.organs, patient=p.patient)
            for p in pairs
        ]

    def read(self, entry: Entry) -> Scan:
        """NIfTI, both of them."""
        image = read_volume(entry.images[0])
        return Scan(image, read_labels(entry.labels[0], like=image) if entry.labels else None)


@dataclass(frozen=True)
class DomainPlan:
    """Everything about a prepared file that does not depend on a voxel."""

    layouts: tuple[Layout, ...]
    """The data sets that it is made of."""
    entries: tuple[Entry, ...]
    """The cases that are in a split, sorted by id."""
    home: Mapping[str, int]
    """By case, which of `layouts` it lies in."""
    modality: str
    maps: DomainMaps
    splits: dict[str, tuple[str, ...]]
    """Cases of 'train', 'val' and 'test'."""
    split: str | None
    """Name of the split, where it has one."""
    rule: Any
    """How the split was made, in plain values."""
    decisions: tuple[str, ...]
    """What was settled without being asked for, a sentence each."""
    warnings: tuple[str, ...]

    def splits_of(self, case: str) -> tuple[str, ...]:
        """The splits that a case is in."""
        return tuple(name for name in SPLITS if case in self.splits[name])

    @property
    def shared(self) -> list[str]:
        """Cases of several splits."""
        return [entry.id for entry in self.entries if len(self.splits_of(entry.id)) > 1]


def plan(layout: Layout, options: PrepareOptions, added: Sequence[DataSet] = ()) -> DomainPlan:
    """ConfigError where something must be said that was not, or contradicts; DataError for files that are not cases."""
    data_sets = [DataSet(layout, options.organs), *added]
    found = [_checked(data_set.layout) for data_set in data_sets]
    for data_set, members in zip(data_sets, found, strict=True):
        _refuse_none_labelled(members, data_set.layout)
    home = _homes(data_sets, found)
    entries = sorted((entry for members in found for entry in members), key=lambda entry: entry.id)
    entries, modality, decisions = _of_one_modality(entries, options.modality, layout)
    there = {entry.id for entry in entries}
    maps = domain_maps(data_sets, [[entry for entry in members if entry.id in there] for members in found])
    _refuse_two_meanings(entries, maps)
    decisions += maps.decisions
    if added and any(entry.split is None for entry in entries):
        entries = [entry._replace(split=None) for entry in entries]
    splits, name, rule, more = _divided(entries, options, modality)
    decisions += more
    in_a_split = {case for members in splits.values() for case in members}
    kept = tuple(entry for entry in entries if entry.id in in_a_split)
    layouts = tuple(data_set.layout for data_set in data_sets)
    settled = DomainPlan(layouts, kept, home, modality, maps, splits, name, rule, tuple(decisions), ())
    left_out = [entry.id for entry in entries if entry.id not in in_a_split]
    return replace(settled, warnings=tuple(_split_warnings(settled, left_out)))


def _homes(data_sets: Sequence[DataSet], found: Sequence[Sequence[Entry]]) -> dict[str, int]:
    """By case, the number of its data set. DataError for a case of two data sets."""
    home: dict[str, int] = {}
    for n, members in enumerate(found):
        for entry in members:
            if (other := home.setdefault(entry.id, n)) != n:
                raise DataError(
                    f"the case '{entry.id}' is in {data_sets[other].layout.path} and in {data_sets[n].layout.path}: give each "
                    "case its own name, or leave one of them out if it is the same patient."
                )
    return home


def _refuse_two_meanings(entries: Sequence[Entry], maps: DomainMaps) -> None:
    """DataError for a label file of two cases whose values mean different organs there."""
    owner: dict[str, str] = {}
    for entry in entries:
        for file in entry.labels:
            first = owner.setdefault(os.path.abspath(file), entry.id)
            if maps.of_case[first] != maps.of_case[entry.id]:
                raise DataError(
                    f"{file} is the label map of the cases '{first}' and '{entry.id}', and its values mean other organs there: "
                    "name each file once, with all organs that it annotates."
                )


def _split_warnings(settled: DomainPlan, left_out: list[str]) -> Iterator[str]:
    """What is doubtful about the splits, a sentence each."""
    if left_out:
        yield f"in no split and left out: {', '.join(left_out)}."
    if shared := settled.shared:
        yield f"in several splits, so that scores are not those of unseen patients: {', '.join(shared)}."
    tested = settled.splits["test"]
    if settled.rule == "layout" and tested and not any(e.labels for e in settled.entries if e.id in tested):
        yield (
            "no test case of the data set has labels, so nothing will be scored: choose test cases with --test, "
            "--split or --fold."
        )
    for part in ("train", "test"):
        if not settled.splits[part] and settled.rule != {"train": 1.0}:
            yield (
                f"no case is for {part}ing; a source needs training cases, a target both kinds unless a suite deals it into "
                f"folds: name some with --{part}, or deal them with --fold."
            )


def entry_files(entry: Entry) -> tuple[Path, ...]:
    """Every file that an entry names."""
    return (*entry.images, *entry.labels)


def leads_out(path: Path, root: Path) -> bool:
    """Whether a file of a data set at `root` really lies elsewhere, by a link or by '..' in its name."""
    place = root if root.is_dir() else root.parent
    inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(place)) or path.is_relative_to(place)
    home = place if inside else path.parent
    return not path.resolve().is_relative_to(home.resolve())


def entries_of(layout: Layout) -> list[Entry]:
    """The entries, sorted by id; whatever goes wrong in a layout is a sentence."""
    try:
        return sorted(layout.entries(), key=lambda entry: entry.id)
    except (AttentKitError, MemoryError):
        raise
    except OSError as error:
        raise DataError(
            f"{error.filename or layout.path} cannot be read ({error.strerror or error}): copy it again, or "
            "make it readable."
        ) from error
    except Exception as error:
        raise RunError(
            f"the layout {layout.origin or type(layout).__name__} failed on {layout.path} with {type(error).__name__} "
            f"({error}): tell its author, or choose another with --layout NAME."
        ) from error


def _checked(layout: Layout) -> list[Entry]:
    """The entries, each with a name that can stand in a file and with files that are there."""
    entries = entries_of(layout)
    if not entries:
        raise DataError(f"there is no case to prepare in {layout.path}: name a folder that holds volumes.")
    ids = [entry.id for entry in entries]
    if twice := sorted({case for case in ids if ids.count(case) > 1}):
        raise DataError(f"the case '{twice[0]}' is given twice: give each case its own name.")
    for case in ids:
        if not names_a_file(case):
            raise DataError(
                f"{case[:LONGEST_NAME]!r} cannot name a case on every system: use letters, digits, '-' and '_'."
            )
    for entry in entries:
        if not entry.images:
            raise DataError(f"the case '{entry.id}' of {layout.path} has no image: leave it out.")
        for path in entry_files(entry):
            if not path.exists():
                raise DataError(f"{path} does not exist: check the spelling of the path.")
            if not (path.is_file() or path.is_dir()):
                raise DataError(f"{path} is not a file: leave it out.")
    return entries


def _refuse_none_labelled(entries: list[Entry], layout: Layout) -> None:
    """Finding no labels does not mean that none are wanted."""
    if not layout.allow_unlabelled and not any(entry.labels for entry in entries):
        raise DataError(
            f"{layout.path}: no label map was found for any of the {len(entries)} case(s). Name the folder of the label maps "
            "with --labels, or type --allow-unlabelled if the images are for training on the target side only."
        )


def _of_one_modality(entries: list[Entry], modality: str | None, layout: Layout) -> tuple[list[Entry], str, list[str]]:
    known = sorted({entry.modality for entry in entries if entry.modality})
    if modality is None:
        if len(known) == 1:
            return entries, known[0], [f"Modality {known[0]}, as the data set says."]
        if known:
            raise ConfigError(
                f"{layout.path} holds {' and '.join(known)}: choose with --modality, as --modality {known[0]}."
            )
        raise ConfigError("nothing says whether this is CT or MR: type --modality ct or --modality mr.")
    of_it = [entry for entry in entries if entry.modality in (None, modality)]
    if not of_it:
        return entries, modality, [f"Modality {modality}, as asked for; the data set says {' and '.join(known)}."]
    if len(of_it) == len(entries):
        return entries, modality, []
    return of_it, modality, [f"Only the {len(of_it)} case(s) of modality {modality}, out of {len(entries)}."]


def _divided(
    entries: list[Entry], options: PrepareOptions, modality: str
) -> tuple[dict[str, tuple[str, ...]], str | None, Any, list[str]]:
    """Cases of each split, the name of the split, how it was made, and what was decided on the way."""
    split, seed = options.divided, options.seed
    own = {name: tuple(entry.id for entry in entries if entry.split == name) for name in SPLITS}
    if stray := [entry for entry in entries if entry.split not in (None, *SPLITS)]:
        raise DataError(f"the data set puts the case '{stray[0].id}' into '{stray[0].split}': use {', '.join(SPLITS)}.")
    if split is None and any(own.values()):
        return own, None, "layout", ["Splits, as the data set says."]
    # Test volumes whose labels an organizer keeps can be neither trained on as a source nor scored.
    listed = _listed(split)
    hidden = [entry.id for entry in entries if entry.split == "test" and not entry.labels and entry.id not in listed]
    cases = [entry.id for entry in entries if entry.id not in hidden]
    decisions = [f"Left out, test cases without labels: {', '.join(hidden)}."] if hidden and cases else []
    cases = cases or [entry.id for entry in entries]
    if isinstance(split, str):
        return split_by_name(split, modality, cases), split, {"name": split}, decisions
    if isinstance(split, Fold):
        patients = {entry.id: entry.patient or entry.id for entry in entries}
        return (
            divide_into_folds(cases, split, seed, patients),
            None,
            {"fold": split.number, "of": split.parts},
            decisions,
        )
    if split is None:
        return divide(cases, None, seed), None, "default", decisions
    rule = {name: share if isinstance(share, int | float) else list(share) for name, share in split.items()}
    return divide(cases, split, seed), None, rule, decisions


def _listed(split: Split | Fold | str | None) -> set[str]:
    """The cases that lists name; none where a split is dealt or has a name."""
    shares = split.values() if isinstance(split, Mapping) else ()
    return {case for share in shares if not isinstance(share, int | float) for case in share}
