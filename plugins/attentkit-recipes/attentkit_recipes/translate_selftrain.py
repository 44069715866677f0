"""Translate, then self-train: source images in target style and a mean teacher's labels of target images, filtered.

What the strongest recipes of cross-modality challenges share (crossMoDA 2021, Dorent et al., Medical Image Analysis 2023; Task 3
of FLARE 2024): translate labelled source images to target style, train on them, label the target, keep the labels that are
certain, train on both. Here the rounds are one mean teacher (Tarvainen and Valpola, NeurIPS 2017), with class mixing (DACS,
Tranheden et al., WACV 2021) and masked-image consistency (MIC, Hoyer et al., CVPR 2023).

Pixel space: CycleGAN.
    L_gan = (D_t(G_st(x_s)) - 1)^2 + (D_s(G_ts(x_t)) - 1)^2
    L_cyc = |G_ts(G_st(x_s)) - x_s| + |G_st(G_ts(x_t)) - x_t|
    L_idt = |G_ts(x_s) - x_s| + |G_st(x_t) - x_t|
    L_G   = L_gan + 10 L_cyc + 5 L_idt
    L_D   = ((D(real) - 1)^2 + D(fake)^2) / 2                            each discriminator, fakes from a history of 50

Self-training: T follows S.
    T     <- a T + (1 - a) S,  a = min(1 - 1 / (step + 1), 0.99)         teacher, no gradient
    p_t   = mean over two views of softmax T(v x_t)                      v changes brightness and contrast
    y_t   = argmax p_t where its entropy / log K < 0.5, else unknown
    x_m   = half of the classes of x_st pasted onto x_t, y_m likewise    x_st = G_st(x_s)
    L_seg = CE(S(g x_st), y_s)                                           g paints with a random network (GIN) where asked to
    L_mix = CE(S(v x_m), y_m)
    L_msk = CE(S(M v x_t), y_t)                                          M blanks half of the blocks
    L     = L_seg + r (L_mix + L_msk),  r = exp(-5 (1 - step / ramp)^2)  ramp: the first fifth of the stage
    answer T(x_t)

Each CE stands for the segmentation loss of all rows, Dice beside it where the option says so; what is unknown counts nowhere.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.contrast import patch_heads, translate_by_contrast
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.mixing import blocks, half_of_the_classes, jittered, painted
from attent_kit.objectives import IGNORE, Gan, certain_labels, class_of, fake, l1, labels_where, real
from attent_kit.options import (
    ContrastOptions,
    SegmentOptions,
    adam,
    labels_as_asked,
    segment_schedule,
    segmentor_optimizer,
    supervised_loss,
    translation_recipe,
)
from attent_kit.schedules import linear_after
from attent_kit.teacher import mean_teacher, rise, teach


class TranslateSelfTraining(Alignment):
    """Source images in target style, then a mean teacher whose certain labels of target images train its student."""

    paper = "Dorent et al., MedIA 2023 (recipe of challenges)"
    aligns = "pixels: source images to target style; then answers about the target with those of a mean teacher"
    takes_partial_labels = True
    predicts_with = "T"
    terms = {
        "translation": {"translated": False},
        "mixing": {"mixed": 0.0},
        "masking": {"masked": 0.0},
        "filter": {"certain": 1.0},
    }
    bibtex = """@article{dorent2023crossmoda,
  title = {{CrossMoDA} 2021 challenge: Benchmark of cross-modality domain adaptation techniques for vestibular schwannoma and
    cochlea segmentation},
  author = {Dorent, Reuben and Kujawa, Aaron and Ivory, Marina and others},
  journal = {Medical Image Analysis},
  volume = {83},
  year = {2023}
}

@inproceedings{tarvainen2017mean,
  title = {Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised deep learning
    results},
  author = {Tarvainen, Antti and Valpola, Harri},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017}
}

