"""Entropy-space alignment: a discriminator on entropy maps of source and raw target. AttENT without its translation.

Vu, Jain, Bucher, Cord, Perez. ADVENT: adversarial entropy minimization for domain adaptation in semantic segmentation.
CVPR 2019; the ablation "Entropy" of Li et al. (BIBM 2021).

    L_seg = CE(S(x_s), y_s)
    E(x)  = -1/log K  p_k log p_k  with p = softmax S(x)                 per class, or summed over k
    L_adv = BCE(D_E(E(x_t)), 1)
    L_dis = BCE(D_E(E(x_s)), 1) / 2 + BCE(D_E(E(x_t)), 0) / 2

`objective = "minimize"` is their MinEnt, without a discriminator: the mean over pixels of E(x_t), summed over k, takes the
place of L_adv. It can end in one class everywhere; choose its weight with care.

ADVENT and AttENT's authors keep E per class, which is the default; the slides of AttENT print it summed over classes.
If the segmentor has an auxiliary head, L_adv_aux and L_dis_aux (L_ent_aux) are the same for that head and its own discriminator,
with weight `auxiliary_adversarial`.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.interfaces import Alignment, Batch, Build, Discriminator, Losses, Stage, Task, Update
from attent_kit.objectives import Gan, entropy_map, fake, real, self_information
from attent_kit.options import SegmentOptions, adam, segment_schedule, segmentor_optimizer, supervised_loss
from attentkit_builtin.citations import ADVENT, ATTENT, cite


class Entropy(Alignment):
    """Adversarial alignment of entropy maps on raw images (ADVENT), or entropy minimization (MinEnt)."""

    paper = "Vu et al., CVPR 2019; Li et al., BIBM 2021, ablation"
    bibtex = cite(ADVENT, ATTENT)
    aligns = "entropy maps of raw images"
    takes_partial_labels = True
    backbones = "any segmentor; two levels where it has an auxiliary head"
    predicts_with = "S"
    terms = {"entropy alignment": {"adversarial": 0.0, "auxiliary_adversarial": 0.0}}

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
                "segment_steps": 120_000,
                "segment_batch_size": 1,
                "entropy": "per-class",
                "adversarial": 1e-3,
                "auxiliary_adversarial": 2e-4,
                "discriminator_learning_rate": 1e-4,
            },
            "authors-code": {
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
                "entropy": "per-class",
                # Code of Li et al. 2021: the weights and the rate of Vu et al. 2019.
                "adversarial": 1e-3,
                "auxiliary_adversarial": 2e-4,
                "discriminator_learning_rate": 1e-4,
            },
        }

        objective: Literal["adversarial", "minimize"] = "adversarial"
        """A discriminator on E (AdvEnt), or the mean of E itself (MinEnt)."""
        entropy_discriminator: Choice[Discriminator] = Choice("fcn")
        """Network that tells entropy maps of the two domains apart; unused by MinEnt."""
        entropy: Literal["per-class", "summed"] = "per-class"
        """E with one channel per class (authors' code), or summed over the classes (slides)."""
        adversarial: float = Field(1e-3, ge=0)
        """Weight of L_adv, or of the entropy itself, at the main output."""
        auxiliary_adversarial: float = Field(2e-4, ge=0)
        """The same at the auxiliary output."""
        discriminator_learning_rate: float = Field(1e-4, gt=0)
        """Initial learning rate of the discriminators; falls as the segmentor's."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor)
        if config.objective == "minimize":
            return
        channels = 1 if config.entropy == "summed" else task.classes
        self.D_E = build(config.entropy_discriminator, channels=channels)
        self.D_aux = build(config.entropy_discriminator, channels=channels) if self.S.has_auxiliary else None

    def optimizers(self) -> dict[str, Optimizer]:
        S = segmentor_optimizer(self.S, self.config)
        if self.config.objective == "minimize":
            return {"S": S}
        discriminators = [D for D in (self.D_E, self.D_aux) if D is not None]
        return {"S": S, "D_E": adam(discriminators, self.config.discriminator_learning_rate, (0.9, 0.99))}

    def stages(self) -> Sequence[Stage]:
        c = self.config
        minimize = c.objective == "minimize"
        return [
            Stage(
                "segment",
                self.minimize if minimize else self.segment,
                c.segment_steps,
                c.segment_batch_size,
                trains=("S",) if minimize else ("S", "D_E"),
                schedule=segment_schedule(c),
            )
        ]

    def E(self, logits: Tensor) -> Tensor:
        """Entropy map, [B, K, H, W] -> [B, K or 1, H, W]."""
        return entropy_map(logits) if self.config.entropy == "summed" else self_information(logits)

    def segment(self, batch: Batch, update: Update) -> Losses:
        c = self.config
        s, t = self.S(batch.x_s), self.S(batch.x_t)
        E_s, E_t = self.E(s.logits), self.E(t.logits)

        L_seg = supervised_loss(s, batch.y_s, c)
        L_adv = real(self.D_E(E_t))
        L_S = L_seg + c.adversarial * L_adv
        if self.D_aux is not None:
            A_s, A_t = self.E(s.auxiliary), self.E(t.auxiliary)
            L_adv_aux = real(self.D_aux(A_t))
            L_S = L_S + c.auxiliary_adversarial * L_adv_aux
        update("S", L_S)

        L_dis = (real(self.D_E(E_s.detach())) + fake(self.D_E(E_t.detach()))) / 2
        L_D = L_dis
        if self.D_aux is not None:
            L_dis_aux = (real(self.D_aux(A_s.detach())) + fake(self.D_aux(A_t.detach()))) / 2
            L_D = L_D + L_dis_aux
        update("D_E", L_D)
        losses = {"L_seg": L_seg, "L_adv": L_adv, "L_dis": L_dis}
        return losses if self.D_aux is None else {**losses, "L_adv_aux": L_adv_aux, "L_dis_aux": L_dis_aux}

    def minimize(self, batch: Batch, update: Update) -> Losses:
        c = self.config
        s, t = self.S(batch.x_s), self.S(batch.x_t)

        L_seg = supervised_loss(s, batch.y_s, c)
        L_ent = entropy_map(t.logits).mean()
        L_S = L_seg + c.adversarial * L_ent
        losses = {"L_seg": L_seg, "L_ent": L_ent}
        if t.auxiliary is not None:
            L_ent_aux = entropy_map(t.auxiliary).mean()
            L_S = L_S + c.auxiliary_adversarial * L_ent_aux
            losses["L_ent_aux"] = L_ent_aux
        update("S", L_S)
        return losses

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def discriminator_losses(self) -> dict[str, Gan]:
        if self.config.objective == "minimize":
            return {}
        return {"L_dis": "bce"} if self.D_aux is None else {"L_dis": "bce", "L_dis_aux": "bce"}
