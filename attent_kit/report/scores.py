"""Score rows, one number each, and the folds over them that a table prints. Every table is a fold over rows."""

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from attent_kit.errors import ConfigError, DataError, did_you_mean
from attent_kit.report.rows import read_rows, write_rows
from attent_kit.report.shown import Shown

AVERAGE = "average"
PROTOCOL = "3d-mm"
"""Protocol of a comparison."""
LAST, ORACLE, EXTERNAL = "last", "target-oracle", "external"
"""Selections that need no selector: the last snapshot, the one with the highest Dice on the target's test labels, and label maps
that another tool has made, which stand beside each of the others."""
COUNTS = ("scored", "missed", "invented", "absent", "undefined")
"""Metrics that count: an organ's sum over cases is what a table shows, not their mean."""
COUNTED = ("volumes", "slices")
"""Units of rows that count and are not averaged."""

SCORE_AGAIN = "Delete the file and start the same command again: the run is scored anew, not trained anew."


class Score(NamedTuple):
    """One number: this metric, of this organ of this case, as segmented by this alignment trained with this seed."""

    alignment: str
    direction: str
    """"mr2ct" or "ct2mr"."""
    seed: int | None
    """None of label maps that no run has made."""
    case: str
    organ: str
    metric: str
    value: float
    """NaN where the metric is not defined, such as a distance to an organ that was not found."""
    unit: str
    protocol: str = PROTOCOL
    """Whose definition of the metric: `attent_kit.metrics.PROTOCOLS`. Numbers of two protocols are never in one mean."""
    selection: str = LAST
    """What chose the snapshot: `last`, a selector's name, or `target-oracle`. No table mixes two selections. `external` are label
    maps of another tool, beside any of them."""


class Summary(NamedTuple):
    """Mean and spread of one metric for one alignment, direction and organ (or the average of organs)."""

    alignment: str
    direction: str
    organ: str
    mean: float
    std: float
    """Sample standard deviation (ddof 1) of the n values; NaN for n < 2, where no spread can be known."""
    n: int
    """Seeds or cases behind mean and std."""
    unit: str
    excluded: int
    """Values left out because they are NaN."""
    missed: int
    """Of `total`, those where an organ of the truth is not in the prediction: no overlap and no distances."""
    invented: int
    """Those where an organ of the prediction is not in the truth: no overlap and no distances."""
    absent: int
    """Those where the organ is in neither, so there was nothing to find."""
    total: int
    """Volumes scored, or slices where the protocol looks at slices: of all seeds and cases; for the average, x organs."""
    undefined: int = 0
    """Those without a distance."""


def write_scores(path: str | Path, rows: Iterable[Score], vouched: bool = False) -> None:
    """Rows as CSV, one line each under a header; all of the file or nothing, also if the machine stops half-way.

    `vouched`: as those of a run, which are read back; any other file is then refused.
    """
    write_rows(Path(path), Score, (row._replace(value=float(row.value)) for row in rows), vouched)


def read_scores(path: str | Path) -> list[Score]:
    """The rows of `write_scores`. DataError with file and line for anything it would not have written."""
    there = set()

    def check(row: Score) -> None:
        if math.isinf(row.value):
            raise ValueError(f"value '{row.value}' is not finite")
        if row.unit == "fraction" and (row.value < 0 or row.value > 1):
            raise ValueError(f"{row.metric} is a fraction, and '{row.value}' is not between 0 and 1")
        if _cell(row) in there:
            raise ValueError("this row is already there, so it would count twice")
        there.add(_cell(row))

    return read_rows(Path(path), Score, "Delete the file and run `attentkit evaluate` again.", check)


def refuse_gaps(scores: Iterable[Score], path: Path, cases: Sequence[str] = (), organs: Sequence[str] = ()) -> None:
    """DataError if the scores of one run lack a metric of an organ of a case that they have elsewhere, or some of `cases`.

    An organ that a case does not annotate has a single row there, which says so.
    """
    found: dict[tuple[str, str], set[tuple]] = {(case, organ): set() for case in cases for organ in organs}
    unknown = set()
    for score in scores:
        # All but case, organ and value.
        found.setdefault((score.case, score.organ), set()).add((*score[:3], score.metric, *score[7:]))
        if not_annotated(score):
            unknown.add((score.case, score.organ))
    for pair in product(dict.fromkeys(case for case, _ in found), dict.fromkeys(organ for _, organ in found)):
        found.setdefault(pair, set())
    kinds = set().union(*found.values())
    for (case, organ), there in found.items():
        if (there != kinds or not kinds) and not (len(there) == 1 and (case, organ) in unknown):
            raise DataError(f"{path} lacks rows of {organ} in case {case}. {SCORE_AGAIN}")


def not_annotated(score: Score) -> bool:
    """Whether a row says that the truth of its case does not annotate its organ, so that there is no score of it."""
    return score.metric == "scored" and score.value == 0


