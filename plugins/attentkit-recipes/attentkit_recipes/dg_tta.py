"""DG-TTA: random appearances and a self-similarity descriptor in training, consistency of two views of one scan at test time.

Weihsbach, Kruse, Bigalke, Heinrich. DG-TTA: Out-of-domain medical image segmentation through augmentation, descriptor-driven
domain generalization, and test-time adaptation. Sensors 2025. https://arxiv.org/abs/2312.06275. GIN is that of Ouyang et al., TMI
2022; MIND that of Heinrich et al., MICCAI 2013.

Training, on the source alone:
    g(x)    = a random shallow network's x, blended with x                                          GIN
    MIND(x) = exp(-(D - min D) / V),  D_k = mean over a patch of (x(. + a_k) - x(. + b_k))^2        V: mean of D - min D over k
              (a_k, b_k): the 4 pairs of neighbours of a pixel that touch, each `distance` pixels away
    S(x)    = net(MIND(x))
    L_seg   = CE(S(g(x_s)), y_s)

Test time, for each volume v from the trained weights:
    p_i     = A_i^-1 softmax S(A_i g_i(x)),  i = 1, 2                 x: slices of v;  A_i: a random affine map of each
    L_con   = 1 - Dice(p_1, p_2) where both views see the pixel       mean over classes
    S       <- AdamW on L_con
    answer S(x)

What differs: the paper is 3-D, on patches of nnU-Net with 12 pairs of 6 neighbours, and averages three networks; here are slices
with 4 pairs of 4 neighbours, and one network. Channels that are neighbouring slices have 4 pairs each.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.optim import AdamW, Optimizer

from attent_kit.config import ComponentConfig
from attent_kit.interfaces import Alignment, Batch, Build, Losses, Segmentation, Segmentor, Stage, Task, Update
from attent_kit.mixing import painted
from attent_kit.options import SegmentOptions, segment_schedule, segmentor_optimizer, supervised_loss


class DGTTA(Alignment):
    """GIN and MIND in training; at test time consistency of two views of one volume."""

    paper = "Weihsbach et al., Sensors 2025"
    aligns = "nothing in training but appearances of the source; at test time answers about two views of one volume"
    takes_partial_labels = True
    uses_target_images = False
    capturable = False  # as of GIN, whose kernels it draws
    predicts_with = "S"
    terms = {"painting": {"layers": 0}, "descriptor": {"descriptor": False}, "adaptation": {"test_steps": 0}}
    bibtex = """@article{weihsbach2025dgtta,
  title = {{DG-TTA}: Out-of-domain medical image segmentation through augmentation, descriptor-driven domain generalization, and
    test-time adaptation},
  author = {Weihsbach, Christian and Kruse, Christian N. and Bigalke, Alexander and Heinrich, Mattias P.},
  journal = {Sensors},
  year = {2025}
}

@inproceedings{heinrich2013towards,
  title = {Towards realtime multimodal fusion for image-guided interventions using self-similarities},
  author = {Heinrich, Mattias P. and Jenkinson, Mark and Papie{\\.z}, Bart{\\l}omiej W. and Brady, Michael and others},
  booktitle = {Medical Image Computing and Computer Assisted Intervention (MICCAI)},
  year = {2013}
}

