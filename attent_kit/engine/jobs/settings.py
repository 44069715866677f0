"""Which launcher starts the runs of a comparison, and what it is told: a suite's [launcher], and `--launch` over it."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.config import parse_set, put, validate
from attent_kit.engine.compare.resources import JobSettings
from attent_kit.errors import ConfigError, did_you_mean
from attent_kit.launcher import Launcher
from attent_kit.registry import Registry

LOCAL = "local"
"""The launcher that is meant where none is named."""


class Launching(NamedTuple):
    """A launcher, and all that it and its jobs are told."""

    name: str
    kind: type[Launcher]
    options: Any
    """An instance of its Options."""
    jobs: JobSettings

    def start(self, folder: Path) -> Launcher:
        """The launcher itself, with the folder of the job files."""
        return self.kind(self.options, folder)


def launching(table: Mapping[str, Any], name: str | None, words: Sequence[str], registry: Registry) -> Launching | None:
    """What a suite's [launcher] and the words of the command line come to; None where neither names anything.

    A name on the command line that is not the suite's takes of [launcher] only what every launcher understands. ConfigError
    for an unknown launcher or option, with the nearest spelling, and for a launcher whose package is missing.
    """
    given = dict(table)
    of_suite = str(given.pop("name", LOCAL))
    if name is not None and name != of_suite:
        given = {key: value for key, value in given.items() if key in JobSettings.model_fields}
    for path, value in parse_launch(words):
        put(given, path, value)
    if not given and name is None and of_suite == LOCAL:
        return None
    return launching_of(name or of_suite, given, registry)


def launching_of(name: str, given: Mapping[str, Any], registry: Registry) -> Launching:
    """A launcher by name, with plain options of it and of its jobs."""
    kind = registry.launcher(name)
    if kind.package and find_spec(kind.package) is None:
        raise ConfigError(
            f"--launcher {name} needs the package {kind.package}, which is not installed: type pip install "
            f"'{kind.install or kind.package}', or leave out --launcher {name}."
        )
    general, own = JobSettings.model_fields, kind.Options.model_fields
    for option in given:
        if option not in general and option not in own:
            known = [*own, *general]
            raise ConfigError(
                f"--launch {option}: the launcher '{name}' has no such option.{did_you_mean(option, known)} It takes: "
                f"{', '.join(known)}."
            )
    jobs = validate(JobSettings, {key: value for key, value in given.items() if key in general}, registry)
    options = validate(kind.Options, {key: value for key, value in given.items() if key not in general}, registry)
    return Launching(name, kind, options, jobs)


def parse_launch(words: Sequence[str]) -> list[tuple[list[str], Any]]:
    """Words of `--launch`, as those of `--set`."""
    try:
        return parse_set(words)
    except ConfigError:
        wrong = next(word for word in words if not word.partition("=")[0].strip() or "=" not in word)
        raise ConfigError(f"--launch {wrong}: write it as option=value, for example --launch partition=gpu.") from None
