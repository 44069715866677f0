"""Contrastive unpaired translation (CUT): by its translation, a place of an image is told from all others of the image.

Park, Efros, Zhang, Zhu. Contrastive learning for unpaired image-to-image translation. ECCV 2020. https://arxiv.org/abs/2007.15651

    L_nce(x) = mean over maps l and places n of  -log softmax_m(q_ln . k_lm / 0.07)[n]        their eq. 4
    k_l      = H_l(E_l(x)),  q_l = H_l(E_l(G(x)))                     E: encoder of G, no gradient through k

    self.H_st, self.H_ts = patch_heads(config, self.G_st, self.G_ts)  # after the discriminators; None each without `contrast`
    ...
    if self.H_st is not None:
        return translate_by_contrast(self, batch, update)

A method whose Config is of `attent_kit.options.ContrastOptions` takes CUT in place of CycleGAN by these three lines, and owns the
heads by the optimizer of its translators. CUT has no way back, so that the two directions, each with its own encoder and heads,
have nothing to do with each other.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attent_kit.errors import ConfigError
from attent_kit.interfaces import Batch, Losses, Translator, Update
from attent_kit.objectives import fake, real
from attent_kit.options import ContrastOptions

__all__ = ["PatchHeads", "patch_heads", "patch_loss", "patch_nce", "translate_by_contrast"]

PATCHES, TEMPERATURE = 256, 0.07
"""Places of each map, and the temperature, of Park et al. 2020."""


class PatchHeads(nn.Module):
    """H: a small network for each map of an encoder, two layers of 256, answers of length 1."""

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width)) for c in channels
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, F, h, w] and places [P] among their h w pixels -> [B, P, 256] for each map."""
        return [
            F.normalize(head(m.flatten(2)[..., p].transpose(1, 2)).float(), dim=2)
            for head, m, p in zip(self.heads, maps, places, strict=True)
        ]


def patch_heads(config: ContrastOptions, *translators: Translator) -> list[PatchHeads | None]:
    """New heads for each translator, or None for each where `config.contrast` is left out."""
    if config.contrast is None:
        return [None for _ in translators]
    return [heads_of(G, config.translator.name) for G in translators]


def heads_of(G: Translator, name: str) -> PatchHeads:
    """New heads for one translator, called `name` by its user."""
    if not G.encoder_channels:
        raise ConfigError(
            f"the translator '{name}' shows no maps of its encoder, whose patches CUT compares: choose another, as in "
            "--set translator=resnet, or leave the option contrast out."
        )
    return PatchHeads(G.encoder_channels)


def patch_nce(q: Tensor, k: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean over places of -log softmax(q k^T / temperature) at the same place: [B, P, E], [B, P, E] -> scalar.

    Each place of q is told from the other places of the same image alone. Gradients do not pass to k.
    """
    B, P, _ = q.shape
    logits = q @ k.detach().transpose(1, 2) / temperature
    return F.cross_entropy(logits.flatten(0, 1), torch.arange(P, device=q.device).repeat(B))


def patch_loss(
    G: Translator, H: nn.Module, x: Tensor, y: Tensor, patches: int = PATCHES, temperature: float = TEMPERATURE
) -> Tensor:
    """L_nce of images x and their translations y = G(x), both [B, C, H, W] -> scalar. All images of a batch and both of a
    pair are asked at the same random places."""
    with torch.no_grad():
        maps = G.encode(x)
        places = [torch.randperm(m.shape[2] * m.shape[3], device=x.device)[:patches] for m in maps]
        k = H(maps, places)
    q = H(G.encode(y), places)
    return torch.stack([patch_nce(q_l, k_l, temperature) for q_l, k_l in zip(q, k, strict=True)]).mean()


class Translates(Protocol):
    """The networks of a method with two translators and `contrast`."""

    config: Any
    G_st: Any
    G_ts: Any
    D_s: Any
    D_t: Any
    H_st: Any
    H_ts: Any
    pool_s: Any
    pool_t: Any


def translate_by_contrast(method: Translates, batch: Batch, update: Update) -> Losses:
    """One step of CUT in both directions, discriminators first, as a step of a method's translation stage.

    L_G = L_gan + contrast (L_nce + L_nce_idt), where L_nce_idt is L_nce of images that have the style already.
    """
    m, c, x_s, x_t = method, method.config, batch.x_s, batch.x_t
    x_st, x_ts = m.G_st(x_s), m.G_ts(x_t)

    L_D_s = (real(m.D_s(x_s), c.gan) + fake(m.D_s(m.pool_s(x_ts)), c.gan)) / 2
    L_D_t = (real(m.D_t(x_t), c.gan) + fake(m.D_t(m.pool_t(x_st)), c.gan)) / 2
    update("D", L_D_s + L_D_t)

    L_gan = real(m.D_t(x_st), c.gan) + real(m.D_s(x_ts), c.gan)
    L_nce = patch_loss(m.G_st, m.H_st, x_s, x_st) + patch_loss(m.G_ts, m.H_ts, x_t, x_ts)
    L_idt = patch_loss(m.G_st, m.H_st, x_t, m.G_st(x_t)) + patch_loss(m.G_ts, m.H_ts, x_s, m.G_ts(x_s))
    update("G", L_gan + c.contrast * (L_nce + L_idt))
    return {"L_gan": L_gan, "L_nce": L_nce, "L_nce_idt": L_idt, "L_D_s": L_D_s, "L_D_t": L_D_t}
