"""When a given network is said to know the validation images."""

import pytest

from wootz.runtime.seen_validation import seen_validation_note
from wootz.runtime.uncertainty import Share


@pytest.mark.parametrize(
    ("training", "validation", "test", "splits_training", "warned"),
    [
        ((1.0, 1000), (1.0, 250), (0.97, 540), True, True),  # trained on all that validation was taken from
        ((1.0, 1000), (0.97, 250), (0.965, 540), True, False),  # trained on the rest alone
        ((0.995, 1000), (0.99, 250), (0.988, 540), True, False),  # as good on new images
        ((0.8, 1000), (0.95, 500), (0.8, 500), False, True),  # trained on a validation split of its own
        ((1.0, 1000), (0.84, 500), (0.8, 500), False, False),
        ((1.0, 1000), (1.0, 250), None, True, True),
        ((1.0, 1000), (1.0, 250), None, False, False),  # a validation split of its own, and nothing else to compare
        ((1.0, 1000), (0.9, 250), None, True, False),
        ((0.1, 1000), (0.1, 250), None, True, False),  # it has learned nothing
        ((0.0, 10), (0.0, 10), (0.0, 10), True, False),
    ],
)
def test_the_warning(training, validation, test, splits_training, warned):
    note = seen_validation_note(Share(*training), Share(*validation), test and Share(*test), splits_training)
    assert bool(note) == warned
    if warned:
        assert f"{validation[0]:.4f} on the validation images" in note
        assert "Give a validation split" in note
        assert ("a fifth of the training images" in note) == splits_training
        assert ("on the test images" in note) == (test is not None)


def test_how_far_apart_two_shares_are():
    """0.9 of 400 and 0.8 of 400: pooled 0.85, deviation sqrt(0.85 · 0.15 · 2 / 400) = 0.02525."""
    assert Share(0.9, 400).above(Share(0.8, 400)) == pytest.approx(0.1 / 0.025249, rel=1e-4)
    assert Share(0.8, 400).above(Share(0.9, 400)) == -Share(0.9, 400).above(Share(0.8, 400))