class Scores(tuple[Score, ...]):
    """Score rows in a fixed order; a notebook and a terminal show their means."""

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame, one column for each field. ConfigError where pandas is not installed."""
        return data_frame(self, Score._fields)

    @property
    def shown(self) -> Shown:
        """The mean over cases of each metric of the first protocol, for each organ and their average."""
        if not self:
            return Shown("No scores: no case has labels.", ("organ",), ())
        rows = [row for row in self if row.protocol == self[0].protocol]
        metrics = list(dict.fromkeys((row.metric, row.unit) for row in rows if row.unit not in COUNTED))
        means = {
            (s.alignment, s.direction, s.organ, metric, unit): s.mean
            for metric, unit in metrics
            for s in summarise(rows, metric, "cases", unit)
        }
        named = {(alignment, direction): None for alignment, direction, *_ in means}
        lines = []
        for alignment, direction in named:
            for organ in dict.fromkeys(o for a, d, o, *_ in means if (a, d) == (alignment, direction)):
                found = (means.get((alignment, direction, organ, *metric), math.nan) for metric in metrics)
                lines.append([*([alignment, direction] if len(named) > 1 else []), organ, *map(three_digits, found)])
        words = ["alignment", "direction", "organ"] if len(named) > 1 else ["organ"]
        cases = len({row.case for row in rows})
        title = f"Means over {cases} case{'s' if cases > 1 else ''}"
        return Shown(title, [*words, *(f"{m}, {u}" for m, u in metrics)], lines, words=range(len(words)))

    def __repr__(self) -> str:
        cases = len({row.case for row in self})
        return f"<{len(self)} scores of {cases} case{'' if cases == 1 else 's'}>"

    def __rich__(self) -> Any:
        return self.shown.rich()

    def _repr_html_(self) -> str:
        return self.shown.html()


def data_frame(values: Iterable[Sequence[Any]], columns: Sequence[str], index: Sequence[str] | None = None) -> Any:
    """A pandas DataFrame. ConfigError, with what to type, where pandas is not installed."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ConfigError("to_frame needs pandas: type pip install pandas.") from error
    return DataFrame(list(values), index=index, columns=list(columns))


