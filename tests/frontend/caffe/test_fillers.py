from __future__ import annotations

import math

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.fillers import Filler, VarianceNorm, fill

SHAPE = (64, 32, 3, 3)


@pytest.mark.parametrize(
    ("filler", "mean", "deviation", "bound"),
    [
        (Filler("constant", value=0.5), 0.5, 0, 0.5),
        (Filler("uniform", min=-1, max=3), 1, 4 / math.sqrt(12), 3),
        (Filler("gaussian", mean=2, std=0.1), 2, 0.1, None),
        (Filler("xavier"), 0, math.sqrt(1 / 288), math.sqrt(3 / 288)),
        (Filler("xavier", variance_norm=VarianceNorm.FAN_OUT), 0, math.sqrt(1 / 576), math.sqrt(3 / 576)),
        (Filler("msra"), 0, math.sqrt(2 / 288), None),
        (Filler("msra", variance_norm=VarianceNorm.AVERAGE), 0, math.sqrt(2 / 432), None),
    ],
)
def test_moments(filler, mean, deviation, bound) -> None:
    values = fill(filler, SHAPE, 0, "weight")
    assert values.dtype == np.float32
    assert values.mean() == pytest.approx(mean, abs=4 * deviation / math.sqrt(values.size) + 1e-6)
    assert values.std() == pytest.approx(deviation, rel=0.05, abs=1e-6)
    assert bound is None or np.abs(values).max() <= bound * (1 + 1e-6)


def test_positive_unitball_sums_to_one() -> None:
    np.testing.assert_allclose(fill(Filler("positive_unitball"), SHAPE, 0, "w").sum((1, 2, 3)), 1, rtol=1e-5)


def test_sparse_gaussian_has_zeros() -> None:
    values = fill(Filler("gaussian", sparse=16), SHAPE, 0, "w")
    assert (values != 0).mean() == pytest.approx(16 / 64, rel=0.1)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_bilinear_interpolates(size) -> None:
    factor = math.ceil(size / 2)
    centre = (2 * factor - 1 - factor % 2) / (2 * factor)
    values = fill(Filler("bilinear"), (1, 1, size, size), 0, "w")[0, 0]
    for y in range(size):
        for x in range(size):
            assert values[y, x] == pytest.approx((1 - abs(x / factor - centre)) * (1 - abs(y / factor - centre)))


def test_the_seed_and_the_name_decide() -> None:
    filler = Filler("msra")
    first = fill(filler, SHAPE, 1, "a")
    np.testing.assert_array_equal(first, fill(filler, SHAPE, 1, "a"))
    assert (first != fill(filler, SHAPE, 2, "a")).any()
    assert (first != fill(filler, SHAPE, 1, "b")).any()


@pytest.mark.parametrize(
    ("filler", "message"), [(Filler("magic"), "no filler of type 'magic'"), (Filler("bilinear"), "4 dim")]
)
def test_what_can_not_be_filled_is_refused(filler, message) -> None:
    with pytest.raises(WootzError, match=message):
        fill(filler, (2, 3), 0, "w")
