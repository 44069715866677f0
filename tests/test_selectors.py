"""Each selector says what its formula says: numbers worked out by hand, and loops over single pixels."""

import math
from dataclasses import replace

import pytest
import torch

from attent_kit.plugins import load
from attent_kit.selectors import Look, Selector, sample
from attent_kit.testing import check_selector

REGISTRY = load().registry
NAMES = [component.name for component in REGISTRY.of("selectors")]
HALF = torch.tensor([0.5, 0.5])
LN2 = math.log(2)


def score(name, look):
    return REGISTRY.selector(name)().score(look)


def pixels(*rows):
    """Probabilities of single pixels as one slice: [1, K, 1, P]."""
    return torch.tensor(rows, dtype=torch.float32).T[None, :, None]


def look(*rows, **more):
    return Look(pixels(*rows), more.pop("source_ratios", HALF), **more)


def labels(*values):
    """Certain probabilities of five classes, one a pixel."""
    return pixels(*torch.eye(5)[list(values)].tolist())


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_selector_keeps_the_contract(name):
    check_selector(REGISTRY.selector(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_selector_cites_where_it_is_from_and_prints_its_formula(name):
    documentation = REGISTRY.selector(name).__doc__
    assert " = " in documentation and any(str(year) in documentation for year in range(2000, 2027))
    assert REGISTRY.find("selectors", name).summary() == documentation.strip().partition("\n")[0]


def test_entropy_is_the_mean_over_pixels_in_nats():
    assert score("entropy", look((0.5, 0.5), (1, 0))) == pytest.approx(LN2 / 2)
    assert score("entropy", look((1, 0), (0, 1))) == 0


def test_information_is_high_where_pixels_are_decided_and_all_classes_used():
    assert score("im", look((1, 0), (0, 1))) == pytest.approx(LN2)
    assert score("im", look((1, 0), (1, 0))) == 0, "decided for one class alone"
    assert score("im", look((0.5, 0.5), (0.5, 0.5))) == pytest.approx(0, abs=1e-7), "undecided"
    # The mean is (3/4, 1/4), whose entropy is 3/4 ln 4/3 + 1/4 ln 4; the mean entropy is ln 2 / 2.
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4) - LN2 / 2
    assert score("im", look((0.5, 0.5), (1, 0))) == pytest.approx(expected, abs=1e-6)


def test_neighbourhoods_are_dense_where_pixels_agree_and_a_pixel_is_no_neighbour_of_itself():
    assert score("snd", look((1, 0), (0, 1))) == 0, "one neighbour each: nothing to be undecided about"
    assert score("snd", look((1, 0), (1, 0), (1, 0))) == pytest.approx(LN2)
    assert score("snd", look((1, 0))) is None
    # Rows one and two see similarities 1 and 0, the third sees 0 and 0: its neighbours are alike.
    q = 1 / (1 + math.exp(-20))
    apart = -(q * math.log(q) + (1 - q) * math.log(1 - q))
    assert score("snd", look((1, 0), (1, 0), (0, 1))) == pytest.approx((2 * apart + LN2) / 3, abs=1e-6)


def test_neighbourhood_density_is_what_loops_over_all_pairs_say():
    p = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
    rows = p.movedim(1, -1).reshape(-1, 3).double().tolist()
    total = 0.0
    for i, a in enumerate(rows):
        weights = []
        for j, b in enumerate(rows):
            if i != j:
                cosine = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
                weights.append(math.exp(cosine / 0.05))
        total -= sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights)
    assert score("snd", Look(p, HALF)) == pytest.approx(total / len(rows), rel=1e-5)


def test_class_ratios_diverge_from_those_of_the_source_labels_by_kl():
    # The mean is (3/4, 1/4).
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert score("class-ratio", look((0.5, 0.5), (1, 0))) == pytest.approx(expected, abs=1e-6)
    assert score("class-ratio", look((1, 0), (0, 1))) == pytest.approx(0, abs=1e-7)
    assert score("class-ratio", look((1, 0), (1, 0))) == pytest.approx(LN2), (
        "an organ found nowhere is no reason to fail"
    )
    assert score("class-ratio", look((1, 0), source_ratios=torch.tensor([1.0, 0.0]))) is None


def test_discrepancy_of_one_source_and_one_target_feature():
    """The median is their own squared distance, so that k = mean of exp(-1 / w), and both means of equal ones are 1."""
    k = sum(math.exp(-1 / w) for w in (0.25, 0.5, 1, 2, 4)) / 5
    features = {"f_s": torch.tensor([[0.0]]), "f_t": torch.tensor([[3.0]])}
    assert score("mmd", look((1, 0), **features)) == pytest.approx(2 - 2 * k)


