from __future__ import annotations

import numpy as np
import onnx
import pytest

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import OPSET, Graph, Model, Variable
from wootz.passes.ir.stream import LARGE, encode


@pytest.fixture
def model() -> Model:
    """Its large weight is not aligned, as those of a mapped file are, and `odd` is not contiguous."""
    random = np.random.default_rng(0)
    unaligned = np.frombuffer(b"\0" + random.random(64 * 64, np.float32).tobytes(), "<f4", 64 * 64, 1)
    values = {
        "large": unaligned.reshape(64, 64),
        "odd": random.random(128, np.float32)[::2],
        "small": random.random((64, 3), np.float32),
    }
    graph = Graph(opset=OPSET, name="net", inputs=[Variable("x", np.dtype(np.float32), ["N", 64])])
    builder = Builder(graph)
    constants = {name: builder.constant(array, name) for name, array in values.items()}
    hidden = builder.op("Add", builder.op("MatMul", graph.inputs[0], constants["large"]), constants["odd"])
    output = builder.op("MatMul", hidden, constants["small"])
    output.dtype, output.shape = np.dtype(np.float32), ["N", 3]
    graph.outputs = [output]
    return Model(graph)


def test_the_pieces_are_the_model(model) -> None:
    assert model.graph.tensors()["large"].values.nbytes >= LARGE > model.graph.tensors()["small"].values.nbytes
    found = onnx.load_model_from_string(b"".join(encode(model)))
    onnx.checker.check_model(found, full_check=True)
    wanted = model.to_proto()
    arrays = [{t.name: onnx.numpy_helper.to_array(t) for t in p.graph.initializer} for p in (found, wanted)]
    assert arrays[0].keys() == arrays[1].keys()
    for name in arrays[0]:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
    for proto in (found, wanted):
        del proto.graph.initializer[:]
    assert found == wanted


def test_large_weights_are_not_copied(model) -> None:
    large = model.graph.tensors()["large"].values
    views = [np.asarray(piece) for piece in encode(model) if isinstance(piece, memoryview)]
    assert any(np.shares_memory(large, view) for view in views)


def test_the_model_keeps_its_weights(model) -> None:
    encode(model)
    assert model.graph.tensors()["large"].values.shape == (64, 64)
