"""Score rows, one number each, and the folds over them that a table prints. Every table is a fold over rows."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from attent_kit.errors import ConfigError, DataError, did_you_mean
from attent_kit.files import write_text

AVERAGE = "average"


class Score(NamedTuple):
    """One number: this metric, of this organ of this case, as segmented by this alignment trained with this seed."""

    alignment: str
    direction: str
    """"mr2ct" or "ct2mr"."""
    seed: int
    case: str
    organ: str
    metric: str
    value: float
    """NaN where the metric is not defined, such as a distance to an organ that was not found."""
    unit: str


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
    """Values left out because they are NaN, of `total`."""
    missed: int
    """Predictions without an organ that is in the truth: Dice 0 and no distances."""
    invented: int
    """Predictions with an organ that is not in the truth: Dice 0 and no distances."""
    absent: int
    """Predictions with Dice NaN: the organ is in neither, so there was nothing to find."""
    total: int
    """Predictions scored: seeds x cases; for the average, x organs."""


def write_scores(path: str | Path, rows: Iterable[Score]) -> None:
    """Rows as CSV, one line each under a header; all of the file or nothing, also if the machine stops half-way."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Score._fields)
    writer.writerows(row._replace(value=repr(float(row.value))) for row in rows)
    write_text(Path(path), out.getvalue())


def read_scores(path: str | Path) -> list[Score]:
    """The rows of `write_scores`. Raises `DataError` with file and line for anything it would not have written."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as scores ({error}). Run `attentkit evaluate` again.") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[tuple, Score] = {}
    try:
        if (header := next(reader, [])) != list(Score._fields):
            raise ValueError(f"the header is {','.join(header)!r}, expected {','.join(Score._fields)!r}")
        for fields in reader:
            row = _parse(fields)
            if _cell(row) in rows:
                raise ValueError("this row is already there, so it would count twice")
            rows[_cell(row)] = row
        if not text.endswith("\n"):
            raise ValueError("the last line is cut off")
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{path}, line {max(reader.line_num, 1)}: {error}. Delete the file and run `attentkit evaluate` again."
        ) from error
    return list(rows.values())


def summarise(
    rows: Iterable[Score],
    metric: str,
    over: Literal["seeds", "cases"] = "seeds",
    unit: str | None = None,
) -> list[Summary]:
    """Mean and std of each (alignment, direction, organ), then of the average of organs, in order of appearance.

    over="seeds": mean over the cases of a seed first, then mean and std over seeds: what training again would change.
    over="cases": mean over the seeds of a case first, then mean and std over cases: what another patient would change.
    NaN values are left out and counted. The average is the mean of the organ means, NaN if an organ has none; its std
    is that of the averages of each seed or case over the organs with a value there. `unit` is needed where the metric
    comes in several. Raises `ConfigError` for an unknown metric, unit or `over`, `DataError` for a row given twice.
    """
    if over not in ("seeds", "cases"):
        raise ConfigError(f"Scores cannot be summarised over '{over}'. Use over='seeds' or over='cases'.")
    rows = list(rows)
    unit = _only_unit(rows, metric, unit)
    misses, inventions, absences = _empty_predictions(rows)
    groups: dict[tuple[str, str], dict[str, list[Score]]] = {}
    seen = set()
    for row in rows:
        if (row.metric, row.unit) != (metric, unit):
            continue
        if _cell(row) in seen:
            raise DataError(f"Two scores for {', '.join(map(str, _cell(row)))}. Give each scores file once.")
        seen.add(_cell(row))
        groups.setdefault((row.alignment, row.direction), {}).setdefault(row.organ, []).append(row)

    summaries = []
    for (alignment, direction), organs in groups.items():
        first = len(summaries)
        values = {organ: _values(scores, over) for organ, scores in organs.items()}
        for organ, scores in organs.items():
            predictions = {_prediction(row) for row in scores}
            summaries.append(
                Summary(
                    alignment,
                    direction,
                    organ,
                    *_mean_std_n(list(values[organ].values())),
                    unit,
                    excluded=sum(math.isnan(row.value) for row in scores),
                    missed=len(predictions & misses),
                    invented=len(predictions & inventions),
                    absent=len(predictions & absences),
                    total=len(scores),
                )
            )
        summaries.append(_average(summaries[first:], values))
    return summaries


def _values(scores: Sequence[Score], over: str) -> dict[int | str, float]:
    """One value a seed or a case: the mean of its scores that are not NaN."""
    groups: dict[int | str, list[float]] = {}
    for row in scores:
        groups.setdefault(row.seed if over == "seeds" else row.case, []).append(row.value)
    return {key: _mean_std_n(group)[0] for key, group in groups.items()}


def _average(organs: Sequence[Summary], values: dict[str, dict[int | str, float]]) -> Summary:
    keys = dict.fromkeys(key for by_key in values.values() for key in by_key)
    averages = [_mean_std_n([by_key[key] for by_key in values.values() if key in by_key])[0] for key in keys]
    mean = statistics.fmean(summary.mean for summary in organs)
    _, std, n = _mean_std_n(averages)
    return organs[0]._replace(
        organ=AVERAGE,
        mean=mean,
        std=math.nan if math.isnan(mean) else std,
        n=n,
        **{
            count: sum(getattr(summary, count) for summary in organs)
            for count in ("excluded", "missed", "invented", "absent", "total")
        },
    )


def _mean_std_n(values: Sequence[float]) -> tuple[float, float, int]:
    known = [value for value in values if not math.isnan(value)]
    mean = statistics.fmean(known) if known else math.nan
    return mean, statistics.stdev(known) if len(known) > 1 else math.nan, len(known)


def _empty_predictions(rows: Sequence[Score]) -> tuple[set[tuple], set[tuple], set[tuple]]:
    """Predictions that missed an organ, that invented one, and those where it is rightly absent.

    Two masks that are there but do not touch have Dice 0 too; they have distances, so neither is missed nor invented.
    """
    without_overlap, absent, undefined, measured, not_there = set(), set(), set(), set(), set()
    for row in rows:
        if row.metric == "dice" and row.value == 0:
            without_overlap.add(_prediction(row))
        elif row.metric == "dice" and math.isnan(row.value):
            absent.add(_prediction(row))
        elif row.metric == "assd":
            (undefined if math.isnan(row.value) else measured).add(_prediction(row))
        elif row.metric == "true volume" and row.value == 0:
            not_there.add(_prediction(row))
    one_sided = (without_overlap & undefined) - measured
    return one_sided - not_there, one_sided & not_there, absent


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
        given = "in several units" if unit is None else f"not in '{unit}'"
        raise ConfigError(f"'{metric}' is there {given}. Choose unit= one of: {', '.join(units)}.")
    return unit


def _cell(row: Score) -> tuple:
    """What may occur once."""
    return (*_prediction(row), row.metric, row.unit)


def _prediction(row: Score) -> tuple:
    """One organ of one predicted volume."""
    return row.alignment, row.direction, row.seed, row.case, row.organ


def _parse(fields: Sequence[str]) -> Score:
    if len(fields) != len(Score._fields):
        raise ValueError(f"{len(fields)} fields, expected {len(Score._fields)}")
    given = dict(zip(Score._fields, fields, strict=True))
    return Score(**given | {"seed": _number(int, given, "seed"), "value": _number(float, given, "value")})


def _number(kind: type, given: dict[str, str], name: str) -> int | float:
    try:
        return kind(given[name])
    except ValueError:
        raise ValueError(f"{name} '{given[name]}' is not a number") from None
