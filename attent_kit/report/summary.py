"""What a reader must know first: who is best by how much, how each row came about, and what is doubtful."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from attent_kit.errors import few
from attent_kit.report.compared import Compared
from attent_kit.report.metrics import METRICS
from attent_kit.report.scores import AVERAGE, EXTERNAL, LAST, ORACLE, Score
from attent_kit.report.sentences import sentence
from attent_kit.report.table import MethodRow, Table, cell_text, stamp


class Stamp(NamedTuple):
    """A few words beside the label of a row."""

    text: str
    kind: str
    """plain, warn or quiet: how it looks."""
    meaning: str


def selections(scores: Iterable[Score]) -> list[str]:
    """What chose the snapshots."""
    return list(dict.fromkeys(score.selection for score in scores if score.selection != EXTERNAL))


def stamps(method: MethodRow, scores: Sequence[Score], collapsed: int, runs: int) -> list[Stamp]:
    """Of one row in one direction: how much it knows of target labels, what chose its snapshot, and whether it collapsed."""
    made = []
    if method.seen is not None:
        return [Stamp(EXTERNAL, "warn", f"Label maps of another tool, not trained here. Trained on: {method.seen}.")]
    chosen = selections(scores)
    if method.bound:
        made.append(
            Stamp("sees target labels", "quiet", "Trained with target labels: a bound, and never the best row.")
        )
    if ORACLE in chosen:
        made.append(Stamp(stamp(ORACLE, method.bound), "warn", "The snapshot was chosen with target test labels."))
    elif not method.bound:
        made.append(
            Stamp("label-free", "plain", "No target label was used, for training or for the choice of a snapshot.")
        )
    made += [
        Stamp(name, "quiet", f"The snapshot was chosen by '{name}', without target labels.")
        for name in chosen
        if name not in (LAST, ORACLE)
    ]
    if collapsed:
        made.append(
            Stamp(f"collapsed {collapsed} of {runs}", "warn", "Runs whose training was seen to collapse; they count.")
        )
    return made


def headlines(c: Compared) -> list[str]:
    """A sentence for each direction: the row with the best average of the first metric, and how far it is from the reference."""
    made, judge = [], METRICS[0]
    best_is = "highest" if judge.higher_is_better else "lowest"
    for direction, domains in c.titles.items():
        table = next((t for t in c.tables if t.direction == direction and t.metric == judge), None)
        if table is None:
            made.append(f"{domains}: nothing is scored yet.")
            continue
        if not table.alike:
            made.append(
                f"{domains}: not all folds have scores, and the rows are of different cases so far, so none is best."
            )
            continue
        cells = {label: cells[-1] for label, cells in table.rows}
        free = [m.label for m in c.methods if not m.bound]
        known = {label: cell.mean for label in free if (cell := cells.get(label)) and not math.isnan(cell.mean)}
        if not known:
            made.append(f"{domains}: no row without target labels has an average {judge.title} yet.")
            continue
        highest = (max if judge.higher_is_better else min)(known.values())
        best = [label for label, mean in known.items() if mean == highest]
        number = cell_text(cells[best[0]], judge, table.count)
        have = f"{' and '.join(best)} {'has' if len(best) == 1 else 'have'}"
        found = f"{have} the {best_is} average {judge.title}" if len(known) > 1 else f"{have} {judge.title}"
        trained = "are trained without target labels" if _by_oracle(table) else "see no target labels"
        of = f" of the {len(known)} rows that {trained}" if len(known) > 1 else ""
        said = f"{domains}: {found}{of}, {number} {judge.shown_unit} ({table.over})."
        against = [
            x
            for x in c.comparisons
            if (x.direction, x.metric, x.organ) == (direction, judge.name, AVERAGE) and x.method in best
        ]
        made.append(" ".join([said, *(sentence(x, domains) for x in against), *_closed(table, best)]))
    return made


def _closed(table: Table, labels: Sequence[str]) -> list[str]:
    """What rows close of the gap, a sentence each, where there is a value; the ends of the gap close none and all of it."""
    if table.gap is None:
        return []
    shares = {label: table.gap.shares[label] for label in labels if label in table.gap.shares}
    span = f"of the gap from {table.gap.floor} to {table.gap.ceiling}"
    return [
        f"{label} closes {100 * share.value:z.0f} % {span} (95 % interval {100 * share.low:z.0f} to {100 * share.high:z.0f} %)."
        for label, share in shares.items()
        if not math.isnan(share.low)
    ]


def _by_oracle(table: Table) -> bool:
    return stamp(ORACLE, False) in table.stamps


def doubts(
    scores: Sequence[Score], missing: Sequence[str], titles: Mapping[str, str], protocols: Sequence[str]
) -> list[str]:
    """What keeps the numbers from being read as they stand."""
    made = []
    if missing:
        made.append(
            f"{len(missing)} {'run is' if len(missing) == 1 else 'runs are'} not finished and not counted: {few(missing, 6)}. "
            "Start the same `attentkit compare` again to go on with them."
        )
    for direction, domains in titles.items():
        own = [score for score in scores if score.direction == direction]
        cases: dict[str, set[str]] = {}
        seeds: dict[str, set[int]] = {}
        for score in own:
            cases.setdefault(score.alignment, set()).add(score.case)
            if score.seed is not None:
                seeds.setdefault(score.alignment, set()).add(score.seed)
        if len({frozenset(found) for found in cases.values()}) > 1:
            counts = ", ".join(f"{label} {len(found)}" for label, found in cases.items())
            made.append(
                f"{domains}: the rows are not scored on the same cases ({counts}), so their means are of different patients; "
                "comparisons are over the cases that both rows have."
            )
        if len({frozenset(found) for found in seeds.values()}) > 1:
            counts = ", ".join(f"{label} {len(found)}" for label, found in seeds.items())
            made.append(f"{domains}: the rows do not have the same seeds ({counts}).")
        chosen = selections(own)
        if len(chosen) > 1:
            made.append(
                f"{domains}: snapshots were chosen in several ways ({', '.join(chosen)}): do not compare across them."
            )
    if len(protocols) > 1:
        made.append(
            f"There are scores by several protocols ({', '.join(protocols)}). Each has tables of its own; all else is by "
            f"{protocols[0]}."
        )
    return made
