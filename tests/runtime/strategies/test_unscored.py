"""Losses of options that were not measured."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.runtime.strategies.unscored import expected_losses

RATES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


@given(st.floats(1e-4, 1.0), st.floats(0.5, 4.0), st.sets(st.sampled_from(RATES[1:]), min_size=2))
def test_power_laws_are_found(factor, exponent, measured):
    law = {rate: factor * rate**exponent for rate in RATES}
    found = expected_losses([RATES], {(0, rate): law[rate] for rate in measured})
    assert {rate: found[0, rate] for rate in RATES} == pytest.approx(law, rel=1e-6)


def test_between_two_rates_losses_lie_between_those_of_both():
    measured = {(0, 0.25): 0.1, (0, 0.5): 0.3, (0, 0.75): 0.35}
    found = expected_losses([RATES], measured)
    assert {option: found[option] for option in measured} == measured
    assert 0.1 < found[0, 0.375] < 0.3 < found[0, 0.625] < 0.35 < found[0, 0.875]
    assert found[0, 0.0] == 0 < found[0, 0.125] < 0.1


def test_a_single_rate_stands_for_a_square():
    assert expected_losses([(0.0, 0.25, 0.5)], {(0, 0.5): 0.4})[0, 0.25] == pytest.approx(0.1)


def test_a_module_without_any_measured_rate_is_as_bad_as_the_worst():
    found = expected_losses([(0.0, 0.5), (0.0, 0.5)], {(1, 0.5): 0.7})
    assert found == {(0, 0.0): 0.0, (0, 0.5): 0.7, (1, 0.0): 0.0, (1, 0.5): 0.7}
    assert all(map(math.isfinite, expected_losses([(0.0, 0.5)], {}).values()))
