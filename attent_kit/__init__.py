"""Domain-adaptive medical image segmentation: the frame. Networks and methods are plugins.

A plugin decorates its hooks with `attent_kit.hookimpl`; see `plugins/README.md`.
"""

from pluggy import HookimplMarker

__version__ = "0.1.0"

INTERFACE_VERSION = "1.1"
"""Version of the hooks and of what plugins may use, which CONTRIBUTING lists. The minor number rises with every addition, the
major number with a change that a plugin may have to follow. A plugin says `ATTENTKIT_INTERFACE = "1.1"` in its own module."""

hookimpl = HookimplMarker("attentkit")

__all__ = ["INTERFACE_VERSION", "__version__", "hookimpl"]
