"""Agreement of predictions before and after a round trip through both translators."""

from attent_kit.selectors import Look, Selector
from attentkit_builtin.selectors.overlap import overlap


class CycleAgreement(Selector):
    """Agreement of the predictions on target slices before and after they go to source style and back.

        A = mean over organs k of  2 |a_k b_k| / (|a_k| + |b_k|)        a: argmax of predict(x_t), all slices
                                                                        b: argmax of predict(G_st(G_ts(x_t)))

    The round trip of Zhu, Park, Isola, Efros (ICCV 2017), judged by what the segmentor sees, as Hoffman et al. (CyCADA, ICML
    2018) judge one way of it. Higher is better. An organ found in neither counts 0; otherwise finding nothing would be
    perfect agreement. None if a method does not translate both ways.
    """

    better = "higher"

    def score(self, look: Look) -> float | None:
        if look.p_cycle is None:
            return None
        organs = overlap(look.p_t.argmax(1), look.p_cycle.argmax(1), look.p_t.shape[1])
        return float(organs.nan_to_num(0.0).mean())