def three_digits(value: float) -> str:
    """'0.123'; '-' for a number that is not defined."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def summarise(
    rows: Iterable[Score],
    metric: str,
    over: Literal["seeds", "cases"] = "seeds",
    unit: str | None = None,
    protocol: str | None = None,
    weight: str | None = None,
) -> list[Summary]:
    """Mean and std of each (alignment, direction, organ), then of the average of organs, in order of appearance.

    over="seeds": mean over the cases of a seed first, then mean and std over seeds: what training again would change.
    over="cases": mean over the seeds of a case first, then mean and std over cases: what another patient would change.
    NaN values are left out and counted. The average is the mean of the organ means, NaN if an organ has none; its std
    is that of the averages of each seed or case over the organs with a value there. `unit` and `protocol` are needed
    where the metric comes in several. With `weight`, a metric that counts slices, means are over those instead of over
    volumes; the std is not. Raises `ConfigError` for an unknown metric, unit, protocol or `over` and for scores of several
    selections, `DataError` for a row given twice.
    """
    if over not in ("seeds", "cases"):
        raise ConfigError(f"Scores cannot be summarised over '{over}'. Use over='seeds' or over='cases'.")
    rows = _of_protocol(list(rows), metric, protocol)
    only_selection(rows)
    unit = _only_unit(rows, metric, unit)
    counted = _counted(rows)
    weights = {_prediction(row): row.value for row in rows if row.metric == weight}
    groups: dict[tuple[str, str], dict[str, list[Score]]] = {}
    seen = set()
    for row in rows:
        if (row.metric, row.unit) != (metric, unit):
            continue
        if _cell(row) in seen:
            raise DataError(f"Two scores for {', '.join(map(str, _cell(row)[:-2]))}. Give each scores file once.")
        seen.add(_cell(row))
        groups.setdefault((row.alignment, row.direction), {}).setdefault(row.organ, []).append(row)

    summaries: list[Summary] = []
    for (alignment, direction), organs in groups.items():
        first = len(summaries)
        values = {organ: _values(scores, over, weights) for organ, scores in organs.items()}
        for organ, scores in organs.items():
            sums = [sum(counts) for counts in zip(*(counted[_prediction(row)] for row in scores), strict=True)]
            total, missed, invented, absent, undefined = sums
            excluded = sum(math.isnan(row.value) for row in scores)
            numbers = _mean_std_n(values[organ].values())
            summaries.append(
                Summary(
                    alignment, direction, organ, *numbers, unit, excluded, missed, invented, absent, total, undefined
                )
            )
        summaries.append(_average(summaries[first:], values))
    return summaries


class _Value(NamedTuple):
    """A number with its weight in a mean."""

    value: float
    weight: float


def _values(scores: Sequence[Score], over: str, weights: dict[tuple, float]) -> dict[int | str | None, _Value]:
    """One value per seed or case: the mean of its scores that are not NaN; it weighs 1, or as much as they do together."""
    groups: dict[int | str | None, list[_Value]] = {}
    for row in scores:
        weight = weights.get(_prediction(row), 1.0)
        groups.setdefault(row.seed if over == "seeds" else row.case, []).append(_Value(row.value, weight))
    return {
        key: _Value(_mean_std_n(group)[0], sum(v.weight for v in group if not math.isnan(v.value)) if weights else 1.0)
        for key, group in groups.items()
    }


def _average(organs: Sequence[Summary], values: dict[str, dict[int | str | None, _Value]]) -> Summary:
    keys = dict.fromkeys(key for by_key in values.values() for key in by_key)
    # Each organ counts once, however many slices it is in.
    by_organ = [[by_key[key]._replace(weight=1.0) for by_key in values.values() if key in by_key] for key in keys]
    _, std, n = _mean_std_n([_Value(_mean_std_n(group)[0], 1.0) for group in by_organ])
    mean = statistics.fmean(summary.mean for summary in organs)
    return organs[0]._replace(
        organ=AVERAGE,
        mean=mean,
        std=math.nan if math.isnan(mean) else std,
        n=n,
        **{
            count: sum(getattr(summary, count) for summary in organs)
            for count in ("excluded", "missed", "invented", "absent", "total", "undefined")
        },
    )


def _mean_std_n(values: Iterable[_Value]) -> tuple[float, float, int]:
    known = [(value, weight) for value, weight in values if not math.isnan(value)]
    numbers, weights = [value for value, _ in known], [weight for _, weight in known]
    mean = statistics.fmean(numbers, weights) if sum(weights) else math.nan
    return mean, statistics.stdev(numbers) if len(known) > 1 else math.nan, len(known)


def _counted(rows: Sequence[Score]) -> dict[tuple, tuple[int, ...]]:
    """COUNTS of each organ of each prediction; told from its metrics where the rows have none, as those of another program."""
    by_prediction: dict[tuple, dict[str, float]] = {}
    for row in rows:
        by_prediction.setdefault(_prediction(row), {})[row.metric] = row.value
    return {
        prediction: tuple(int(found.get(name, 0)) for name in COUNTS) if "scored" in found else _told_from(found)
        for prediction, found in by_prediction.items()
    }


def _told_from(found: dict[str, float]) -> tuple[int, ...]:
    """COUNTS by Dice, ASSD and the true volume of one prediction of an organ.

    Two masks that are there but do not touch have Dice 0 too; they have distances, so neither is missed nor invented.
    """
    overlap, undefined = found.get("dice", 1.0), math.isnan(found.get("assd", 0.0))
    one_sided, there = overlap == 0 and undefined, found.get("true volume") != 0
    return 1, int(one_sided and there), int(one_sided and not there), int(math.isnan(overlap)), int(undefined)


def only_selection(rows: Iterable[Score]) -> str:
    """The selection of all rows, `last` if there are none. ConfigError if there are several."""
    names = list(dict.fromkeys(row.selection for row in rows if row.selection != EXTERNAL))
    if len(names) > 1:
        raise ConfigError(
            f"These scores are of snapshots chosen in several ways, {', '.join(names)}, and no table holds them together: "
            f"choose one with --select."
        )
    return names[0] if names else LAST


def _of_protocol(rows: Sequence[Score], metric: str, protocol: str | None) -> list[Score]:
    """Rows of one protocol: the named one, or the only one that has the metric."""
    names = list(dict.fromkeys(row.protocol for row in rows if row.metric == metric))
    if protocol is None and len(names) > 1:
        raise ConfigError(f"'{metric}' comes by several protocols. Choose protocol= one of: {', '.join(names)}.")
    if protocol is not None and protocol not in (known := list(dict.fromkeys(row.protocol for row in rows))):
        raise ConfigError(f"The scores have no protocol '{protocol}'. They have: {', '.join(known)}.")
    chosen = protocol or (names[0] if names else None)
    return [row for row in rows if chosen in (None, row.protocol)]


def _only_unit(rows: Sequence[Score], metric: str, unit: str | None) -> str:
    units = list(dict.fromkeys(row.unit for row in rows if row.metric == metric))
    if not units:
        names = list(dict.fromkeys(row.metric for row in rows))
        raise ConfigError(
            f"The scores have no metric '{metric}'.{did_you_mean(metric, names)} They have: {', '.join(names)}."
        )
    if unit is None and len(units) == 1:
        return units[0]
    if unit not in units:
        comes = "comes in several units" if unit is None else f"does not come in '{unit}'"
        raise ConfigError(f"'{metric}' {comes}. Choose unit= one of: {', '.join(units)}.")
    return unit


def _cell(row: Score) -> tuple:
    """What may occur once."""
    return (*_prediction(row), row.metric, row.unit, row.protocol, row.selection)


def _prediction(row: Score) -> tuple:
    """One organ of one predicted volume."""
    return row.alignment, row.direction, row.seed, row.case, row.organ


def by_protocol(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """Scores of each protocol; that of a comparison first."""
    found: dict[str, list[Score]] = {}
    for score in scores:
        found.setdefault(score.protocol, []).append(score)
    return dict(sorted(found.items(), key=lambda item: item[0] != PROTOCOL))
