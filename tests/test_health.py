"""When training has gone wrong: each threshold at numbers worked out by hand, from both sides."""

import math

import pytest

from attent_kit.engine.train.health import DiscriminatorWatch, Glance, Span, look_alarms, stuck, telling
from support.messages import quotes

ORGANS = ("liver", "spleen")
EXPECTED = (0.9, 0.08, 0.02)
"""Parts of the source's labels: an organ has vanished below 0.0008 and 0.0002."""


def line(step, stage="segment", **losses):
    return {"step": step, "stage": stage, **losses}


def judged(values, kind="bce", log_steps=10, steps=100, name="L_D"):
    """(steps done, check) of each alarm if every window of the stage has the next of these values."""
    watch = DiscriminatorWatch({name: kind}, [Span("segment", 0, steps)], log_steps)
    alarms = []
    for n, value in enumerate(values):
        alarms += watch.add(line(n * log_steps + log_steps - 1, **{name: value}))
    return [(alarm.step, alarm.check) for alarm in alarms]


def look(step=10, shares=(0.9, 0.08, 0.02), entropy=0.1, correlation=None, finite=True):
    return Glance(step, "segment", 64, finite, tuple(shares), entropy, correlation)


def found(*looks, ended=False, expected=EXPECTED):
    return [(alarm.step, alarm.check) for alarm in look_alarms(looks, expected, ORGANS, ended)]


# Discriminators


def test_a_discriminator_that_cannot_tell_has_ln_2_or_a_quarter():
    """It answers 1/2: (-log 1/2 - log 1/2) / 2 = ln 2, and ((1 - 1/2)^2 + (1/2)^2) / 2 = 1/4."""
    assert stuck(math.log(2), "bce") and stuck(0.25, "lsgan")
    assert not stuck(0.25, "bce") and not stuck(math.log(2), "lsgan")


@pytest.mark.parametrize(("kind", "inside", "outside"), [("bce", 0.6869, 0.6855), ("lsgan", 0.2524, 0.2526)])
def test_one_percent_off_is_no_longer_stuck(kind, inside, outside):
    assert stuck(inside, kind) and not stuck(outside, kind)


def test_the_constants_are_those_of_the_losses_that_methods_use():
    torch = pytest.importorskip("torch")
    from attent_kit.objectives import fake, real

    perhaps = {"bce": torch.zeros(2, 1, 3, 3), "lsgan": torch.full((2, 1, 3, 3), 0.5)}
    for kind, logits in perhaps.items():
        loss = float((real(logits, kind) + fake(logits, kind)) / 2)
        assert stuck(loss, kind) and loss == pytest.approx(math.log(2) if kind == "bce" else 0.25)


def test_a_loss_at_zero_warns_after_five_windows_and_only_once():
    assert judged([0.001] * 10) == [(50, "discriminator-won")]
    assert judged([0.001] * 4 + [0.3] * 6) == []
    assert judged([0.0101] * 10) == []


def test_a_discriminator_begins_undecided_and_that_alone_is_no_warning():
    """A line of the log after each step: 20 steps must pass, however short the stage."""
    for steps, alarms in ((19, []), (30, [(20, "discriminator-stuck")])):
        assert judged([math.log(2)] * steps, log_steps=1, steps=steps) == alarms


def test_a_loss_that_comes_back_begins_to_count_anew():
    assert judged([0.001] * 4 + [0.3] + [0.001] * 5) == [(100, "discriminator-won")]


def test_in_a_long_stage_a_fifth_of_it_must_pass():
    """100 windows of 10 steps: 200 steps, and not 50."""
    assert judged([math.log(2)] * 100, steps=1000) == [(200, "discriminator-stuck")]
    assert judged([0.25] * 19 + [0.2] * 81, kind="lsgan", steps=1000) == []


def test_healthy_losses_of_a_cyclegan_warn_of_nothing():
    assert judged([0.54, 0.41, 0.30, 0.32, 0.27, 0.25, 0.25, 0.27, 0.24, 0.25], kind="lsgan") == []


