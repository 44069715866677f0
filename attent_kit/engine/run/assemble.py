"""Networks and optimizers onto the device, and their state to and from a plain dict."""

from collections.abc import Sequence
from types import MethodType
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from lightning_fabric.strategies import Strategy
from lightning_utilities.core.overrides import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

from attent_kit.data.prepared.batches import memory_format
from attent_kit.interfaces import Alignment, Patch, Segmentor, Stage, Translator
from attent_kit.teacher import student_of


def setup(alignment: Alignment, fabric: Fabric) -> dict[str, Optimizer]:
    """Move every network of the alignment to the device, wrapped for its precision, and return its optimizers by name."""
    for name, child in list(alignment.named_children()):
        child.to(memory_format=memory_format(fabric.device, 3 if patch_of(alignment) else 2))
        if fabric.device.type == "cpu":
            _volumes_in_float32(child)
        if any(True for _ in child.parameters()):
            wrapped = fabric.setup_module(child)
            if _may_skip_its_backward(fabric):
                wrapped._register_backward_hook = _as_it_is  # type: ignore[method-assign]
            if isinstance(child, Translator):
                wrapped.mark_forward_method("encode")
            setattr(alignment, name, wrapped)
        else:
            child.to(fabric.device)
    for name, buffer in list(alignment.named_buffers(recurse=False)):
        setattr(alignment, name, buffer.to(fabric.device))
    optimizers = alignment.optimizers()
    if not optimizers:
        return {}
    stepped = fabric.setup_optimizers(*optimizers.values())
    several = stepped if isinstance(stepped, (list, tuple)) else [stepped]
    # Fabric makes each an instance of its own class and of the optimizer's, which its annotation does not say.
    return dict(zip(optimizers, cast(Sequence[Optimizer], several), strict=True))


def _volumes_in_float32(network: nn.Module) -> None:
    """Let its convolutions of volumes compute in float32, whatever the precision.

    On processors with bfloat16, oneDNN's gradient of their weights (seen with torch 2.14) is another one each time, and at times
    far from the right one or NaN. That of slices is not.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            # Bound, so that a copy of the network has it bound to the copy.
            module.forward = MethodType(_in_float32, module)  # type: ignore[method-assign]


def _in_float32(module: nn.Module, x: Tensor, *more: Any) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return cast(Tensor, type(module).forward(module, x.float(), *more))


def _may_skip_its_backward(fabric: Fabric) -> bool:
    """Whether `fabric.backward` does what torch's does. Fabric hangs a hook to every answer of a network, which complains where a
    loss goes another way. Where none would, the hooks take up to a quarter of what a step costs beside its arithmetic."""
    precision, ways = fabric.strategy.precision, ("pre_backward", "backward", "post_backward")
    own = any(is_overridden(way, precision, parent=Precision) for way in ways)
    return not own and not is_overridden("backward", fabric.strategy, parent=Strategy)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def owned(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that an optimizer steps; those that need no gradient stay as they are and do not count."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def trains(stage: Stage, optimizers: dict[str, Optimizer], network: nn.Module) -> bool:
    """Whether the stage steps an optimizer that owns parameters of this network."""
    stepped = {id(p) for name in stage.trains for p in owned(optimizers[name])}
    return any(id(p) in stepped for p in network.parameters())


def moves(stage: Stage, optimizers: dict[str, Optimizer], network: nn.Module) -> bool:
    """Whether the stage trains this network, or the student whose teacher it is."""
    student = student_of(unwrapped(network))
    return trains(stage, optimizers, network if student is None else student)


def train_only(alignment: Alignment, optimizers: dict[str, Optimizer], stage: Stage) -> None:
    """Networks that the stage trains in train mode, all others in eval mode."""
    for child in alignment.children():
        child.train(trains(stage, optimizers, child))


def trained_networks(alignment: Alignment, optimizers: dict[str, Optimizer], stage: Stage) -> list[str]:
    """Names of networks that the stage trains, of their mean teachers, and of modules without parameters, such as image pools."""
    children = alignment.named_children()
    return [name for name, c in children if moves(stage, optimizers, c) or not any(True for _ in c.parameters())]


def network_states(alignment: Alignment) -> dict[str, dict[str, Tensor]]:
    """State of each network by attribute name; under "" the buffers of the alignment itself."""
    states = {name: dict(child.state_dict()) for name, child in alignment.named_children()}
    states[""] = dict(alignment.named_buffers(recurse=False))
    return states


def load_network_states(alignment: Alignment, states: dict[str, dict[str, Tensor]]) -> None:
    """The reverse of `network_states`; networks that `states` does not name stay as they are."""
    for name, state in states.items():
        if name:
            unwrapped(getattr(alignment, name)).load_state_dict(state)
        else:
            for key, value in state.items():
                getattr(alignment, key).copy_(value)


def optimizer_states(optimizers: dict[str, Optimizer]) -> dict[str, Any]:
    """State of each optimizer by name, with rates as numbers."""
    states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    for state in states.values():
        state["param_groups"] = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return states


def load_optimizer_states(optimizers: dict[str, Optimizer], states: dict[str, Any]) -> None:
    """The reverse of `optimizer_states`; optimizers it does not name stay as they are, and so does how they compute."""
    for name, state in states.items():
        groups = optimizers[name].param_groups
        ways = [{way: group[way] for way in ("capturable", "fused", "foreach") if way in group} for group in groups]
        theirs = [{**group, **way} for group, way in zip(state["param_groups"], ways, strict=True)]
        optimizers[name].load_state_dict({**state, "param_groups": theirs})


def segmentor_of(alignment: Alignment) -> str | None:
    """Name of the network that `predict` segments with: the one that it names, or else the first Segmentor; None without one."""
    networks = {name: unwrapped(child) for name, child in alignment.named_children()}
    segmentors = [name for name, network in networks.items() if isinstance(network, Segmentor)]
    return alignment.predicts_with or next(iter(segmentors), None)


def patch_of(alignment: Alignment) -> Patch | None:
    """What its segmentor sees of a volume at once; None for one of slices."""
    network = unwrapped(getattr(alignment, segmentor_of(alignment) or "", alignment))
    return network.patch if isinstance(network, Segmentor) else None


def channels_seen(alignment: Alignment) -> int:
    """Slices of a volume, an odd number, that are looked at where a single slice is asked for."""
    patch = patch_of(alignment)
    return alignment.task.channels if patch is None else patch.slab


def unwrapped(module: nn.Module) -> nn.Module:
    """The network itself, without Fabric's wrapper."""
    return getattr(module, "module", module)
