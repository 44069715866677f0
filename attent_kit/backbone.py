"""What is known about a network that a segmentor can be built on, as `attentkit backbones` shows it; without torch."""

from typing import Any

from attent_kit.config import ComponentConfig


class Backbone(ComponentConfig):
    """One backbone, described by its segmentor, which neither fetches nor trains anything for that."""

    part: str = "encoder"
    """What of the segmentor it is, in the segmentor's words."""
    options: dict[str, Any] = {}
    """Options of the segmentor that choose it."""
    parameters: int | None = None
    """Of this part alone, for images of one channel; None if it cannot be built."""
    strides: tuple[int, ...] = ()
    """Pixels of the image along one pixel of each map, from fine to coarse."""
    channels: tuple[int, ...] = ()
    """Channels of the same maps; the last are those of `Segmentation.features`."""
    auxiliary: dict[str, Any] | None = None
    """Options that give the segmentor a second, shallower head; empty if it always has one, None if it cannot have one."""
    weights: dict[str, str] = {}
    """Pretrained weights by name, and where each lies: "hf://owner/repository[@revision]/file", or a URL of torch.hub."""
    fits: str = ""
    """Which of the segmentor's other parts it goes with, in words."""
    note: str = ""
    """What is unusual about it."""
    refused: str = ""
    """Why it cannot be used, and what can."""
