"""Random shapes and attributes of the operators that are linear in their operand, or in each of two.

Where y is linear in a, the loss L = Σ y · projection equals <dL/da, a>, so that the gradient can be compared with the
loss that ONNX Runtime computes, without differences. MaxPool is linear where its maxima stay the same.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.legalize import Legalize

TARGETS = ["onnx", "onnx-cuda"]


@pytest.fixture(scope="module")
def assert_adjoint(make_model, with_projected_loss, run):
    """Checks <gradient, parameter> against the loss for each parameter of an operator that is linear in them."""

    def check(target, body, shape, seed, **constants):
        assume(np.prod(shape) > 1)  # a constant of one element is no parameter
        weights = {"p": shape, **constants}
        kinds = {
            n: "int64" if isinstance(c, np.ndarray) and c.dtype.kind == "i" else "float" for n, c in weights.items()
        }
        shapes = {n: c.shape if isinstance(c, np.ndarray) else c for n, c in weights.items()}
        declared = ", ".join(f"{kinds[n]}[{','.join(map(str, shapes[n]))}] {n}" for n in weights)
        text = f"g (float[{','.join(map(str, shape))}] x) => (y) <{declared}> {{ a = Add(x, p) {body} }}"
        forward = with_projected_loss(make_model(text, seed, **weights))
        built = BuildGradients(trained=("p",)).apply(forward).model  # which might be a mean of pixels
        legal = Legalize(target=target).apply(built).model
        legal.graph.outputs.append(legal.graph.tensors()["y"])
        projection = np.random.default_rng(seed).normal(size=forward.graph.tensors()["projection"].shape)
        feeds = {"x": np.zeros(shape, np.float32), "projection": projection.astype(np.float32)}
        outputs = run(legal, feeds)
        scale = np.abs(outputs["y"] * feeds["projection"]).sum()
        values = forward.graph.tensors()
        for name in ("p", *(n for n, c in constants.items() if isinstance(c, tuple))):
            found = float(np.sum(outputs[f"{name}.grad"] * values[name].values, dtype=np.float64))
            assert abs(found - float(outputs["loss"])) <= 1e-5 * scale, name

    return check


def attribute(name, values):
    return f"{name}=[{','.join(map(str, values))}]"


@st.composite
def windows(draw, dilated=True, smaller_pads=True):
    """Shape of the space, and the window's kernel, strides, pads, dilations, such that some window fits."""
    axes = draw(st.sampled_from([2, 2, 2, 1, 3]))
    kernel = draw(st.lists(st.integers(1, 4), min_size=axes, max_size=axes))
    strides = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    dilations = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes)) if dilated else [1] * axes
    most = [k - 1 if smaller_pads else 4 for k in kernel]
    pads = [draw(st.integers(0, m)) for m in [*most, *most]]
    least = [max(1, (k - 1) * d + 1 - b - e) for k, d, b, e in zip(kernel, dilations, pads, pads[axes:], strict=False)]
    space = [draw(st.integers(n, n + 6)) for n in least]
    return space, kernel, strides, pads, dilations


@pytest.mark.parametrize("target", TARGETS)
@given(
    windows(smaller_pads=False),
    st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_conv(assert_adjoint, target, window, auto_pad, group, channels, filters, seed):
    space, kernel, strides, pads, dilations = window
    given_pads = [attribute("pads", pads)] if auto_pad == "NOTSET" else [f'auto_pad="{auto_pad}"']
    if auto_pad == "VALID":
        assume(all((k - 1) * d < n for k, d, n in zip(kernel, dilations, space, strict=True)))
    if auto_pad.startswith("SAME"):
        dilations = [1] * len(space)  # ONNX Runtime refuses them
        assume(same_leaves_out(space, kernel, strides) <= 1)
    attributes = [attribute("strides", strides), attribute("dilations", dilations), *given_pads, f"group={group}"]
    weight = (filters * group, channels, *kernel)
    body = f"y = Conv<{', '.join(attributes)}>(a, w)"
    assert_adjoint(target, body, (2, channels * group, *space), seed, w=weight)


@pytest.mark.parametrize("target", TARGETS)
@given(windows(), st.sampled_from([1, 2]), st.integers(1, 3), st.integers(0, 9), st.data())
def test_conv_transpose(assert_adjoint, target, window, group, channels, seed, data):
    space, kernel, strides, pads, dilations = window
    axes = len(space)
    extra = [data.draw(st.integers(0, s - 1)) for s in strides]
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(space, strides, kernel, dilations, extra, strict=True)
    ]
    assume(all(n - b - e > 0 for n, b, e in zip(full, pads[:axes], pads[axes:], strict=True)))
    attributes = [
        attribute("strides", strides),
        attribute("dilations", dilations),
        attribute("pads", pads),
        f"group={group}",
        attribute("output_padding", extra),
    ]
    body = f"y = ConvTranspose<{', '.join(attributes)}>(a, w)"
    assert_adjoint(target, body, (2, channels * group, *space), seed, w=(channels * group, 2, *kernel))


