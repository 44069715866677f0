"""Class ratios against those of the source labels."""

from attent_kit.selectors import Look, Selector


class ClassRatio(Selector):
    """Divergence of the predicted class ratios from those of the source labels.

        KL(t | s) = sum_k t_k log(t_k / s_k)         t: mean over pixels of p;  s: share of each class in source labels; nats

    The prior of Bateson, Kervadec, Dolz, Lombaert, Ben Ayed. Source-relaxed domain adaptation for image segmentation.
    MICCAI 2020. Lower is better. It assumes that source and target patients show similar shares of each organ, so field of view
    and slice selection matter. None where the source labels lack a class.
    """

    better = "lower"

    def score(self, look: Look) -> float | None:
        t, s = look.p_t.mean((0, 2, 3)), look.source_ratios
        if not bool((s > 0).all()):
            return None
        return float((t.xlogy(t) - t.xlogy(s)).sum())
