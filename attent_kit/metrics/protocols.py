"""Published ways of scoring label maps: the same prediction, four definitions.

A protocol is a name, the columns that a table shows of it, and a function from a prediction and the truth to rows. Every
protocol gives for each organ its own metrics, the two volumes in ml, and what it could not measure, counted:

    scored       volumes or slices that the numbers are made of: 1 where the protocol looks at whole volumes; 0, and then the
                 only row, for an organ that the truth does not annotate
    missed       of them, without the organ in the prediction alone
    invented     without it in the truth alone
    absent       without it in both
    undefined    of them, without a distance, for whichever reason
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, SupportsFloat

import numpy as np

from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.metrics.overlap import dice
from attent_kit.metrics.pair import MaskPair
from attent_kit.metrics.surface import mean_of_directions, pooled_mean, surface_distances, surfaces
from attent_kit.metrics.surfels import nsd

TOLERANCE = 2.0
"""mm by which a surface may be off in the surface Dice."""
SMOOTH = 1e-5
"""What AttENT's code adds above and below the fraction bar of Dice."""


class OrganMetric(NamedTuple):
    """One number about one organ of one volume."""

    organ: str
    metric: str
    value: float
    unit: str


class Column(NamedTuple):
    """What a table shows of a protocol."""

    metric: str
    unit: str
    title: str
    weight: str | None = None
    """The row with the number of slices behind a value, where a mean over volumes is one over their slices."""


class Measured(NamedTuple):
    """One number about an organ that need not be named again."""

    metric: str
    value: float
    unit: str


@dataclass(frozen=True)
class Protocol:
    """One definition of what is measured."""

    name: str
    summary: str
    columns: tuple[Column, ...]
    measure: Callable[[MaskPair], Iterator[OrganMetric]]

    def rows(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        organs: Sequence[str],
        spacing: Sequence[float],
        axes: str = "RAS",
        annotated: Collection[str] | None = None,
    ) -> list[OrganMetric]:
        """All rows of every organ, also of one that is missing; a metric without a value is NaN.

        Of an organ that is not `annotated`, where that is given, the truth says nothing: its only row is `scored`, 0.
        `prediction` and `truth` are integer label maps of one shape; organ i of `organs` has label i + 1. `spacing` is in
        mm, one value per axis, and `axes` names the patient's side that each axis points to. Raises `DataError` for maps
        of different shapes, of floats, or with labels that `organs` does not name.
        """
        rows = list(self.measure(MaskPair.of(prediction, truth, organs, spacing, axes)))
        if annotated is None:
            return rows
        return [
            row if row.organ in annotated else row._replace(value=0.0)
            for row in rows
            if row.organ in annotated or row.metric == "scored"
        ]


