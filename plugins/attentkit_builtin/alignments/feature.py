"""Feature-space alignment: a discriminator on the segmentor's deepest features of source and raw target.

The ablation "Feature" of Li et al. (BIBM 2021). Slides and authors' code leave it undefined; this is our definition: the
adversary of the other ablations, moved to `Segmentation.features`, with a discriminator of 1x1 convolutions as in the feature
stage of CyCADA (Hoffman et al., ICML 2018), since the map is coarse.

    L_seg = CE(S(x_s), y_s)
    L_adv = BCE(D_F(f(x_t)), 1)
    L_dis = BCE(D_F(f(x_s)), 1) / 2 + BCE(D_F(f(x_t)), 0) / 2
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.interfaces import Alignment, Batch, Build, Discriminator, Losses, Stage, Task, Update
from attent_kit.objectives import Gan, fake, real
from attent_kit.options import SegmentOptions, adam, segment_schedule, segmentor_optimizer, supervised_loss
from attentkit_builtin.citations import ATTENT, CYCADA, cite


class Feature(Alignment):
    """Adversarial alignment of the segmentor's deepest features."""

    paper = "Li et al., BIBM 2021, ablation, undefined there"
    bibtex = cite(ATTENT, CYCADA)
    aligns = "the segmentor's deepest features"
    takes_partial_labels = True
    predicts_with = "S"
    terms = {"feature alignment": {"adversarial": 0.0}}

    class Config(SegmentOptions):
        """Options of the segmentor and of its discriminator."""

        presets = {
            "paper": {
                # Code of Li et al. 2021, MR to CT: ten epochs of twice about 400 slices. Its poly schedule starts anew every
                # epoch, so the rate never falls. It starts from ImageNet weights: set `segmentor.weights`.
                "segmentor": {"name": "deeplabv2", "head": "four-dilations", "head_learning_rate": 1.0},
                "auxiliary": 0.1,
                "optimizer": "adam",
                "learning_rate": 1e-5,
                "betas": [0.9, 0.99],
                "schedule": "constant",
                "segment_steps": 8_000,
                "segment_batch_size": 1,
                # Code of Li et al. 2021: the weight and the rate of Vu et al. 2019.
                "adversarial": 1e-3,
                "discriminator_learning_rate": 1e-4,
            },
        }

        feature_discriminator: Choice[Discriminator] = Choice("pixel")
        """Network that tells features of the two domains apart."""
        adversarial: float = Field(1e-3, ge=0)
        """Weight of L_adv."""
        discriminator_learning_rate: float = Field(1e-4, gt=0)
        """Initial learning rate of the discriminator; falls as poly 0.9."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor)
        self.D_F = build(config.feature_discriminator, channels=self.S.feature_channels)

    def optimizers(self) -> dict[str, Optimizer]:
        return {
            "S": segmentor_optimizer(self.S, self.config),
            "D_F": adam([self.D_F], self.config.discriminator_learning_rate, (0.9, 0.99)),
        }

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return [
            Stage(
                "segment",
                self.segment,
                c.segment_steps,
                c.segment_batch_size,
                trains=("S", "D_F"),
                schedule=segment_schedule(c),
            )
        ]

    def segment(self, batch: Batch, update: Update) -> Losses:
        s, t = self.S(batch.x_s), self.S(batch.x_t)

        L_seg = supervised_loss(s, batch.y_s, self.config)
        L_adv = real(self.D_F(t.features))
        update("S", L_seg + self.config.adversarial * L_adv)

        L_dis = (real(self.D_F(s.features.detach())) + fake(self.D_F(t.features.detach()))) / 2
        update("D_F", L_dis)
        return {"L_seg": L_seg, "L_adv": L_adv, "L_dis": L_dis}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def discriminator_losses(self) -> dict[str, Gan]:
        return {"L_dis": "bce"}
