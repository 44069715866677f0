"""SIFA: image and feature alignment around one shared encoder.

Chen, Dou, Chen, Qin, Heng. Synergistic image and feature adaptation. AAAI 2019 ("v1").
Chen, Dou, Chen, Qin, Heng. Unsupervised bidirectional cross-modality adaptation via deeply synergistic image and feature
alignment for medical image segmentation. IEEE TMI 2020 ("v2").

S is encoder and classifier in one: its features are the latent from which U, with the image at hand, paints source style.
    x_st  = G(x_s)        x_ts  = U(S(x_t), x_t)                         to target style; to source style
    x_sts = U(S(x_st), x_st)      x_tst = G(x_ts)                        and back
    L_cyc = |x_sts - x_s| + |x_tst - x_t|
    L_seg = CE(S(x_st), y_s) + Dice(S(x_st), y_s) + .1 (the same of the low-level head)          v1: the main head alone
Discriminators, with h(d) = (d - 1)^2 to look real: D_t on images; D_s on images with a second answer d' that tells x_sts
from x_ts, both made from features; D_p on logits of x_st and x_t; D_ll on those of the low-level head (v2 alone).

One step is five updates, each with the networks as the one before left them:
    1. G     h(D_t(x_st)) + 10 L_cyc
    2. D_t   x_t against x_st
    3. S     L_seg + .1 (h(D_s(x_ts)) + 10 L_cyc) + .1 h(D_p(S(x_t))) + .01 h(D_ll(S(x_t))) + .1 h(D_s'(x_ts)) + 1e-4 |S|^2 / 2
    4. U     h(D_s(x_ts)) + 10 L_cyc
    5. D     D_s: x_s against x_ts and, d', x_sts against x_ts; D_p, D_ll: x_st against x_t
Fakes for D_t and D_s come from a history of 50. The authors run seven sessions, each with a forward of its own; the last
three change discriminators alone, so they share one here: same gradients, one update. Their history holds batches, ours images.

In v1 the weight of D_p is 0 for the first quarter, then rises in two steps, and the rate of S falls by a tenth every tenth of
training. Their code is fed 2e-4 as the rate of S where the settings say 1e-3, and drops a quarter of U's activations always:
`preset = "authors-code"`. By default all rates fall to 0 in the second half, since the last checkpoint is the one that counts;
`schedule = "published"` keeps them.

Any segmentor can be the shared encoder: `segmentor = "smp"`. "sifa" is the published one.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from attent_kit.config import Choice
from attent_kit.errors import ConfigError
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import (
    Alignment,
    Batch,
    Build,
    Discriminator,
    Losses,
    Segmentation,
    Segmentor,
    Stage,
    Task,
    Translator,
    Update,
)
from attent_kit.objectives import Gan, fake, l1, real
from attent_kit.options import SegmentorOptions, adam, segmentor_groups, supervised_loss
from attent_kit.schedules import constant, linear_after, steps_down
from attentkit_builtin.citations import SIFA_V1, SIFA_V2, cite
from attentkit_builtin.networks.sifa import SifaDecoder


class SIFA(Alignment):
    """Image and feature alignment around one shared encoder (SIFA v1 and v2)."""

    paper = "Chen et al., AAAI 2019 (v1), TMI 2020 (v2)"
    bibtex = cite(SIFA_V1, SIFA_V2)
    aligns = "pixels, both ways; outputs, at two levels in v2; features, through images made of them"
    takes_partial_labels = True
    backbones = "any segmentor; v2 needs an auxiliary head"
    predicts_with = "S"
    terms = {
        "cycle": {"cycle": 0.0},
        "output alignment": {"output_adversarial": 0.0, "low_level_adversarial": 0.0},
        "feature alignment": {"feature_adversarial": 0.0},
    }

    class Config(SegmentorOptions):
        """Options of all networks and of their one stage."""

        presets = {
            "paper": {
                # Settings and code of the authors: Chen et al. 2020.
                "translator": {"name": "sifa", "width": 32, "blocks": 9},
                "segmentor": {"name": "sifa", "width": 16, "stride": 8},
                "image_discriminator": {"name": "patch", "width": 64, "padding": 2},
                "output_discriminator": {"name": "patch", "width": 64, "padding": 2},
                "schedule": "published",
                "learning_rate": 1e-3,
                "translate_learning_rate": 2e-4,
                "steps": 20_000,
                "batch_size": 8,
            },
            "authors-code": {
                # Settings and code of the authors: Chen et al. 2020.
                "translator": {"name": "sifa", "width": 32, "blocks": 9},
                "segmentor": {"name": "sifa", "width": 16, "stride": 8},
                "image_discriminator": {"name": "patch", "width": 64, "padding": 2},
                "output_discriminator": {"name": "patch", "width": 64, "padding": 2},
                "schedule": "published",
                "learning_rate": 2e-4,
                "translate_learning_rate": 2e-4,
                "steps": 20_000,
                "batch_size": 8,
                "decoder_dropout": 0.25,
            },
            "paper-v1": {
                "version": "v1",
                # Settings and code of the authors: Chen et al. 2020.
                "translator": {"name": "sifa", "width": 32, "blocks": 9},
                "segmentor": {"name": "sifa", "width": 16, "stride": 8, "dropout": 0.25, "auxiliary": False},
                "image_discriminator": {"name": "patch", "width": 64, "padding": 2},
                "output_discriminator": {"name": "patch", "width": 64, "padding": 2},
                "schedule": "published",
                "learning_rate": 1e-3,
                "translate_learning_rate": 2e-4,
                "steps": 20_000,
                "batch_size": 8,
                "decoder_dropout": 0.25,
            },
        }

        small = {"decoder_width": 4}

        version: Literal["v1", "v2"] = "v2"
        """v1: one head, weights that ramp up; v2: a low-level head with its own discriminator, deep supervision."""
        segmentor: Choice[Segmentor] = Choice("sifa")
        """Shared encoder with its classifier."""
        translator: Choice[Translator] = Choice("sifa")
        """Network G, source to target style."""
        image_discriminator: Choice[Discriminator] = Choice("patch", padding=2)
        """Network of D_t and D_s."""
        output_discriminator: Choice[Discriminator] = Choice("patch", padding=2)
        """Network of D_p and D_ll, which see logits."""
        cross_entropy: Literal["plain", "balanced"] = "balanced"
        """"plain" counts every pixel the same; "balanced" counts a pixel less, the more of the batch its class covers."""
        dice: float = Field(1.0, ge=0)
        """Weight of the Dice loss beside cross-entropy."""
        decoder_width: int = Field(32, ge=1)
        """Channels of U at full resolution; four times as many at the latent's."""
        decoder_dropout: float = Field(0.0, ge=0, lt=1)
        """Probability with which U drops an activation in training."""
        cycle: float = Field(10.0, ge=0)
        """Weight of L_cyc."""
        reconstruction: float = Field(0.1, ge=0)
        """Weight of U's own loss in the update of S."""
        output_adversarial: float = Field(0.1, ge=0)
        """Weight of D_p in the update of S."""
        low_level_adversarial: float = Field(0.01, ge=0)
        """Weight of D_ll in the update of S."""
        feature_adversarial: float = Field(0.1, ge=0)
        """Weight of the second answer of D_s in the update of S."""
        weight_decay: float = Field(1e-4, ge=0)
        """Weight of |S|^2 / 2."""
        pool: int = Field(50, ge=0)
        """Images in the history of D_t and in that of D_s."""
        learning_rate: float = Field(1e-3, gt=0)
        """Initial learning rate of S."""
        translate_learning_rate: float = Field(2e-4, gt=0)
        """Initial learning rate of G, U and the discriminators."""
        schedule: Literal["linear", "published"] = "linear"
        """All rates fall to 0 in the second half; or they stay, except that of S in v1, which falls by a tenth ten times."""
        steps: int = Field(20_000, ge=1)
        """Steps of training."""
        batch_size: int = Field(4, ge=1)
        """Slices of each domain in one step."""

    config: Config
    done: Tensor

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.two_levels = config.version == "v2"
        self.G = build(config.translator)
        self.S = build(config.segmentor)
        if self.two_levels and not self.S.has_auxiliary:
            raise ConfigError(
                f"alignment.segmentor: SIFA v2 needs a low-level head and '{config.segmentor.name}' has none as it is set. "
                f"Give it one (smp: segmentor.auxiliary=4; sifa: segmentor.auxiliary=true), or choose version = 'v1'."
            )
        self.U = SifaDecoder(
            self.S.feature_channels,
            task.channels,
            width=config.decoder_width,
            dropout=config.decoder_dropout,
            doublings=min(max(self.S.feature_stride.bit_length() - 1, 1), 3),
        )
        self.D_t = build(config.image_discriminator, channels=task.channels)
        self.D_s = build(config.image_discriminator, channels=task.channels, heads=2)
        self.D_p = build(config.output_discriminator, channels=task.classes)
        self.D_ll = build(config.output_discriminator, channels=task.classes) if self.two_levels else None
        self.pool_t, self.pool_s = ImagePool(config.pool), ImagePool(config.pool)
        self.register_buffer("done", torch.zeros(()))

    def optimizers(self) -> dict[str, Optimizer]:
        c, rate, betas = self.config, self.config.translate_learning_rate, (0.5, 0.999)
        discriminators: list[nn.Module] = [D for D in (self.D_s, self.D_p, self.D_ll) if D is not None]
        return {
            "G": adam([self.G], rate, betas),
            "D_t": adam([self.D_t], rate, betas),
            "S": Adam(segmentor_groups(self.S, c.learning_rate), weight_decay=c.weight_decay, fused=True),
            "U": adam([self.U], rate, betas),
            "D": adam(discriminators, rate, betas),
        }

    def stages(self) -> Sequence[Stage]:
        c, trains = self.config, ("G", "D_t", "S", "U", "D")
        schedule = dict.fromkeys(trains, linear_after(0.5) if c.schedule == "linear" else constant)
        if c.schedule == "published" and c.version == "v1":
            schedule["S"] = steps_down(0.9, 10)
        return [Stage("joint", self.joint, c.steps, c.batch_size, trains, schedule)]

    def joint(self, batch: Batch, update: Update) -> Losses:
        c, x_s, x_t = self.config, batch.x_s, batch.x_t

        # 1. G
        with torch.no_grad():
            x_ts = self.U(self.S(x_t).features, x_t)
        x_st = self.G(x_s)
        x_sts, x_tst = self.U(self.S(x_st).features, x_st), self.G(x_ts)
        L_G = real(self.D_t(x_st), "lsgan")
        update("G", L_G + c.cycle * (l1(x_sts, x_s) + l1(x_tst, x_t)))

        # 2. D_t
        L_D_t = (real(self.D_t(x_t), "lsgan") + fake(self.D_t(self.pool_t(x_st)), "lsgan")) / 2
        update("D_t", L_D_t)

        # 3. S
        with torch.no_grad():
            x_st = self.G(x_s)
        s, t = self.segmented(x_st), self.segmented(x_t)
        x_sts, x_ts = self.U(s.features, x_st), self.U(t.features, x_t)
        L_cyc = l1(x_sts, x_s) + l1(self.G(x_ts), x_t)
        d = self.D_s(x_ts)
        L_seg = supervised_loss(s, batch.y_s, c)
        L_U, L_feature = real(d[:, :1], "lsgan"), real(d[:, 1:], "lsgan")
        L_p = real(self.D_p(t.logits), "lsgan")
        L_S = L_seg + c.reconstruction * (L_U + c.cycle * L_cyc)
        L_S = L_S + c.output_adversarial * self.ramp() * L_p + c.feature_adversarial * L_feature
        if self.D_ll is not None:
            L_ll = real(self.D_ll(t.auxiliary), "lsgan")
            L_S = L_S + c.low_level_adversarial * L_ll
        update("S", L_S)

        # 4. U
        with torch.no_grad():
            s, t = self.segmented(x_st), self.segmented(x_t)
        x_sts, x_ts = self.U(s.features, x_st), self.U(t.features, x_t)
        L_cyc = l1(x_sts, x_s) + l1(self.G(x_ts), x_t)
        update("U", real(self.D_s(x_ts)[:, :1], "lsgan") + c.cycle * L_cyc)

        # 5. D
        with torch.no_grad():
            x_sts, x_ts = self.U(s.features, x_st), self.pool_s(x_ts)
        d_real, d_remade, d_fake = self.D_s(x_s), self.D_s(x_sts), self.D_s(x_ts)
        L_D_s = (real(d_real[:, :1], "lsgan") + fake(d_fake[:, :1], "lsgan")) / 2
        L_D_f = (real(d_remade[:, 1:], "lsgan") + fake(d_fake[:, 1:], "lsgan")) / 2
        L_D_p = (real(self.D_p(s.logits), "lsgan") + fake(self.D_p(t.logits), "lsgan")) / 2
        L_D = L_D_s + L_D_f + L_D_p
        if self.D_ll is not None:
            L_D_ll = (real(self.D_ll(s.auxiliary), "lsgan") + fake(self.D_ll(t.auxiliary), "lsgan")) / 2
            L_D = L_D + L_D_ll
        update("D", L_D)

        self.done += 1
        losses = {
            "L_seg": L_seg, "L_cyc": L_cyc, "L_G": L_G, "L_U": L_U, "L_p": L_p, "L_feature": L_feature,
            "L_D_t": L_D_t, "L_D_s": L_D_s, "L_D_f": L_D_f, "L_D_p": L_D_p,
        }  # fmt: skip
        return losses if self.D_ll is None else {**losses, "L_ll": L_ll, "L_D_ll": L_D_ll}

    def segmented(self, x: Tensor) -> Segmentation:
        """S(x), of which v1 has one head."""
        output = self.S(x)
        return output if self.two_levels else output._replace(auxiliary=None)

    def ramp(self) -> Tensor:
        """Fraction of D_p's weight that applies: 1 in v2; in v1 it is 0, 1/3, 2/3, 1 from epochs 0, 5, 6, 7 of 20 on. Scalar."""
        epoch = (20 * self.done / self.config.steps).floor()
        return ((epoch - 4) / 3).clamp(0, 1) if self.config.version == "v1" else torch.ones_like(epoch)

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def as_source(self, x_t: Tensor) -> Tensor:
        return self.U(self.S(x_t).features, x_t)

    def as_target(self, x_s: Tensor) -> Tensor:
        return self.G(x_s)

    def as_seen(self, x_s: Tensor) -> Tensor:
        return self.G(x_s)

    def discriminator_losses(self) -> dict[str, Gan]:
        names = ("L_D_t", "L_D_s", "L_D_f", "L_D_p", *(() if self.D_ll is None else ("L_D_ll",)))
        return dict.fromkeys(names, "lsgan")
