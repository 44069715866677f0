"""A launcher whose jobs would outlive their command, for what is refused before one is submitted."""

from pathlib import Path

LATER = """
from attent_kit import hookimpl
from attent_kit.launcher import Launcher

class Later(Launcher):
    "Nothing is ever submitted to it."
    def submit(self, job):
        raise AssertionError(job)
    def look(self, names):
        return []
    def stop(self, names):
        pass

@hookimpl
def attentkit_launchers():
    return {"later": Later}
"""


def later_in(folder: Path) -> Path:
    """A plugin file, called as no other is, that offers it as "later"."""
    plugin = folder / f"{folder.name}.py"
    plugin.write_text(LATER)
    return plugin
