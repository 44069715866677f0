"""Comparisons as a person would write them, and as the block that stands below the tables of a direction.

The test that a sentence names is Wilcoxon's; the permutation test stands beside it in the table.
"""

import math
from collections.abc import Sequence

from attent_kit.report.comparisons import Comparison, SlideTest
from attent_kit.report.intervals import RESAMPLES
from attent_kit.report.metrics import metric_of
from attent_kit.report.pairwise import RowPair
from attent_kit.report.power import Power
from attent_kit.report.ranks import Ranks, rank_sentence
from attent_kit.report.scores import AVERAGE
from attent_kit.report.significance import ALPHA, EXACT_FLIPS, p_text
from attent_kit.report.table import grid


def sentence(c: Comparison, domains: str) -> str:
    """What was found, over what, and whether it means anything. `domains` is as in "MR to CT"."""
    return f"{claim(c, domains)}; {verdict(c)}." if c.cases else f"{claim(c, domains)}."


def claim(c: Comparison, domains: str) -> str:
    """AttENT is 25.5 Dice points above W/o adaptation on MR to CT (95 % interval 18.1 to 31.9, 3 cases, 2 seeds)."""
    if not c.cases:
        return _why_not(c, domains)
    metric = metric_of(c.metric)
    subject = f"The {_measure(c)} of {c.method}"
    object_, unit = f"that of {c.reference}", metric.step
    if metric.row_step and c.organ == AVERAGE:
        subject, object_, unit = c.method, c.reference, metric.row_step
    size = _size(c, c.difference)
    if float(size) == 0:
        step = 5 * 10.0 ** -(len(size.partition(".")[2]) + 1)
        found = f"differs from {object_} by less than {step:.3g} {unit}"
        found = found if c.difference else f"equals {object_}"
    else:
        found = f"is {size} {unit} {_side(c.difference)} {object_}"
    over = [f"95 % interval {_range(c)}"] if not math.isnan(c.difference_low) else []
    return f"{subject} {found} on {domains} ({', '.join([*over, *_numbers(c)])})"


def verdict(c: Comparison) -> str:
    """The p-values, or why there can be none that counts."""
    limit = Power(c.cases, c.family, c.smallest_p, c.smallest_holm).clause
    if c.smallest_p >= ALPHA:
        return limit
    found = f"Wilcoxon signed-rank p {_is(c.wilcoxon_p)}"
    if c.family > 1:
        found += f", {p_text(c.wilcoxon_holm)} after Holm's correction for {c.family} comparisons"
    if not math.isnan(c.rank_biserial):
        found += f", rank-biserial r = {c.rank_biserial:.2f}"
    return f"{found}; {limit}" if limit else found


def power_of(comparisons: Sequence[Comparison] | Sequence[RowPair]) -> Power | None:
    """What comparisons of one family could show, whatever the scores; None if there is nothing to compare."""
    tested = [c for c in comparisons if c.cases]
    if not tested:
        return None
    most = max(tested, key=lambda c: c.cases)
    return Power(most.cases, most.family, most.smallest_p, min(c.smallest_holm for c in tested))


def comparison_block(
    comparisons: Sequence[Comparison], domains: str, ranks: Sequence[Ranks] = (), slides: Sequence[SlideTest] = ()
) -> list[str]:
    """Markdown lines of one direction: the averages, a sentence each, ranks, and the slides' test if it was asked for."""
    averages = [c for c in comparisons if c.organ == AVERAGE]
    if not averages:
        return []
    reference = averages[0].reference
    lines = [f"## {domains}: comparisons with {reference}", "", _how(averages), ""]
    for name in dict.fromkeys(c.metric for c in averages):
        own = [c for c in averages if c.metric == name]
        lines += [f"### {metric_of(name).heading}, average of organs", "", *_table(own), ""]
        power = power_of(own)
        alone = power.limit if power else ""
        lines += [f"**{alone}**", ""] if alone else [power.reach, ""] if power else []
        # What is said once for all is not said again for each.
        said = (f"- {claim(c, domains)}." if alone else f"- {sentence(c, domains)}" for c in own)
        lines += [*dict.fromkeys(said), ""]
        lines += [line for r in ranks if r.metric == name for line in (rank_sentence(r), "")]
    return lines + (_slides(slides) if slides else [])


def _table(comparisons: Sequence[Comparison]) -> list[str]:
    head = [
        "method", "average (95 % interval)", f"minus {comparisons[0].reference}", "cases",
        "Wilcoxon p", "Holm", "permutation p", "Holm", "r", "d_z",
    ]  # fmt: skip
    rows = [
        [
            c.method,
            _with_interval(c, c.mean, c.mean_low, c.mean_high),
            _with_interval(c, c.difference, c.difference_low, c.difference_high, "+"),
            str(c.cases),
            *map(p_text, (c.wilcoxon_p, c.wilcoxon_holm, c.permutation_p, c.permutation_holm)),
            *("-" if math.isnan(effect) else f"{effect:.2f}" for effect in (c.rank_biserial, c.d_z)),
        ]
        for c in comparisons
    ]
    return grid(head, rows)


