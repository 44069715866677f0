"""Which organs each case of a domain annotates, and by which values: a label map for each, all of the same organs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from attent_kit.data.prepare.options import Organs, organs_of
from attent_kit.data.sets.labelmap import TASK_ORGANS, LabelMap, OrganNames
from attent_kit.data.sets.layout import Entry, Layout
from attent_kit.data.sets.synonyms import is_lesion, overlap, words_of
from attent_kit.errors import ConfigError

USUAL = LabelMap.of({organ: value for value, organ in enumerate(TASK_ORGANS, start=1)})
"""1 to 4: what label values are taken for where neither the data set nor anybody else says it."""


class DataSet(NamedTuple):
    """A data set of a domain, and what is said about its labels."""

    layout: Layout
    organs: Organs | None = None


@dataclass(frozen=True)
class DomainMaps:
    """The label maps of a domain, all of the same organs in the same order."""

    whole: LabelMap
    """Of the first data set."""
    of_case: Mapping[str, LabelMap]
    """Of each case."""
    decisions: tuple[str, ...]


def label_map_of(layout: Layout, organs: Organs | None) -> tuple[LabelMap, list[str]]:
    """The label map that is asked for, or else that of the data set, or else 1 to 4; and what was decided, a sentence each."""
    asked = organs_of(organs)
    if isinstance(asked, OrganNames):
        label_map = asked.of(layout.organs or USUAL)
        return label_map, [f"Organs {label_map}, by their names in the data set."]
    if asked is not None:
        return asked, []
    if layout.organs is None:
        return USUAL, []
    label_map = layout.organs.in_task_order()
    decisions = [f"Organs {label_map}, as the data set names them."]
    values = {value for _, own in label_map.values for value in own}
    ignored = [f"{name}={'+'.join(map(str, v))}" for name, v in layout.organs.values if not {*v} <= values]
    if ignored:
        decisions.append(f"Background: {', '.join(ignored)}.")
    return label_map, decisions


def domain_maps(data_sets: Sequence[DataSet], entries: Sequence[Sequence[Entry]]) -> DomainMaps:
    """A label map for each of the `entries` of each data set, over the organs of all: that of the entry, or else of its data set.

    ConfigError for names that contradict: one organ twice in a map, and organs that are part of others.
    """
    decisions: list[str] = []
    own: dict[str, LabelMap] = {}
    bases: list[LabelMap] = []
    asked = organs_of(data_sets[0].organs)
    for n, (data_set, members) in enumerate(zip(data_sets, entries, strict=True)):
        base, more = label_map_of(data_set.layout, data_set.organs) if n == 0 else _added_map(data_set, asked)
        bases.append(base)
        decisions += more
        for entry in members:
            own[entry.id] = _map_of(entry, base)
    used = list(dict.fromkeys(own.values()))
    # What is asked for counts though no case should have it, and what is only a default does not.
    maps = [*([bases[0]] if asked is not None or not used else []), *used]
    for label_map in maps:
        _refuse_twice(label_map)
    organs = _united(maps, ordered=asked is not None)
    _refuse_overlaps(organs, maps)
    over_all = {label_map: _over(label_map, organs) for label_map in {*maps, *used}}
    decisions += _counted(organs, [over_all[own[entry.id]] for members in entries for entry in members if entry.labels])
    whole = over_all[bases[0]] if bases[0] in over_all else over_all[maps[0]]
    return DomainMaps(whole, {case: over_all[label_map] for case, label_map in own.items()}, tuple(decisions))


def _map_of(entry: Entry, base: LabelMap) -> LabelMap:
    """What the labels of a case annotate, where those of its data set annotate `base`."""
    if isinstance(entry.organs, OrganNames):
        return entry.organs.of(base)
    if not isinstance(entry.organs, frozenset):
        return entry.organs or base
    annotated = base.annotating(entry.organs) if entry.labels else base
    if annotated is None:
        raise ConfigError(
            f"the case '{entry.id}' annotates none of {', '.join(base.organs)}, only "
            f"{', '.join(sorted(entry.organs)) or 'nothing'}: "
            "leave the case out, or choose other organs with --organs."
        )
    return annotated


def _added_map(data_set: DataSet, asked: LabelMap | OrganNames | None) -> tuple[LabelMap, list[str]]:
    """The label map of a data set that is added to another, whose organs are `asked` for."""
    layout, given = data_set.layout, organs_of(data_set.organs)
    if given is None and layout.organs is None:
        raise ConfigError(
            f"nothing says which organs the label maps of {layout.path} annotate: write them as the third value of --add, as "
            "in 'liver=1'."
        )
    if given is not None or asked is None:
        return label_map_of(layout, data_set.organs)
    assert layout.organs is not None
    values = {words_of(name): own for name, own in layout.organs.values}
    names = asked.names if isinstance(asked, OrganNames) else asked.organs
    if not any(words_of(name) in values for name in names):
        raise ConfigError(
            f"{layout.path} names none of the organs {', '.join(names)}: it names {', '.join(layout.organs.organs)}. Write which "
            "it annotates as the third value of --add, as in 'liver=1'."
        )
    label_map = LabelMap(tuple((name, values.get(words_of(name), ())) for name in names), "background")
    return label_map, [f"Organs {label_map} in {layout.path.name}, as that data set names them."]


def _united(maps: Sequence[LabelMap], ordered: bool) -> tuple[str, ...]:
    """The organs of all maps, each by the name that it has first: in the order of the first map, if that is `ordered`, then the
    usual four, then the others."""
    usual = {words_of(organ): n for n, organ in enumerate(TASK_ORGANS)}
    names: dict[frozenset[str], str] = {}
    for label_map in maps:
        for name in label_map.organs:
            names.setdefault(words_of(name), name)
    kept = len(maps[0].organs) if ordered else 0
    found = list(names)
    return tuple(names[w] for w in (*found[:kept], *sorted(found[kept:], key=lambda w: usual.get(w, len(usual)))))


def _over(label_map: LabelMap, organs: Sequence[str]) -> LabelMap:
    """The same map over more organs, in their order and by their names."""
    values = {words_of(name): own for name, own in label_map.values}
    return LabelMap(tuple((organ, values.get(words_of(organ), ())) for organ in organs), label_map.others)


def _counted(organs: Sequence[str], maps: Sequence[LabelMap]) -> list[str]:
    """How many of the labelled cases annotate each organ; nothing where all annotate all."""
    counts = {organ: sum(organ in label_map.annotated for label_map in maps) for organ in organs}
    if all(count == len(maps) for count in counts.values()):
        return []
    return [
        f"Annotated, of {len(maps)} labelled case(s): {', '.join(f'{organ} in {n}' for organ, n in counts.items())}."
    ]


def _refuse_twice(label_map: LabelMap) -> None:
    first: dict[frozenset[str], str] = {}
    for name in label_map.organs:
        if (other := first.setdefault(words_of(name), name)) != name:
            raise ConfigError(
                f"the label map {label_map} names one organ twice, '{other}' and '{name}': join their values, as in "
                f"'{other}=1+2'."
            )


def _refuse_overlaps(organs: Sequence[str], maps: Sequence[LabelMap]) -> None:
    """ConfigError for two organs of one domain that share tissue. A lesion and its organ may stand in every map, which then parts
    them; where one map has the organ alone, the lesion is in it."""
    for n, one in enumerate(organs):
        for other in organs[n + 1 :]:
            if not overlap(one, other):
                continue
            both = [{*map(words_of, m.annotated)} & {words_of(one), words_of(other)} for m in maps]
            if is_lesion(one) != is_lesion(other) and all(len(found) != 1 for found in both):
                continue
            raise ConfigError(
                f"'{one}' and '{other}' overlap, and a voxel has one label: name one of them alone, and join values where a data "
                "set has both, as in 'kidneys=2+3'."
            )
