"""AttENT: attention-aware translation, then adversarial entropy minimization.

Li, Luo, Chen, He, Wu, Tan. BIBM 2021. https://doi.org/10.1109/BIBM52615.2021.9669620

Pixel space: CycleGAN with attention-gated translators, target to source and back.
    L_gan = (D_t(G_st(x_s)) - 1)^2 + (D_s(G_ts(x_t)) - 1)^2
    L_cyc = |G_ts(G_st(x_s)) - x_s| + |G_st(G_ts(x_t)) - x_t|
    L_idt = |G_ts(x_s) - x_s| + |G_st(x_t) - x_t|
    L_G   = L_gan + 10 L_cyc + 5 L_idt
    L_D   = ((D(real) - 1)^2 + D(fake)^2) / 2                            each discriminator, fakes from a history of 50

Entropy space: the segmentor sees source images and target images in source style, x_ts = G_ts(x_t).
    L_seg = CE(S(x_s), y_s)
    E(x)  = -1/log K  p_k log p_k  with p = softmax S(x)                 per class, or summed over k
    L_adv = BCE(D_E(E(x_ts)), 1)                                         segmentor, to look like source
    L_dis = BCE(D_E(E(x_s)), 1) / 2 + BCE(D_E(E(x_ts)), 0) / 2
    answer S(G_ts(x_t))

Where slides and authors' code differ, both are options; `preset = "paper"` is the slides, `preset = "authors-code"` the code:
- The slides print E summed over classes; the code keeps one channel per class, as ADVENT does. Default "per-class": it made
  the published numbers, and tells D_E which organ is uncertain.
- The slides write the log-loss for L_gan and no L_idt; the code uses least squares and weight 5. The default is the code.
- The gate of the slides and that of the code: options of the translator `attention`.
- The authors adapt at two levels; here that is the segmentor's option `auxiliary`, which adds a second head and discriminator,
  L_adv_aux and L_dis_aux.
- Their segmentor is DeepLabV2 on an ImageNet ResNet-101, trained at 1e-5 without augmentation; the default here is a
  U-Net on ResNet-18 from scratch, with small affine maps, and every backbone of smp can take its place.
- They average each image discriminator's map to one answer: `image_discriminator.pooled = true`. CycleGAN keeps the map.
- The authors re-create their optimizers every epoch, freeze BatchNorm after the first validation and pick the checkpoint
  with target test labels. These are errors; we do not reproduce them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.contrast import patch_heads, translate_by_contrast
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import (
    Alignment,
    Batch,
    Build,
    Discriminator,
    Losses,
    Stage,
    Task,
    Translator,
    Update,
)
from attent_kit.objectives import Gan, entropy_map, fake, l1, real, self_information
from attent_kit.options import (
    ContrastOptions,
    SegmentOptions,
    adam,
    segment_schedule,
    segmentor_optimizer,
    supervised_loss,
    translation_recipe,
)
from attent_kit.schedules import linear_after
from attentkit_builtin.citations import ATTENT


class AttENT(Alignment):
    """Attention-aware translation, then adversarial entropy minimization (pixel and entropy space)."""

    paper = "Li et al., BIBM 2021"
    bibtex = ATTENT
    aligns = "pixels: target images to source style, gated; then entropy maps"
    takes_partial_labels = True
    backbones = "any segmentor; two levels where it has an auxiliary head"
    terms = {
        "cycle": {"cycle": 0.0},
        "identity": {"identity": 0.0},
        "attention gate": {"translator": {"gate": "none"}},
        "entropy alignment": {"adversarial": 0.0, "auxiliary_adversarial": 0.0},
    }

    class Config(ContrastOptions, SegmentOptions):
        """Options of the translation stage, of the segmentor and of its discriminators."""

        presets = {
            "paper": {
                # Slides of Li et al. 2021: the log-loss, no identity loss, a gate without norm that is not doubled.
                "translator": {"name": "attention", "upsampling": "resize", "gate": "single", "gate_norm": "none"},
                "image_discriminator": {"name": "patch", "width": 64, "layers": 3},
                "gan": "bce",
                "cycle": 10.0,
                "identity": 0.0,
                "pool": 50,
                "translate_learning_rate": 2e-4,
                "translate_steps": 200_000,
                "translate_batch_size": 1,
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
                "entropy": "summed",
                # Code of Li et al. 2021: the weights and the rate of Vu et al. 2019.
                "adversarial": 1e-3,
                "auxiliary_adversarial": 2e-4,
                "discriminator_learning_rate": 1e-4,
            },
            "authors-code": {
                # Code of Li et al. 2021: one answer per image, least squares, BatchNorm in the doubled gate.
                "translator": {"name": "attention", "upsampling": "resize", "gate": "doubled", "gate_norm": "batch"},
                "image_discriminator": {"name": "patch", "width": 64, "layers": 3, "pooled": True},
                "gan": "lsgan",
                "cycle": 10.0,
                "identity": 5.0,
                "pool": 50,
                "translate_learning_rate": 2e-4,
                "translate_steps": 200_000,
                "translate_batch_size": 1,
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

        translator: Choice[Translator] = Choice("attention")
        """Network of both translators."""
        entropy_discriminator: Choice[Discriminator] = Choice("fcn")
        """Network that tells entropy maps of source and translated target apart."""
        entropy: Literal["per-class", "summed"] = "per-class"
        """E with one channel per class (authors' code), or summed over the classes (slides)."""
        adversarial: float = Field(1e-3, ge=0)
        """Weight of L_adv at the main output."""
        auxiliary_adversarial: float = Field(2e-4, ge=0)
        """Weight of L_adv at the auxiliary output."""
        discriminator_learning_rate: float = Field(1e-4, gt=0)
        """Initial learning rate of the entropy discriminators; falls as poly 0.9."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.G_st, self.G_ts = build(config.translator), build(config.translator)
        self.D_s = build(config.image_discriminator, channels=task.channels)
        self.D_t = build(config.image_discriminator, channels=task.channels)
        self.H_st, self.H_ts = patch_heads(config, self.G_st, self.G_ts)
        self.pool_s, self.pool_t = ImagePool(config.pool), ImagePool(config.pool)
        self.S = build(config.segmentor)
        channels = 1 if config.entropy == "summed" else task.classes
        self.D_E = build(config.entropy_discriminator, channels=channels)
        self.D_aux = build(config.entropy_discriminator, channels=channels) if self.S.has_auxiliary else None

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        discriminators = [D for D in (self.D_E, self.D_aux) if D is not None]
        return {
            "G": adam([self.G_st, self.G_ts, self.H_st, self.H_ts], c.translate_learning_rate, (0.5, 0.999)),
            "D": adam([self.D_s, self.D_t], c.translate_learning_rate, (0.5, 0.999)),
            "S": segmentor_optimizer(self.S, c),
            "D_E": adam(discriminators, c.discriminator_learning_rate, (0.9, 0.99)),
        }

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return [
            Stage(
                "translate", self.translate, c.translate_steps, c.translate_batch_size, trains=("G", "D"),
                schedule=linear_after(0.5), recipe=translation_recipe(c),
            ),
            Stage(
                "segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S", "D_E"), schedule=segment_schedule(c)
            ),
        ]  # fmt: skip

    def translate(self, batch: Batch, update: Update) -> Losses:
        if self.H_st is not None:
            return translate_by_contrast(self, batch, update)
        c, x_s, x_t = self.config, batch.x_s, batch.x_t
        x_st, x_ts = self.G_st(x_s), self.G_ts(x_t)

        L_gan = real(self.D_t(x_st), c.gan) + real(self.D_s(x_ts), c.gan)
        L_cyc = l1(self.G_ts(x_st), x_s) + l1(self.G_st(x_ts), x_t)
        L_idt = l1(self.G_ts(x_s), x_s) + l1(self.G_st(x_t), x_t)
        update("G", L_gan + c.cycle * L_cyc + c.identity * L_idt)

        x_st, x_ts = self.pool_t(x_st), self.pool_s(x_ts)
        L_D_s = (real(self.D_s(x_s), c.gan) + fake(self.D_s(x_ts), c.gan)) / 2
        L_D_t = (real(self.D_t(x_t), c.gan) + fake(self.D_t(x_st), c.gan)) / 2
        update("D", L_D_s + L_D_t)
        return {"L_gan": L_gan, "L_cyc": L_cyc, "L_idt": L_idt, "L_D_s": L_D_s, "L_D_t": L_D_t}

    def E(self, logits: Tensor) -> Tensor:
        """Entropy map, [B, K, H, W] -> [B, K or 1, H, W]."""
        return entropy_map(logits) if self.config.entropy == "summed" else self_information(logits)

    def segment(self, batch: Batch, update: Update) -> Losses:
        c = self.config
        with torch.no_grad():
            x_ts = self.G_ts(batch.x_t)
        s, t = self.S(batch.x_s), self.S(x_ts)
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

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(self.G_ts(x_t)).logits

    def as_source(self, x_t: Tensor) -> Tensor:
        return self.G_ts(x_t)

    def as_target(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def discriminator_losses(self) -> dict[str, Gan]:
        losses: dict[str, Gan] = {"L_D_s": self.config.gan, "L_D_t": self.config.gan, "L_dis": "bce"}
        return losses if self.D_aux is None else {**losses, "L_dis_aux": "bce"}
