"""Alignments built around a segmentor without layers, to learn whether they take it. No tensor here has values."""

from typing import Any

import torch

from attent_kit.backbone import Backbone
from attent_kit.build import Builder
from attent_kit.config import Choice, ComponentConfig, validate
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.interfaces import Segmentation, Segmentor, Task
from attent_kit.registry import Component, Registry


class StandIn(Segmentor):
    """What an alignment may ask of a segmentor, and nothing else."""

    def __init__(self, stride: int, channels: int, head: bool) -> None:
        torch.nn.Module.__init__(self)
        self.feature_stride, self.feature_channels, self.has_auxiliary = stride, channels, head

    def forward(self, x: torch.Tensor) -> Segmentation:
        raise NotImplementedError


class StandIns:
    """Asks alignments of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._task = Task()

    def describe(self, segmentor: Component) -> Backbone:
        """A segmentor that is one network, as it is by default."""
        component: Any = segmentor.load()
        try:
            with torch.device("meta"):
                network = component(validate(component.Config, {}, self._registry), self._task)
        except AttentKitError as error:
            return Backbone(part="segmentor", refused=str(error))
        return Backbone(
            part="segmentor",
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            strides=(network.feature_stride,),
            channels=(network.feature_channels,),
            auxiliary={} if network.has_auxiliary else None,
        )

    def asked(self, alignment: Component, segmentor: Component, stride: int, channels: int, head: bool) -> str:
        """Why the alignment refuses a segmentor of these capabilities, or nothing if it takes it."""
        component: Any = alignment.load()
        chosen = [name for name, field in component.Config.model_fields.items() if _chooses_a_segmentor(field)]
        if not chosen:
            return "it has a network of its own"
        try:
            config: ComponentConfig = validate(
                component.Config, {name: {"name": segmentor.name} for name in chosen}, self._registry
            )
            with torch.device("meta"):
                component(config, _Around(self._registry, self._task, StandIn(stride, channels, head)), self._task)
        except ConfigError as error:
            return str(error)
        return ""


class _Around(Builder):
    """Builds what an alignment asks for, and hands out the stand-in for each segmentor."""

    def __init__(self, registry: Registry, task: Task, stand_in: StandIn) -> None:
        super().__init__(registry, task, seed=0, empty=True)
        self._stand_in = stand_in

    def __call__(self, choice: Choice[Any], *, channels: int | None = None, heads: int = 1) -> Any:
        if choice.kind == Segmentor.kind:
            return self._stand_in
        return super().__call__(choice, channels=channels, heads=heads)


def _chooses_a_segmentor(field: Any) -> bool:
    return Choice[Segmentor] in (field.annotation, *getattr(field.annotation, "__args__", ()))
