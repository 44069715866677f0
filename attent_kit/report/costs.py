"""What each row costs: networks, multiply-adds and speed, as a block of the table of its own."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attent_kit.report.rows import csv_table
from attent_kit.report.table import grid

COLUMNS = (
    "method",
    "parameters",
    "of them to predict",
    "multiply-adds a slice",
    "training, steps/s",
    "prediction, slices/s",
)


class Cost(NamedTuple):
    """One row of the comparison."""

    row: str
    parameters: int
    """Of all networks that are trained."""
    predicting: int
    """Of those networks that prediction calls."""
    multiply_adds: int
    """Of the prediction of one slice, in convolutions and products of matrices."""
    image: tuple[int, int, int]
    """Channels, height and width of that slice."""
    training: float | None
    """Steps a second of the last stage; None if no run has noted it."""
    stage: str
    """The name of that stage."""
    prediction: float
    """Slices a second."""
    device: str
    """Where prediction was timed, and with how many threads."""


def texts(cost: Cost) -> list[str]:
    """The cells of its row, as COLUMNS name them."""
    return [
        cost.row, f"{cost.parameters / 1e6:.2f} M", f"{cost.predicting / 1e6:.2f} M", f"{cost.multiply_adds / 1e9:.2f} G",
        "-" if cost.training is None else f"{cost.training:.3g}", f"{cost.prediction:.3g}",
    ]  # fmt: skip


def footnotes(costs: Iterable[Cost]) -> list[str]:
    """What was counted, at which size, and where speed was measured."""
    costs = list(costs)
    images = dict.fromkeys(" x ".join(map(str, cost.image)) for cost in costs)
    stages = dict.fromkeys(f"'{cost.stage}'" for cost in costs)
    devices = dict.fromkeys(cost.device for cost in costs)
    return [
        f"Multiply-adds are those of convolutions and products of matrices, of predicting one slice of {' or '.join(images)} "
        f"(half of what torch.utils.flop_counter counts); norms, activations and resizing are not counted.",
        f"Training: steps a second of the last stage ({', '.join(stages)}), median over the runs of the row. Prediction: "
        f"slices a second on {'; '.join(devices)}, in volumes of 16 slices to which a method may adapt before. Both depend on "
        "what else the machine was doing.",
    ]


def block(costs: Sequence[Cost]) -> list[str]:
    """Lines of Markdown; none without costs."""
    if not costs:
        return []
    table = grid(COLUMNS, [texts(cost) for cost in costs])
    return ["## Cost", "", *table, "", *(f"- {line}" for line in footnotes(costs)), ""]


def costs_csv(costs: Iterable[Cost]) -> str:
    """The same numbers, unrounded."""
    head = (
        "method", "parameters", "parameters_predicting", "multiply_adds", "channels", "height", "width",
        "training_steps_per_second", "training_stage", "prediction_slices_per_second", "device",
    )  # fmt: skip
    lines = [
        (c.row, c.parameters, c.predicting, c.multiply_adds, *c.image, c.training, c.stage, c.prediction, c.device)
        for c in costs
    ]
    return csv_table(head, lines)
