"""Domain-adaptive medical image segmentation: the frame. Networks and methods are plugins.

    import attent_kit as ak

is the door for notebooks and scripts: `attent_kit.door` says what is behind it. Nothing is imported before it is used.
A plugin decorates its hooks with `attent_kit.hookimpl`; see `docs/tutorials/write_a_method.md`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker

if TYPE_CHECKING:
    from attent_kit.door import check, compare, components, open_prepared, open_run, phantom, prepare, train
    from attent_kit.engine.apply.scoring import score
    from attent_kit.errors import AttentKitError, ConfigError, DataError, RunError

__version__ = "0.1.0"

INTERFACE_VERSION = "1.4"
"""Of what plugins may use, which the documentation lists, and of their hooks. The minor number rises with every addition, the
major one with a change that a plugin may have to follow. A plugin says `ATTENTKIT_INTERFACE = "1.4"` in its own module."""

hookimpl = HookimplMarker("attentkit")

_DOOR = {
    "phantom": "attent_kit.door",
    "prepare": "attent_kit.door",
    "open_prepared": "attent_kit.door",
    "check": "attent_kit.door",
    "train": "attent_kit.door",
    "open_run": "attent_kit.door",
    "score": "attent_kit.engine.apply.scoring",
    "compare": "attent_kit.door",
    "components": "attent_kit.door",
    "doctor": "attent_kit.door",
    "AttentKitError": "attent_kit.errors",
    "ConfigError": "attent_kit.errors",
    "DataError": "attent_kit.errors",
    "RunError": "attent_kit.errors",
}
"""What `import attent_kit as ak` offers, and the module that each name is imported from when it is first used."""

__all__ = [
    "INTERFACE_VERSION", "__version__", "hookimpl",
    "phantom", "prepare", "open_prepared", "check", "train", "open_run", "score", "compare", "components", "doctor",
    "AttentKitError", "ConfigError", "DataError", "RunError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'attent_kit' has no attribute '{name}'")
    found = globals()[name] = getattr(importlib.import_module(_DOOR[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
