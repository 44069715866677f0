"""When training has gone wrong: thresholds over averaged losses and over a look at predictions. Nothing here needs labels of
the target.

    check                 threshold                                                        source or reason
    discriminator-won     (real + fake) / 2 < 0.01                                         AdaptSegNet issue 59
    discriminator-stuck   within 1 % of ln 2 (cross-entropy) or 1/4 (least squares)        AdaptSegNet issue 109
    not-finite            NaN or infinite                                                  CycleGAN issue 20
    organ-vanished        less than 1/100 of the organ's part of the source's labels       SE_ASA issue 5; 1/100 is ours
    background-vanished   less than 1/10 of its part                                       ours
    entropy-collapse      mean entropy < 0.01 and one class everywhere                     Vu et al. 2019, MinEnt; 0.01 is ours
    inversion             correlation of x and as_source(x) < -0.5                         CycleGAN issues 213, 1301; -0.5 is ours

The first two warn. A run that ends in one of the others has collapsed. Networks that have hardly been trained are what chance
made them: of those, NaN alone is said.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from attent_kit.objectives import Gan

WON = 0.01
"""A discriminator's loss below this: by cross-entropy it gives the right answer 99 % on average, by least squares it is off by
0.1. Users of AdaptSegNet report 0.2 to 0.5 in healthy training (issues 22, AdvSemiSeg 39) and 0 where it has won (59)."""
UNDECIDED: dict[Gan, float] = {"bce": math.log(2), "lsgan": 0.25}
"""(real + fake) / 2 of a discriminator that answers "perhaps" to everything: -log(1/2), and (1/2)^2 (AdaptSegNet 109: 0.693)."""
STUCK = 0.01
"""Part by which a loss may differ from UNDECIDED and still count as it. Cross-entropy is about ln 2 + d^2 / 8 at constant logits
d, so that 1 % are logits up to 0.24; least squares is 1/4 + (d - 1/2)^2, so that 1 % are answers of 0.45 to 0.55."""
PATIENCE = 0.2
"""Part of its stage for which a loss must stay there before it is worth a warning. Discriminators start undecided, and single
averages come near both thresholds in healthy runs."""
PATIENT_WINDOWS = 5
"""Fewest averages that this takes."""
FEWEST_STEPS = 20
"""Steps before which nothing but NaN is worth a word: so few batches leave a network as chance made it. Ours."""

VANISHED = 0.01
"""Part of its frequency in the labels of the source below which an organ has vanished. The domains show different patients and
fields of view, which changes frequencies by a factor of two or three and not by a hundred."""
DROWNED = 0.1
"""The same for the background, which is most of every slice: a run whose adversary outweighs its labels fills it with organs."""
CERTAIN = 0.01
"""Mean normalized entropy below which predictions are certain."""
INVERTED = -0.5
"""Correlation of an image and its translation below which its contrast is inverted. MR and CT of a body correlate positively,
since both are dark outside it, whatever the order of the tissues inside."""

COLLAPSED = ("not-finite", "organ-vanished", "background-vanished", "entropy-collapse", "inversion")
"""Checks by which a run has collapsed if they are true at its end."""


class Alarm(NamedTuple):
    """One thing that is wrong."""

    step: int
    """Steps done of the whole run when it was seen."""
    stage: str
    check: str
    sentence: str


class Span(NamedTuple):
    """A stage among the steps of a run."""

    stage: str
    first: int
    last: int
    """The step after its last."""


class Glance(NamedTuple):
    """What predictions on a fixed sample of target training slices are like."""

    step: int
    stage: str
    slices: int
    finite: bool
    """Whether every probability and every translated grey value is a number."""
    shares: tuple[float, ...]
    """Part of the pixels that each class has got, background first."""
    entropy: float
    """Mean normalized entropy of a pixel, 0 certain to 1 uniform; 0 where probabilities are not finite."""
    correlation: float | None
    """Median over slices of the correlation of x and as_source(x); None without a translator."""


class DiscriminatorWatch:
    """Judges the losses of discriminators line by line of log.jsonl.

    Lines are joined to windows of `log_steps` steps, since a checkpoint cuts a line short: the answer is the same for a
    run that was stopped and one that was not.
    """

    def __init__(self, kinds: Mapping[str, Gan], spans: Sequence[Span], log_steps: int) -> None:
        self.kinds, self.spans, self.log_steps = dict(kinds), tuple(spans), log_steps
        self._seen = -1
        self._window: list[tuple[int, Mapping[str, float]]] = []
        self._since: dict[tuple[str, str], int] = {}
        self._raised: set[tuple[str, str]] = set()
        self._span: Span | None = None

    def add(self, line: Mapping[str, Any]) -> list[Alarm]:
        """What is newly wrong after a line of the log."""
        step = int(line["step"])
        span = next((s for s in self.spans if s.first <= step < s.last), None)
        if span is None or step <= self._seen:
            return []
        if span != self._span:
            self._span, self._window, self._since, self._raised = span, [], {}, set()
        steps = step - max(self._seen, span.first - 1)
        self._window.append((steps, {name: line[name] for name in self.kinds if name in line}))
        self._seen = step
        if (step + 1) % self.log_steps and step + 1 != span.last:
            return []
        window, self._window = self._window, []
        return self._judge(span, step + 1, window)

    def _judge(self, span: Span, done: int, window: Sequence[tuple[int, Mapping[str, float]]]) -> list[Alarm]:
        began = done - sum(steps for steps, _ in window)
        patience = max(PATIENCE * (span.last - span.first), PATIENT_WINDOWS * self.log_steps, FEWEST_STEPS)
        alarms = []
        for name, kind in self.kinds.items():
            parts = [(steps, means[name]) for steps, means in window if name in means]
            if not parts:
                continue
            mean = math.fsum(steps * value for steps, value in parts) / sum(steps for steps, _ in parts)
            for check, true in (("discriminator-won", mean < WON), ("discriminator-stuck", stuck(mean, kind))):
                key = name, check
                if not true:
                    self._since.pop(key, None)
                elif done - self._since.setdefault(key, began) >= patience and key not in self._raised:
                    self._raised.add(key)
                    sentence = _discriminator_sentence(check, name, kind, span.stage, mean, done - self._since[key])
                    alarms.append(Alarm(done, span.stage, check, sentence))
        return alarms


def stuck(mean: float, kind: Gan) -> bool:
    """Whether a discriminator's loss is that of one which answers "perhaps" to everything."""
    return abs(mean - UNDECIDED[kind]) <= STUCK * UNDECIDED[kind]


