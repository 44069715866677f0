"""GIN: domain randomisation by random shallow intensity networks, without any target image.

Ouyang et al. Causality-inspired single-source domain generalization for medical image segmentation. IEEE TMI 2022.
https://arxiv.org/abs/2111.12525. SLAug builds on it (Su et al., AAAI 2023).

The segmentor sees each source slice as painted by two random networks, and must give both the same answer. It is the baseline
that every method with target images should beat.

    g(x)  = a net(x) + (1 - a) x, rescaled to the norm of x             a ~ U(0, 1); net: 4 convolutions of random weights,
                                                                        kernels 1 or 3 wide, leaky ReLU between them
    x_1   = m g_1(x) + (1 - m) g_2(x), x_2 = (1 - m) g_1(x) + m g_2(x)  m: a smooth random map (IPA), or m = 1
    L_seg = (CE(S(x_1), y) + CE(S(x_2), y)) / 2
    L_con = (KL(p || p_1) + KL(p || p_2)) / 2, p = (p_1 + p_2) / 2 without gradient
    L     = L_seg + 10 L_con
    answer S(x_t)

The divergence of the two answers from their mean stands for the paper's, whose code also stops the gradient of one side;
its maps m are cubic splines of random control points, here bicubic upsampling of such points, trilinear in volumes.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.mixing import mixing_map, painted
from attent_kit.options import SegmentOptions, segment_schedule, segmentor_optimizer, supervised_loss


class GIN(Alignment):
    """Source slices painted by random shallow networks; no target image is used."""

    paper = "Ouyang et al., TMI 2022"
    aligns = "nothing: random appearances of the source, no target image"
    dims = (2, 3)
    takes_partial_labels = True
    predicts_with = "S"
    uses_target_images = False
    capturable = False  # a coin on the host decides how wide the kernels of a step are
    terms = {"consistency": {"consistency": 0.0}, "mixing": {"control_points": 0}}
    bibtex = """@article{ouyang2022causality,
  title = {Causality-inspired single-source domain generalization for medical image segmentation},
  author = {Ouyang, Cheng and Chen, Chen and Li, Surui and Li, Zeju and Qin, Chen and Bai, Wenjia and Rueckert, Daniel},
  journal = {IEEE Transactions on Medical Imaging},
  year = {2022}
}"""

    class Config(SegmentOptions):
        """Options of the random networks, besides those of the segmentor."""

        layers: int = Field(4, ge=1)
        """Convolutions of a random network."""
        channels: int = Field(2, ge=1)
        """Channels between them."""
        consistency: float = Field(10.0, ge=0)
        """Weight of L_con."""
        control_points: int = Field(4, ge=0)
        """Random points along each side of a mixing map (IPA); 0 does not mix."""

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
        c, x = self.config, batch.x_s
        x_1, x_2 = painted(x, c.layers, c.channels), painted(x, c.layers, c.channels)
        if c.control_points:
            m = mixing_map(x, c.control_points)
            x_1, x_2 = m * x_1 + (1 - m) * x_2, (1 - m) * x_1 + m * x_2
        s_1, s_2 = self.S(x_1), self.S(x_2)

        L_seg = (supervised_loss(s_1, batch.y_s, c) + supervised_loss(s_2, batch.y_s, c)) / 2
        L_con = divergence(s_1.logits, s_2.logits)
        update("S", L_seg + c.consistency * L_con)
        return {"L_seg": L_seg, "L_con": L_con}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits


def divergence(logits_1: Tensor, logits_2: Tensor) -> Tensor:
    """Mean over pixels of (KL(p || p_1) + KL(p || p_2)) / 2, p the mean of both: [B, K, H, W] twice -> scalar."""
    log_1, log_2 = logits_1.log_softmax(1), logits_2.log_softmax(1)
    p = ((log_1.exp() + log_2.exp()) / 2).detach()
    kl_1, kl_2 = (F.kl_div(log_p, p, reduction="none").sum(1).mean() for log_p in (log_1, log_2))
    return (kl_1 + kl_2) / 2
