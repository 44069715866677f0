"""Scores of three methods, one of them an upper bound."""

from attent_kit.report.scores import Score
from attent_kit.report.table import MethodRow

TITLES = {"mr2ct": "MR to CT"}
METHODS = [MethodRow("W/o", False), MethodRow("A|B", False), MethodRow("Supervised", True)]


def rows(dice, seed=0, case="c1"):
    """Dice and ASSD rows of {method: (liver, spleen)}; ASSD in mm is 10 (1 - Dice)."""
    return [
        Score(method, "mr2ct", seed, case, organ, metric, value if metric == "dice" else 10 * (1 - value), unit)
        for method, values in dice.items()
        for organ, value in zip(("liver", "spleen"), values, strict=True)
        for metric, unit in (("dice", "fraction"), ("assd", "mm"))
    ]


ONE = rows({"W/o": (0.5, 0.3), "A|B": (0.8, 0.6), "Supervised": (0.9, 0.9)})
