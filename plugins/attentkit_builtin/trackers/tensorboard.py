"""TensorBoard: event files in the run's folder, shown by `tensorboard --logdir runs`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attent_kit.config import to_toml
from attent_kit.tracker import TrackedRun, Tracker


class TensorBoard(Tracker):
    """TensorBoard event files in RUN/tensorboard."""

    package = "tensorboard"
    install = "attent-kit[tensorboard]"

    def start(self, run: TrackedRun) -> str:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        # TensorBoard then hides what an earlier process logged of steps that are trained again.
        self.writer = SummaryWriter(str(folder), purge_step=None if run.id is None else run.step + 1)
        self.step = run.step
        if run.id is None:
            self.writer.add_text("config", _block(to_toml(dict(run.config))), 0)
        return folder.name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.step = step
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def end(self, scores: Mapping[str, float] | None, artefacts: Sequence[Path]) -> None:
        for name, value in (scores or {}).items():
            self.writer.add_scalar(name, value, self.step)
        if scores is not None:
            self.writer.add_text("files", _block("\n".join(str(path) for path in artefacts)), self.step)
        self.writer.close()


def _block(text: str) -> str:
    """Text as Markdown shows it line by line."""
    return "".join(f"    {line}\n" for line in text.splitlines())
