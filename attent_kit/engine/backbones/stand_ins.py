"""Alignments built around a segmentor without layers, to see whether they accept it. No tensor here has values."""

from collections.abc import Callable
from typing import Any

import torch

from attent_kit.backbone import Backbone
from attent_kit.build import Builder
from attent_kit.config import Choice, ComponentConfig, validate
from attent_kit.errors import AttentKitError
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
    """Asks the alignments of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._task = Task()

    def describe(self, segmentor: Component) -> Backbone:
        """A segmentor that is a network of its own, with its default options."""

        def build() -> Any:
            component: Any = segmentor.load()
            return component(validate(component.Config, {}, self._registry), self._task)

        try:
            network = _without_memory(build)
        except Exception as error:
            return Backbone(part="segmentor", refused=in_words(error, segmentor))
        return Backbone(
            part="segmentor",
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            strides=(network.feature_stride,),
            channels=(network.feature_channels,),
            auxiliary={} if network.has_auxiliary else None,
        )

    def asked(self, alignment: Component, segmentor: Component, stride: int, channels: int, head: bool) -> str:
        """Why the alignment refuses a segmentor with these capabilities; empty if it accepts it."""
        try:
            component: Any = alignment.load()
            chosen = [name for name, field in component.Config.model_fields.items() if _chooses_a_segmentor(field)]
            if not chosen:
                return "it has a network of its own"
            options = {name: {"name": segmentor.name} for name in chosen}
            config: ComponentConfig = validate(component.Config, options, self._registry)
            stand_in = StandIn(stride, channels, head)
            around = _Around(self._registry, self._task, stand_in, alignment)
            _without_memory(lambda: component(config, around, self._task))
        except Exception as error:
            return in_words(error, alignment)
        return ""


def in_words(error: Exception, component: Component) -> str:
    """Our own message, or that the plugin failed."""
    if isinstance(error, AttentKitError):
        return str(error)
    return f"{component.name} of {component.distribution} fails ({type(error).__name__}: {error}): tell the author of the plugin."


def _without_memory(build: Callable[[], Any]) -> Any:
    """What `build` makes, with tensors without values; with real ones if it needs values or fails."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:
        return build()


class _Around(Builder):
    """Builds what an alignment asks for, but hands out the stand-in as every segmentor."""

    def __init__(self, registry: Registry, task: Task, stand_in: StandIn, method: Component) -> None:
        super().__init__(registry, task, seed=0, empty=True, method=method)
        self._stand_in = stand_in

    def __call__(self, choice: Choice[Any], *, channels: int | None = None, heads: int = 1) -> Any:
        if choice.kind == Segmentor.kind:
            self.refuse_dims(choice.name)
            return self._stand_in
        return super().__call__(choice, channels=channels, heads=heads)


def _chooses_a_segmentor(field: Any) -> bool:
    return Choice[Segmentor] in (field.annotation, *getattr(field.annotation, "__args__", ()))
