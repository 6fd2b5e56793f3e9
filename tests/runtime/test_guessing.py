"""When a given network is said to guess."""

import numpy as np
import pytest

from wootz.runtime.guessing import guessing_note
from wootz.runtime.uncertainty import Share

BALANCED, SKEWED = np.arange(300) % 3, np.array([0] * 40 + [1] * 260)


@pytest.mark.parametrize(
    ("accuracy", "labels", "warned"),
    [
        (0.333, BALANCED, True),
        (0.36, BALANCED, True),
        (0.0, BALANCED, True),  # classes in another order, perhaps
        (0.45, BALANCED, False),
        (0.86, SKEWED, False),  # not better than one answer, but what networks reach where one class is that frequent
        (0.13, SKEWED, True),
    ],
)
def test_the_warning(accuracy, labels, warned):
    note = guessing_note(Share(accuracy, len(labels)), labels, ("a", "b", "c"))
    assert bool(note) == warned
    if warned:
        assert f"{accuracy:.4f} on the validation images" in note
        assert "--mean" in note
