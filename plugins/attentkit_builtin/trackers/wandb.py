"""Weights & Biases: offline files in the run's folder, uploaded by `wandb sync RUN/wandb/offline-run-*` on request.

WANDB_MODE=online uploads while the run trains. A resumed run writes another folder with the same id, which `wandb sync`
appends.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attent_kit.tracker import TrackedRun, Tracker


class WandB(Tracker):
    """Weights & Biases, offline unless WANDB_MODE says otherwise."""

    package = "wandb"
    install = "attent-kit[wandb]"

    def start(self, run: TrackedRun) -> str:
        # Read when the package is imported: no crash reports, no chatter.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")  # wandb says itself what it may be
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "attent-kit"),
            name=run.name,
            dir=str(run.folder),
            id=run.id,
            # Offline there is no server to ask what it already has; the id alone makes `wandb sync` append.
            resume=None if mode == "offline" else "allow",
            mode=mode,
            config=dict(run.config),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True,
                x_save_requirements=False,
            ),
        )  # fmt: skip
        # Its own step counter refuses to go back, which it must when a run resumes from its last checkpoint.
        self.run.define_metric("*", step_metric="step")
        return str(self.run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def end(self, scores: Mapping[str, float] | None, artefacts: Sequence[Path]) -> None:
        if scores is not None:
            self.run.summary.update(dict(scores))
        for path in artefacts:
            self.run.save(str(path), base_path=str(path.parent), policy="end")
        self.run.finish(exit_code=int(scores is None))
