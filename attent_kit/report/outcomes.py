"""How runs ended, so that a table counts those that have collapsed: a row of three runs, one collapsed, is not a row of two."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attent_kit.files import read_json


class Outcome(NamedTuple):
    """The end of one run."""

    row: str
    direction: str
    seed: int
    collapsed: tuple[str, ...]
    """Checks that it failed at its end, such as "organ-vanished"; empty for a run that is as it should be."""
    scored: bool
    """Whether it has scores; a run that met NaN has none."""
    fold: str = ""
    """1/5 where the target was dealt into folds."""


def outcome_of(row: str, direction: str, seed: int, monitor: Path, scored: bool, fold: str = "") -> Outcome | None:
    """The outcome of a run that has scores or, by its monitor.json, has collapsed; None for one that is not over."""
    failed = failed_checks(monitor)
    return Outcome(row, direction, seed, failed or (), scored, fold) if scored or failed else None


def failed_checks(monitor: Path) -> tuple[str, ...] | None:
    """What the monitor.json of a run says about its end; None if the run is not there, is not over or was not watched."""
    failed = _failed(monitor)
    return None if failed is None else tuple(failed)


def reasons(monitor: Path) -> str:
    """The sentences of those checks; empty if there are none."""
    return " ".join((_failed(monitor) or {}).values())


def _failed(monitor: Path) -> dict[str, str] | None:
    """Sentence by check, of a collapsed run at its end. Discriminators that have won are not a collapse."""
    try:
        state = read_json(monitor) or {}
        warnings = state["warnings"] if state["collapsed"] else []
        end = max((warning["step"] for warning in warnings), default=0)
        ends = [w for w in warnings if w["step"] == end and not w["check"].startswith("discriminator")]
        return {w["check"]: w.get("sentence", "") for w in ends}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def counts(outcomes: Sequence[Outcome], row: str, direction: str) -> tuple[int, int]:
    """Runs of a row in a direction, and how many of them collapsed."""
    own = [o for o in outcomes if (o.row, o.direction) == (row, direction)]
    return len(own), sum(bool(o.collapsed) for o in own)


def footnotes(outcomes: Sequence[Outcome], rows: Sequence[str], direction: str) -> list[str]:
    """A line for each row with a collapsed run."""
    lines = []
    for row in rows:
        runs, collapsed = counts(outcomes, row, direction)
        if not collapsed:
            continue
        failed = [o for o in outcomes if (o.row, o.direction) == (row, direction) and o.collapsed]
        seeds = "; ".join(
            f"seed {o.seed}{f', fold {o.fold}' if o.fold else ''}: {', '.join(o.collapsed)}" for o in failed
        )
        lost = sum(not o.scored for o in failed)
        means = (
            "they are in the means"
            if not lost
            else "they have no scores"
            if lost == runs
            else "they have no scores, so that the means are over the others"
            if lost == collapsed
            else f"{lost} of them without scores, the others are in the means"
        )
        if collapsed == 1:
            means = means.replace("they are", "it is").replace("they have", "it has")
        lines.append(f"{row}: {collapsed} of {runs} run{'s' * (runs > 1)} collapsed ({seeds}); {means}.")
    return lines
