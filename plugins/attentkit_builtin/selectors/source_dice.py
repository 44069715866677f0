"""Dice on source slices that are not trained on."""

import torch

from attent_kit.selectors import IGNORE, Look, Selector
from attentkit_builtin.selectors.overlap import overlap


class SourceDice(Selector):
    """Dice on source slices of cases that are not trained on, as the segmentor is trained to see them.

        Dice = mean over organs k of  2 |a_k y_k| / (|a_k| + |y_k|)     a: argmax S(x_s), or S(G_st(x_s)); all slices

    Source accuracy of Musgrave, Belongie, Lim. Three new validators and a large-scale benchmark ranking for unsupervised
    domain adaptation. arXiv:2208.07360, 2022, as Dice; a method that trains on translated source images is judged on those.
    Higher is better. It knows nothing about the target. An organ absent from the slices is left out: one invented pixel
    would count as much as a whole liver. None where no labelled source case is kept from training.
    """

    better = "higher"

    def score(self, look: Look) -> float | None:
        if look.p_s is None or look.y_s is None:
            return None
        counted = look.y_s != IGNORE
        y_s, classes = look.y_s[counted], look.p_s.shape[1]
        there = torch.bincount(y_s, minlength=classes)[1:] > 0
        if not there.any():
            return None
        return float(overlap(look.p_s.argmax(1)[counted], y_s, classes)[there].mean())
