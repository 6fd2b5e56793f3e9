"""By which exponent the losses of blocks add up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.runtime.strategies.exponent import EXPONENTS, best_exponent


def networks(exponent, seed, count=40):
    """Losses of blocks, costs that are alike, and accuracies that fall with the norm of the losses."""
    random = np.random.default_rng(seed)
    losses = random.lognormal(0.0, 1.5, (count, 8))
    return losses, random.uniform(0.98, 1.02, count), 0.9 - 0.01 * np.linalg.norm(losses, exponent, axis=1)


@given(st.sampled_from(EXPONENTS), st.integers(0, 1000))
def test_the_exponent_of_a_law_is_found(exponent, seed):
    assert best_exponent(*networks(exponent, seed)) == exponent


def test_networks_of_other_costs_say_nothing():
    losses, _, accuracies = networks(3.0, 0)
    assert best_exponent(losses, 2.0 ** np.arange(len(losses)), accuracies) == EXPONENTS[0]


@pytest.mark.parametrize("count", [0, 1])
def test_few_networks_say_nothing(count):
    assert best_exponent(*(values[:count] for values in networks(3.0, 0))) == EXPONENTS[0]


@pytest.mark.parametrize(("accuracies", "exponent"), [([0.6, 0.4, 0.5, 0.49], 1.0), ([0.5, 0.49, 0.6, 0.4], 1.5)])
def test_an_order_counts_by_how_much_accuracies_differ(accuracies, exponent):
    """The plain sum has the first two as they are, any other exponent the last two."""
    losses = [[1.0], [0.55, 0.5], [2.0, 2.0], [3.9]]
    assert best_exponent(losses, [1.0, 1.0, 9.0, 9.0], accuracies) == exponent
