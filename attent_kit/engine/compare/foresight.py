"""What the tests of a comparison could see, by its cells alone: before a single one is trained."""

from collections.abc import Sequence

from attent_kit.data.phantom import SIZES
from attent_kit.data.sets.splits import WHOLE
from attent_kit.engine.compare.external import External
from attent_kit.engine.compare.suite import Cell, Suite, domains_of
from attent_kit.report.power import Power, foreseen


def foresee(suite: Suite, cells: Sequence[Cell], externals: Sequence[External] = ()) -> dict[str, Power]:
    """By direction, of every row against one of them; without directions of one row, or without labelled test cases."""
    made = {}
    for direction in dict.fromkeys(cell.direction for cell in cells):
        own = [cell for cell in cells if cell.direction == direction]
        others = {each.row for each in externals if each.direction == direction}
        comparisons = len({cell.row for cell in own} | others) - 1
        cases = len({case for cell in own for case in cell.to_be_scored[0]}) or _to_come(suite, direction, own)
        if cases and comparisons:
            made[direction] = foreseen(cases, comparisons)
    return made


def _to_come(suite: Suite, direction: str, cells: Sequence[Cell]) -> int:
    """Cases of the phantom that will be generated and tested, in the folds of these cells; 0 where a suite has none."""
    if suite.phantom is None:
        return 0
    _, target = domains_of(direction, suite.domain_names)
    split = getattr(SIZES[suite.phantom.size], target)
    folds = {cell.fold for cell in cells}
    if folds == {WHOLE}:
        return int(split[-1])
    patients = sum(split)
    return sum(patients // fold.parts + (fold.number < patients % fold.parts) for fold in folds)
