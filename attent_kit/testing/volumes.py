"""What the engine relies on in a method that takes segmentors of volumes."""

import torch
import torch.nn.functional as F
from torch import nn

from attent_kit.config import Choice, ComponentConfig, merge
from attent_kit.interfaces import Batch, Patch, Segmentation, Segmentor, Task
from attent_kit.objectives import may_be
from attent_kit.registry import Component, Registry
from attent_kit.testing.subject import Skipped, Subject, images
from attent_kit.testing.trial import Trial

DEPTH, SIDE = 6, 32
"""Of a patch."""


class OfVolumes(Segmentor[ComponentConfig]):
    """Two convolutions, at half the resolution."""

    dims = 3
    feature_channels, feature_stride = 4, 2

    def __init__(self, config: ComponentConfig, task: Task) -> None:
        super().__init__(config, task)
        self.patch = Patch((DEPTH, SIDE, SIDE))
        self.body = nn.Conv3d(task.channels, 4, 3, stride=2, padding=1)
        self.head = nn.Conv3d(4, task.classes, 1)

    def forward(self, x: torch.Tensor) -> Segmentation:
        f = self.body(x).relu()
        return Segmentation(F.interpolate(self.head(f), size=x.shape[2:]), f)


def volumes_as_declared(subject: Subject) -> None:
    """`dims` says whether a method takes patches of volumes, [B, 1, D, H, W] with labels [B, D, H, W]. If 3 is in it, steps and
    `predict` must be right for them: sum over all dimensions behind the classes, paint and mask with `attent_kit.mixing`, and
    tell the two forms of labels by their type. If not, leave 3 out."""
    if 3 not in subject.component.dims:
        return
    if (of_volumes := with_volumes(subject)) is None:
        raise Skipped("no option of it chooses a segmentor.")
    trial = Trial(of_volumes)
    for partial in (False, True) if subject.component.takes_partial_labels else (False,):
        batch = _batch(trial, partial)
        for stage in trial.stages:
            for name, loss in trial.step(stage, batch=batch).items():
                assert torch.isfinite(loss), f"of volumes, loss {name} of stage '{stage.name}' is {loss}."
    x = images(2, trial.task, SIDE, SIDE, DEPTH).to(trial.fabric.device)
    logits = trial.predict(x)
    expected = (2, trial.task.classes, DEPTH, SIDE, SIDE)
    assert logits.shape == expected, f"predict answers {tuple(logits.shape)} to volumes, not {expected}."
    assert torch.isfinite(logits).all(), "predict answers volumes with numbers that are not finite."


def _batch(trial: Trial, partial: bool) -> Batch:
    """Two random patches of each domain; `partial`: where the last organ is not annotated."""
    task = trial.task
    x_s, x_t = (images(2, task, SIDE, SIDE, DEPTH) for _ in range(2))
    y_s, y_t = (torch.randint(task.classes, (2, DEPTH, SIDE, SIDE)) for _ in range(2))
    if partial:
        unknown = torch.zeros(2, task.classes, dtype=torch.bool)
        unknown[:, -1] = True
        y_s, y_t = (may_be(y.where(y < task.classes - 1, 0), unknown) for y in (y_s, y_t))
    batch = Batch(x_s, y_s, x_t, y_t if trial.alignment.uses_target_labels else None)
    return Batch(*(None if x is None else x.to(trial.fabric.device) for x in batch))  # type: ignore[arg-type]  # each where it was


def with_volumes(subject: Subject) -> Subject | None:
    """The same method with a segmentor of volumes in each option that chooses one; None if it takes slices alone, or chooses
    none."""
    if 3 not in subject.component.dims:
        return None
    registry = Registry()
    for component in subject.registry:
        registry.add(component)
    registry.add(Component(Segmentor.kind, "of_volumes", OfVolumes, "attent-kit", "attent-kit", "0"))
    fields = subject.component.Config.model_fields
    chosen = [
        name
        for name, f in fields.items()
        if Choice[Segmentor] in (f.annotation, *getattr(f.annotation, "__args__", ()))
    ]
    if not chosen:
        return None
    options = {name: value for name, value in subject.options.items() if name not in chosen}
    options = merge(options, {name: {"name": "of_volumes"} for name in chosen})
    return Subject(subject.kind, subject.component, options, registry, subject.name, device=subject.device)
