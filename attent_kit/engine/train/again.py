"""Answers of a finished run that keeps what predicts alone: those that are there, or made again from what it has exported."""

import torch

from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.exported import load_exported
from attent_kit.engine.run.folder import Answers
from attent_kit.engine.run.probe import answering, overhear
from attent_kit.engine.run.record import Run
from attent_kit.errors import RunError
from attent_kit.interfaces import Alignment


def load_answering(run: Run, answers: Answers, alignment: Alignment, size: int, device: torch.device) -> None:
    """Fill the networks that predict from what the run has exported; translations that need others are then not offered.

    RunError if the weights are damaged, or are those of another run.
    """
    facts, found = load_exported(answers.segmentor, alignment, size, device)
    if facts.get("config") != checkpoint.fingerprint(run.config):
        raise RunError(
            f"{answers.segmentor} is not what {run.folder.config} was trained with: copy both again from one run."
        )
    blank = torch.zeros(1, alignment.task.channels, size, size, device=device)
    for style in ("as_source", "as_target"):
        with answering(alignment), overhear(alignment) as heard:
            getattr(alignment, style)(blank)
        if {call.network for call in heard} - found:
            setattr(alignment, style, lambda x: None)
