"""Names -> classes -> networks."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from attent_kit.config import Choice, ComponentConfig, Resolver, validate
from attent_kit.errors import ConfigError
from attent_kit.interfaces import INTERFACES, Alignment, Discriminator, Segmentor, Task


class Builder:
    """Builds the networks that an alignment asks for. The seed of each follows from its kind and how many of that kind
    came before it, so that the segmentor of every method starts from the same weights, and so does its first discriminator."""

    def __init__(self, registry: Resolver, task: Task, seed: int, empty: bool = False) -> None:
        self.registry = registry
        self.task = task
        self.seed = seed
        self.empty = empty
        """Whether a checkpoint will fill the networks, so that pretrained weights are not needed."""
        self.built: Counter[str] = Counter()

    def __call__(self, choice: Choice[Any], *, channels: int | None = None, heads: int = 1) -> Any:
        component = self.registry.resolve(choice.kind, choice.name)
        place = self.seed, list(INTERFACES).index(choice.kind), self.built[choice.kind]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self.built[choice.kind] += 1
        options = choice.options.without_weights() if self.empty else choice.options
        if issubclass(component, Discriminator):
            if channels is None:
                raise TypeError(f"build({choice.name!r}) builds a discriminator: say how many channels it sees.")
            return component(options, channels, heads)
        return component(options, self.task)


def build_alignment(
    choice: Choice[Alignment], registry: Resolver, task: Task, seed: int, empty: bool = False
) -> Alignment:
    """The method that a validated choice names, its networks freshly initialised from `seed`, or `empty` to be filled."""
    component: type[Alignment] = registry.resolve("alignments", choice.name)
    alignment = component(choice.options, Builder(registry, task, seed, empty), task)
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