@pytest.mark.parametrize("target", TARGETS)
@given(windows(), st.sampled_from(["pads", "pads", "SAME_UPPER", "SAME_LOWER"]), st.booleans(), st.integers(0, 9))
def test_max_pool(assert_adjoint, target, window, padding, ceil, seed):
    space, kernel, strides, pads, dilations = window
    if padding != "pads":
        dilations = [1] * len(space)
        assume(same_leaves_out(space, kernel, strides) <= 0)
    assume(padding != "pads" or windows_see_something(space, kernel, strides, pads, dilations))
    assume(not ceil or padding != "pads" or windows_start_inside(space, kernel, strides, pads, dilations))
    attributes = [attribute("kernel_shape", kernel), attribute("strides", strides), attribute("dilations", dilations)]
    attributes += (
        [attribute("pads", pads), f"ceil_mode={int(ceil)}"] if padding == "pads" else [f'auto_pad="{padding}"']
    )
    assert_adjoint(target, f"y = MaxPool<{', '.join(attributes)}>(a)", (2, 3, *space), seed)


@pytest.mark.parametrize("target", TARGETS)
@given(
    windows(dilated=False),
    st.sampled_from(["pads", "pads", "SAME_UPPER", "SAME_LOWER"]),
    st.booleans(),
    st.integers(0, 9),
)
def test_average_pool(assert_adjoint, target, window, padding, count_pads, seed):
    space, kernel, strides, pads, _ = window
    assume(padding == "pads" or same_leaves_out(space, kernel, strides) <= 0)
    attributes = [
        attribute("kernel_shape", kernel),
        attribute("strides", strides),
        f"count_include_pad={int(count_pads)}",
    ]
    attributes += [attribute("pads", pads)] if padding == "pads" else [f'auto_pad="{padding}"']
    assert_adjoint(target, f"y = AveragePool<{', '.join(attributes)}>(a)", (2, 3, *space), seed)


def windows_see_something(space, kernel, strides, pads, dilations):
    """Whether each window has an element of the operand in it."""
    for n, k, s, d, begin, end in zip(space, kernel, strides, dilations, pads, pads[len(space) :], strict=False):
        starts = range(-begin, n + end - (k - 1) * d, s)
        if not all(any(0 <= start + i * d < n for i in range(k)) for start in starts):
            return False
    return True


