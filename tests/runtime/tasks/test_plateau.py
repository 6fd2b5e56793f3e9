"""When blocks end, on made-up curves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.runtime.tasks.plateau import Plateau

RULE = Plateau(window=10, least_fall=0.05, windows_in_turn=2, first=40, fade=20)


def curve(*means):
    """Errors of steps that alternate around the means of windows of ten."""
    return np.concatenate([np.full(10, mean) + 0.1 * mean * (-1.0) ** np.arange(10) for mean in means])


@pytest.mark.parametrize(
    ("means", "begins"),
    [
        ((8, 4, 2, 1, 0.5, 0.25), None),  # it falls
        ((8, 4, 2, 1.95, 1.0, 0.99, 0.5), None),  # never two windows in turn
        ((8, 4, 2, 1.95, 1.9), 50),  # from the third window on
        ((8, 4, 2, 2.5, 3), 50),  # it rises
        ((8, 8, 8, 8), 40),  # not before so many steps
        ((8, 8, 8), None),
        ((8, 4, 2, 1.95, 1.9, 0.1, 0.01), 50),  # what comes later changes nothing
        ((0, 0, 0, 0), 40),  # nothing is left to fall
    ],
)
def test_a_block_has_stopped_when_its_error_falls_too_little_twice_in_turn(means, begins):
    errors = curve(*means)
    assert RULE.begins(errors) == begins
    assert RULE.end(errors) == (None if begins is None else begins + 20)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=120), st.integers(0, 120))
def test_it_is_decided_when_it_is_known(errors, seen):
    """Of the steps until then alone, and at the end of a window."""
    begins = RULE.begins(np.array(errors))
    before = RULE.begins(np.array(errors[:seen]))
    assert before == (begins if begins is not None and begins <= seen else None)
    assert begins is None or (begins % 10 == 0 and begins >= 40)
