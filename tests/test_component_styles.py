"""Whichever way an author writes a component's options down, it keeps the contract: interface versions 1.0 and 1.1."""

from typing import Any

import pytest

from attent_kit.build import Builder, configure
from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Alignment, Build, Segmentor, Task
from attent_kit.testing import Subject, checks_of, judge
from support.broken_components import METHOD, REGISTRY, SEGMENTOR, Good, Net


class Inside(Good):
    """Its Config stands inside, and it says of which type its options are (1.0)."""

    class Config(Good.Config):
        """Options."""

        weight: float = 0.02
        """Weight of the critic."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)


class AnyOptions(Good):
    """It says nothing of its options (1.0)."""

    def __init__(self, config: Any, build: Build, task: Task) -> None:
        super().__init__(config, build, task)


class Outside(Good.Config):
    """Options."""

    weight: float = 0.02
    """Weight of the critic."""


class Generic(Good, Alignment[Outside]):
    """Its Config stands outside, and is what it is generic in (1.1)."""

    Config = Outside


class Width(ComponentConfig):
    """Options."""

    width: int = 4
    """Channels."""


class GenericNet(Net, Segmentor[Width]):
    """A network that is generic in its Config (1.1)."""

    Config = Width


@pytest.mark.parametrize(
    "kind, component", [(METHOD, Inside), (METHOD, AnyOptions), (METHOD, Generic), (SEGMENTOR, GenericNet)]
)
def test_it_keeps_the_contract(kind, component):
    one = Subject(kind, component, {}, REGISTRY)
    verdicts = [judge(check, one) for check in checks_of(kind) if check.name != "two-processes"]
    assert [(v.check, v.found) for v in verdicts if v.outcome == "fail"] == []
    assert sum(v.outcome == "pass" for v in verdicts) > 5


@pytest.mark.parametrize("component", [Inside, Generic])
def test_self_config_is_the_config_that_it_was_built_with(component):
    config = configure(component, {"weight": 0.5}, REGISTRY)
    alignment = component(config, Builder(REGISTRY, Task(), seed=0), Task())
    assert alignment.config is config and type(alignment.config) is component.Config and alignment.config.weight == 0.5
