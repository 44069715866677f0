"""Mean teachers: a copy of a network whose weights are an exponential moving average of the network's own.

Tarvainen, Valpola. Mean teachers are better role models. NeurIPS 2017. https://arxiv.org/abs/1703.01780

    self.S = build(config.segmentor)
    self.T = mean_teacher(self.S)                           # a network like S: checkpointed and predicted with, never optimised
    self.register_buffer("step", torch.zeros((), dtype=torch.int64))
    ...
    teach(self.T, self.S, self.step, momentum=0.999)        # once a step, before the teacher is asked
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["mean_teacher", "rise", "student_of", "teach"]

Network = TypeVar("Network", bound=nn.Module)


def mean_teacher(student: Network) -> Network:
    """A copy of `student` that needs no gradient. Make it in `__init__`, as an attribute of its own: networks that no optimizer
    of a stage owns are in eval mode."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    # In a tuple, or the student would be a part of its teacher, with all its weights.
    teacher._student = (student,)  # type: ignore[assignment]  # not a module of it
    return teacher


def student_of(network: nn.Module) -> nn.Module | None:
    """The student that a mean teacher follows; None for any other network. Where the student is trained, the teacher moves."""
    followed = getattr(network, "_student", None)
    return followed[0] if isinstance(followed, tuple) else None


@torch.no_grad()
def teach(teacher: nn.Module, student: nn.Module, step: Tensor, momentum: float) -> None:
    """T <- a T + (1 - a) S with a = min(1 - 1 / (step + 1), momentum), for weights and running statistics of norms alike.

    `step`: scalar int64, a buffer of the method, counted up here; the first call makes the teacher its student. Nothing is read
    back from the device.
    """
    a = (1 - 1 / (step + 1.0)).clamp(max=momentum)
    for old, new in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
        old.lerp_(new, 1 - a.to(old.dtype)) if old.is_floating_point() else old.copy_(new)
    step += 1


def rise(done: Tensor) -> Tensor:
    """exp(-5 (1 - done)^2), 1 where `done` is 1 or more: what a teacher's answers weigh at first (Laine and Aila, ICLR 2017)."""
    return torch.exp(-5 * (1 - done.clamp(max=1)) ** 2)
