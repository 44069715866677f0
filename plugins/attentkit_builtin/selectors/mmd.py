"""Maximum mean discrepancy of features."""

import torch
from torch import Tensor

from attent_kit.selectors import Look, Selector, sample

POSITIONS = 512
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


class MaximumMeanDiscrepancy(Selector):
    """Squared maximum mean discrepancy between source and target features.

        MMD^2  = mean k(s, s') + mean k(t, t') - 2 mean k(s, t)               all pairs, s = s' included
        k(a,b) = mean over w in 1/4, 1/2, 1, 2, 4 of  exp(-|a - b|^2 / (w m))
        m      = median of |a - b|^2 over pairs of different features of both domains

    Gretton, Borgwardt, Rasch, Schoelkopf, Smola. A kernel two-sample test. JMLR 2012; several widths as in Long, Cao, Wang,
    Jordan. Learning transferable features with deep adaptation networks. ICML 2015. Lower is better. The width follows the
    features, so their scale does not matter. 512 positions of each domain, drawn once.
    """

    better = "lower"

    def score(self, look: Look) -> float | None:
        if look.f_s is None or look.f_t is None:
            return None
        s, t = sample(look.f_s, POSITIONS), sample(look.f_t, POSITIONS)
        squared = distances(torch.cat([s, t]))
        pairs = torch.triu_indices(len(squared), len(squared), offset=1)
        m = squared[pairs[0], pairs[1]].median()
        if m <= 0:
            return None
        k = sum(((-squared / (w * m)).exp() for w in WIDTHS), squared.new_zeros(())) / len(WIDTHS)
        n = len(s)
        return float(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean())


def distances(x: Tensor) -> Tensor:
    """Squared distance of each pair: [P, F] -> [P, P]. In float64, where the difference of large squares keeps its digits."""
    x = x.double()
    norms = (x * x).sum(1)
    return (norms[:, None] + norms[None] - 2 * x @ x.T).clamp(min=0)
