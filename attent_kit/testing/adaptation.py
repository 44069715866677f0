"""What the engine relies on in a method that adapts to each volume before it predicts it."""

import numpy as np
import torch

from attent_kit.engine.run.adapt import adapted
from attent_kit.engine.run.predict import segment_slices
from attent_kit.engine.run.probe import overhear
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from attent_kit.testing.subject import Subject, images
from attent_kit.testing.trial import Trial, differing, values

SLICES = 5
"""Of a volume."""


def adaptation_leaves_no_trace(subject: Subject) -> None:
    """`adapt_to` changes the networks for one volume alone. The engine puts weights and buffers back; keep nothing else of a
    volume in attributes, draw from torch, numpy or random, call no network that `predict` does not call, and answer with what
    returns finite logits [B, K, H, W]."""
    trial = Trial(subject)
    trial.steps()
    if trial.alignment.adapts():
        no_trace(trial)


def adapts_to_one_slice(subject: Subject) -> None:
    """A volume may be of a single slice. Take no standard deviation over slices, and mind norms of a single value; or raise a
    ConfigError that says in a sentence why not."""
    trial = Trial(subject)
    if trial.alignment.adapts():
        one_slice(trial)


def checked(trial: Trial) -> None:
    """Both claims; nothing of a method that does not adapt."""
    if trial.alignment.adapts():
        no_trace(trial)
        one_slice(trial)


def no_trace(trial: Trial) -> None:
    """The claim of `adaptation_leaves_no_trace`."""
    one, other = (_volume(SLICES, trial.task, trial.size, seed) for seed in (0, 1))
    device = trial.fabric.device
    x = torch.from_numpy(one).float().to(device)
    plain, before = trial.predict(x), values(trial.alignment)
    wanted = {name: p.requires_grad for name, p in trial.alignment.named_parameters()}
    first = segment_slices(trial.alignment, one, device)
    assert first.shape == (trial.task.classes, SLICES, trial.size, trial.size), (
        f"after adapt_to, {tuple(first.shape)} is answered for [K, Z, H, W]: return what maps [B, C, H, W] to [B, K, H, W]."
    )
    assert np.isfinite(first).all(), "after adapt_to, answers are not finite numbers."
    segment_slices(trial.alignment, other, device)
    again = segment_slices(trial.alignment, one, device)
    assert np.array_equal(first, again), (
        "a volume is answered differently after another one: keep nothing of a volume, and draw from torch, numpy or random."
    )
    changed = differing(before, values(trial.alignment))
    assert not changed, (
        f"adapt_to leaves {changed[0]} changed: replace no module, and put back what is no weight or buffer."
    )
    kept = {name: p.requires_grad for name, p in trial.alignment.named_parameters()}
    assert kept == wanted, "adapt_to leaves other parameters trainable than there were."
    assert torch.equal(trial.predict(x), plain), (
        "predict answers differently after adapt_to: put back whatever it changes."
    )
    _networks(trial, one)


def one_slice(trial: Trial) -> None:
    """The claim of `adapts_to_one_slice`."""
    # The smallest slice: norms of the deepest layer may then see a single value.
    volume = _volume(1, trial.task, 32, 2)
    try:
        found = segment_slices(trial.alignment, volume, trial.fabric.device)
    except ConfigError as error:
        assert str(error).endswith("."), f"adapt_to refuses a volume of one slice without a sentence: {error}"
        return
    assert np.isfinite(found).all(), "after adapt_to with a volume of one slice, answers are not finite numbers."


def _networks(trial: Trial, volume: np.ndarray) -> None:
    """Those that adaptation calls are those that are passed on with a run."""
    device = trial.fabric.device
    with overhear(trial.alignment) as called:
        trial.predict(torch.from_numpy(volume).float().to(device))
    with overhear(trial.alignment) as heard, adapted(trial.alignment, volume, device):
        pass
    more = {call.network for call in heard} - {call.network for call in called}
    assert not more, (
        f"adapt_to calls {sorted(more)[0]}, which predict does not call, so that it is not passed on with a run."
    )


def _volume(slices: int, task: Task, size: int, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    return images(slices, task, size, size).half().numpy()
