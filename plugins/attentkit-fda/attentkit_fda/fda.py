"""FDA: Fourier domain adaptation for semantic segmentation.

Yang and Soatto. CVPR 2020. https://arxiv.org/abs/2004.05498

A translation without a network: source slices take the low frequencies of the amplitude of target slices, and keep their
phase; the segmentor learns from them, and is pushed towards certainty on target slices.

    x_st  = F^-1( M_beta |F x_t| + (1 - M_beta) |F x_s| , angle F x_s )      M_beta: frequencies within beta of the centre
    L_seg = CE(S(x_st), y_s)
    L_ent = mean (E(x_t)^2 + 0.001^2)^eta                                    Charbonnier penalty, E: normalized entropy
    L     = L_seg + 0.005 L_ent
    answer S(x_t)

The paper averages three networks with beta 0.01, 0.05 and 0.09 and retrains them on their own answers (MBT); here a run is
one network with one beta. Slices are shifted to [0, 2] for the transform, since the paper's photographs are not negative
either and their mean has no sign; the result is clipped to [-1, 1].
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.objectives import entropy_map
from attent_kit.options import SegmentOptions, segment_schedule, segmentor_optimizer, supervised_loss


class FDA(Alignment):
    """Source slices with the low frequencies of target slices, and certain answers about the target."""

    paper = "Yang and Soatto, CVPR 2020"
    aligns = "pixels: low frequencies of source slices to target style, without a network; then entropy"
    takes_partial_labels = True
    predicts_with = "S"
    terms = {"entropy": {"entropy": 0.0}}
    bibtex = """@inproceedings{yang2020fda,
  title = {{FDA}: {F}ourier domain adaptation for semantic segmentation},
  author = {Yang, Yanchao and Soatto, Stefano},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2020}
}"""

    class Config(SegmentOptions):
        """Options of the exchange and of the penalty, besides those of the segmentor."""

        beta: float = Field(0.01, gt=0, le=0.5)
        """Half the side of the square of exchanged frequencies, as a fraction of the slice's shorter side."""
        entropy: float = Field(0.005, ge=0)
        """Weight of L_ent."""
        eta: float = Field(2.0, gt=0.5)
        """Exponent of the Charbonnier penalty: the larger, the more uncertain pixels count."""

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
        x_st = with_low_frequencies_of(batch.x_t, batch.x_s, c.beta)
        s, t = self.S(x_st), self.S(batch.x_t)

        L_seg = supervised_loss(s, batch.y_s, c)
        L_ent = (entropy_map(t.logits).square() + 0.001**2).pow(c.eta).mean()
        update("S", L_seg + c.entropy * L_ent)
        return {"L_seg": L_seg, "L_ent": L_ent}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits


def with_low_frequencies_of(style: Tensor, content: Tensor, beta: float) -> Tensor:
    """`content` with the amplitudes of `style` at the lowest frequencies, its own phase, clipped to [-1, 1].

    Both [B, C, H, W]. The frequencies -n to n along each axis are exchanged, n = floor(beta min(H, W)); with n = 0 that is
    the mean alone.
    """
    H, W = content.shape[-2:]
    n = int(beta * min(H, W))
    F_c, F_s = torch.fft.fft2(content.float() + 1), torch.fft.fft2(style.float() + 1)
    low = (_frequencies(H, content.device)[:, None] <= n) & (_frequencies(W, content.device)[None, :] <= n)
    amplitude = torch.where(low, F_s.abs(), F_c.abs())
    mixed = torch.fft.ifft2(torch.polar(amplitude, F_c.angle())).real - 1
    return mixed.clamp(-1, 1).to(content.dtype)


def _frequencies(size: int, device: torch.device) -> Tensor:
    """|frequency| of each bin of a Fourier transform, in cycles per image."""
    bins = torch.arange(size, device=device)
    return torch.minimum(bins, size - bins)