def protocol(name: str) -> Protocol:
    """The protocol of that name; ConfigError with the nearest one."""
    if name not in PROTOCOLS:
        raise ConfigError(
            f"no protocol is called '{name}'.{did_you_mean(name, PROTOCOLS)} There are {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]


# What a volume is measured by: two masks and the spacing in mm to numbers.


def _three_d(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> Iterator[Measured]:
    """Ours: symmetric, in the patient's millimetres; what is in neither has no score, so that it is not a success."""
    points = surfaces(prediction, truth)
    mm, voxel = points.metrics(spacing), points.metrics((1,) * truth.ndim)
    yield Measured("dice", dice(prediction, truth), "fraction")
    yield Measured("assd", mm.assd, "mm")
    yield Measured("assd", voxel.assd, "voxel")
    yield Measured("hd95", mm.hd95, "mm")
    yield Measured("hd95", voxel.hd95, "voxel")
    yield Measured("nsd 2 mm", nsd(prediction, truth, spacing, TOLERANCE), "fraction")


def _sifa(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> Iterator[Measured]:
    """SIFA's evaluation script, by MedPy without a spacing. Where that ends in an error, an empty mask, NaN stands here.

    Chen, Dou, Chen, Qin, Heng, Unsupervised bidirectional cross-modality adaptation via deeply synergistic image and
    feature alignment for medical image segmentation, IEEE TMI 2020.
    """
    overlap = dice(prediction, truth)
    yield Measured("dice", 0.0 if math.isnan(overlap) else overlap, "fraction")
    yield Measured("assd", mean_of_directions(*surface_distances(prediction, truth, (1,) * truth.ndim)), "voxel")


def _chaos(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> Iterator[Measured]:
    """The CHAOS evaluation: Kavur et al., CHAOS Challenge, Medical Image Analysis 2021. RAVD is NaN without a truth."""
    sizes = np.count_nonzero(prediction), np.count_nonzero(truth)
    to_truth, to_prediction = surfaces(prediction, truth, outside=True).distances(spacing)
    measured = to_truth.size and to_prediction.size
    yield Measured("dice", dice(prediction, truth), "fraction")
    yield Measured("ravd", 100 * abs(sizes[0] - sizes[1]) / sizes[1] if sizes[1] else math.nan, "percent")
    yield Measured("assd", pooled_mean(to_truth, to_prediction), "mm")
    yield Measured("mssd", float(max(to_truth.max(), to_prediction.max())) if measured else math.nan, "mm")


def _by_volume(
    measure: Callable[[np.ndarray, np.ndarray, Sequence[float]], Iterator[Measured]],
) -> Callable[[MaskPair], Iterator[OrganMetric]]:
    """A protocol that looks at an organ's whole volume."""

    def rows(pair: MaskPair) -> Iterator[OrganMetric]:
        for organ, prediction, truth, _ in pair.masks():
            measured = list(measure(prediction, truth, pair.spacing))
            undefined = any(math.isnan(value) for _, value, unit in measured if unit in ("mm", "voxel"))
            measured += _sizes(prediction, truth, pair.spacing)
            measured += _counts("volumes", np.array([prediction.any()]), np.array([truth.any()]), int(undefined))
            yield from (OrganMetric(organ, *row) for row in measured)

    return rows


def _attent_code(pair: MaskPair) -> Iterator[OrganMetric]:
    """The evaluation in AttENT's repository: axial slices, each by itself; distances from the prediction only, in pixels.

    The authors score slices that were resampled to 256 x 256 and hold an organ; these are all slices of the truth's own
    grid, and Dice is given for both choices. A slice without the organ in either map has Dice 1. One without it in one of
    them has no distance, which costs nothing there and is counted here.
    """
    across = pair.axial
    in_plane = tuple(axis for axis in range(pair.truth.ndim) if axis != across)
    labelled = np.asarray(pair.truth.any(axis=in_plane))
    for organ, prediction, truth, box in pair.masks():
        overlap, distance = np.ones(len(labelled)), np.full(len(labelled), np.nan)
        predicted, true = np.zeros((2, len(labelled)), bool)
        slices = zip(np.moveaxis(prediction, across, 0), np.moveaxis(truth, across, 0), strict=True)
        for z, (p, t) in enumerate(slices, start=box[across].start):
            pixels = np.count_nonzero(p) + np.count_nonzero(t)
            overlap[z] = (2 * np.count_nonzero(p & t) + SMOOTH) / (pixels + SMOOTH)
            predicted[z], true[z] = p.any(), t.any()
            if predicted[z] and true[z]:
                distance[z] = surface_distances(p, t, (1,) * p.ndim)[0].mean()
        measured = [
            Measured("dice", float(overlap.mean()), "fraction"),
            Measured("dice of labelled slices", _mean(overlap[labelled]), "fraction"),
            Measured("asd", _mean(distance[~np.isnan(distance)]), "pixel"),
            *_sizes(prediction, truth, pair.spacing),
            *_counts("slices", predicted, true, int(np.isnan(distance).sum())),
            Measured("labelled", float(labelled.sum()), "slices"),
            Measured("measured", float((~np.isnan(distance)).sum()), "slices"),
        ]
        yield from (OrganMetric(organ, *row) for row in measured)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "3d-mm",
            "whole volumes, symmetric, in mm and voxels: Dice, pooled ASSD, HD95, surface Dice within 2 mm",
            (
                Column("dice", "fraction", "Dice %"),
                Column("assd", "mm", "ASSD mm"),
                Column("assd", "voxel", "ASSD voxel"),
                Column("hd95", "mm", "HD95 mm"),
                Column("hd95", "voxel", "HD95 voxel"),
                Column("nsd 2 mm", "fraction", "NSD 2 mm %"),
            ),
            _by_volume(_three_d),
        ),
        Protocol(
            "sifa",
            "whole volumes in voxels: Dice, 0 where the organ is in neither, and the mean of both mean distances",
            (Column("dice", "fraction", "Dice %"), Column("assd", "voxel", "ASSD voxel")),
            _by_volume(_sifa),
        ),
        Protocol(
            "attent-code",
            "axial slices in pixels: Dice, 1 where the organ is in neither, and distances from the prediction alone",
            (
                Column("dice", "fraction", "Dice %", "scored"),
                Column("dice of labelled slices", "fraction", "Dice % of labelled slices", "labelled"),
                Column("asd", "pixel", "ASD pixel", "measured"),
            ),
            _attent_code,
        ),
        Protocol(
            "chaos",
            "whole volumes in mm, no surface at the border of the image: DICE, RAVD, ASSD, MSSD",
            (
                Column("dice", "fraction", "DICE %"),
                Column("ravd", "percent", "RAVD %"),
                Column("assd", "mm", "ASSD mm"),
                Column("mssd", "mm", "MSSD mm"),
            ),
            _by_volume(_chaos),
        ),
    )
}


def _sizes(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> list[Measured]:
    ml = math.prod(spacing) / 1000
    return [
        Measured("volume", np.count_nonzero(prediction) * ml, "ml"),
        Measured("true volume", np.count_nonzero(truth) * ml, "ml"),
    ]


def _counts(what: str, predicted: np.ndarray, true: np.ndarray, undefined: int) -> list[Measured]:
    """From whether the organ is in each volume or slice, [N] bool."""
    counts: dict[str, SupportsFloat] = {
        "scored": len(true),
        "missed": np.count_nonzero(true & ~predicted),
        "invented": np.count_nonzero(predicted & ~true),
        "absent": np.count_nonzero(~predicted & ~true),
        "undefined": undefined,
    }
    return [Measured(name, float(count), what) for name, count in counts.items()]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
