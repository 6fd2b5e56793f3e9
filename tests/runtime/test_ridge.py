"""Ridge regression of layers against a plain reference: windows one by one, and least squares of NumPy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.training.rules.geometry import Window
from wootz.runtime.ridge import UNDIVIDED, Moments, fit, patches, places, solve, targets


@st.composite
def layers(draw):
    """A window over one to three axes with its groups, channels of a group, and images."""
    axes = draw(st.integers(1, 3))
    per_axis = st.tuples(*[st.integers(1, 3)] * axes)
    kernel, strides, dilations = draw(per_axis), draw(per_axis), draw(per_axis)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads_begin, pads_end = (draw(st.tuples(*[st.integers(0, 2)] * axes)) for _ in range(2))
    size = tuple(e + draw(st.integers(0, 4)) for e in extent)
    count = tuple(
        (n + b + e - x) // s + 1 for n, b, e, x, s in zip(size, pads_begin, pads_end, extent, strides, strict=True)
    )
    window = Window(kernel, strides, dilations, pads_begin, size, count)
    return window, draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))


def seen_by_hand(data, window, groups):
    """[groups, images · positions, features], one number at a time; zero outside of the data."""
    images, channels = data.shape[:2]
    per_group = channels // groups
    rows = [
        [
            [
                number_at(data, image, group * per_group + channel, window, position, tap)
                for channel in range(per_group)
                for tap in np.ndindex(*window.kernel)
            ]
            for image in range(images)
            for position in np.ndindex(*window.count)
        ]
        for group in range(groups)
    ]
    return np.array(rows, np.float32)


def number_at(data, image, channel, window, position, tap):
    where = [
        p * s + t * d - b
        for p, s, t, d, b in zip(position, window.strides, tap, window.dilations, window.pads_begin, strict=True)
    ]
    inside = all(0 <= w < n for w, n in zip(where, window.size, strict=True))
    return data[(image, channel, *where)] if inside else 0.0


@settings(max_examples=40)
@given(layers())
def test_patches_are_what_the_windows_of_a_layer_see(layer):
    window, groups, per_group, images = layer
    data = np.random.default_rng(0).normal(size=(images, groups * per_group, *window.size)).astype(np.float32)
    everywhere = [np.arange(n) for n in window.count]
    np.testing.assert_array_equal(patches(data, window, groups, everywhere), seen_by_hand(data, window, groups))


@settings(max_examples=40)
@given(layers(), st.integers(1, 3), st.floats(1e-6, 1.0), st.booleans())
def test_the_fit_is_the_least_squares_solution_of_rows_with_the_penalty_among_them(layer, filters, ridge, centred):
    window, groups, per_group, images = layer
    generator = np.random.default_rng(1)
    data = generator.normal(size=(images, groups * per_group, *window.size)).astype(np.float32)
    output = generator.normal(1, 1, (images, groups * filters, *window.count)).astype(np.float32)
    everywhere = [np.arange(n) for n in window.count]
    x, y = patches(data, window, groups, everywhere), targets(output, groups, everywhere)
    start = generator.normal(size=(groups, x.shape[2], filters))
    moments = Moments()
    for part in np.array_split(np.arange(x.shape[1]), 2):
        moments.add(x[:, part], y[:, part])
    found = fit(moments, start, ridge, centred)
    for g in range(groups):
        rows, wanted = x[g].astype(np.float64), y[g].astype(np.float64)
        if centred:
            rows, wanted = rows - rows.mean(0), wanted - wanted.mean(0)
        penalty = np.sqrt(ridge * np.square(rows).sum() / rows.shape[1])
        if penalty < 1e-6:
            expected = start[g]
        else:
            system = np.vstack([rows, penalty * np.eye(rows.shape[1])])
            change = np.linalg.lstsq(system, np.vstack([wanted - rows @ start[g], 0 * start[g]]), rcond=None)[0]
            expected = start[g] + change
        np.testing.assert_allclose(found.weights[g], expected, atol=1e-6)
        given_out = x[g].astype(np.float64) @ found.weights[g]
        np.testing.assert_allclose(found.mean[g], given_out.mean(0), atol=1e-9)
        np.testing.assert_allclose(found.variance[g], given_out.var(0), atol=1e-9)
        np.testing.assert_allclose(found.target_mean[g], y[g].mean(0), atol=1e-6)


@pytest.mark.parametrize("n", [1, UNDIVIDED, UNDIVIDED + 1, 5 * UNDIVIDED - 3])
def test_large_systems_are_solved_in_parts(n):
    generator = np.random.default_rng(n)
    root = generator.normal(size=(n, n + 5))
    a, b = root @ root.T + 1e-3 * np.eye(n), generator.normal(size=(n, 3))
    np.testing.assert_allclose(a @ solve(a, b), b, atol=1e-7)


@pytest.mark.parametrize("count", [(1,), (7, 9), (33, 16)])
def test_batches_look_at_places_of_their_own_and_together_at_all(count):
    looked_at = [set(itertools.product(*(p.tolist() for p in places(count, n)))) for n in range(9)]
    assert all(len(seen) <= 16 ** len(count) for seen in looked_at)
    assert all(
        set().union(*(places(count, n)[a].tolist() for n in range(9))) == set(range(c)) for a, c in enumerate(count)
    )
