"""CycleGAN: translate source images to target style, then train a segmentor on them with the source labels.

Zhu, Park, Isola, Efros. Unpaired image-to-image translation using cycle-consistent adversarial networks. ICCV 2017.
As a row of the comparison: the segmentor is trained on G_st(x_s) and tested on raw target images.

    L_gan = (D_t(G_st(x_s)) - 1)^2 + (D_s(G_ts(x_t)) - 1)^2
    L_cyc = |G_ts(G_st(x_s)) - x_s| + |G_st(G_ts(x_t)) - x_t|
    L_idt = |G_ts(x_s) - x_s| + |G_st(x_t) - x_t|
    L_G   = L_gan + 10 L_cyc + 5 L_idt                                   both translators
    L_D   = ((D(real) - 1)^2 + D(fake)^2) / 2                            each discriminator, fakes from a history of 50
    L_seg = CE(S(G_st(x_s)), y_s)
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.contrast import patch_heads, translate_by_contrast
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
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
from attentkit_builtin.citations import CYCLEGAN


class CycleGAN(Alignment):
    """Source images in target style train the segmentor (pixel space, source to target)."""

    paper = "Zhu et al., ICCV 2017"
    bibtex = CYCLEGAN
    aligns = "pixels: source images in target style train the segmentor"
    takes_partial_labels = True
    predicts_with = "S"
    terms = {"cycle": {"cycle": 0.0}, "identity": {"identity": 0.0}}

    class Config(ContrastOptions, SegmentOptions):
        """Options of the translation stage and of the segmentor."""

        presets = {
            "paper": {
                # Zhu et al. 2017 and their code: 200 epochs, the rate falls in the last 100; identity weighs half of cycle.
                "translator": {"name": "resnet", "width": 64, "blocks": 9, "upsampling": "transposed"},
                "image_discriminator": {"name": "patch", "width": 64, "layers": 3},
                "gan": "lsgan",
                "cycle": 10.0,
                "identity": 5.0,
                "pool": 50,
                "translate_learning_rate": 2e-4,
                "translate_steps": 200_000,
                "translate_batch_size": 1,
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
        with torch.no_grad():
            x_st = self.G_st(batch.x_s)
        L_seg = supervised_loss(self.S(x_st), batch.y_s, self.config)
        update("S", L_seg)
        return {"L_seg": L_seg}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def as_source(self, x_t: Tensor) -> Tensor:
        return self.G_ts(x_t)

    def as_target(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def as_seen(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def discriminator_losses(self) -> dict[str, Gan]:
        return {"L_D_s": self.config.gan, "L_D_t": self.config.gan}
