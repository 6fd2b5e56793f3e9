"""How uncertain accuracies are, and what is said of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.runtime.uncertainty import Share, margin_note


@pytest.mark.parametrize(("accuracy", "images"), [(0.5, 100), (0.9, 250), (0.98, 1000)])
def test_the_standard_error_is_the_spread_of_accuracies_on_other_images(accuracy, images):
    drawn = np.random.default_rng(0).binomial(images, accuracy, 100_000) / images
    assert Share(accuracy, images).standard_error == pytest.approx(drawn.std(), rel=0.12)


@given(st.integers(0, 50), st.integers(1, 50))
def test_few_images_never_make_sure(right, wrong):
    images = right + wrong
    assert Share(right / images, images).standard_error > Share(right / images, 100 * images).standard_error > 0


def test_a_margin_within_the_standard_error_is_told():
    assert "on 250 images (0.0095)" in margin_note("accuracy", Share(0.984, 250), 0.98)
    assert margin_note("accuracy", Share(0.984, 250), 0.97) == ""
