from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import InputError


@pytest.fixture
def x(random) -> np.ndarray:
    return random.normal(size=(2, 6, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(("parameter", "axis"), [("", 1), ("axis: 2", 2), ("axis: -1", 3), ("concat_dim: 1", 1)])
def test_concat(run_layer, random, x, parameter, axis) -> None:
    shape = list(x.shape)
    shape[axis] = 3
    z = random.normal(size=shape).astype(np.float32)
    found = run_layer(f'type: "Concat" concat_param {{ {parameter} }}', [x, z])
    np.testing.assert_array_equal(found, np.concatenate([x, z], axis))


def test_concat_along_the_batch(run_layer, x) -> None:
    np.testing.assert_array_equal(run_layer('type: "Concat" concat_param { axis: 0 }', [x, x]), np.concatenate([x, x]))


@pytest.mark.parametrize(
    ("parameter", "axis", "points"),
    [("", 1, [2, 4]), ("slice_point: 1 slice_point: 5", 1, [1, 5]), ("axis: -1 slice_point: [1, 2]", 3, [1, 2])],
)
def test_slice(run_layer, x, parameter, axis, points) -> None:
    found = run_layer(f'type: "Slice" slice_param {{ {parameter} }}', x, tops=3)
    for part, wanted in zip(found, np.split(x, points, axis), strict=True):
        np.testing.assert_array_equal(part, wanted)


def test_split_gives_every_top_the_bottom(run_layer, x) -> None:
    for part in run_layer('type: "Split"', x, tops=2):
        np.testing.assert_array_equal(part, x)


@pytest.mark.parametrize(
    ("parameter", "shape"), [("", (2, 120)), ("axis: 2", (2, 6, 20)), ("axis: 1 end_axis: 2", (2, 24, 5))]
)
def test_flatten(run_layer, x, parameter, shape) -> None:
    np.testing.assert_array_equal(run_layer(f'type: "Flatten" flatten_param {{ {parameter} }}', x), x.reshape(shape))


@pytest.mark.parametrize(
    ("parameter", "shape"),
    [
        ("shape { dim: 0 dim: -1 }", (2, 120)),
        ("shape { dim: 0 dim: 3 dim: 2 dim: -1 }", (2, 3, 2, 20)),
        ("shape { dim: 0 dim: 0 dim: -1 }", (2, 6, 20)),
        ("shape { dim: -1 dim: 5 }", (48, 5)),
        ("axis: 1 shape { dim: 2 dim: 3 dim: 0 dim: 5 }", None),
        ("axis: 2 num_axes: 1 shape { dim: 2 dim: 2 }", (2, 6, 2, 2, 5)),
        ("axis: -1 shape { dim: 1 }", (2, 6, 4, 5, 1)),
        ("axis: 0 num_axes: 0 shape { dim: 1 }", (1, 2, 6, 4, 5)),
        ("axis: 1 num_axes: 2 shape { dim: -1 }", (2, 24, 5)),
        ("shape { dim: 8 dim: 30 }", (8, 30)),
        ("shape { dim: 2 dim: 6 dim: 4 dim: 5 }", (2, 6, 4, 5)),
    ],
)
def test_reshape(run_layer, x, parameter, shape) -> None:
    text = f'type: "Reshape" reshape_param {{ {parameter} }}'
    if shape is None:
        with pytest.raises(InputError, match="other number of elements"):
            run_layer(text, x)
    else:
        np.testing.assert_array_equal(run_layer(text, x), x.reshape(shape))


@pytest.mark.parametrize(
    ("order", "full"), [([0, 2, 3, 1], (0, 2, 3, 1)), ([0, 3], (0, 3, 1, 2)), ([1, 0], (1, 0, 2, 3))]
)
def test_permute(run_layer, x, order, full) -> None:
    text = f'type: "Permute" permute_param {{ {" ".join(f"order: {o}" for o in order)} }}'
    np.testing.assert_array_equal(run_layer(text, x), x.transpose(full))


def test_transpose(run_layer, x) -> None:
    text = 'type: "Transpose" transpose_param { dim: 3 dim: 0 dim: 2 dim: 1 }'
    np.testing.assert_array_equal(run_layer(text, x), x.transpose(3, 0, 2, 1))


@pytest.mark.parametrize(
    ("parameter", "slices"),
    [
        ("", np.s_[:, :, :2, :3]),
        ("offset: 1", np.s_[:, :, 1:3, 1:4]),
        ("offset: 2 offset: 0", np.s_[:, :, 2:4, :3]),
        ("axis: 1 offset: [3, 1, 2]", np.s_[:, 3:6, 1:3, 2:5]),
        ("axis: -1 offset: 2", np.s_[:, :, :, 2:5]),
    ],
)
def test_crop(run_layer, random, x, parameter, slices) -> None:
    size = random.normal(size=(2, 3, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run_layer(f'type: "Crop" crop_param {{ {parameter} }}', [x, size]), x[slices])


@pytest.mark.parametrize(("axis", "tiles"), [(1, 3), (2, 2), (-1, 1)])
def test_tile(run_layer, x, axis, tiles) -> None:
    repeats = [tiles if i == axis % 4 else 1 for i in range(4)]
    found = run_layer(f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}', x)
    np.testing.assert_array_equal(found, np.tile(x, repeats))


def test_shuffle_channel(run_layer, x) -> None:
    found = run_layer('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', x)
    np.testing.assert_array_equal(found, x[:, [0, 3, 1, 4, 2, 5]])


@pytest.mark.parametrize(("parameter", "shape"), [("", (2, 3)), ("squeeze_param { axis: 3 }", (2, 1, 3))])
def test_squeeze(run_layer, random, parameter, shape) -> None:
    x = random.normal(size=(2, 1, 3, 1)).astype(np.float32)
    np.testing.assert_array_equal(run_layer(f'type: "Squeeze" {parameter}', x), x.reshape(shape))


def test_a_parameter_layer_is_its_blob(load, run) -> None:
    text = """input: "x" input_shape { dim: 2 dim: 3 }
        layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 2 dim: 3 } } }
        layer { name: "s" type: "Eltwise" bottom: "x" bottom: "p" top: "y" }"""
    blob = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = load(text, {"p": [blob]})
    np.testing.assert_array_equal(run(result, {"x": blob})["y"], 2 * blob)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('type: "Slice" slice_param { slice_point: 7 } top: "z"', "slice points [7] on 6 positions leave a top empty"),
        ('type: "Slice" slice_param { slice_point: [1, 2] } top: "z"', "2 slice points for 2 tops"),
        ('type: "Permute" permute_param { order: 0 order: 0 }', "no permutation of the axes"),
        ('type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }', "at most one -1"),
        ('type: "Reshape" reshape_param { shape { dim: 7 dim: -1 } }', "can't be reshaped to [7, -1]"),
        ('type: "Tile" tile_param { tiles: 0 }', "tiles has to be 1 or more"),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 4 }', "6 channels can't be split into 4 groups"),
        ('type: "Crop" bottom: "small" crop_param { offset: 3 }', "axis 2 has 4 positions, fewer than offset 3"),
        ('type: "Squeeze" squeeze_param { axis: 1 }', "can't be squeezed"),
        ('type: "Concat" bottom: "small"', "can't be joined along 1"),
        ('type: "Concat" bottom: "x" concat_param { per_fla_fuse: true }', "write what it stands for, a Permute and a"),
    ],
)
def test_what_makes_no_sense_is_refused(load, body, message) -> None:
    text = f"""input: "x" input_dim: 2 input_dim: 6 input_dim: 4 input_dim: 5
        input: "small" input_dim: 2 input_dim: 3 input_dim: 2 input_dim: 3
        layer {{ name: "l" bottom: "x" top: "y" {body} }}"""
    with pytest.raises(InputError) as error:
        load(text)
    assert message in str(error.value)
