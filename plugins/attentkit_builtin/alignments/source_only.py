"""W/o adaptation: a segmentor trained on labelled source images and applied to the target as it is. The lower bound.

L_seg = CE(S(x_s), y_s)
"""

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.options import SegmentOptions, segment_schedule, segmentor_optimizer, supervised_loss


class SourceOnly(Alignment):
    """W/o adaptation: trained on the source, applied to the target as it is."""

    aligns = "nothing: trained on source, applied to target"
    dims = (2, 3)
    takes_partial_labels = True
    predicts_with = "S"
    uses_target_images = False

    class Config(SegmentOptions):
        """Options of the segmentor alone."""

        presets = {
            "paper": {
                # Chen et al. 2020 (SIFA): the slides of AttENT take this row from them, who give all rows one segmentor.
                "segmentor": {"name": "sifa", "width": 16, "stride": 8, "auxiliary": False},
                "cross_entropy": "balanced",
                "dice": 1.0,
                "optimizer": "adam",
                "learning_rate": 1e-3,
                "betas": [0.9, 0.999],
                "weight_decay": 1e-4,
                "schedule": "constant",
                "segment_steps": 20_000,
                "segment_batch_size": 8,
            },
        }

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"S": segmentor_optimizer(self.S, self.config)}

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return [
            Stage(
                "segment",
                self.segment,
                c.segment_steps,
                c.segment_batch_size,
                trains=("S",),
                schedule=segment_schedule(c),
            )
        ]

    def segment(self, batch: Batch, update: Update) -> Losses:
        L_seg = supervised_loss(self.S(batch.x_s), batch.y_s, self.config)
        update("S", L_seg)
        return {"L_seg": L_seg}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits
