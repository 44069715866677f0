"""Feature alignment without an adversary: MMD or CORAL on the segmentor's deepest features.

MMD: Long et al., ICML 2015 (DAN), https://arxiv.org/abs/1502.02791; Gretton et al., JMLR 2012 for the estimate.
CORAL: Sun and Saenko, ECCV 2016 workshops, https://arxiv.org/abs/1607.01719.

f are feature vectors of positions drawn at random from the maps of a batch, n of each domain, d channels each.

    L_seg   = CE(S(x_s), y_s)
    L_mmd   = mean_{i != j} k(f_s^i, f_s^j) + mean_{i != j} k(f_t^i, f_t^j) - 2 mean_{i, j} k(f_s^i, f_t^j)
    k(a, b) = mean_m exp(-|a - b|^2 / (2^m w)), m = -2 ... 2, w the mean of |a - b|^2 over all pairs of the batch
    L_coral = |C_s - C_t|_F^2 / (4 d^2), C the covariance of f
    answer S(x_t)

DAN has these at fully connected layers of a classifier; a segmentor has a map, whose positions stand in for images.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.options import SegmentOptions, segment_schedule, segmentor_optimizer, supervised_loss

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of the kernels, as multiples of the mean squared distance."""


class MMD(Alignment):
    """Features of both domains get the same distribution (MMD) or the same covariance (CORAL), without an adversary."""

    paper = "Long et al., ICML 2015; Sun and Saenko, ECCV 2016 workshops"
    aligns = "the segmentor's deepest features, by a distance of distributions"
    takes_partial_labels = True
    predicts_with = "S"
    terms = {"distance": {"weight": 0.0}}
    bibtex = """@inproceedings{long2015dan,
  title = {Learning transferable features with deep adaptation networks},
  author = {Long, Mingsheng and Cao, Yue and Wang, Jianmin and Jordan, Michael I.},
  booktitle = {International Conference on Machine Learning (ICML)},
  year = {2015}
}

@inproceedings{sun2016coral,
  title = {Deep {CORAL}: Correlation alignment for deep domain adaptation},
  author = {Sun, Baochen and Saenko, Kate},
  booktitle = {European Conference on Computer Vision (ECCV) Workshops},
  year = {2016}
}"""

    class Config(SegmentOptions):
        """Options of the distance, besides those of the segmentor."""

        distance: Literal["mmd", "coral"] = "mmd"
        """Which distance between the two sets of features is minimised."""
        weight: float = Field(1.0, ge=0)
        """Weight of that distance."""
        positions: int = Field(512, ge=2)
        """Feature vectors of each domain that a step compares; fewer where the maps have fewer."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"S": segmentor_optimizer(self.S, self.config)}

    def stages(self) -> Sequence[Stage]:
        c = self.config
        schedule = segment_schedule(c)
        return [Stage("segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S",), schedule=schedule)]

    def segment(self, batch: Batch, update: Update) -> Losses:
        c = self.config
        s, t = self.S(batch.x_s), self.S(batch.x_t)
        f_s, f_t = drawn(s.features, c.positions), drawn(t.features, c.positions)

        L_seg = supervised_loss(s, batch.y_s, c)
        L_dist = mmd(f_s, f_t) if c.distance == "mmd" else coral(f_s, f_t)
        update("S", L_seg + c.weight * L_dist)
        return {"L_seg": L_seg, f"L_{c.distance}": L_dist}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits


def drawn(features: Tensor, count: int) -> Tensor:
    """`count` feature vectors at positions drawn without repetition, or all of them: [B, F, h, w] -> [n, F] float32."""
    f = features.float().movedim(1, -1).flatten(0, -2)
    return f if len(f) <= count else f[torch.randperm(len(f), device=f.device)[:count]]


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Squared MMD of two samples, [n, F] and [m, F], unbiased: it may be a little below 0."""
    aa, bb, ab = (
        torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() for x, y in ((a, a), (b, b), (a, b))
    )
    n, m = len(a), len(b)
    pairs = n * (n - 1) + m * (m - 1) + 2 * n * m
    w = ((aa.sum() + bb.sum() + 2 * ab.sum()) / pairs).detach().clamp(min=1e-12)
    k_aa, k_bb, k_ab = (
        sum((torch.exp(-d / (g * w)) for g in BANDWIDTHS), d.new_zeros(())) / len(BANDWIDTHS) for d in (aa, bb, ab)
    )
    # A vector paired with itself has k = 1 and does not count.
    return (k_aa.sum() - n) / (n * (n - 1)) + (k_bb.sum() - m) / (m * (m - 1)) - 2 * k_ab.mean()


def coral(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of the covariances of two samples, [n, F] and [m, F], over 4 F^2; in float32 also under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        return (a.T.cov() - b.T.cov()).square().sum() / (4 * a.shape[1] ** 2)
