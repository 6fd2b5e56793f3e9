"""What networks compute of their input before the first layer."""

import numpy as np
import pytest

from wootz.passes.analysis.input_normalization import input_normalization
from wootz.passes.ir.text import parse_text

FIRST_LAYER = "w = Constant<value = float[2,3,1,1] {1,2,3,4,5,6}>() y = Conv(n, w)"


def found_in(body):
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N,3,4,4] x) => (float[N,2,4,4] y)
        {{ {body} {FIRST_LAYER} }}"""
    return input_normalization(parse_text(text))


@pytest.mark.parametrize(
    ("body", "factor", "offset", "operators"),
    [
        (
            """m = Constant<value = float[1,3,1,1] {0.5, 0.25, 0}>() s = Constant<value = float[3,1,1] {0.5, 0.25, 2}>()
            c = Sub(x, m) n = Div(c, s)""",
            [2, 4, 0.5], [-1, -1, 0], ("Sub", "Div"),
        ),
        (
            """f = Cast<to = 1>(x) s = Constant<value = float {0.0078125}>() o = Constant<value = float[1] {-1}>()
            a = Mul(s, f) n = Add(o, a)""",
            [1 / 128] * 3, [-1] * 3, ("Mul", "Add"),
        ),
        (
            """c = Constant<value = float {255}>() i = Identity(c) a = Sub(i, x) n = Div(a, i)""",
            [-1 / 255] * 3, [1] * 3, ("Sub", "Div"),
        ),
        (
            """m = Constant<value = float[3] {1, 2, 3}>() axes = Constant<value = int64[2] {1, 2}>()
            k = Unsqueeze(m, axes) n = Sub(x, k)""",
            [1] * 3, [-1, -2, -3], ("Sub",),
        ),
    ],
)  # fmt: skip
def test_it_is_one_factor_and_one_offset_a_channel(body, factor, offset, operators):
    found = found_in(body)
    np.testing.assert_allclose(found.factor, factor, rtol=1e-6)
    np.testing.assert_allclose(found.offset, offset, rtol=1e-6)
    assert (found.operators, found.expected) == (operators, None)


FLIPS = {
    "Gather": "q = Constant<value = int64[3] {2, 1, 0}>() t = Gather<axis = 1>(x, q)",
    "Slice": """s = Constant<value = int64[1] {-1}>() e = Constant<value = int64[1] {-9223372036854775807}>()
        a = Constant<value = int64[1] {1}>() t = Slice(x, s, e, a, s)""",
    "Split": "q = Constant<value = int64[3] {1, 1, 1}>() r, g, b = Split<axis = 1>(x, q) t = Concat<axis = 1>(b, g, r)",
}


@pytest.mark.parametrize("flip", FLIPS)
def test_channels_that_are_turned_round_do_not_hide_it(flip):
    subtracted = "m = Constant<value = float[1,3,1,1] {1, 2, 3}>() n = Sub(t, m)"
    found = found_in(f"{FLIPS[flip]} {subtracted}")
    np.testing.assert_array_equal(found.offset, [-3, -2, -1])
    assert found.operators == ("Sub",)
    assert found_in(f"{FLIPS[flip]} n = Identity(t)") is None
    assert found_in(f"{FLIPS[flip]} f = Mul(x, t) n = Identity(f)") is None, "the input is read elsewhere too"
    shuffled = FLIPS["Gather"].replace("2, 1, 0", "1, 2, 0")
    assert found_in(f"{shuffled} {subtracted}") is None


def test_a_batch_normalization_says_what_it_expects():
    found = found_in(
        """h = Constant<value = float {2}>() d = Mul(x, h) ones = Constant<value = float[3] {1, 1, 1}>()
        m = Constant<value = float[3] {1, 2, 3}>() v = Constant<value = float[3] {4, 5, 6}>()
        b = BatchNormalization(d, ones, ones, m, v) n = Add(b, h)"""
    )
    np.testing.assert_array_equal(found.factor, [2] * 3)
    np.testing.assert_array_equal(found.expected, [[1, 2, 3], [4, 5, 6]])
    assert found.operators == ("Mul", "BatchNormalization")


@pytest.mark.parametrize(
    "body",
    [
        "n = Identity(x)",
        "n = Relu(x)",
        "z = Constant<value = float {0}>() n = Add(x, z)",
        "h = Constant<value = float {2}>() n = Div(h, x)",
        "w4 = Constant<value = float[4] {1, 2, 3, 4}>() n = Mul(x, w4)",  # a number a column
        "h = Constant<value = float {2}>() r = Relu(x) a = Mul(x, h) n = Add(a, r)",  # two read it
        "n = Mul(x, x)",
    ],
)
def test_what_is_none(body):
    assert found_in(body) is None
