"""AdaOutput: adversarial learning on the softmax output, at one level or two.

Tsai, Hung, Schulter, Sohn, Yang, Chandraker. Learning to adapt structured output space for semantic segmentation.
CVPR 2018 (AdaptSegNet).

    L_seg = CE(S(x_s), y_s)
    L_adv = BCE(D(softmax S(x_t)), 1)                                    segmentor: the target must look like source
    L_dis = BCE(D(softmax S(x_s)), 1) / 2 + BCE(D(softmax S(x_t)), 0) / 2

If the segmentor has an auxiliary head, L_adv_aux and L_dis_aux are the same for that head and its own discriminator, with
weight `auxiliary_adversarial`. The authors number the domains the other way round, which changes nothing. Their optimizer, for a
pretrained DeepLab with ten times the rate for its heads, is `preset = "paper"`. `preset = "authors-code"` has the
heads as their code sums them, two dilations of four, and the smaller weights that they advise for PyTorch. They step all
networks at the end of an iteration, and so does this file in effect, since the discriminator sees what the
segmentor answered before its update.
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.interfaces import Alignment, Batch, Build, Discriminator, Losses, Stage, Task, Update
from attent_kit.objectives import Gan, fake, real
from attent_kit.options import SegmentOptions, adam, segment_schedule, segmentor_optimizer, supervised_loss
from attentkit_builtin.citations import ADAPTSEGNET


class AdaOutput(Alignment):
    """Adversarial alignment of the softmax output (AdaptSegNet)."""

    paper = "Tsai et al., CVPR 2018"
    bibtex = ADAPTSEGNET
    aligns = "softmax outputs, at one level or two"
    takes_partial_labels = True
    backbones = "any segmentor; two levels where it has an auxiliary head"
    predicts_with = "S"
    terms = {"output alignment": {"adversarial": 0.0, "auxiliary_adversarial": 0.0}}

    class Config(SegmentOptions):
        """Options of the segmentor and of its discriminators."""

        presets = {
            "paper": {
                # Tsai et al. 2018 and Vu et al. 2019: two levels, from ImageNet weights: set `segmentor.weights`.
                "segmentor": {"name": "deeplabv2", "head": "four-dilations", "head_learning_rate": 10.0},
                "auxiliary": 0.1,
                "optimizer": "sgd",
                "learning_rate": 2.5e-4,
                "weight_decay": 5e-4,
                "schedule": "poly",
                "schedule_steps": 250_000,
                "segment_steps": 150_000,
                "segment_batch_size": 1,
                "adversarial": 1e-3,
                "auxiliary_adversarial": 2e-4,
                "discriminator_learning_rate": 1e-4,
            },
            "authors-code": {
                # Tsai et al. 2018 and Vu et al. 2019: two levels, from ImageNet weights: set `segmentor.weights`.
                "segmentor": {"name": "deeplabv2", "head": "adaptsegnet", "head_learning_rate": 10.0},
                "auxiliary": 0.1,
                "optimizer": "sgd",
                "learning_rate": 2.5e-4,
                "weight_decay": 5e-4,
                "schedule": "poly",
                "schedule_steps": 250_000,
                "segment_steps": 150_000,
                "segment_batch_size": 1,
                "adversarial": 5e-4,
                "auxiliary_adversarial": 5e-5,
                "discriminator_learning_rate": 1e-4,
            },
        }

        output_discriminator: Choice[Discriminator] = Choice("fcn")
        """Network that tells softmax outputs of the two domains apart."""
        adversarial: float = Field(1e-3, ge=0)
        """Weight of L_adv at the main output."""
        auxiliary_adversarial: float = Field(2e-4, ge=0)
        """Weight of L_adv at the auxiliary output."""
        discriminator_learning_rate: float = Field(1e-4, gt=0)
        """Initial learning rate of the discriminators; falls as poly 0.9."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor)
        self.D = build(config.output_discriminator, channels=task.classes)
        self.D_aux = build(config.output_discriminator, channels=task.classes) if self.S.has_auxiliary else None

    def optimizers(self) -> dict[str, Optimizer]:
        discriminators = [D for D in (self.D, self.D_aux) if D is not None]
        return {
            "S": segmentor_optimizer(self.S, self.config),
            "D": adam(discriminators, self.config.discriminator_learning_rate, (0.9, 0.99)),
        }

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return [
            Stage(
                "segment",
                self.segment,
                c.segment_steps,
                c.segment_batch_size,
                trains=("S", "D"),
                schedule=segment_schedule(c),
            )
        ]

    def segment(self, batch: Batch, update: Update) -> Losses:
        c = self.config
        s, t = self.S(batch.x_s), self.S(batch.x_t)
        p_s, p_t = s.logits.softmax(1), t.logits.softmax(1)

        L_seg = supervised_loss(s, batch.y_s, c)
        L_adv = real(self.D(p_t))
        L_S = L_seg + c.adversarial * L_adv
        if self.D_aux is not None:
            q_s, q_t = s.auxiliary.softmax(1), t.auxiliary.softmax(1)
            L_adv_aux = real(self.D_aux(q_t))
            L_S = L_S + c.auxiliary_adversarial * L_adv_aux
        update("S", L_S)

        L_dis = (real(self.D(p_s.detach())) + fake(self.D(p_t.detach()))) / 2
        L_D = L_dis
        if self.D_aux is not None:
            L_dis_aux = (real(self.D_aux(q_s.detach())) + fake(self.D_aux(q_t.detach()))) / 2
            L_D = L_D + L_dis_aux
        update("D", L_D)
        losses = {"L_seg": L_seg, "L_adv": L_adv, "L_dis": L_dis}
        return losses if self.D_aux is None else {**losses, "L_adv_aux": L_adv_aux, "L_dis_aux": L_dis_aux}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def discriminator_losses(self) -> dict[str, Gan]:
        return {"L_dis": "bce"} if self.D_aux is None else {"L_dis": "bce", "L_dis_aux": "bce"}
