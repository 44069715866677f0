"""Whether a method learns anything at all, on images in which that is easy."""

import torch
from torch.nn.functional import cross_entropy

from attent_kit.engine.run.assemble import unwrapped
from attent_kit.interfaces import Segmentor, Task
from attent_kit.testing.subject import Skipped, Subject, grey_batch
from attent_kit.testing.trial import Trial

STEPS_TO_LEARN = 40


def learns(subject: Subject) -> None:
    """After a few steps on images in which each class is one grey value, the same in both domains, the answer is no better than
    before. Look for a loss of the wrong sign, a learning rate near 0, or a network in `predict` that is not the trained one."""
    trial = Trial(subject, Task(organs=("liver", "spleen")))
    if trial.alignment.source_free:
        raise Skipped("it is source-free: what it starts from has learned, and fresh weights have nothing to say")
    before = _cross_entropies(trial)
    for stage in trial.stages:
        for number in range(STEPS_TO_LEARN):
            torch.manual_seed(number)
            trial.step(stage, number, trial.batch(grey_batch))
    after = _cross_entropies(trial)
    assert any(after[name] < 0.95 * before[name] for name in before), "; ".join(
        f"the cross-entropy of {name} was {before[name]:.3f} and is {after[name]:.3f} after {STEPS_TO_LEARN} steps of each stage"
        for name in before
    )


def _cross_entropies(trial: Trial) -> dict[str, float]:
    """Of `predict`; if that translates before it segments, which takes longer to learn, of each segmentor on its own."""
    torch.manual_seed(7)
    batch = grey_batch(4, trial.task, trial.size, False)
    x, y = batch.x_s.to(trial.fabric.device), batch.y_s.to(trial.fabric.device)
    answers = {"predict": trial.predict(x)}
    if not trial.alignment.predicts_with:
        for name, network in trial.alignment.named_children():
            if isinstance(unwrapped(network), Segmentor):
                with torch.inference_mode():
                    answers[name] = network(x).logits
    return {name: float(cross_entropy(logits.float(), y)) for name, logits in answers.items()}
