"""What the engine relies on in a method with a stage that labels the whole target set now and then."""

import torch
from torch import Tensor

from attent_kit.engine.run.labelled import labels_of
from attent_kit.engine.train.fit import seed_step
from attent_kit.interfaces import Stage
from attent_kit.objectives import IGNORE
from attent_kit.testing.subject import Subject
from attent_kit.testing.trial import Trial


def labels_the_whole_set(subject: Subject) -> None:
    """A stage may label the whole target set now and then (`Stage.label`). Answer with int64 labels [B, H, W] for each batch,
    below the number of classes or IGNORE, and learn from batch.pseudo_t, also where all of it is IGNORE. Draw from torch, numpy
    or random, keep what must last in buffers, and label slices alone: dims = (2,)."""
    for number, stage in enumerate(Trial(subject).stages):
        assert stage.label_every >= 0, (
            f"stage '{stage.name}': label_every is {stage.label_every}, and must be 0 or more."
        )
        if stage.label is None:
            assert not stage.label_every, (
                f"stage '{stage.name}' has a label_every and no label: give it one, or drop it."
            )
            continue
        _whole(subject, number)


def _whole(subject: Subject, number: int) -> None:
    assert subject.component.dims == (2,), (
        f"{subject.called} labels the whole target set, which is done slice by slice: declare dims = (2,)."
    )
    one, other = Trial(subject), Trial(subject)
    stage = one.stages[number]
    labels = _labels(one, stage)
    assert torch.equal(labels, _labels(other, other.stages[number])), (
        f"stage '{stage.name}': label says something else the second time: draw from torch, numpy or random alone."
    )
    batch = one.batch()
    unknown = torch.full((len(batch.x_t), *batch.x_t.shape[2:]), IGNORE, device=batch.x_t.device)
    for name, loss in one.step(stage, batch=batch._replace(pseudo_t=unknown)).items():
        assert torch.isfinite(loss).all(), (
            f"stage '{stage.name}': loss {name} is {float(loss)} where every label is IGNORE."
        )


def _labels(trial: Trial, stage: Stage) -> Tensor:
    """Of two batches, the second of a single slice."""
    seed_step(0, 0)
    slices = [trial.batch().x_t, trial.batch().x_t[:1]]
    return labels_of(trial.alignment, stage, slices)
