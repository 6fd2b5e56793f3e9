from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.caffemodel import Blob
from wootz.frontend.caffe.network import Layer, read_network
from wootz.frontend.caffe.prototxt import parse_prototxt
from wootz.frontend.caffe.weights import Expected, FileWeights, FilledWeights, open_weights
from wootz.passes.errors import InputError
from wootz.passes.fillers import Filler

WEIGHT = Expected(0, "weight", (2, 3), Filler("msra"))
BIAS = Expected(1, "bias", (2,), Filler(value=0.5))


@pytest.fixture
def layer() -> Layer:
    return read_network(parse_prototxt('layer { name: "f" type: "InnerProduct" }', "net")).layers[0]


def weights(**blobs: list[np.ndarray]) -> FileWeights:
    stored = {name: [Blob(b, legacy=False) for b in values] for name, values in blobs.items()}
    return FileWeights(Path("w.caffemodel"), stored, FilledWeights(seed=0))


@pytest.mark.parametrize("shape", [(2, 3), (1, 1, 2, 3), (2, 3, 1, 1)])
def test_weights_are_matched_by_name(layer, shape) -> None:
    values = np.arange(6, dtype=np.float32)
    source = weights(f=[values.reshape(shape), np.ones((1, 1, 1, 2), np.float32)], other=[values])
    weight, bias = source.values(layer, [WEIGHT, BIAS])
    np.testing.assert_array_equal(weight, values.reshape(2, 3))
    assert bias.shape == (2,)
    assert list(source.initialised) == []
    assert source.unused() == ["other"]


def test_a_layer_that_the_file_lacks_starts_from_its_fillers(layer) -> None:
    source = weights(other=[np.zeros(1, np.float32)])
    _, bias = source.values(layer, [WEIGHT, BIAS])
    np.testing.assert_array_equal(bias, 0.5)
    assert list(source.initialised) == ["f"]


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ([np.zeros((3, 3)), np.zeros(2)], "its weight has shape 3×3 in w.caffemodel, the network needs 2×3: rename"),
        ([np.zeros((3, 2)), np.zeros(2)], "its weight has shape 3×2 in w.caffemodel, the network needs 2×3: rename"),
        ([np.zeros((2, 3))], "w.caffemodel has 1 blobs for it, the network needs 2: rename the layer"),
    ],
)
def test_another_shape_under_the_same_name_is_an_error(layer, blobs, message) -> None:
    with pytest.raises(InputError) as error:
        weights(f=blobs).values(layer, [WEIGHT, BIAS])
    assert str(error.value).startswith("net:1:1: layer 'f' (InnerProduct): ")
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.caffemodel: no such file"):
        open_weights(tmp_path / "none.caffemodel", 0)