@inproceedings{hoyer2023mic,
  title = {{MIC}: Masked image consistency for context-enhanced domain adaptation},
  author = {Hoyer, Lukas and Dai, Dengxin and Wang, Haoran and Van Gool, Luc},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2023}
}"""

    class Config(ContrastOptions, SegmentOptions):
        """Options of the translation stage, of the teacher, of mixing and of masking, besides those of the segmentor."""

        translated: bool = True
        """Whether the segmentor sees G_st(x_s); if not, it sees x_s, and no translator is trained."""
        momentum_of_teacher: float = Field(0.99, ge=0, lt=1)
        """a, the fraction of the teacher that stays at each step."""
        certain: float = Field(0.5, ge=0, le=1)
        """Entropy of the teacher's answer, 1 for uniform, up to which its label counts."""
        ramp: float = Field(0.2, ge=0, le=1)
        """Fraction of the stage in which r rises to 1."""
        mixed: float = Field(1.0, ge=0)
        """Weight of L_mix."""
        masked: float = Field(1.0, ge=0)
        """Weight of L_msk."""
        mask_ratio: float = Field(0.5, ge=0, le=1)
        """Fraction of the blocks that M blanks."""
        mask_block: int = Field(32, ge=1)
        """Side of a block in pixels; MIC has 64 on slices four times as large."""
        painted: int = Field(0, ge=0)
        """Convolutions of the random network that paints x_st (Ouyang et al., TMI 2022, have 4); 0 leaves x_st as it is."""
        jitter: float = Field(0.2, ge=0)
        """Largest change of brightness, and of contrast as a part of it, of a view."""

    config: Config
    step: Tensor

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.capturable = not config.painted  # random networks, whose kernels a coin on the host decides
        if config.translated:
            self.G_st, self.G_ts = build(config.translator), build(config.translator)
            self.D_s = build(config.image_discriminator, channels=task.channels)
            self.D_t = build(config.image_discriminator, channels=task.channels)
            self.H_st, self.H_ts = patch_heads(config, self.G_st, self.G_ts)
            self.pool_s, self.pool_t = ImagePool(config.pool), ImagePool(config.pool)
        self.S = build(config.segmentor)
        self.T = mean_teacher(self.S)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        S = {"S": segmentor_optimizer(self.S, c)}
        if not c.translated:
            return S
        return {
            "G": adam([self.G_st, self.G_ts, self.H_st, self.H_ts], c.translate_learning_rate, (0.5, 0.999)),
            "D": adam([self.D_s, self.D_t], c.translate_learning_rate, (0.5, 0.999)),
            **S,
        }

    def stages(self) -> Sequence[Stage]:
        c = self.config
        translate = Stage(
            "translate", self.translate, c.translate_steps, c.translate_batch_size, trains=("G", "D"),
            schedule=linear_after(0.5), recipe=translation_recipe(c),
        )  # fmt: skip
        segment = Stage(
            "segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S",), schedule=segment_schedule(c)
        )
        return [translate, segment] if c.translated else [segment]

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
        c, x_t = self.config, batch.x_t
        y_s = labels_as_asked(batch.y_s, c)
        teach(self.T, self.S, self.step, c.momentum_of_teacher)
        with torch.no_grad():
            x_st = self.G_st(batch.x_s) if c.translated else batch.x_s
            y_t = self.label(x_t)
            paste = half_of_the_classes(class_of(y_s), self.task.classes)
            x_m, y_m = torch.where(paste.unsqueeze(1), x_st, x_t), labels_where(paste, y_s, y_t)
            x_p = painted(x_st, c.painted, 2) if c.painted else x_st
            x_k = jittered(x_t, c.jitter)
            x_k = torch.where(blocks(x_k, c.mask_block, c.mask_ratio), -1.0, x_k)
            r = rise(self.step / max(c.ramp * c.segment_steps, 1))

        L_seg = supervised_loss(self.S(x_p), y_s, c)
        L_mix = supervised_loss(self.S(jittered(x_m, c.jitter)), y_m, c)
        L_msk = supervised_loss(self.S(x_k), y_t, c)
        update("S", L_seg + r * (c.mixed * L_mix + c.masked * L_msk))
        return {"L_seg": L_seg, "L_mix": L_mix, "L_msk": L_msk, "certain": (y_t != IGNORE).float().mean()}

    def label(self, x_t: Tensor) -> Tensor:
        """The teacher's labels of [B, C, H, W]: [B, H, W] int64, IGNORE where it is not certain."""
        c = self.config
        p_t = (
            self.T(jittered(x_t, c.jitter)).logits.softmax(1) + self.T(jittered(x_t, c.jitter)).logits.softmax(1)
        ) / 2
        return certain_labels(p_t, c.certain)

    def predict(self, x_t: Tensor) -> Tensor:
        return self.T(x_t).logits

    def as_source(self, x_t: Tensor) -> Tensor | None:
        return self.G_ts(x_t) if self.config.translated else None

    def as_target(self, x_s: Tensor) -> Tensor | None:
        return self.G_st(x_s) if self.config.translated else None

    def as_seen(self, x_s: Tensor) -> Tensor | None:
        return self.G_st(x_s) if self.config.translated else x_s

    def discriminator_losses(self) -> dict[str, Gan]:
        return {"L_D_s": self.config.gan, "L_D_t": self.config.gan} if self.config.translated else {}
