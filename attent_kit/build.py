"""Names -> classes -> networks."""

from collections.abc import Mapping
from typing import Any

import torch

from attent_kit.config import Choice, ComponentConfig, Resolver, validate
from attent_kit.interfaces import Alignment, Discriminator, Task


class Builder:
    """Builds the networks that an alignment asks for, each from its own seed, so that a method which adds a
    discriminator at the end starts all other networks from the same weights as a method without it."""

    def __init__(self, registry: Resolver, task: Task, seed: int, empty: bool = False) -> None:
        self.registry = registry
        self.task = task
        self.seed = seed
        self.empty = empty
        """Whether a checkpoint follows, so that pretrained weights need not be there."""
        self.built = 0

    def __call__(self, choice: Choice[Any], *, channels: int | None = None, heads: int = 1) -> Any:
        component = self.registry.resolve(choice.kind, choice.name)
        torch.manual_seed(self.seed * 1_000 + self.built)
        self.built += 1
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
    alignment = registry.resolve("alignments", choice.name)
    return alignment(choice.options, Builder(registry, task, seed, empty), task)


def configure(component: Any, options: Mapping[str, Any], registry: Resolver) -> ComponentConfig:
    """The component's own Config from plain options."""
    return validate(component.Config, options, registry)
