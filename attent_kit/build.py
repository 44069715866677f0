"""Names -> classes -> networks."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from attent_kit.config import Choice, ComponentConfig, Resolver, validate
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.interfaces import INTERFACES, Alignment, Discriminator, Segmentor, Task, Translator
from attent_kit.registry import Component, Registry


class Builder:
    """Builds the networks that an alignment asks for. The seed of each follows from its kind and how many of that kind
    came before it, so that the segmentor of every method starts from the same weights, and so does its first discriminator."""

    def __init__(
        self, registry: Registry, task: Task, seed: int, empty: bool = False, method: Component | None = None
    ) -> None:
        self.registry = registry
        self.task = task
        self.seed = seed
        self.empty = empty
        """Whether a checkpoint will fill the networks, so that pretrained weights are not needed."""
        self.method = method
        """Whose networks they are, so that it is not given a segmentor of other dimensions than it takes."""
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
        if not translates:
            self.refuse_dims(choice.name)
        self._seed(choice.kind)
        return network(options, self.task if channels is None else replace(self.task, channels=channels))

    def refuse_dims(self, segmentor: str) -> None:
        """ConfigError for a segmentor of volumes in a method of slices, or where slices are seen with their neighbours."""
        dims = self.registry.segmentor(segmentor).dims
        if dims == 3 and self.task.channels > 1:
            raise ConfigError(
                f"the segmentor '{segmentor}' sees whole neighbourhoods, and slices have {self.task.channels} channels: type "
                "--channels 1."
            )
        if self.method is None or dims in self.registry.alignment(self.method.name).dims:
            return
        what = "volumes" if dims == 3 else "slices"
        others = ", ".join(methods_of(dims, self.registry))
        raise ConfigError(
            f"'{self.method.name}' does not take the segmentor '{segmentor}', which labels {what}: choose another segmentor, or "
            f"a method that takes {what}: {others}."
        )

    def _seed(self, kind: str) -> None:
        """Once the class is imported, which may draw random numbers."""
        place = self.seed, list(INTERFACES).index(kind), self.built[kind]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self.built[kind] += 1


def build_alignment(
    choice: Choice[Alignment], registry: Registry, task: Task, seed: int, empty: bool = False
) -> Alignment:
    """The method that a validated choice names, its networks freshly initialised from `seed`, or `empty` to be filled."""
    method = registry.find(Alignment.kind, choice.name)
    alignment = registry.alignment(choice.name)(choice.options, Builder(registry, task, seed, empty, method), task)
    name = alignment.predicts_with
    if name and not isinstance(getattr(alignment, name, None), Segmentor):
        raise ConfigError(
            f"the alignment '{choice.name}' says that it predicts with '{name}', which is not one of its segmentors: tell "
            "the author of the plugin."
        )
    return alignment


def methods_of(dims: int, registry: Registry) -> list[str]:
    """Names of the alignments that take segmentors of so many dimensions; those that cannot be imported are left out."""
    found = []
    for component in registry.of(Alignment.kind):
        with suppress(AttentKitError):
            if dims in registry.alignment(component.name).dims:
                found.append(component.name)
    return found


def configure(component: Any, options: Mapping[str, Any], registry: Resolver) -> ComponentConfig:
    """The component's own Config from plain options."""
    return validate(component.Config, options, registry)