def test_losses_that_are_not_named_are_not_judged():
    watch = DiscriminatorWatch({}, [Span("segment", 0, 100)], 10)
    assert [watch.add(line(n, L_D=0.0)) for n in range(9, 100, 10)] == [[]] * 10


def test_a_stage_begins_anew_and_its_name_is_in_the_sentence():
    spans = [Span("translate", 0, 40), Span("segment", 40, 90)]
    watch = DiscriminatorWatch({"L_D": "bce"}, spans, 10)
    alarms = [a for n in range(9, 90, 10) for a in watch.add(line(n, L_D=0.0))]
    assert [(a.step, a.stage) for a in alarms] == [(90, "segment")]
    assert quotes(alarms[0].sentence, "L_D", "'segment'", "below 0.01", "50 steps", "is 0:")


def test_lines_that_checkpoints_cut_short_are_joined_by_their_steps():
    """Seven steps at 0.002 and three at 0.02 are 0.0074 on average, below 0.01; the other way round 0.0146."""
    for first, second, warned in ((0.002, 0.02, True), (0.02, 0.002, False)):
        watch = DiscriminatorWatch({"L_D": "bce"}, [Span("segment", 0, 50)], 10)
        alarms = []
        for n in range(5):
            alarms += watch.add(line(10 * n + 6, L_D=first)) + watch.add(line(10 * n + 9, L_D=second))
        assert [a.check for a in alarms] == ["discriminator-won"] * warned


def test_a_window_that_is_not_over_is_not_judged_but_the_rest_of_a_stage_is():
    watch = DiscriminatorWatch({"L_D": "bce"}, [Span("segment", 0, 53)], 10)
    assert [watch.add(line(n, L_D=0.0)) for n in (9, 19, 29, 39, 45)] == [[]] * 5
    assert [a.step for a in watch.add(line(49, L_D=0.0))] == [50]
    # A fifth of 255 steps is 51: from step 200 on they are not over at 250, and over at the end.
    watch = DiscriminatorWatch({"L_D": "bce"}, [Span("segment", 0, 255)], 10)
    steps = [*range(9, 255, 10), 254]
    assert [a.step for n in steps for a in watch.add(line(n, L_D=0.5 if n < 200 else 0.0))] == [255]


# Looks


def test_an_organ_below_a_hundredth_of_its_part_in_the_source_has_vanished_at_the_end():
    assert found(look(shares=(0.98, 0.00079, 0.02)), ended=True) == [(10, "organ-vanished")]
    assert found(look(shares=(0.98, 0.00081, 0.02)), ended=True) == []


def test_both_numbers_and_the_threshold_are_in_the_sentence():
    (alarm,) = look_alarms([look(shares=(0.9799, 0.0001, 0.02))], EXPECTED, ORGANS, True)
    assert quotes(alarm.sentence, "liver has vanished", "0.01 %", "64 target", "8 %", "source", "1/100")


def test_an_organ_that_the_source_has_not_cannot_vanish():
    assert found(look(shares=(1.0, 0.0, 0.0)), ended=True, expected=(1.0, 0.0, 0.0)) == []


def test_a_background_below_a_tenth_of_its_part_has_vanished():
    """The source has 90 %."""
    assert found(look(shares=(0.089, 0.5, 0.411)), ended=True) == [(10, "background-vanished")]
    assert found(look(shares=(0.091, 0.5, 0.409)), ended=True) == []


def test_on_the_way_an_organ_vanishes_only_where_it_was():
    none, both = (0.98, 0.02, 0.0), (0.9, 0.08, 0.02)
    assert found(look(10, none), look(20, none)) == []
    assert found(look(10, none), look(20, both), look(30, none), look(40, none)) == [(30, "organ-vanished")]
    assert found(look(10, none), look(20, none), ended=True) == [(20, "organ-vanished")]


