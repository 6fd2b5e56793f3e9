"""Names of conventions, means and deviations, and the transforms that they stand for."""

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.plan.pixel_conventions import CONVENTIONS, Convention, conventions_for, read_convention
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import normalize

PIXELS = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
"""Red, green and blue of one image."""


def made_of_pixels(text, order=None):
    transform = read_convention(text).applied(InputTransform(channel_order="RGB"), order)
    return normalize(PIXELS, transform).ravel()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0..1", [0, 0.2, 1]),
        ("-1..1", [-1, -0.6, 1]),
        ("raw", [0, 51, 255]),
        ("imagenet", [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("caffe", [255 - 103.939, 51 - 116.779, -123.68]),
        ("0.5:0.5", [-1, -0.6, 1]),
        ("127.5:127.5", [-1, -0.6, 1]),
        ("0:1", [0, 0.2, 1]),
        ("0:255", [0, 0.2, 1]),
        ("128:1", [-128, -77, 127]),
        ("0,0.2,1:0.5", [0, 0, 0]),
        ("0.0,0.1,0.0:1,0.1,0.5", [0, 1, 2]),
    ],
)
def test_what_becomes_of_pixels(text, expected):
    np.testing.assert_allclose(made_of_pixels(text), expected, rtol=1e-5, atol=1e-5)


def test_numbers_stay_with_their_colours():
    """In the other order the same numbers stand the other way round."""
    for text in ("imagenet", "caffe"):
        by_order = {order: made_of_pixels(text, order) for order in ("RGB", "BGR")}
        np.testing.assert_allclose(by_order["RGB"], by_order["BGR"][::-1])


def test_what_has_no_order_leaves_it():
    for order in ("RGB", "BGR"):
        assert Convention((0.0,), (255.0,)).applied(InputTransform(channel_order=order)).channel_order == order


def test_grey_images_have_no_mean_colour():
    assert set(conventions_for(1)) == {"0..1", "-1..1", "raw"}
    assert set(conventions_for(3)) == set(CONVENTIONS)


@pytest.mark.parametrize("text", ["", "rgb", "1", "1:2:3", "a:b", "0.5:0", "0.5:-1", "inf:1", "nan:1", "0.5:", "1:nan"])
def test_refused(text):
    with pytest.raises(WootzError, match=r"--normalize .*: give imagenet, .*MEAN:STD"):
        read_convention(text)
