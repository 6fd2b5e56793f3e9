from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import OPSET, Constant, Graph, Header, Model, Node, Variable
from wootz.passes.ir.stream import LARGE, encode
from wootz.passes.ir.text import parse_text


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


# Any model

DTYPES = [
    *(
        "float32",
        "float64",
        "float16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    ),
    *("complex64", "complex128", "object"),
    *(getattr(ml_dtypes, name) for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "int4")),
]
SHAPES = [(), (0,), (3, 0, 2), (1,), (5, 3), (LARGE // 4,), (2, LARGE), (LARGE // 8 - 1,), (LARGE,)]
FUNCTION = """<ir_version: 9, opset_import: ["" : 18, "wootz" : 1]> g (float x) => (float y) { y = wootz.twice(x) }
    <domain: "wootz", opset_import: ["" : 18]> twice (x) => (y) { y = Add(x, x) }"""


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Of any type and size; not every one lies in one piece."""
    dtype, shape = np.dtype(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(SHAPES))
    if dtype.kind == "O":
        return np.full(shape[:1] if np.prod(shape) < 10 else (), draw(st.text(max_size=5)), dtype)
    values = np.resize(np.arange(7), shape).astype(dtype)
    return draw(st.sampled_from([values, values.T, values[::-1] if values.ndim else values]))


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Constants that nodes read, branches or both, that are outputs, or the first values of inputs."""
    graph = parse_text(FUNCTION).graph if draw(st.booleans()) else Graph(opset=OPSET, name="g")
    graph.inputs = [Variable("scalar", np.dtype(bool), [])]
    outputs, branch = [], Graph(opset=OPSET, name="branch")
    for i, values in enumerate(draw(st.lists(arrays(), max_size=5))):
        constant = Constant(f"c{i}", values)
        use = draw(st.sampled_from(["node", "branch", "both", "input", "output"]))
        if use == "input" and values.dtype.kind != "O":
            graph.inputs.append(constant)
        if use == "output":
            outputs.append(constant)
        if use in ("node", "both"):
            outputs.append(Variable(f"o{i}"))
            graph.nodes.append(Node("Identity", inputs=[constant], outputs=outputs[-1:]))
        if use in ("branch", "both"):
            result = Variable(f"b{i}")
            branch.nodes.append(Node("Identity", inputs=[constant], outputs=[result]))
            branch.outputs.append(result)
    if branch.outputs:
        results = [Variable(f"r{i}") for i in range(len(branch.outputs))]
        attributes = {"then_branch": branch, "else_branch": branch.copy()}
        graph.nodes.append(Node("If", attrs=attributes, inputs=graph.inputs[:1], outputs=results))
        outputs += results
    graph.outputs = outputs
    metadata = {"wootz.training": "{}"} if draw(st.booleans()) else {}
    return Model(graph, metadata=metadata, header=Header(doc_string=draw(st.text(max_size=5))))


@given(models())
def test_the_pieces_of_any_model_are_the_model(model: Model) -> None:
    found, wanted = onnx.load_model_from_string(b"".join(encode(model))), model.to_proto()
    initializers = [{t.name: t for t in proto.graph.initializer} for proto in (found, wanted)]
    assert initializers[0] == initializers[1]
    for proto in (found, wanted):
        assert len(proto.graph.initializer) == len(initializers[0])
        del proto.graph.initializer[:]
    assert found == wanted


@given(models())
def test_any_model_reads_back(model: Model) -> None:
    wanted = model.to_proto()
    found = Model.from_proto(onnx.load_model_from_string(b"".join(encode(model)))).to_proto()
    kept = (
        {t.name for t in model.graph.inputs if isinstance(t, Constant)} if "wootz.training" in model.metadata else set()
    )
    given = [
        i for i in wanted.graph.input if i.name in kept or i.name not in {t.name for t in wanted.graph.initializer}
    ]
    assert list(found.graph.input) == given
    values = [{t.name: onnx.numpy_helper.to_array(t) for t in p.graph.initializer} for p in (found, wanted)]
    for name in values[0]:
        np.testing.assert_array_equal(*[v[name] for v in values])
    assert list(found.graph.output) == list(wanted.graph.output)
    assert [n.op_type for n in found.graph.node] == [n.op_type for n in wanted.graph.node]
