"""Mean entropy of the predictions on the target."""

from attent_kit.selectors import Look, Selector


class MeanEntropy(Selector):
    """Mean entropy of the predictions: how undecided the segmentor is.

        H = mean over pixels of  -sum_k p_k log p_k                          nats

    Morerio, Cavazza, Murino. Minimal-entropy correlation alignment for unsupervised deep domain adaptation. ICLR 2018.
    Lower is better. A segmentor that sees nothing but background is just as certain, so a method that minimises entropy can
    collapse and be chosen for it.
    """

    better = "lower"

    def score(self, look: Look) -> float:
        return float((-look.p_t.xlogy(look.p_t)).sum(1).mean())
