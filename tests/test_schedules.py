"""Multipliers of the learning rate as a function of the fraction that is done."""

import pytest

from attent_kit.schedules import constant, linear_after, poly


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


@pytest.mark.parametrize("schedule", [poly(), poly(2.0), linear_after(), linear_after(0.2)])
def test_a_learning_rate_never_rises_and_never_turns_negative(schedule):
    values = [schedule(n / 1000) for n in range(1002)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0