def _how(averages: Sequence[Comparison]) -> str:
    seeds = {c.seeds for c in averages if c.seeds} | {c.reference_seeds for c in averages if c.reference_seeds}
    one = " With one seed they do not cover what training again would change." if seeds == {1} else ""
    maps = (
        " Label maps of another tool are one set, without seeds: the value that a case has there is compared with the mean over "
        "the other row's seeds, and what another training of the tool would change is not covered."
        if any(None in (c.seeds, c.reference_seeds) for c in averages)
        else ""
    )
    flips = "" if max(c.cases for c in averages) <= EXACT_FLIPS else ", by random signs"
    return (
        "Paired by case: the value of a case is its mean over seeds and organs. Intervals hold 95 % of "
        f"{RESAMPLES:,} resamples of the cases and, crossed with them, of the seeds; with few cases they are too short."
        f"{one}{maps} Wilcoxon: signed-rank test; permutation: of the signs of the differences{flips}; both two-sided. "
        "Holm: corrected for all comparisons of the table. r: matched-pairs rank-biserial correlation; d_z: mean difference "
        "in SDs of the differences; both with the sign of the difference. Single organs are in comparisons.csv."
    )


def _slides(slides: Sequence[SlideTest]) -> list[str]:
    by_metric: dict[str, dict[str, SlideTest]] = {}
    for s in slides:
        by_metric.setdefault(s.metric, {})[s.method] = s
    first = slides[0]
    head, rows = ["method"], {s.method: [s.method] for s in slides}
    rows = {first.reference: [first.reference], **rows}
    for name, tests in by_metric.items():
        head += [metric_of(name).title, "p"]
        some = next(iter(tests.values()))
        rows[first.reference] += [_mean_sd(name, some.reference_mean, some.reference_sd), ""]
        for label, s in tests.items():
            rows[label] += [_mean_sd(name, s.mean, s.sd), p_text(s.p)]
    seeds = sorted({n for s in slides for n in (s.n, s.reference_n) if n})
    many = f"{', '.join(map(str, seeds)) or 'none'} here"
    if not seeds or min(seeds) < 2:
        many += ", and a row needs two to be tested"
    return [
        "### The slides' test",
        "",
        f"One-sided: is a method better than {first.reference}? Student's t with pooled variance between their averages of "
        "each seed; ± is the population SD over seeds (ddof 0). This is what explains the p-values printed on the slides of "
        "AttENT best, and it stands here to be compared with them. It is not recommended: its n is the number of seeds "
        f"({many}; on the slides 3, of an unknown kind), so it says nothing about other patients; it takes rows that share "
        "cases and seeds for independent; it cannot find a worse method; and nothing is corrected for the number of tests.",
        "",
        *grid(head, rows.values()),
        "",
    ]


def _why_not(c: Comparison, domains: str) -> str:
    absent = [label for label, n in ((c.method, c.seeds), (c.reference, c.reference_seeds)) if n == 0]
    measure = metric_of(c.metric).title
    if absent:
        return f"{' and '.join(absent)} {_have(absent)} no {measure} on {domains}, so there is nothing to compare"
    both = f"{c.method} and {c.reference}"
    if not c.total:
        return f"{both} have no test case in common on {domains}, so they are not compared"
    organs = " or ".join(c.without)
    what = "their averages are" if c.organ == AVERAGE else "they are"
    return (
        f"{both} have no case in common on {domains} where the {measure} of {organs} is defined, so {what} not compared"
    )


def _numbers(c: Comparison) -> list[str]:
    found = [_count(c.cases, "case"), _sets(c)]
    if c.left_out:
        found.append(f"{_count(c.left_out, 'case')} left out for want of a partner")
    for label, n, of in (
        (c.method, c.undefined, c.total),
        (c.reference, c.reference_undefined, c.reference_total),
    ):
        if n:
            found.append(f"{n} of {of} values of {label} not defined")
    return found


def _sets(c: Comparison) -> str:
    """ "3 seeds", "1 against 2 seeds", "one set of label maps against the mean of 3 seeds"."""
    both = c.seeds, c.reference_seeds
    if None in both:
        row, other = ("one set of label maps" if n is None else f"the mean of {_count(n, 'seed')}" for n in both)
        return f"{row} against {other}"
    return (
        _count(c.seeds or 0, "seed") if c.seeds == c.reference_seeds else f"{c.seeds} against {c.reference_seeds} seeds"
    )


def _range(c: Comparison) -> str:
    """Of the amount where both ends lie on its side, else each end with its own side."""
    low, high = c.difference_low, c.difference_high
    if low >= 0 and c.difference > 0:
        return f"{_size(c, low)} to {_size(c, high)}"
    if high <= 0 and c.difference < 0:
        return f"{_size(c, high)} to {_size(c, low)}"
    if low == high == 0:
        return f"{_size(c, 0)} to {_size(c, 0)}"
    return f"{_size(c, low)} {_side(low)} to {_size(c, high)} {_side(high)}"


def _measure(c: Comparison) -> str:
    title = metric_of(c.metric).title
    return title if c.organ == AVERAGE else f"{c.organ} {title}"


def _size(c: Comparison, value: float) -> str:
    return metric_of(c.metric).number(abs(value))


def _side(value: float) -> str:
    return "above" if value > 0 else "below"


def _with_interval(c: Comparison, value: float, low: float, high: float, sign: str = "") -> str:
    metric = metric_of(c.metric)
    known = not math.isnan(value) and not math.isnan(low)
    return metric.number(value, sign) + (
        f" ({metric.number(low, sign)} to {metric.number(high, sign)})" if known else ""
    )


def _mean_sd(name: str, mean: float, sd: float) -> str:
    metric = metric_of(name)
    return metric.number(mean) + ("" if math.isnan(mean) or math.isnan(sd) else f" ± {metric.number(sd)}")


def _is(p: float) -> str:
    return p_text(p) if p < 0.001 else f"= {p_text(p)}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _have(labels: Sequence[str]) -> str:
    return "has" if len(labels) == 1 else "have"
