"""`pytest --attentkit NAME`: the checks of `attentkit plugins check NAME` as tests. Imports nothing before it is used."""

from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--attentkit`."""
    parser.getgroup("attent-kit").addoption(
        "--attentkit",
        action="append",
        default=[],
        metavar="NAME",
        help="also make the checks of `attentkit plugins check NAME`: a plugin, a component, a file or a project's folder",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """One item for each check, before `-k` chooses among them."""
    for word in config.getoption("--attentkit"):
        items += _items(session, word)


def _items(session: pytest.Session, word: str) -> list[pytest.Item]:
    from pathlib import Path

    from attent_kit.errors import AttentKitError, ConfigError
    from attent_kit.testing.targets import target
    from attent_kit.testing.verdicts import checks_of

    try:
        if word.endswith(".py"):
            raise ConfigError(f"set ATTENTKIT_PLUGIN_FILES={Path(word).resolve()} and name the component.")
        found = target(word)
        subjects = found.subjects()
    except AttentKitError as error:
        raise pytest.UsageError(f"--attentkit {word}: {error}") from None
    items: list[pytest.Item] = [
        _Checked.from_parent(session, name=f"{v.component}::{v.check}", verdict=v) for v in found.broken
    ]
    for subject in subjects:
        for check in checks_of(subject.kind):
            items.append(
                _Checked.from_parent(session, name=f"{subject.called}::{check.name}", check=check, subject=subject)
            )
    return items


class _Failed(Exception):
    """A check that failed."""


class _Checked(pytest.Item):
    """One check of one component."""

    def __init__(self, *, check: Any = None, subject: Any = None, verdict: Any = None, **more: Any) -> None:
        super().__init__(**more)
        self._check, self._subject, self._verdict = check, subject, verdict

    def runtest(self) -> None:
        """Make the check."""
        from attent_kit.testing.verdicts import judge

        verdict = self._verdict or judge(self._check, self._subject)
        if verdict.outcome == "skip":
            pytest.skip(verdict.found)
        if verdict.outcome == "fail":
            raise _Failed(f"{verdict.found}\n{verdict.meaning}")

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """The sentence alone."""
        return str(excinfo.value) if excinfo.errisinstance(_Failed) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> Any:
        """Where the test is said to stand."""
        return self.path, None, f"attentkit: {self.name}"
