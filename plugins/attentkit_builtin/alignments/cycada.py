"""CyCADA: translation that keeps what a source network sees, then alignment of class scores or features.

Hoffman, Tzeng, Park, Zhu, Isola, Saenko, Efros, Darrell. CyCADA: cycle-consistent adversarial domain adaptation. ICML 2018.

    source     L_src = CE(F(x_s), y_s)                                   F stays as it is from here on
    translate  L_G   = L_gan + 10 L_cyc + 5 L_idt + 1 L_sem              L_gan, L_cyc, L_idt, L_D as in CycleGAN
               L_sem = CE(F(G_st(x_s)), y_s) + CE(F(G_ts(x_t)), argmax F(x_t))      while CE(F(x_s), y_s) <= 1
    segment    L_seg = CE(S(G_st(x_s)), y_s)
    adapt      L_dis = BCE(D_F(f(G_st(x_s))), 1) / 2 + BCE(D_F(f(x_t)), 0) / 2      f: class scores or features of S
               L_adv = BCE(D_F(f(x_t)), 1)                               S, then L_seg once more, both only while D_F was
                                                                         right at more than 60 % of the last 100 batches' pixels
    answer S(x_t)

Each gate stays on the device, so the CPU never waits for it. The paper writes argmax F(x_s) where L_sem has y_s here, as the
re-implementation in TLL does. The authors leave L_sem out of their own segmentation runs, for memory: `semantic = 0`
skips it with its source network. `adversary = "none"` skips the last stage. Their segmentors, FCN8s and DRN-26, are
replaced by the one of choice. They adapt with a fresh optimizer; here that of the segmentation stage goes on, at a lower
rate. A closed gate holds the weights; BatchNorm, which the authors' FCN8s does not have, still sees the target in this stage.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import Alignment, Batch, Build, Discriminator, Losses, Segmentation, Stage, Task, Update
from attent_kit.objectives import Gan, cross_entropy, fake, l1, real
from attent_kit.options import (
    SegmentOptions,
    TranslateOptions,
    adam,
    labels_as_asked,
    segment_schedule,
    segmentor_optimizer,
    supervised_loss,
    translation_recipe,
)
from attent_kit.schedules import constant, linear_after, scaled
from attentkit_builtin.citations import CYCADA

BATCHES_REMEMBERED = 100


class CyCADA(Alignment):
    """Semantically consistent translation, then adversarial alignment of scores or features (CyCADA)."""

    paper = "Hoffman et al., ICML 2018"
    bibtex = CYCADA
    aligns = "pixels, source to target, keeping what a source network sees; then class scores or features"
    takes_partial_labels = True
    predicts_with = "S"
    terms = {
        "cycle": {"cycle": 0.0},
        "identity": {"identity": 0.0},
        "semantic consistency": {"semantic": 0.0},
        "score or feature alignment": {"adversary": "none"},
    }

    class Config(TranslateOptions, SegmentOptions):
        """Options of the source network, the translation, the segmentor and the discriminator."""

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
                "semantic": 1.0,
                "adversary": "score",
            },
            "authors-code": {
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
                "optimizer": "sgd",
                "momentum": 0.99,
                "learning_rate": 1e-3,
                "betas": [0.9, 0.999],
                "weight_decay": 5e-4,
                "schedule": "constant",
                "segment_steps": 20_000,
                "segment_batch_size": 8,
                "semantic": 0.0,
                "adversary": "score",
                "adversarial": 0.1,
                "adapt_rate": 0.01,
                "discriminator_learning_rate": 1e-5,
                "adapt_steps": 100_000,
            },
        }

        semantic: float = Field(1.0, ge=0)
        """Weight of L_sem; 0 leaves it out, and the stage that trains its source network."""
        semantic_gate: float = Field(1.0, ge=0)
        """L_sem counts in batches where the cross-entropy of the source network is no higher."""
        adversary: Literal["score", "features", "none"] = "score"
        """What the last stage aligns: class scores (authors' scripts), the segmentor's deepest features, or nothing."""
        feature_discriminator: Choice[Discriminator] = Choice("pixel")
        """Network that tells scores or features of the two domains apart."""
        adversarial: float = Field(0.1, ge=0)
        """Weight of L_adv."""
        accuracy_gate: float = Field(0.6, ge=0, le=1)
        """The segmentor is updated while the discriminator is right on more than this fraction of the pixels."""
        discriminator_learning_rate: float = Field(1e-4, gt=0)
        """Learning rate of the discriminator."""
        adapt_rate: float = Field(0.1, gt=0)
        """Learning rate of the segmentor in the last stage, as a fraction of `learning_rate`."""
        adapt_steps: int = Field(5_000, ge=1)
        """Steps of the last stage."""

    config: Config
    accuracies: Tensor
    judged: Tensor

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.G_st, self.G_ts = build(config.translator), build(config.translator)
        self.D_s = build(config.image_discriminator, channels=task.channels)
        self.D_t = build(config.image_discriminator, channels=task.channels)
        self.pool_s, self.pool_t = ImagePool(config.pool), ImagePool(config.pool)
        self.S = build(config.segmentor)
        if config.semantic:
            self.F = build(config.segmentor)
        if config.adversary != "none":
            channels = task.classes if config.adversary == "score" else self.S.feature_channels
            self.D_F = build(config.feature_discriminator, channels=channels)
            self.register_buffer("accuracies", torch.zeros(BATCHES_REMEMBERED))
            self.register_buffer("judged", torch.zeros((), dtype=torch.int64))

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        optimizers = {
            "G": adam([self.G_st, self.G_ts], c.translate_learning_rate, (0.5, 0.999)),
            "D": adam([self.D_s, self.D_t], c.translate_learning_rate, (0.5, 0.999)),
            "S": segmentor_optimizer(self.S, c),
        }
        if c.semantic:
            optimizers["F"] = segmentor_optimizer(self.F, c)
        if c.adversary != "none":
            optimizers["D_F"] = adam([self.D_F], c.discriminator_learning_rate, (0.9, 0.99))
        return optimizers

    def stages(self) -> Sequence[Stage]:
        c, n, b = self.config, self.config.segment_steps, self.config.segment_batch_size
        source = Stage("source", self.source, n, b, trains=("F",), schedule=segment_schedule(c))
        translate = Stage(
            "translate", self.translate, c.translate_steps, c.translate_batch_size, trains=("G", "D"),
            schedule=linear_after(0.5), recipe=None if c.semantic else translation_recipe(c),
        )  # fmt: skip
        segment = Stage("segment", self.segment, n, b, trains=("S",), schedule=segment_schedule(c))
        adapt = Stage(
            "adapt", self.adapt, c.adapt_steps, b, trains=("S", "D_F"),
            schedule={"S": scaled(constant, c.adapt_rate), "D_F": constant},
        )  # fmt: skip
        return [*([source] if c.semantic else []), translate, segment, *([adapt] if c.adversary != "none" else [])]

    def source(self, batch: Batch, update: Update) -> Losses:
        L_src = supervised_loss(self.F(batch.x_s), batch.y_s, self.config)
        update("F", L_src)
        return {"L_src": L_src}

    def translate(self, batch: Batch, update: Update) -> Losses:
        c, x_s, x_t = self.config, batch.x_s, batch.x_t
        x_st, x_ts = self.G_st(x_s), self.G_ts(x_t)

        L_gan = real(self.D_t(x_st), c.gan) + real(self.D_s(x_ts), c.gan)
        L_cyc = l1(self.G_ts(x_st), x_s) + l1(self.G_st(x_ts), x_t)
        L_idt = l1(self.G_ts(x_s), x_s) + l1(self.G_st(x_t), x_t)
        L_G = L_gan + c.cycle * L_cyc + c.identity * L_idt
        losses = {"L_gan": L_gan, "L_cyc": L_cyc, "L_idt": L_idt}
        if c.semantic:
            losses["L_sem"] = self.semantic_loss(batch, x_st, x_ts)
            L_G = L_G + c.semantic * losses["L_sem"]
        update("G", L_G)

        x_st, x_ts = self.pool_t(x_st), self.pool_s(x_ts)
        L_D_s = (real(self.D_s(x_s), c.gan) + fake(self.D_s(x_ts), c.gan)) / 2
        L_D_t = (real(self.D_t(x_t), c.gan) + fake(self.D_t(x_st), c.gan)) / 2
        update("D", L_D_s + L_D_t)
        return {**losses, "L_D_s": L_D_s, "L_D_t": L_D_t}

    def semantic_loss(self, batch: Batch, x_st: Tensor, x_ts: Tensor) -> Tensor:
        """L_sem, or 0 if the source network is not good enough on this batch to be trusted."""
        y_s = labels_as_asked(batch.y_s, self.config)
        with torch.no_grad():
            y_t = self.F(batch.x_t).logits.argmax(1)
            good = cross_entropy(self.F(batch.x_s).logits, y_s) <= self.config.semantic_gate
        L_sem = cross_entropy(self.F(x_st).logits, y_s) + cross_entropy(self.F(x_ts).logits, y_t)
        return torch.where(good, L_sem, torch.zeros_like(L_sem))

    def segment(self, batch: Batch, update: Update) -> Losses:
        with torch.no_grad():
            x_st = self.G_st(batch.x_s)
        L_seg = supervised_loss(self.S(x_st), batch.y_s, self.config)
        update("S", L_seg)
        return {"L_seg": L_seg}

    def f(self, output: Segmentation) -> Tensor:
        """What is aligned, [B, K, H, W] or [B, F, h, w]."""
        return output.logits if self.config.adversary == "score" else output.features

    def adapt(self, batch: Batch, update: Update) -> Losses:
        c = self.config
        with torch.no_grad():
            x_st = self.G_st(batch.x_s)
            f_s = self.f(self.S(x_st))
        f_t = self.f(self.S(batch.x_t))

        d_s, d_t = self.D_F(f_s), self.D_F(f_t.detach())
        L_dis = (real(d_s) + fake(d_t)) / 2
        update("D_F", L_dis)

        accuracy = self.domain_accuracy(d_s, d_t)
        sees = accuracy > c.accuracy_gate
        L_adv = real(self.D_F(f_t))
        update("S", c.adversarial * L_adv, when=sees)
        L_seg = supervised_loss(self.S(x_st), batch.y_s, c)
        update("S", L_seg, when=sees)
        return {"L_dis": L_dis, "L_adv": L_adv, "L_seg": L_seg, "accuracy": accuracy}

    @torch.no_grad()
    def domain_accuracy(self, d_s: Tensor, d_t: Tensor) -> Tensor:
        """Fraction of pixels that the discriminator got right, over this and the 99 batches before: scalar in [0, 1]."""
        now = ((d_s > 0).float().mean() + (d_t < 0).float().mean()) / 2
        self.accuracies.index_copy_(0, (self.judged % BATCHES_REMEMBERED).view(1), now.view(1))
        self.judged += 1
        return self.accuracies.sum() / self.judged.clamp(max=BATCHES_REMEMBERED)

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def as_source(self, x_t: Tensor) -> Tensor:
        return self.G_ts(x_t)

    def as_target(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def as_seen(self, x_s: Tensor) -> Tensor:
        return self.G_st(x_s)

    def discriminator_losses(self) -> dict[str, Gan]:
        losses: dict[str, Gan] = {"L_D_s": self.config.gan, "L_D_t": self.config.gan}
        return losses if self.config.adversary == "none" else {**losses, "L_dis": "bce"}
