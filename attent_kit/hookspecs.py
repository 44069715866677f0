"""What a plugin can offer. Each hook takes no argument and returns a mapping of name to a class or a reference.

A reference is the text "module:Class", imported when the component is first used: prefer it, since it keeps
`attentkit --help` fast for everybody who installs your plugin.
"""

from collections.abc import Mapping

from pluggy import HookspecMarker

hookspec = HookspecMarker("attentkit")


@hookspec
def attentkit_translators() -> Mapping[str, type | str]:
    """Image translators: subclasses of `attent_kit.interfaces.Translator`."""
    return {}


@hookspec
def attentkit_segmentors() -> Mapping[str, type | str]:
    """Segmentation networks: subclasses of `attent_kit.interfaces.Segmentor`."""
    return {}


@hookspec
def attentkit_discriminators() -> Mapping[str, type | str]:
    """Discriminators: subclasses of `attent_kit.interfaces.Discriminator`."""
    return {}


@hookspec
def attentkit_alignments() -> Mapping[str, type | str]:
    """Methods: subclasses of `attent_kit.interfaces.Alignment`."""
    return {}


@hookspec
def attentkit_layouts() -> Mapping[str, type | str]:
    """Ways in which volumes lie on disk, for `attentkit prepare`: subclasses of `attent_kit.layouts.Layout`."""
    return {}


@hookspec
def attentkit_selectors() -> Mapping[str, type | str]:
    """Scores of snapshots without target labels, for `--select`: subclasses of `attent_kit.selectors.Selector`."""
    return {}


@hookspec
def attentkit_trackers() -> Mapping[str, type | str]:
    """Where `--track NAME` writes a run down: subclasses of `attent_kit.tracker.Tracker`."""
    return {}


@hookspec
def attentkit_launchers() -> Mapping[str, type | str]:
    """What `compare --launcher NAME` starts runs with: subclasses of `attent_kit.launcher.Launcher`."""
    return {}


@hookspec
def attentkit_suites() -> Mapping[str, str]:
    """Comparisons: name to the path of a TOML file, for `attentkit compare NAME`."""
    return {}
