"""Whether a step reads a value back from the device, which makes both wait for each other; and whether it could be captured."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from attent_kit.engine.run.labelled import labelled
from attent_kit.engine.train.steady import Watch, called, moves, reads_back
from attent_kit.interfaces import Stage
from attent_kit.testing.subject import Subject, grey_batch, organless_batch, random_batch
from attent_kit.testing.trial import Trial
from attent_kit.testing.volumes import with_volumes


class _Nobody(TorchFunctionMode):
    """Refuses these calls when Python makes them; what PyTorch calls internally on a CPU does not count.

    Neither do tensors created without a device, such as a coin flip from torch.rand(()): they live on the host, and nobody
    waits for them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_the_host: dict[int, Tensor] = {}
        """By id, which is its own as long as the tensor is kept."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        host = all(id(a) in self.of_the_host for a in given if isinstance(a, Tensor)) and not moves(args, kwargs)
        assert host or not reads_back(function, args, kwargs), f"{called(function)} waits for the device."
        answer = function(*args, **kwargs)
        if host:
            self.of_the_host |= {id(t): t for t in tree_leaves(answer) if isinstance(t, Tensor)}
        return answer


@contextmanager
def nobody_waits(device: torch.device) -> Iterator[None]:
    """AssertionError if the code inside waits for the device: on CUDA the device says so, elsewhere the calls that would."""
    if device.type != "cuda":
        with _Nobody():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        assert "synchroniz" not in str(error), f"CUDA says: {error}"
        raise
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits_for_nobody(subject: Subject) -> None:
    """When a step reads a value, the GPU idles until it is there, at every step. Leave out .item(), float(), bool() and
    .cpu() of tensors: return losses as tensors, and pass a condition to `update(..., when=condition)`."""
    trial = Trial(subject)
    on_gpu = trial.fabric.device.type == "cuda"
    for stage in trial.stages:
        for number in range(3):  # the first steps allocate the state of optimizers and image pools
            trial.step(stage, number)
        # What labels the whole set now and then may wait: it is asked between steps.
        batch = labelled(trial.alignment, stage, trial.batch())
        # On a CPU the optimizers of PyTorch read their own counters.
        update = trial.update if on_gpu else (lambda optimizer, loss, when=None: None)
        with nobody_waits(trial.fabric.device):
            trial.step(stage, 3, batch, update)


def capturable_as_declared(subject: Subject) -> None:
    """A CUDA graph repeats one recorded step: with Python's numbers, branches and shapes of that step, on the same memory. Keep
    what differs from step to step in tensors on the device, write buffers in place; or declare `capturable = False`."""
    of_volumes = with_volumes(subject)
    trials = [Trial(each, size=32) for each in (subject, of_volumes) if each is not None]
    found = [
        f"stage '{stage.name}'{' of volumes' * (trial.subject is of_volumes)}: {why}"
        for trial in trials
        for stage in trial.stages
        if (why := why_not_capturable(trial, stage))
    ]
    if all(trial.alignment.capturable for trial in trials):
        assert not found, found[0]
    else:
        assert found, f"{subject.called} declares capturable = False, but its steps can be captured: drop that."


def why_not_capturable(trial: Trial, stage: Stage) -> str | None:
    """The first thing that steps of a stage do and a graph cannot repeat, on slices with all organs, in bands, without any."""
    torch.manual_seed(0)
    drawn = [trial.batch(draw) for draw in (random_batch, grey_batch, organless_batch)]
    batches = [labelled(trial.alignment, stage, batch) for batch in drawn]
    trial.step(stage, 0, batches[0])  # makes image pools and the state of optimizers
    watch = Watch(trial.alignment, trial.optimizers)
    for number, batch in enumerate(batches):
        watch(partial(trial.step, stage, 1 + number, batch), batch)
    return watch.end()