def test_discrepancy_is_what_loops_over_all_pairs_say_whatever_the_scale():
    generator = torch.Generator().manual_seed(2)
    s, t = torch.randn(4, 3, generator=generator), torch.randn(5, 3, generator=generator) + 1
    everything = [*s.double().tolist(), *t.double().tolist()]

    def squared(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    distances = sorted(squared(a, b) for i, a in enumerate(everything) for b in everything[i + 1 :])
    m = distances[(len(distances) - 1) // 2]

    def mean_k(a, b):
        return (
            sum(math.exp(-squared(x, y) / w / m) for x in a for y in b for w in (0.25, 0.5, 1, 2, 4))
            / 5
            / len(a)
            / len(b)
        )

    a, b = everything[:4], everything[4:]
    expected = mean_k(a, a) + mean_k(b, b) - 2 * mean_k(a, b)
    assert score("mmd", look((1, 0), f_s=s, f_t=t)) == pytest.approx(expected, rel=1e-6)
    assert score("mmd", look((1, 0), f_s=100 * s, f_t=100 * t)) == pytest.approx(expected, rel=1e-5)
    assert score("mmd", look((1, 0), f_s=s, f_t=s)) == pytest.approx(0, abs=1e-12)
    assert score("mmd", look((1, 0), f_s=torch.ones(3, 2), f_t=torch.ones(3, 2))) is None, "features that are all alike"


def test_coral_is_the_squared_distance_of_covariances_over_4_f_squared():
    one = {"f_s": torch.tensor([[0.0], [2.0]]), "f_t": torch.tensor([[0.0], [4.0]])}
    assert score("coral", look((1, 0), **one)) == pytest.approx((8 - 2) ** 2 / 4)
    # Covariances ((2, 2), (2, 2)) and ((2, -2), (-2, 2)): two entries differ by 4, and F = 2.
    two = {"f_s": torch.tensor([[0.0, 0], [2, 2]]), "f_t": torch.tensor([[0.0, 0], [2, -2]])}
    assert score("coral", look((1, 0), **two)) == pytest.approx(32 / 16)
    assert score("coral", look((1, 0), f_s=torch.zeros(1, 2), f_t=torch.zeros(3, 2))) is None


def test_a_round_trip_that_changes_nothing_is_perfect_agreement_of_the_organs_that_are_found():
    # Organ 1: two of two and one pixels, 2/3. Organ 2: one and two, 2/3. Organs 3 and 4 are found in neither: 0.
    before, after = labels(0, 1, 1, 2), labels(0, 1, 2, 2)
    assert score("cycle", Look(before, HALF, p_cycle=after)) == pytest.approx((2 / 3 + 2 / 3) / 4)
    everywhere = labels(0, 1, 2, 3, 4)
    assert score("cycle", Look(everywhere, HALF, p_cycle=everywhere)) == 1
    nothing = labels(0, 0, 0, 0)
    assert score("cycle", Look(nothing, HALF, p_cycle=nothing)) == 0
    assert score("cycle", Look(nothing, HALF)) is None


def test_source_dice_leaves_out_unknown_pixels_and_organs_that_are_not_there():
    # The third pixel is unknown. Organ 1: 2 * 1 / (1 + 2); organ 2: 2 * 1 / (2 + 1); 3 is nowhere, 4 is invented.
    seen = {"p_s": labels(1, 2, 3, 2, 4), "y_s": torch.tensor([[[1, 1, 255, 2, 0]]])}
    assert score("source-dice", look((1, 0), **seen)) == pytest.approx((2 / 3 + 2 / 3) / 2)
    missed = {"p_s": labels(1, 0), "y_s": torch.tensor([[[1, 2]]])}
    assert score("source-dice", look((1, 0), **missed)) == pytest.approx((1 + 0) / 2)
    assert score("source-dice", look((1, 0), p_s=labels(0, 0), y_s=torch.tensor([[[0, 255]]]))) is None
    assert score("source-dice", look((1, 0), p_s=labels(0, 0))) is None


def test_selectors_differ_about_a_segmentor_that_sees_nothing_but_background():
    """Why there are several: entropy falls for a collapse that information, class ratios and the round trip notice."""
    ratios = torch.tensor([0.9, 0.1])
    collapsed = look((1, 0), (1, 0), source_ratios=ratios, p_cycle=pixels((1, 0), (1, 0)))
    sound = look((0.9, 0.1), (0.1, 0.9), source_ratios=ratios, p_cycle=pixels((0.9, 0.1), (0.1, 0.9)))
    assert score("entropy", collapsed) < score("entropy", sound)
    assert score("im", collapsed) < score("im", sound)
    assert score("cycle", collapsed) < score("cycle", sound)


def test_a_sample_is_the_same_rows_whenever_there_are_as_many():
    rows = torch.arange(50)
    assert torch.equal(sample(rows, 50), rows)
    first = sample(rows, 10)
    assert len(set(first.tolist())) == 10 and torch.equal(first + 100, sample(rows + 100, 10))


def answering(**more):
    """A selector class with one thing out of order."""
    parts = {"__doc__": "A docstring.", "better": "higher", "score": lambda self, look: 1.0, **more}
    return type("Odd", (Selector,), parts)


def changing(self, look):
    look.p_t.zero_()
    return 1.0


@pytest.mark.parametrize(
    ("component", "sentence"),
    [
        (type("Odd", (), {}), "Odd is not a Selector"),
        (answering(__doc__=None), "no docstring"),
        (answering(better="more"), "write 'higher' or 'lower'"),
        (answering(score=lambda self, look: None), "returns None"),
        (answering(score=lambda self, look: math.nan), "returns nan"),
        (answering(score=lambda self, look: look.p_t.mean()), "score returns tensor"),
        (answering(score=lambda self, look: float(torch.rand(()))), "the second time"),
        (answering(score=changing), "changes p_t"),
        (answering(score=lambda self, look: 1.0 if look.f_s is not None else "none"), "for a look without p_cycle"),
    ],
)
def test_the_check_says_what_a_selector_does_wrong(component, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_selector(component)


def test_the_check_lets_a_selector_pass_that_needs_a_part():
    check_selector(answering(score=lambda self, look: None if look.f_s is None else 2.0))
    assert replace(look((1, 0)), p_s=None).p_s is None
