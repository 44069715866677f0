"""SynSeg-Net: translation and segmentation trained together, end to end.

Huo, Xu, Moon, Bao, Assad, Moyo, Savona, Abramson, Landman. SynSeg-Net: synthetic segmentation without target modality
ground truth. IEEE TMI 2019.

    L_gan = (D_t(G_st(x_s)) - 1)^2 + (D_s(G_ts(x_t)) - 1)^2
    L_cyc = |G_ts(G_st(x_s)) - x_s| + |G_st(G_ts(x_t)) - x_t|
    L_idt = |G_ts(x_s) - x_s| + |G_st(x_t) - x_t|
    L_seg = CE(S(G_st(x_s)), y_s)                                        its gradient reaches G_st
    L_G   = L_gan + 10 L_cyc + 5 L_idt + 1 L_seg                         one optimizer for G_st, G_ts and S
    L_D   = ((D(real) - 1)^2 + D(fake)^2) / 2                            each discriminator, fakes from a history of 50
    answer S(x_t)

The authors have no L_idt, weigh small organs tenfold and segment with the generator's own network, tanh at its end
included: all three with `preset = "paper"`. They pad a shorter list of source images with target images; we do not.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Adam, Optimizer

from attent_kit.errors import ConfigError
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.objectives import Gan, fake, l1, real
from attent_kit.options import SegmentorOptions, TranslateOptions, adam, segmentor_groups, supervised_loss
from attent_kit.schedules import linear_after
from attentkit_builtin.citations import SYNSEGNET


class SynSegNet(Alignment):
    """Translation to target style and segmentation of the result, end to end (SynSeg-Net)."""

    paper = "Huo et al., TMI 2019"
    bibtex = SYNSEGNET
    aligns = "pixels: source images in target style train the segmentor, which trains the translator"
    takes_partial_labels = True
    predicts_with = "S"
    terms = {"cycle": {"cycle": 0.0}, "identity": {"identity": 0.0}}

    class Config(TranslateOptions, SegmentorOptions):
        """Options of the one stage: steps and batch size are those of translation."""

        presets = {
            "paper": {
                # Zhu et al. 2017 and their code: 200 epochs, the rate falls in the last 100; identity weighs half of cycle.
                "translator": {"name": "resnet", "width": 64, "blocks": 9, "upsampling": "transposed"},
                "image_discriminator": {"name": "patch", "width": 64, "layers": 3, "padding": 2},
                "segmentor": {"name": "resnet", "width": 64, "blocks": 9, "tanh": True},
                "gan": "lsgan",
                "cycle": 10.0,
                "identity": 0.0,
                "pool": 50,
                "translate_learning_rate": 2e-4,
                "translate_steps": 200_000,
                "translate_batch_size": 4,
                "segmentation": 1.0,
                "class_weights": [1.0, 1.0, 10.0, 10.0, 1.0],
                "learning_rate": 2e-4,
            },
        }

        segmentation: float = Field(1.0, ge=0)
        """Weight of L_seg."""
        class_weights: tuple[float, ...] | None = None
        """Weight of each class in plain cross-entropy, background first; left out: 1 each."""

    config: Config
    class_weights: Tensor

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        weights = config.class_weights or (1.0,) * task.classes
        if len(weights) != task.classes:
            raise ConfigError(
                f"alignment.class_weights: {len(weights)} weights for {task.classes} classes. Give one for the background "
                f"and each of {', '.join(task.organs)}."
            )
        self.register_buffer("class_weights", torch.tensor(weights))
        self.G_st, self.G_ts = build(config.translator), build(config.translator)
        self.D_s = build(config.image_discriminator, channels=task.channels)
        self.D_t = build(config.image_discriminator, channels=task.channels)
        self.pool_s, self.pool_t = ImagePool(config.pool), ImagePool(config.pool)
        self.S = build(config.segmentor)

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        translators = {"params": [*self.G_st.parameters(), *self.G_ts.parameters()], "lr": c.translate_learning_rate}
        groups = [translators, *segmentor_groups(self.S, c.learning_rate)]
        return {
            "G+S": Adam(groups, betas=(0.5, 0.999), fused=True),
            "D": adam([self.D_s, self.D_t], c.translate_learning_rate, (0.5, 0.999)),
        }

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return [
            Stage(
                "joint",
                self.joint,
                c.translate_steps,
                c.translate_batch_size,
                trains=("G+S", "D"),
                schedule=linear_after(0.5),
            )
        ]

    def joint(self, batch: Batch, update: Update) -> Losses:
        c, x_s, x_t = self.config, batch.x_s, batch.x_t
        x_st, x_ts = self.G_st(x_s), self.G_ts(x_t)

        L_gan = real(self.D_t(x_st), c.gan) + real(self.D_s(x_ts), c.gan)
        L_cyc = l1(self.G_ts(x_st), x_s) + l1(self.G_st(x_ts), x_t)
        L_idt = l1(self.G_ts(x_s), x_s) + l1(self.G_st(x_t), x_t)
        L_seg = supervised_loss(self.S(x_st), batch.y_s, c, self.class_weights)
        update("G+S", L_gan + c.cycle * L_cyc + c.identity * L_idt + c.segmentation * L_seg)

        x_st, x_ts = self.pool_t(x_st), self.pool_s(x_ts)
        L_D_s = (real(self.D_s(x_s), c.gan) + fake(self.D_s(x_ts), c.gan)) / 2
        L_D_t = (real(self.D_t(x_t), c.gan) + fake(self.D_t(x_st), c.gan)) / 2
        update("D", L_D_s + L_D_t)
        return {"L_gan": L_gan, "L_cyc": L_cyc, "L_idt": L_idt, "L_seg": L_seg, "L_D_s": L_D_s, "L_D_t": L_D_t}

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
