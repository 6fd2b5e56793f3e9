from __future__ import annotations

import itertools

import numpy as np
import pytest

from wootz.passes.errors import InputError


@pytest.fixture
def image(random) -> np.ndarray:
    return random.normal(size=(2, 8, 3, 4)).astype(np.float32)


@pytest.mark.parametrize(("value", "constant"), [("", 0), ("constant_values: -1.5", -1.5)])
def test_pad(run_layer, image, value, constant) -> None:
    found = run_layer(f'type: "Pad" pad_param {{ paddings: [0, 0, 0, 2, 1, 0, 3, 1] {value} }}', image)
    wanted = np.full((2, 10, 4, 8), constant, np.float32)
    wanted[:, :8, 1:, 3:7] = image
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("axes", "slices"), [("axis: 2", (..., slice(None, None, -1), slice(None)))])
def test_reverse(run_layer, image, axes, slices) -> None:
    np.testing.assert_array_equal(run_layer(f'type: "Reverse" reverse_param {{ {axes} }}', image), image[slices])


def test_reverse_of_several_axes_and_of_the_first(run_layer, image) -> None:
    both = run_layer('type: "Reverse" reverse_param { axis: -1 axis: 0 }', image)
    np.testing.assert_array_equal(both, image[::-1, :, :, ::-1])
    np.testing.assert_array_equal(run_layer('type: "Reverse"', image), image[::-1])


def shuffled(image: np.ndarray, block: int, channels_last_in_depth: bool) -> np.ndarray:
    """Pixel by pixel: depth is [block, block, channels] (DCR), or [channels, block, block] (CRD)."""
    images, depth, height, width = image.shape
    channels = depth // block**2
    y = np.empty((images, channels, height * block, width * block), np.float32)
    for c, i, j in itertools.product(range(channels), range(height * block), range(width * block)):
        row, column = i % block, j % block
        source = (row * block + column) * channels + c if channels_last_in_depth else (c * block + row) * block + column
        y[:, c, i, j] = image[:, source, i // block, j // block]
    return y


@pytest.mark.parametrize("form", ["NCHW", "DCR", "CRD"])
def test_depth_to_space(run_layer, image, form) -> None:
    layer = f'type: "DepthToSpace" depth_to_space_param {{ block_size: 2 data_format: "{form}" }}'
    np.testing.assert_array_equal(run_layer(layer, image), shuffled(image, 2, form != "CRD"))


def test_depth_to_space_with_channels_last(run_layer, image) -> None:
    found = run_layer('type: "DepthToSpace" depth_to_space_param { block_size: 2 }', image.transpose(0, 2, 3, 1).copy())
    np.testing.assert_array_equal(found, shuffled(image, 2, True).transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    "layer",
    [
        'type: "PixelShuffle" pixel_shuffle_param { upscale_factor: 2 }',
        'type: "Reshape" reshape_param { pixelshuffler: 2 }',
    ],
)
def test_pixel_shuffle(run_layer, image, layer) -> None:
    np.testing.assert_array_equal(run_layer(layer, image), shuffled(image, 2, False))


def test_batch_reindex(run_layer, image) -> None:
    numbers = np.array([1, 0, 0, 1, 1], np.float32)
    np.testing.assert_array_equal(run_layer('type: "BatchReindex"', [image, numbers]), image[[1, 0, 0, 1, 1]])


@pytest.mark.parametrize("chosen", [[1, 0, -2.5], [0, 0, 0], [1, 1, 1]])
def test_filter(load, run, random, chosen) -> None:
    x, other = random.normal(size=(3, 2, 2)).astype(np.float32), np.arange(3, dtype=np.float32)
    selector = np.array(chosen, np.float32).reshape(3, 1, 1, 1)
    network = load(
        """input: "x" input_shape { dim: [3, 2, 2] } input: "o" input_shape { dim: 3 }
        input: "s" input_shape { dim: [3, 1, 1, 1] }
        layer { name: "f" type: "Filter" bottom: "x" bottom: "o" bottom: "s" top: "y" top: "z" }"""
    )
    found = run(network, {"x": x, "o": other, "s": selector})
    np.testing.assert_array_equal(found["y"], x[np.array(chosen) != 0])
    np.testing.assert_array_equal(found["z"], other[np.array(chosen) != 0])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "Pad" pad_param { paddings: [1, 1] }', "2 paddings for 4 axes"),
        ('type: "Reverse" reverse_param { axis: 4 }', "axis 4 of a blob with 4 dimensions"),
        ('type: "DepthToSpace" depth_to_space_param { block_size: 3 data_format: "CRD" }', "8 channels can't become"),
        ('type: "PixelShuffle" pixel_shuffle_param { upscale_factor: 0 }', "8 channels can't become blocks of 0×0"),
        ('type: "PixelShuffle" pixel_shuffle_param { scale: 4 }', "a field 'scale' that is not understood"),
        ('type: "BatchReindex" bottom: "x"', "shape 1×8×2×2: one axis is wanted"),
        ('type: "Filter" bottom: "x"', "the selector has shape 1×8×2×2"),
        ('type: "ROIAlign" bottom: "x"', "layers of this type are not read: what its forks compute differs"),
        ('type: "DenseBlock"', "layers of this type are not read: its blobs are in another order in each fork"),
    ],
)
def test_what_makes_no_sense_is_refused(load, layer, message) -> None:
    with pytest.raises(InputError) as error:
        load(f'input: "x" input_dim: [1, 8, 2, 2] layer {{ name: "l" bottom: "x" top: "y" {layer} }}')
    assert message in str(error.value)