@article{ouyang2022causality,
  title = {Causality-inspired single-source domain generalization for medical image segmentation},
  author = {Ouyang, Cheng and Chen, Chen and Li, Surui and Li, Zeju and Qin, Chen and Bai, Wenjia and Rueckert, Daniel},
  journal = {IEEE Transactions on Medical Imaging},
  year = {2022}
}"""

    class Config(SegmentOptions):
        """Options of random appearances, of the descriptor and of the adaptation, besides those of the segmentor."""

        presets = {
            "paper": {"test_steps": 12, "test_batch_size": 16, "test_learning_rate": 1e-5, "test_weight_decay": 0.01}
        }

        layers: int = Field(4, ge=0)
        """Convolutions of a random network; 0 does not paint."""
        channels: int = Field(2, ge=1)
        """Channels between them."""
        descriptor: bool = True
        """Whether the segmentor sees MIND; if not, it sees grey values."""
        distance: int = Field(1, ge=1)
        """Pixels between a pixel and the neighbours that MIND compares."""
        test_steps: int = Field(12, ge=0)
        """Steps for each volume."""
        test_batch_size: int = Field(8, ge=1)
        """Slices of the volume in a step."""
        test_learning_rate: float = Field(1e-5, gt=0)
        """Learning rate of the segmentor at test time, as in the paper; with ten times as much it forgets what it knows."""
        test_weight_decay: float = Field(0.01, ge=0)
        """Weight decay at test time."""
        strength: float = Field(0.05, ge=0)
        """Standard deviation of the entries of an affine map from those of the identity, in halves of the image."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        if config.descriptor:
            self.S: Segmentor = OfMIND(build(config.segmentor, channels=PAIRS * task.channels), task, config.distance)
        else:
            self.S = build(config.segmentor)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"S": segmentor_optimizer(self.S, self.config)}

    def stages(self) -> Sequence[Stage]:
        c = self.config
        schedule = segment_schedule(c)
        return [Stage("segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S",), schedule=schedule)]

    def segment(self, batch: Batch, update: Update) -> Losses:
        c = self.config
        L_seg = supervised_loss(
            self.S(painted(batch.x_s, c.layers, c.channels) if c.layers else batch.x_s), batch.y_s, c
        )
        update("S", L_seg)
        return {"L_seg": L_seg}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def adapt_to(self, volume: Tensor) -> Callable[[Tensor], Tensor]:
        c = self.config
        parameters = [p for p in self.S.parameters() if p.requires_grad]
        optimizer = AdamW(parameters, lr=c.test_learning_rate, weight_decay=c.test_weight_decay)
        for _ in range(c.test_steps):
            chosen = torch.randperm(len(volume))[: c.test_batch_size]
            x = volume[chosen.to(volume.device)]
            (p_1, seen_1), (p_2, seen_2) = self.through_a_view(x), self.through_a_view(x)
            L_con = 1 - agreement(p_1, p_2, seen_1 * seen_2)
            optimizer.zero_grad()
            L_con.backward()
            optimizer.step()
        return self.predict

    def through_a_view(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A^-1 softmax S(A g(x)) and where A sees a pixel of x: [B, C, H, W] -> [B, K, H, W] and [B, 1, H, W], 0 to 1."""
        c = self.config
        there, back = affine_maps(len(x), c.strength, x.device)
        appearance = painted(x, c.layers, c.channels) if c.layers else x
        # Shifted to 0 for air, which is what lies outside.
        p = self.S(warped(appearance + 1, there) - 1).logits.float().softmax(1)
        with torch.no_grad():
            seen = warped(warped(torch.ones_like(x[:, :1]), there), back)
        return warped(p, back), seen


PAIRS = 4
"""Channels of MIND for each channel of an image."""


class OfMIND(Segmentor[ComponentConfig]):
    """A segmentor that sees MIND of the image in place of its grey values."""

    def __init__(self, network: Segmentor, task: Task, distance: int) -> None:
        super().__init__(ComponentConfig(), task)
        self.network, self.distance = network, distance
        self.feature_channels, self.feature_stride = network.feature_channels, network.feature_stride
        self.has_auxiliary = network.has_auxiliary

    def forward(self, x: Tensor) -> Segmentation:
        return self.network(2 * mind(x, self.distance) - 1)

    def learning_rate_factors(self) -> list[tuple[float, list[torch.nn.Parameter]]]:
        return self.network.learning_rate_factors()


def mind(x: Tensor, distance: int) -> Tensor:
    """Self-similarity around each pixel: [B, C, H, W] -> [B, 4 C, H, W] in (0, 1], 1 for the most alike of the 4 pairs.

    Neighbours lie `distance` pixels above, right, below and left, and are compared in patches of 3 x 3 pixels, each with the next
    one around. It does not change if grey values are scaled, shifted or inverted.
    """
    B, C, H, W = x.shape
    d = distance
    padded = F.pad(x.float(), (d, d, d, d), mode="replicate")
    up, down = padded[..., : -2 * d, d:-d], padded[..., 2 * d :, d:-d]
    left, right = padded[..., d:-d, : -2 * d], padded[..., d:-d, 2 * d :]
    apart = torch.stack([a - b for a, b in ((up, right), (right, down), (down, left), (left, up))], dim=2)
    patches = F.pad(apart.square().flatten(1, 2), (1, 1, 1, 1), mode="replicate")
    D = F.avg_pool2d(patches, 3, stride=1).view(B, C, PAIRS, H, W)
    D = D - D.amin(2, keepdim=True)
    V = D.mean(2, keepdim=True)
    usual = V.mean((3, 4), keepdim=True)
    V = torch.minimum(torch.maximum(V, 1e-3 * usual), 1e3 * usual)
    return torch.exp(-D / V.clamp(min=1e-6)).flatten(1, 2)


def affine_maps(count: int, strength: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random affine maps near the identity, and the way back: [count, 2, 3] each, as `warped` takes them."""
    there = torch.eye(3).repeat(count, 1, 1)
    # Never so far from the identity that there is no way back.
    there[:, :2] += (strength * torch.randn(count, 2, 3)).clamp(-0.3, 0.3)
    return there[:, :2].to(device), torch.linalg.inv(there)[:, :2].to(device)


def warped(x: Tensor, maps: Tensor) -> Tensor:
    """Images [B, C, H, W] through affine maps [B, 2, 3], linearly; 0 comes from outside."""
    B, C, H, W = x.shape
    return F.grid_sample(x, F.affine_grid(maps, [B, C, H, W], align_corners=False), align_corners=False)


def agreement(p_1: Tensor, p_2: Tensor, weight: Tensor) -> Tensor:
    """Soft Dice of two answers [B, K, H, W], mean over classes, pixels weighted by [B, 1, H, W]: 1 if certain and alike."""
    both = (weight * p_1 * p_2).sum((0, 2, 3))
    each = (weight * (p_1.square() + p_2.square())).sum((0, 2, 3))
    return (2 * both / each.clamp(min=1e-6)).mean()
