"""Soft neighbourhood density."""

import torch
from torch.nn.functional import normalize

from attent_kit.selectors import Look, Selector, sample

PIXELS = 1024
TEMPERATURE = 0.05


class SoftNeighborhoodDensity(Selector):
    """Soft neighbourhood density: how many like-minded pixels each pixel has.

        s_ij = <p_i, p_j> / (|p_i| |p_j|)        q_ij = exp(s_ij / T) / sum_{l != i} exp(s_il / T)        T = 0.05
        SND  = mean over i of  -sum_{j != i} q_ij log q_ij                    nats

    Saito, Kim, Teterwak, Sclaroff, Darrell, Saenko. Tune it the right way: unsupervised validation of domain adaptation via
    soft neighborhood density. ICCV 2021. Higher is better. i and j run over 1,024 pixels of all slices, drawn once.
    """

    better = "higher"

    def score(self, look: Look) -> float | None:
        p = sample(look.p_t.movedim(1, -1).flatten(0, 2), PIXELS)
        if len(p) < 2:
            return None
        p = normalize(p, dim=1)
        itself = torch.eye(len(p), dtype=torch.bool)
        log_q = (p @ p.T / TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(1)
        return float((-log_q.exp() * log_q.masked_fill(itself, 0)).sum(1).mean())
