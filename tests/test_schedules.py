"""Multipliers of the learning rate as a function of the fraction that is done."""

import pytest

from attent_kit.schedules import constant, first_part, linear_after, poly, scaled, steps_down


def test_constant_is_1_throughout():
    assert [constant(f) for f in (0.0, 0.5, 1.0)] == [1, 1, 1]


@pytest.mark.parametrize("power", [0.5, 0.9, 1.0, 2.0])
def test_poly_starts_at_1_and_ends_at_0(power):
    assert (poly(power)(0.0), poly(power)(1.0)) == (1, 0)


def test_poly_is_a_power_of_what_is_left():
    assert poly(2.0)(0.75) == 0.0625
    assert poly()(0.5) == pytest.approx(2**-0.9)


def test_linear_after_a_half_is_the_schedule_of_cyclegan():
    schedule = linear_after(0.5)
    assert [schedule(f) for f in (0.0, 0.25, 0.5)] == [1, 1, 1]
    assert [schedule(f) for f in (0.625, 0.75, 1.0)] == [0.75, 0.5, 0]


def test_linear_after_0_falls_from_the_start_and_after_1_never():
    assert [linear_after(0.0)(f) for f in (0.0, 0.25, 1.0)] == [1, 0.75, 0]
    assert [linear_after(1.0)(f) for f in (0.0, 0.99, 1.0)] == [1, 1, 1]


def test_a_rate_of_sifa_v1_falls_by_a_tenth_after_every_second_of_twenty_epochs():
    schedule = steps_down(0.9, 10)
    assert [schedule(epoch / 20) for epoch in (0, 1, 2, 3, 4)] == pytest.approx([1, 1, 0.9, 0.9, 0.81])
    assert schedule(1.0) == pytest.approx(0.9**10)


def test_a_schedule_is_cut_off_or_scaled():
    assert first_part(poly(1.0), 0.6)(1.0) == pytest.approx(0.4)
    assert first_part(poly(1.0), 0.6)(0.5) == pytest.approx(0.7)
    assert scaled(linear_after(0.5), 0.1)(0.75) == pytest.approx(0.05)


@pytest.mark.parametrize("schedule", [poly(), poly(2.0), linear_after(), linear_after(0.2)])
def test_a_learning_rate_never_rises_and_never_turns_negative(schedule):
    values = [schedule(n / 1000) for n in range(1002)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0