def windows_start_inside(space, kernel, strides, pads, dilations):
    """Whether no window that ceil_mode adds starts behind the operand: on those, versions of ONNX differ."""
    axes = len(space)
    for n, k, s, d, begin, end in zip(space, kernel, strides, dilations, pads, pads[axes:], strict=False):
        last = -(-(n + begin + end - (k - 1) * d - 1) // s) * s
        if last >= n + begin:
            return False
    return True


def same_leaves_out(space, kernel, strides):
    """How many elements auto_pad=SAME leaves out. ONNX Runtime 1.31 runs no pooling that leaves out any; of more than
    one in a convolution, its versions leave out others."""
    return max(n - k - (-(-n // s) - 1) * s for n, k, s in zip(space, kernel, strides, strict=True))


MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(MODES),
    st.sampled_from(["linear", "nearest", "cubic"]),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    st.booleans(),
    st.integers(0, 9),
)
def test_resize(assert_adjoint, size, resized, coordinates, mode, rounding, by_scales, seed):
    attributes = [f'mode="{mode}"', f'coordinate_transformation_mode="{coordinates}"', f'nearest_mode="{rounding}"']
    scales = np.array([1.0, 1.0, *np.divide(np.add(resized, 0.5), size)], np.float32)
    if by_scales:
        body, operand = f"y = Resize<{', '.join(attributes)}>(a, , s)", scales
    else:
        body, operand = f"y = Resize<{', '.join(attributes)}>(a, , , s)", np.array([2, 3, *resized])
    assert_adjoint("onnx", body, (2, 3, *size), seed, s=operand)


@st.composite
def ranges(draw, size):
    """Start, end and step of Slice that take something of an axis; also counted from its end, or beyond it."""
    step = draw(st.integers(-3, 3).filter(bool))
    first = draw(st.integers(0, size - 1))
    room = (size - 1 - first) // step if step > 0 else first // -step
    end = first + draw(st.integers(0, room)) * step + (1 if step > 0 else -1)
    ends = [end, end - size] if 0 <= end < size else [size, 99, 2**31] if step > 0 else [-size - 1, -99, -(2**31)]
    return draw(st.sampled_from([first, first - size])), draw(st.sampled_from(ends)), step


@given(st.data(), st.integers(1, 3), st.integers(0, 9))
def test_slice(assert_adjoint, data, rank, seed):
    shape = tuple(data.draw(st.lists(st.integers(2, 6), min_size=rank, max_size=rank)))
    axes = data.draw(st.lists(st.integers(0, rank - 1), unique=True, min_size=1))
    starts, ends, steps = zip(*(data.draw(ranges(shape[a])) for a in axes), strict=True)
    signed = [data.draw(st.sampled_from([a, a - rank])) for a in axes]
    operands = {n: np.array(v) for n, v in zip(("s", "e", "i", "t"), (starts, ends, signed, steps), strict=True)}
    assert_adjoint("onnx", "y = Slice(a, s, e, i, t)", shape, seed, **operands)


ANYWHERE = st.one_of(st.integers(-9, 9), st.sampled_from([99, -99, 2**31, -(2**31), 1 - 2**63]))


@given(st.integers(1, 4), ANYWHERE, ANYWHERE, st.integers(-5, 5).filter(bool), st.integers(0, 9))
def test_slice_with_bounds_beyond_the_axis(assert_adjoint, size, start, end, step, seed):
    """Also those that take nothing."""
    operands = {n: np.array([v]) for n, v in zip("seit", (start, end, 1, step), strict=True)}
    body = "b = Slice(a, s, e, i, t) y = Concat<axis=1>(a, b, a)"
    assert_adjoint("onnx", body, (2, size), seed, **operands)


@given(st.data(), st.sampled_from(["constant", "edge", "reflect"]), st.integers(1, 4), st.integers(0, 9))
def test_pad(assert_adjoint, data, mode, rank, seed):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    least = -1 if mode == "constant" else 0
    pads = [data.draw(st.integers(least, n - 1 if mode == "reflect" else 4)) for n in [*shape, *shape]]
    assume(all(n + min(b, 0) + min(e, 0) > 0 for n, b, e in zip(shape, pads[:rank], pads[rank:], strict=True)))
    assert_adjoint("onnx", f'y = Pad<mode="{mode}">(a, s)', shape, seed, s=np.array(pads))


@given(st.data(), st.integers(1, 3), st.integers(0, 9))
def test_gather(assert_adjoint, data, rank, seed):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    axis = data.draw(st.integers(-rank, rank - 1))
    size = shape[axis]
    wanted = tuple(data.draw(st.lists(st.integers(1, 4), max_size=2)))
    indices = np.random.default_rng(seed).integers(-size, size, wanted)
    assert_adjoint("onnx", f"y = Gather<axis={axis}>(a, s)", shape, seed, s=np.asarray(indices))


@given(st.integers(2, 4), st.integers(0, 9))
def test_gather_nothing(assert_adjoint, size, seed):
    body = "b = Gather<axis=1>(a, s) y = Concat<axis=1>(b, a)"
    assert_adjoint("onnx", body, (2, size), seed, s=np.zeros(0, np.int64))


@given(st.data(), st.integers(1, 3), st.integers(0, 9))
def test_tile_and_expand(assert_adjoint, data, rank, seed):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    repeats = np.array(data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)))
    assert_adjoint("onnx", "y = Tile(a, s)", shape, seed, s=repeats)
    wider = [r if n == 1 else n for r, n in zip(repeats.tolist(), shape, strict=True)]
    assert_adjoint("onnx", "y = Expand(a, s)", shape, seed, s=np.array([2, *wider]))
