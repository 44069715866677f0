"""Pixel-space alignment: AttENT's attention-gated translation alone, without the entropy discriminator.

The ablation "Pixel" of Li et al. (BIBM 2021). The segmentor is trained on raw source images; at test time a target image
is translated to source style first.

    L_gan, L_cyc, L_idt, L_G, L_D                                        as in CycleGAN, with attention-gated translators
    L_seg = CE(S(x_s), y_s)
    answer S(G_ts(x_t))
"""

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.contrast import patch_heads, translate_by_contrast
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Translator, Update
from attent_kit.objectives import Gan, fake, l1, real
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
from attentkit_builtin.citations import ATTENT, CYCLEGAN, cite


class Pixel(Alignment):
    """Attention-gated translation of the target to source style, alone (pixel space)."""

    paper = "Li et al., BIBM 2021, ablation"
    bibtex = cite(ATTENT, CYCLEGAN)
    aligns = "pixels: target images to source style, gated"
    takes_partial_labels = True
    terms = {
        "cycle": {"cycle": 0.0},
        "identity": {"identity": 0.0},
        "attention gate": {"translator": {"gate": "none"}},
    }

    class Config(ContrastOptions, SegmentOptions):
        """Options of the translation stage and of the segmentor."""

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
            },
        }

        translator: Choice[Translator] = Choice("attention")
        """Network of both translators."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.G_st, self.G_ts = build(config.translator), build(config.translator)
        self.D_s = build(config.image_discriminator, channels=task.channels)
        self.D_t = build(config.image_discriminator, channels=task.channels)
        self.H_st, self.H_ts = patch_heads(config, self.G_st, self.G_ts)
        self.pool_s, self.pool_t = ImagePool(config.pool), ImagePool(config.pool)
        self.S = build(config.segmentor)

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        return {
            "G": adam([self.G_st, self.G_ts, self.H_st, self.H_ts], c.translate_learning_rate, (0.5, 0.999)),
            "D": adam([self.D_s, self.D_t], c.translate_learning_rate, (0.5, 0.999)),
            "S": segmentor_optimizer(self.S, c),
        }

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return [
            Stage(
                "translate", self.translate, c.translate_steps, c.translate_batch_size, trains=("G", "D"),
                schedule=linear_after(0.5), recipe=translation_recipe(c),
            ),
            Stage("segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S",), schedule=segment_schedule(c)),
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

    def segment(self, batch: Batch, update: Update) -> Losses:
        L_seg = supervised_loss(self.S(batch.x_s), batch.y_s, self.config)
        update("S", L_seg)
        return {"L_seg": L_seg}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(self.G_ts(x_t)).logits

    def as_source(self, x_t: Tensor) -> Tensor:
        return self.G_ts(x_t)

    def as_target(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def discriminator_losses(self) -> dict[str, Gan]:
        return {"L_D_s": self.config.gan, "L_D_t": self.config.gan}
