"""Information maximisation."""

from attent_kit.selectors import Look, Selector


class InformationMaximisation(Selector):
    """Mutual information of pixel and predicted class: each pixel decided, all classes used.

        I = H(mean over pixels of p) - mean over pixels of H(p)      with H(p) = -sum_k p_k log p_k, nats

    Krause, Perona, Gomes. Discriminative clustering by regularized information maximization. NeurIPS 2010; as a validator:
    Musgrave, Belongie, Lim. Three new validators and a large-scale benchmark ranking for unsupervised domain adaptation.
    arXiv:2208.07360, 2022. Higher is better. It assumes classes of similar size, which organs and background are not.
    """

    better = "higher"

    def score(self, look: Look) -> float:
        p = look.p_t
        mean = p.mean((0, 2, 3))
        return float((p.xlogy(p)).sum(1).mean() - (mean.xlogy(mean)).sum())
