"""Random grey values in training, so that a segmentor does not learn one scanner by heart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CURVE, CONTRAST, FIELD, BLURRED, NOISE = 0.6, 0.3, 0.15, 0.3, 0.04
"""At strength 1: log of the curve's slope at black, change of contrast, SD of the smooth field, share of blurred images, largest
SD of the noise, all of grey values from 0 to 1."""


class GreyJitter(nn.Module):
    """Curve, contrast, smooth field, blur and noise of its own for each image, in training only: [B, C, H, W] -> the same.

        u  = (x + 1) / 2
        u <- u / (u + k (1 - u)),  log k ~ U(-0.6, 0.6)              black and white stay, between them it bends
        u <- u c exp(0.15 f),  c ~ U(0.7, 1.3),  f: 3 x 3 normal numbers, bicubic between them
        u <- its mean of 3 x 3 pixels, in 3 of 10 images
        u <- u + 0.04 a n,  a ~ U(0, 1),  n normal in each pixel

    `strength` multiplies each of these numbers; 0 changes nothing and draws nothing. The channels of an image are neighbouring
    slices: one curve, contrast and field for all of them.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        s = self.strength
        if not self.training or s == 0:
            return x
        each = len(x), 1, 1, 1

        def uniform(limit: float) -> Tensor:
            return (torch.rand(each, device=x.device) * 2 - 1) * limit

        u = (x.float().clamp(-1, 1) + 1) / 2
        u = u / (u + uniform(s * CURVE).exp() * (1 - u))
        field = F.interpolate(torch.randn(len(x), 1, 3, 3, device=x.device), x.shape[-2:], mode="bicubic")
        u = u * (1 + uniform(s * CONTRAST)) * (s * FIELD * field).exp()
        blurred = F.avg_pool2d(F.pad(u, (1, 1, 1, 1), mode="replicate"), 3, 1)
        u = torch.where(torch.rand(each, device=x.device) < s * BLURRED, blurred, u)
        u = u + torch.rand(each, device=x.device) * s * NOISE * torch.randn_like(u)
        return (2 * u - 1).clamp(-1, 1).to(x.dtype)
