"""Source-free adaptation by denoised pseudo-labels (DPL): a trained segmentor labels the target; what is doubtful is left out.

Chen, Liu, Jin, Dou, Heng. Source-free domain adaptive fundus image segmentation with denoised pseudo-labeling. MICCAI 2021.
https://arxiv.org/abs/2109.09735

T is the segmentor of a trained run and stays as it is; S starts from it. No source image is read.
    p_n  = softmax T(v_n x_t), n = 1 to N                      v_n changes brightness and contrast, and adds noise
    p    = mean of p_n,  y = argmax p,  u = std of p_n at y
    z_k  = mean of T(x_t) over pixels with y = k and u < eta, each weighted by p                    prototypes of a batch
    m    = 1 where u < eta and y is the class of the nearest z_k, else 0                            pixels whose label counts
    L    = CE(S(v x_t), y) where m = 1
    answer S(x_t)

CE stands for the segmentation loss of all rows, Dice beside it where the option says so. The paper's u comes from dropout, which
these segmentors lack; its prototypes lie in the last features of the decoder, of which the logits here are a linear map, and its
classes are sigmoids on their own, here one softmax. Since T never changes, the labels of a slice follow from its batch, and none
are stored.

With `label_every` S takes the place of T every so many steps and labels the whole target set, and those labels stay until the
next time: rounds of self-training (Zou et al., ECCV 2018, without their balance of classes).
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Adam, Optimizer

from attent_kit.interfaces import IGNORE, Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.options import SegmentorOptions, segmentor_groups, supervised_loss
from attent_kit.schedules import poly
from attent_kit.teacher import mean_teacher


class SourceFree(Alignment):
    """Source-free: a trained run's own labels of the target, denoised by uncertainty and prototypes, train it further."""

    paper = "Chen et al., MICCAI 2021"
    aligns = (
        "answers about the target with those labels of the run it starts from that are certain and near their prototype"
    )
    source_free = True
    predicts_with = "S"
    terms = {"uncertainty": {"uncertain": 1.0}, "prototypes": {"prototypes": False}}
    bibtex = """@inproceedings{chen2021sourcefree,
  title = {Source-free domain adaptive fundus image segmentation with denoised pseudo-labeling},
  author = {Chen, Cheng and Liu, Quande and Jin, Yueming and Dou, Qi and Heng, Pheng-Ann},
  booktitle = {Medical Image Computing and Computer Assisted Intervention (MICCAI)},
  year = {2021}
}"""

    class Config(SegmentorOptions):
        """Options of pseudo-labels and of training with them, besides those of the segmentor, which must be that of the run."""

        presets = {"paper": {"uncertain": 0.05, "views": 10, "adapt_batch_size": 8}}

        uncertain: float = Field(0.05, ge=0)
        """eta, the standard deviation of a label's probability from which on it does not count."""
        views: int = Field(4, ge=2)
        """N, views of a slice that are compared."""
        prototypes: bool = True
        """Whether a label counts only where its prototype is the nearest."""
        jitter: float = Field(0.2, ge=0)
        """Largest change of brightness, and of contrast as a part of it, of a view."""
        noise: float = Field(0.05, ge=0)
        """Standard deviation of the noise of a view."""
        slower: float = Field(0.1, gt=0, le=1)
        """Part of `learning_rate` that S goes on with; it falls as poly 0.9."""
        adapt_steps: int = Field(2000, ge=1)
        """Steps."""
        label_every: int = Field(0, ge=0)
        """Steps from one labelling of the whole target set to the next; 0 lets the run's segmentor label each batch."""
        adapt_batch_size: int = Field(8, ge=1)
        """Target slices in a step."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor)
        self.T = mean_teacher(self.S)

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        return {"S": Adam(segmentor_groups(self.S, c.slower * c.learning_rate), betas=(0.9, 0.99), fused=True)}

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return [
            Stage(
                "adapt", self.step, c.adapt_steps, c.adapt_batch_size, trains=("S",), schedule=poly(0.9),
                label=self.label_set if c.label_every else None, label_every=c.label_every,
            )
        ]  # fmt: skip

    def step(self, batch: Batch, update: Update) -> Losses:
        c, x_t = self.config, batch.x_t
        y = self.counted(x_t) if batch.pseudo_t is None else batch.pseudo_t
        L_pl = supervised_loss(self.S(view(x_t, c.jitter, c.noise)), y, c)
        update("S", L_pl)
        return {"L_pl": L_pl, "counted": (y != IGNORE).float().mean()}

    def label_set(self, slices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Labels of the whole target set by S as it is now: batches [B, C, H, W] -> [B, H, W] int64 each."""
        self.T.load_state_dict(self.S.state_dict())
        for x_t in slices:
            yield self.counted(x_t)

    def counted(self, x_t: Tensor) -> Tensor:
        """Labels of [B, C, H, W] by T, [B, H, W] int64, IGNORE where they do not count."""
        y, m = self.label(x_t)
        return y.masked_fill(~m, IGNORE)

    @torch.no_grad()
    def label(self, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """What T says of [B, C, H, W]: labels [B, H, W] int64, and where they count, [B, H, W] booleans."""
        c = self.config
        p_n = torch.stack([self.T(view(x_t, c.jitter, c.noise)).logits.float().softmax(1) for _ in range(c.views)])
        p, y = p_n.mean(0).max(1)
        u = p_n.std(0, correction=0).gather(1, y.unsqueeze(1)).squeeze(1)
        certain = u < c.uncertain if c.uncertain < 1 else torch.ones_like(u, dtype=torch.bool)
        if not c.prototypes:
            return y, certain
        return y, certain & (nearest(self.T(x_t).logits.float(), y, p * certain) == y)

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits


def nearest(features: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Class of the nearest prototype of each pixel; a prototype is the mean of its class, each pixel with its weight.

    [B, F, H, W], [B, H, W] int64 below F, [B, H, W] -> [B, H, W] int64. A class without weight has no prototype.
    """
    B, K, H, W = features.shape
    f = features.movedim(1, -1).reshape(-1, K)
    own = (labels.reshape(-1, 1) == torch.arange(K, device=f.device)) * weight.reshape(-1, 1)  # [N, K]
    total = own.sum(0)
    z = own.T @ f / total.clamp(min=1e-6).unsqueeze(1)
    apart = torch.cdist(f, z).masked_fill(total <= 0, float("inf"))
    return apart.argmin(1).view(B, H, W)


def view(x: Tensor, most: float, noise: float) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] with another contrast, 1 +- `most`, and brightness, +- `most`, drawn for each, and noise."""
    contrast, brightness = ((2 * torch.rand(2, len(x), 1, 1, 1, device=x.device) - 1) * most).unbind(0)
    return (x * (1 + contrast) + brightness + noise * torch.randn_like(x)).clamp(-1, 1)