def telling(looks: Sequence[Glance], spans: Sequence[Span], ended: bool) -> list[Glance]:
    """The looks that say something about the training: those after a fifth of the steps since looks began, and after
    FEWEST_STEPS; of the others, those that met NaN or an infinite value."""
    if not looks:
        return []
    begin = max((span.first for span in spans if span.first < looks[0].step), default=0)
    first = begin + max(FEWEST_STEPS, PATIENCE * (spans[-1].last - begin))
    at_end = ended and looks[-1].step >= FEWEST_STEPS
    return [look for look in looks if not look.finite or look.step >= first or (at_end and look is looks[-1])]


def look_alarms(looks: Sequence[Glance], expected: Sequence[float], organs: Sequence[str], ended: bool) -> list[Alarm]:
    """What is wrong at each look that was not wrong at the one before; all that is wrong at the last if the run has `ended`.

    `expected`: part of the pixels of each class in the labels of the source, background first. On the way an organ has
    vanished only if an earlier look has found it: small ones are learnt late.
    """
    alarms: list[Alarm] = []
    before: set[str] = set()
    found: set[str] = set()
    for n, look in enumerate(looks):
        last = ended and n == len(looks) - 1
        now = _wrong_with(look, expected, organs)
        for subject, (check, sentence) in now.items():
            never_there = check == "organ-vanished" and subject not in found
            if last or (subject not in before and not never_there):
                alarms.append(Alarm(look.step, look.stage, check, sentence))
        before = set(now)
        if look.finite:
            found |= {organ for organ in organs if organ not in now}
    return alarms


def _wrong_with(look: Glance, expected: Sequence[float], organs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Check and sentence by what it is about."""
    where = f"{look.slices} target training slices"
    if not look.finite:
        return {
            "not finite": (
                "not-finite",
                f"predictions on {where} hold values that are not finite numbers (threshold: none may). Lower the learning "
                f"rate, or train with precision=32-true.",
            )
        }
    wrong: dict[str, tuple[str, str]] = {}
    for k, organ in enumerate(organs, start=1):
        if look.shares[k] < VANISHED * expected[k]:
            wrong[organ] = (
                "organ-vanished",
                f"{organ} has vanished: it is {_percent(look.shares[k])} of the pixels predicted on {where} and "
                f"{_percent(expected[k])} of the source's labels (threshold: 1/100 of that). Train longer, lower the weight "
                f"of the adversary, or make sure that the target shows it.",
            )
    if look.shares[0] < DROWNED * expected[0]:
        wrong["background"] = (
            "background-vanished",
            f"background has vanished: it is {_percent(look.shares[0])} of the pixels predicted on {where} and "
            f"{_percent(expected[0])} of the source's labels (threshold: 1/10 of that). Lower the weight of the adversary or of "
            f"the entropy, or the learning rate.",
        )
    largest = max(range(len(look.shares)), key=lambda k: look.shares[k])
    others, usual = 1 - look.shares[largest], 1 - expected[largest]
    if look.entropy < CERTAIN and others < VANISHED * usual:
        wrong["one class"] = (
            "entropy-collapse",
            f"all but {_percent(others)} of {where} is predicted as {('background', *organs)[largest]} with a mean entropy of "
            f"{look.entropy:.2g} (thresholds: 1/100 of the source's {_percent(usual)}, and {CERTAIN}). Lower the weight of "
            f"the entropy or of the adversary on it, or the learning rate.",
        )
    if look.correlation is not None and look.correlation < INVERTED:
        wrong["inversion"] = (
            "inversion",
            f"the translation inverts contrast: x and its translation correlate by {look.correlation:.2f}, median of {where} "
            f"(threshold: {INVERTED}). Train with another seed, or raise the weights of the cycle and identity losses.",
        )
    return wrong


def _discriminator_sentence(check: str, name: str, kind: Gan, stage: str, mean: float, steps: int) -> str:
    if check == "discriminator-won":
        return (
            f"{name} of stage '{stage}' has been below {WON} for {steps} steps and is {mean:.2g}: the discriminator is never "
            f"wrong, and what it teaches fades. Give it a lower learning rate or fewer channels."
        )
    perhaps = "ln 2 = 0.693" if kind == "bce" else "1/4"
    return (
        f"{name} of stage '{stage}' has been within {100 * STUCK:.0f} % of {perhaps} for {steps} steps and is {mean:.3f}: the "
        f"discriminator cannot tell its two sides apart. If it never could, give it a higher learning rate."
    )


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %"
