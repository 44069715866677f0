"""Distance of the covariances of features."""

from attent_kit.selectors import Look, Selector


class Coral(Selector):
    """Distance of the covariances of source and target features.

        CORAL = |C_s - C_t|_F^2 / (4 F^2)            C: covariance over positions, n - 1 in the denominator;  F channels

    Sun, Saenko. Deep CORAL: correlation alignment for deep domain adaptation. ECCV 2016 workshops. Lower is better. It grows
    with the fourth power of the scale of the features, as published.
    """

    better = "lower"

    def score(self, look: Look) -> float | None:
        if look.f_s is None or look.f_t is None or min(len(look.f_s), len(look.f_t)) < 2:
            return None
        difference = look.f_s.T.cov().reshape(-1) - look.f_t.T.cov().reshape(-1)
        return float((difference**2).sum() / (4 * look.f_s.shape[1] ** 2))
