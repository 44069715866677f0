"""How good a segmentation is. Arrays in, numbers out: no torch, no files."""

from attent_kit.metrics.overlap import dice
from attent_kit.metrics.protocols import PROTOCOLS, Column, OrganMetric, Protocol, protocol
from attent_kit.metrics.surface import (
    SurfaceMetrics,
    Surfaces,
    assd,
    hd95,
    surface_distances,
    surface_metrics,
    surfaces,
)
from attent_kit.metrics.surfels import nsd

__all__ = [
    "PROTOCOLS",
    "Column",
    "OrganMetric",
    "Protocol",
    "SurfaceMetrics",
    "Surfaces",
    "assd",
    "dice",
    "hd95",
    "nsd",
    "protocol",
    "surface_distances",
    "surface_metrics",
    "surfaces",
]
