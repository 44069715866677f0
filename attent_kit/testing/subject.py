"""What is examined: a component with its options, and random images for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from attent_kit.build import configure
from attent_kit.config import Choice, ComponentConfig, merge
from attent_kit.errors import AttentKitError
from attent_kit.interfaces import IGNORE, Batch, Task
from attent_kit.objectives import may_be
from attent_kit.plugins import load
from attent_kit.registry import KINDS, Component, Registry

PlainOptions = Mapping[str, Any]
NO_OPTIONS: PlainOptions = MappingProxyType({})
FOUR_ORGANS = Task()


class Skipped(Exception):
    """A check that cannot be made here, and why."""


@dataclass(frozen=True)
class Subject:
    """One component of a plugin, to be examined."""

    kind: str
    component: type[Any]
    options: PlainOptions = field(default_factory=dict)
    registry: Registry = field(default_factory=lambda: load().registry)
    name: str = ""
    """What the plugin calls it; if left out, the name of its class."""
    module: str = ""
    """The plugin's own module, which its entry point names; empty if it has none."""
    device: str = "cpu"
    data: Path | None = None
    """A data set on disk, for a layout."""

    @classmethod
    def small(
        cls, component: Component, registry: Registry, options: PlainOptions = NO_OPTIONS, **more: Any
    ) -> "Subject":
        """A registered component, made as small as it and the components that it chooses can be; `options` override that."""
        loaded = component.load()
        small = small_options(loaded, registry, options) if component.kind in KINDS else {}
        return cls(component.kind, loaded, small, registry, component.name, **more)

    @property
    def called(self) -> str:
        """Its name, for messages."""
        return self.name or self.component.__name__

    @cached_property
    def config(self) -> ComponentConfig:
        """Its validated options."""
        return configure(self.component, self.options, self.registry)


def small_options(component: Any, registry: Registry, options: PlainOptions = NO_OPTIONS) -> dict[str, Any]:
    """Options that make a component small, down to the components that it chooses by default or in `options`."""
    chosen = merge(dict(component.Config.small), options)
    for name, option in component.Config.model_fields.items():
        default = option.default
        if not isinstance(default, Choice):
            continue
        asked = chosen.get(name, {})
        asked = {"name": asked} if isinstance(asked, str) else dict(asked)
        plain = dict(default.dump()) if asked.get("name", default.name) == default.name else {"name": asked["name"]}
        try:
            inner = registry.resolve(_kind(option.annotation), str(plain["name"]))
        except AttentKitError:
            continue  # the check of the options says what is wrong with it
        chosen[name] = small_options(inner, registry, merge(merge(plain, inner.Config.small), asked))
    return chosen


def _kind(annotation: Any) -> str:
    """The kind of component that a `Choice[...]` chooses."""
    return str(annotation.__args__[0].kind)


def images(batch: int, task: Task, height: int, width: int, depth: int | None = None) -> Tensor:
    """Random images [batch, C, height, width] in [-1, 1]; with a depth [batch, C, depth, height, width]."""
    sides = (height, width) if depth is None else (depth, height, width)
    return torch.rand(batch, task.channels, *sides).mul(2).sub(1)


def random_batch(size: int, task: Task, pixels: int, with_target_labels: bool) -> Batch:
    """`size` random slices of each domain with random labels."""
    y_s, y_t = (torch.randint(task.classes, (size, pixels, pixels)) for _ in range(2))
    x_s, x_t = (images(size, task, pixels, pixels) for _ in range(2))
    return Batch(x_s, y_s, x_t, y_t if with_target_labels else None)


def deep(batch: Batch, depth: int) -> Batch:
    """A batch of slices as one of volumes, in which each slice is repeated `depth` times."""
    x_s, x_t = (x.unsqueeze(2).repeat(1, 1, depth, 1, 1) for x in (batch.x_s, batch.x_t))
    y_s, y_t = (None if y is None else torch.stack([y] * depth, dim=-3) for y in (batch.y_s, batch.y_t))
    assert y_s is not None
    return Batch(x_s, y_s, x_t, y_t)


def organless_batch(size: int, task: Task, pixels: int, with_target_labels: bool) -> Batch:
    """The same, where the first slice is all background and the others have no label that counts."""
    batch = unlabelled_batch(size, task, pixels, with_target_labels)
    batch.y_s[0] = 0
    return batch


def unlabelled_batch(size: int, task: Task, pixels: int, with_target_labels: bool) -> Batch:
    """The same, where no label counts."""
    batch = random_batch(size, task, pixels, with_target_labels)
    y = torch.full_like(batch.y_s, IGNORE)
    return batch._replace(y_s=y, y_t=y if with_target_labels else None)


def partial_batch(size: int, task: Task, pixels: int, with_target_labels: bool) -> Batch:
    """The same, where the last organ is left out: what is background may be that organ."""
    batch = random_batch(size, task, pixels, with_target_labels)
    unknown = torch.zeros(size, task.classes, dtype=torch.bool)
    unknown[:, -1] = True
    y_s, y_t = (
        None if y is None else may_be(y.where(y < task.classes - 1, 0), unknown) for y in (batch.y_s, batch.y_t)
    )
    assert y_s is not None
    return batch._replace(y_s=y_s, y_t=y_t)


def grey_batch(size: int, task: Task, pixels: int, with_target_labels: bool) -> Batch:
    """Slices of both domains alike, in which a class is a grey value: bands of a random order, a little noise."""
    height = -(-pixels // task.classes)

    def slices() -> tuple[Tensor, Tensor]:
        order = torch.stack([torch.randperm(task.classes) for _ in range(size)])
        y = order.repeat_interleave(height, dim=1)[:, :pixels, None].expand(-1, -1, pixels).contiguous()
        grey = y.float().div(max(task.classes - 1, 1)).mul(1.6).sub(0.8).unsqueeze(1)
        x = (grey + 0.05 * torch.randn(size, task.channels, pixels, pixels)).clamp(-1, 1)
        return x, y

    (x_s, y_s), (x_t, y_t) = slices(), slices()
    return Batch(x_s, y_s, x_t, y_t if with_target_labels else None)
