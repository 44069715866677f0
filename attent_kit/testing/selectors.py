"""What `--select` relies on in a selector."""

import math
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from attent_kit.interfaces import Task
from attent_kit.selectors import Look, Selector
from attent_kit.testing.subject import FOUR_ORGANS, Subject


def scores_a_look(subject: Subject) -> None:
    """Snapshots are ranked by their score. Say in `better` whether "higher" or "lower" wins; return a finite float for a
    complete look, the same one every time, and a float or None for one that lacks parts; leave the look unchanged."""
    check_selector(subject.component)


def check_selector(component: type[Selector], task: Task = FOUR_ORGANS) -> None:
    """Which score is better, one finite number for a whole look, the same again, and an answer where the look lacks parts."""
    name = component.__name__
    assert issubclass(component, Selector), f"{name} is not a Selector: subclass attent_kit.selectors.Selector."
    assert (component.__doc__ or "").strip(), f"{name} has no docstring: its first line is its summary."
    assert getattr(component, "better", None) in ("higher", "lower"), f"{name}.better: write 'higher' or 'lower'."
    whole = _look(task)
    before = deepcopy(whole)
    score = component().score(whole)
    assert isinstance(score, float) and math.isfinite(score), (
        f"{name}.score returns {score!r} for a complete look: return a finite float."
    )
    assert component().score(whole) == score, (
        f"{name}.score returns something else the second time: draw nothing at random."
    )
    for part in fields(Look):
        same = torch.equal(getattr(whole, part.name), getattr(before, part.name))
        assert same, f"{name}.score changes {part.name}, which the other selectors see too."
    optional = [part.name for part in fields(Look) if part.default is None]
    for lacking in (optional, *([part] for part in optional)):
        nothing: dict[str, Any] = dict.fromkeys(lacking)
        score = component().score(replace(whole, **nothing))
        assert score is None or isinstance(score, float), (
            f"{name}.score returns {score!r} for a look without {', '.join(lacking)}: return a float, or None."
        )


def _look(task: Task, pixels: int = 8) -> Look:
    """Random answers to three target and two source slices."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    p_t, p_cycle = (noise(3, task.classes, pixels, pixels).softmax(1) for _ in range(2))
    y_s = torch.randint(task.classes, (2, pixels, pixels), generator=generator)
    p_s = noise(2, task.classes, pixels, pixels).softmax(1)
    return Look(p_t, noise(task.classes).softmax(0), p_cycle, p_s, y_s, noise(20, 6), noise(20, 6))
