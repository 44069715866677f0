"""Both styles: one segmentor sees source and target slices in either style; what its teacher says of both is the answer.

AttENT asks a segmentor of source style about translated target slices, CycleGAN one of target style about the slices as they
are. Each errs where its translation does, one on the way there, the other on the way back. Here one network learns both and
their mean answers: the combination of this project's parts that came out best on the phantom, see `docs/best.md` of this
plugin.

Pixel space: CycleGAN with the attention-gated translators of AttENT.
    L_gan = (D_t(G_st(x_s)) - 1)^2 + (D_s(G_ts(x_t)) - 1)^2
    L_cyc = |G_ts(G_st(x_s)) - x_s| + |G_st(G_ts(x_t)) - x_t|
    L_idt = |G_ts(x_s) - x_s| + |G_st(x_t) - x_t|
    L_G   = L_gan + 10 L_cyc + 5 L_idt
    L_D   = ((D(real) - 1)^2 + D(fake)^2) / 2                            each discriminator, fakes from a history of 50

Both styles: T follows S, x_st = G_st(x_s), x_ts = G_ts(x_t).
    T     <- a T + (1 - a) S,  a = min(1 - 1 / (step + 1), 0.99)         teacher, no gradient
    p_t   = (softmax T(x_t) + softmax T(x_ts)) / 2
    y_t   = argmax p_t where its entropy / log K < 0.5, else unknown
    L_seg = CE(S(v x), y_s),    x is x_s or x_st, a coin for each slice  v changes brightness and contrast
    L_con = CE(S(v x'), y_t),   x' is x_t or x_ts
    L     = L_seg + r L_con,    r = exp(-5 (1 - step / steps)^2)         the weight of Laine and Aila, over the whole stage
    answer p_t

Each CE stands for the segmentation loss of all rows, Dice beside it where the option says so; what is unknown counts nowhere.
S sees both halves in one pass, so that a norm over the batch knows both domains.
Mean teacher: Tarvainen and Valpola, NeurIPS 2017. Cycle and gate: Zhu et al., ICCV 2017; Li et al., BIBM 2021.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.contrast import patch_heads, translate_by_contrast
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import Alignment, Batch, Build, Losses, Segmentation, Stage, Task, Translator, Update
from attent_kit.mixing import jittered
from attent_kit.objectives import IGNORE, Gan, certain_labels, fake, l1, real
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
from attent_kit.teacher import mean_teacher, rise, teach


class BothStyles(Alignment):
    """One segmentor of both styles, whose mean teacher labels the target by what it says of a slice in either."""

    paper = "this project (docs/best.md), after Tarvainen and Valpola, NeurIPS 2017"
    aligns = "pixels, both ways; then a teacher's answers about the target in both styles"
    takes_partial_labels = True
    terms = {
        "source style": {"source_style": 0.0},
        "attention gate": {"translator": {"gate": "none"}},
        "self-training": {"consistency": 0.0},
        "filter": {"certain": 1.0},
    }
    bibtex = """@inproceedings{tarvainen2017mean,
  title = {Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised deep learning
    results},
  author = {Tarvainen, Antti and Valpola, Harri},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017}
}

@inproceedings{laine2017temporal,
  title = {Temporal ensembling for semi-supervised learning},
  author = {Laine, Samuli and Aila, Timo},
  booktitle = {International Conference on Learning Representations},
  year = {2017}
}"""

    class Config(ContrastOptions, SegmentOptions):
        """Options of the translation stage and of the teacher, besides those of the segmentor."""

        translator: Choice[Translator] = Choice("attention")
        """Network of both translators."""
        source_style: float = Field(0.5, ge=0, le=1)
        """Part of the slices that S sees in source style; with 0 source style is left out of the answer, too."""
        momentum_of_teacher: float = Field(0.99, ge=0, lt=1)
        """a, the fraction of the teacher that stays at each step."""
        certain: float = Field(0.5, ge=0, le=1)
        """Entropy of p_t, 1 for uniform, up to which its label counts."""
        consistency: float = Field(1.0, ge=0)
        """Weight of L_con at the end of the stage."""
        jitter: float = Field(0.2, ge=0)
        """Largest change of brightness, and of contrast as a part of it, of a view."""

    config: Config
    step: Tensor

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
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
        return {
            "G": adam([self.G_st, self.G_ts, self.H_st, self.H_ts], c.translate_learning_rate, (0.5, 0.999)),
            "D": adam([self.D_s, self.D_t], c.translate_learning_rate, (0.5, 0.999)),
            "S": segmentor_optimizer(self.S, c),
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
        return [translate, segment]

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
        c, x_s, x_t = self.config, batch.x_s, batch.x_t
        teach(self.T, self.S, self.step, c.momentum_of_teacher)
        with torch.no_grad():
            styles = self.styles(x_t)
            y_t = certain_labels(self.p(*styles), c.certain)
            x = torch.where(self.coins(x_s), x_s, self.G_st(x_s))
            x_ = torch.where(self.coins(x_t), styles[-1], x_t)
            r = rise(self.step / max(c.segment_steps, 1))

        s, t = halves(self.S(jittered(torch.cat([x, x_]), c.jitter)))
        L_seg, L_con = supervised_loss(s, batch.y_s, c), supervised_loss(t, y_t, c)
        update("S", L_seg + r * c.consistency * L_con)
        return {"L_seg": L_seg, "L_con": L_con, "certain": (y_t != IGNORE).float().mean()}

    def coins(self, x: Tensor) -> Tensor:
        """Which slices of [B, C, H, W] are seen in source style: [B, 1, 1, 1] bool."""
        return torch.rand(len(x), 1, 1, 1, device=x.device) < self.config.source_style

    def styles(self, x_t: Tensor) -> tuple[Tensor, ...]:
        """Target slices [B, C, H, W] as they are and, unless that is left out, in source style."""
        return (x_t, self.G_ts(x_t)) if self.config.source_style else (x_t,)

    def p(self, *styles: Tensor) -> Tensor:
        """What the teacher says of slices [B, C, H, W] in these styles, on average: [B, K, H, W], sums to 1 over K."""
        return torch.stack([self.T(x).logits.softmax(1) for x in styles]).mean(0)

    def predict(self, x_t: Tensor) -> Tensor:
        return self.p(*self.styles(x_t)).clamp(min=1e-8).log()

    def as_source(self, x_t: Tensor) -> Tensor:
        return self.G_ts(x_t)

    def as_target(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def as_seen(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def discriminator_losses(self) -> dict[str, Gan]:
        return {"L_D_s": self.config.gan, "L_D_t": self.config.gan}


def halves(both: Segmentation) -> tuple[Segmentation, Segmentation]:
    """A segmentor's answers about the first and the second half of a batch."""
    first, second = zip(*((None, None) if v is None else v.chunk(2) for v in both), strict=True)
    return Segmentation(*first), Segmentation(*second)
