"""Names -> classes -> networks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from attent_kit.config import Choice, ComponentConfig, Resolver, validate
from attent_kit.errors import ConfigError
from attent_kit.interfaces import INTERFACES, Alignment, Discriminator, Segmentor, Task, Translator
from attent_kit.registry import Registry


class Builder:
    """Builds the networks that an alignment asks for. The seed of each follows from its kind and how many of that kind
    came before it, so that the segmentor of every method starts from the same weights, and so does its first discriminator."""

    def __init__(self, registry: Registry, task: Task, seed: int, empty: bool = False) -> None:
        self.registry = registry
        self.task = task
        self.seed = seed
        self.empty = empty
        """Whether a checkpoint will fill the networks, so that pretrained weights are not needed."""
        self.built: Counter[str] = Counter()

    def __call__(self, choice: Choice[Any], *, channels: int | None = None, heads: int = 1) -> Any:
        options = choice.options.without_weights() if self.empty else choice.options
        if choice.kind == Discriminator.kind:
            if channels is None:
                raise TypeError(f"build({choice.name!r}) builds a discriminator: say how many channels it sees.")
            discriminator = self.registry.discriminator(choice.name)
            self._seed(choice.kind)
            return discriminator(options, channels, heads)
        translates = choice.kind == Translator.kind
        network = self.registry.translator(choice.name) if translates else self.registry.segmentor(choice.name)
        self._seed(choice.kind)
        return network(options, self.task if channels is None else replace(self.task, channels=channels))

    def _seed(self, kind: str) -> None:
        """Once the class is imported, which may draw random numbers."""
        place = self.seed, list(INTERFACES).index(kind), self.built[kind]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self.built[kind] += 1


def build_alignment(
    choice: Choice[Alignment], registry: Registry, task: Task, seed: int, empty: bool = False
) -> Alignment:
    """The method that a validated choice names, its networks freshly initialised from `seed`, or `empty` to be filled."""
    alignment = registry.alignment(choice.name)(choice.options, Builder(registry, task, seed, empty), task)
    name = alignment.predicts_with
    if name and not isinstance(getattr(alignment, name, None), Segmentor):
        raise ConfigError(
            f"the alignment '{choice.name}' says that it predicts with '{name}', which is not one of its segmentors: tell "
            "the author of the plugin."
        )
    return alignment


def configure(component: Any, options: Mapping[str, Any], registry: Resolver) -> ComponentConfig:
    """The component's own Config from plain options."""
    return validate(component.Config, options, registry)