def test_one_class_everywhere_and_certain_is_a_collapse():
    """The source leaves 10 % to others than background: less than 0.1 % of that is one class everywhere."""
    alone = (0.9991, 0.0005, 0.0004)
    assert (10, "entropy-collapse") in found(look(shares=alone, entropy=0.009), ended=True)
    assert (10, "entropy-collapse") not in found(look(shares=alone, entropy=0.011), ended=True)
    assert (10, "entropy-collapse") not in found(look(shares=(0.9989, 0.0006, 0.0005), entropy=0.0), ended=True)


def test_the_one_class_may_be_an_organ():
    """Of the source 92 % are not liver: less than 0.92 % of that is left."""
    assert (10, "entropy-collapse") in found(look(shares=(0.009, 0.991, 0.0), entropy=0.0), ended=True)
    assert (10, "entropy-collapse") not in found(look(shares=(0.01, 0.99, 0.0), entropy=0.0), ended=True)


def test_certainty_alone_is_what_training_is_for():
    assert found(look(entropy=0.0), ended=True) == []


def test_a_translation_that_turns_contrast_round():
    assert found(look(correlation=-0.51), ended=True) == [(10, "inversion")]
    assert found(look(correlation=-0.49), ended=True) == []
    (alarm,) = look_alarms([look(correlation=-0.834)], EXPECTED, ORGANS, True)
    assert "correlate by -0.83" in alarm.sentence and "(threshold: -0.5)" in alarm.sentence


def test_what_is_not_finite_is_said_alone():
    assert found(look(shares=(1.0, 0.0, 0.0), entropy=0.0, finite=False), ended=True) == [(10, "not-finite")]


def test_a_warning_is_given_once_until_it_was_gone_and_again_at_the_end():
    wrong, right = {"correlation": -0.9}, {"correlation": 0.9}
    looks = [look(10, **wrong), look(20, **wrong), look(30, **right), look(40, **wrong), look(50, **wrong)]
    assert [step for step, _ in found(*looks)] == [10, 40]
    assert [step for step, _ in found(*looks, ended=True)] == [10, 40, 50]


# First steps


def judged_looks(*steps, ended, spans=((0, 100),), **fault):
    """(step, check) if every look has the fault."""
    looks = [look(step, **fault) for step in steps]
    told = telling(looks, [Span(str(n), *span) for n, span in enumerate(spans)], ended)
    return [(alarm.step, alarm.check) for alarm in look_alarms(told, EXPECTED, ORGANS, ended)]


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("background-vanished", {"shares": (0.05, 0.5, 0.45)}),
        ("inversion", {"correlation": -0.9}),
        ("entropy-collapse", {"shares": (0.0001, 0.0001, 0.9998), "entropy": 0.0}),
    ],
)
def test_what_chance_made_of_a_network_is_no_alarm(check, fault):
    """A fifth of 100 steps is 20, and of a run of 50 it is 10, which is less than 20."""
    assert judged_looks(1, 5, 19, ended=False, **fault) == []
    assert (20, check) in judged_looks(1, 5, 20, 30, ended=False, **fault)
    assert judged_looks(1, 5, 19, ended=False, spans=((0, 50),), **fault) == []
    assert judged_looks(1, ended=True, spans=((0, 1),), **fault) == []
    assert (20, check) in judged_looks(20, ended=True, spans=((0, 10), (10, 20)), **fault)


def test_organs_that_a_fresh_network_guesses_do_not_vanish_when_it_learns_the_background():
    guessed, learnt = look(1), look(30, shares=(1.0, 0.0, 0.0))
    assert [a.check for a in look_alarms([guessed, learnt], EXPECTED, ORGANS, False)] == 2 * ["organ-vanished"]
    assert look_alarms(telling([guessed, learnt], [Span("", 0, 100)], False), EXPECTED, ORGANS, False) == []


def test_first_steps_are_those_since_there_is_something_to_look_at():
    """Looks begin in the second stage: a fifth of its 100 steps is over at 120."""
    assert judged_looks(101, 119, 120, ended=False, spans=((0, 100), (100, 200)), correlation=-0.9) == [
        (120, "inversion")
    ]


def test_no_number_is_told_at_once():
    assert judged_looks(1, ended=False, finite=False) == [(1, "not-finite")]
