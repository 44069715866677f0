"""Domain-adaptive medical image segmentation: the frame. Networks and methods are plugins.

A plugin decorates its hooks with `attent_kit.hookimpl`; see `plugins/README.md`.
"""

from pluggy import HookimplMarker

__version__ = "0.1.0"

hookimpl = HookimplMarker("attentkit")

__all__ = ["__version__", "hookimpl"]
