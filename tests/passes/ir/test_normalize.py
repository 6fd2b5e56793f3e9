"""Models as others write them: what the IR makes of them computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, constants
from wootz.passes.ir.text import parse_text, print_text
from wootz.passes.ir.verifier import verify
from wootz.runtime.session import evaluate

HEADER = '<ir_version: 8, opset_import: ["" : 18]> '


def read(text: str) -> Model:
    model = parse_text(HEADER + text)
    verify(model)
    return model


def test_nodes_are_sorted_and_others_stay() -> None:
    model = read("""g (float[2] x) => (float[2] y) {
        [f] y = Add(d, e)  [a] a = Relu(x)  [e] e = Exp(b)  [b] b = Abs(a)  [d] d = Cos(x)
    }""")
    assert [n.name for n in model.graph.nodes] == ["a", "b", "e", "d", "f"]


def test_nodes_are_sorted_by_what_their_branches_read() -> None:
    model = read("""g (float[2] x, bool c) => (float[2] y) {
        [if] y = If(c) <then_branch = t () => (float[2] p) { [p] p = Neg(q) [q] q = Abs(late) },
                        else_branch = e () => (float[2] o) { [o] o = Exp(late) }>
        [late] late = Relu(x)
    }""")
    assert [n.name for n in model.graph.nodes] == ["late", "if"]
    assert [n.name for n in model.graph.nodes[1].attrs["then_branch"].nodes] == ["q", "p"]
    found = evaluate(model, {"x": np.array([-1, 2], np.float32), "c": np.array(True)})["y"]
    assert found.tolist() == [0, -2]


def test_the_long_name_of_the_standard_domain_is_read() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["ai.onnx" : 18]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    proto.graph.node[0].domain = "ai.onnx"
    model = Model.from_proto(proto)
    verify(model)
    assert [(o.domain, o.version) for o in model.to_proto().opset_import] == [("", 18)]
    assert not model.graph.nodes[0].domain


@pytest.mark.parametrize("extent", [{}, {"dim_value": -1}, {"dim_param": ""}])
def test_extents_that_are_not_stated_contradict_nothing(extent: dict) -> None:
    proto = onnx.parser.parse_model(HEADER + "g (float[N,2] x) => (float[N,2] y) { h = Relu(x) y = Abs(h) }")
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 2]))
    for info in (proto.graph.input[0], proto.graph.output[0], proto.graph.value_info[0]):
        info.type.tensor_type.shape.dim[0].CopyFrom(onnx.TensorShapeProto.Dimension(**extent))
    proto.graph.output[0].type.tensor_type.shape.dim[1].CopyFrom(onnx.TensorShapeProto.Dimension(**extent))
    model = Model.from_proto(proto)
    verify(model)
    assert model.graph.inputs[0].shape == ["x_0", 2]
    assert model.graph.outputs[0].shape == ["y_0", "y_1"]
    assert print_text(parse_text(print_text(model))) == print_text(model)


def test_nodes_of_one_name_get_numbers() -> None:
    model = read("g (float[2] x) => (float[2] y) { [n] a = Relu(x) [n_1] b = Abs(a) [n] c = Exp(b) [n] y = Neg(c) }")
    assert [n.name for n in model.graph.nodes] == ["n", "n_1", "n_2", "n_3"]
    assert [n.name for n in read("g (float x) => (float y) { a = Abs(x) y = Neg(a) }").graph.nodes] == ["", ""]


# Functions

TWICE = """<domain: "local", opset_import: ["" : %d]> twice <by> (x) => (y) {
    f = Constant<value_float: float = @by>() y = Mul(x, f)
}"""


@pytest.mark.parametrize(("opset", "of_function"), [(18, 18), (18, 13), (21, 21), (17, 18)])
def test_functions_are_put_in_the_place_of_their_calls(opset: int, of_function: int) -> None:
    text = f"""<ir_version: 9, opset_import: ["" : {opset}, "local" : 1]>
        g (float[3] x) => (float[3] y) {{ [one] a = local.twice<by = 3.0>(x) [two] y = local.twice<by = 2.0>(a) }}"""
    model = parse_text(text + TWICE % of_function)
    verify(model)
    assert [n.op for n in model.graph.nodes] == ["Mul", "Mul"]
    assert not model.graph.functions
    assert evaluate(model, {"x": np.arange(3, dtype=np.float32)})["y"].tolist() == [0, 6, 12]


def test_functions_that_call_themselves_are_refused() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18, "f" : 1]> g (float x) => (float y) { y = f.a(x) }
        <domain: "f", opset_import: ["f" : 1]> a (x) => (y) { y = f.b(x) }
        <domain: "f", opset_import: ["f" : 1]> b (x) => (y) { y = f.a(x) }"""
    with pytest.raises(WootzError, match="the model's function 'a' calls itself"):
        parse_text(text)


def test_functions_of_exponential_size_are_refused() -> None:
    text = '<ir_version: 9, opset_import: ["" : 18, "f" : 1]> g (float x) => (float y) { y = f.f40(x) }'
    text += '<domain: "f", opset_import: ["" : 18]> f0 (x) => (y) { y = Relu(x) }'
    for i in range(40):
        text += f'<domain: "f", opset_import: ["f" : 1]> f{i + 1} (x) => (y) {{ h = f.f{i}(x) y = f.f{i}(h) }}'
    with pytest.raises(WootzError, match=r"its functions make a graph of 1,099,511,627,776 nodes"):
        parse_text(text)


# Sparse tensors


def sparse(indices: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(numpy_helper.from_array(values, "w"), numpy_helper.from_array(indices), shape)


def add_as_initializer(proto: onnx.ModelProto, tensor: onnx.SparseTensorProto) -> None:
    proto.graph.sparse_initializer.append(tensor)


def add_as_constant(proto: onnx.ModelProto, tensor: onnx.SparseTensorProto) -> None:
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))


@pytest.mark.parametrize("add", [add_as_initializer, add_as_constant])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64])
@pytest.mark.parametrize("indices", [[1, 5, 3], [[0, 1], [1, 2], [1, 0]]])
def test_sparse_weights_are_read(add: Callable, dtype: type, indices: list) -> None:
    name = {np.float32: "float", np.float16: "float16", np.float64: "double", np.int64: "int64"}[dtype]
    proto = onnx.parser.parse_model(f"{HEADER} g ({name}[2,3] x) => ({name}[2,3] y) {{ y = Mul(x, w) }}")
    add(proto, sparse(np.array(indices, np.int64), np.array([2, 3, 4], dtype), (2, 3)))
    model = Model.from_proto(proto)
    verify(model)
    weight = constants(model.graph)["w"]
    assert weight.dtype == dtype
    assert weight.tolist() == [[0, 2, 0], [4, 0, 3]]


@pytest.mark.parametrize(
    ("indices", "shape", "reason"),
    [
        ([0, 1, 6], (2, 3), "its indices don't fit"),
        ([0, 1, -1], (2, 3), "its indices don't fit"),
        ([[0, 0], [0, 3], [0, 1]], (2, 3), "its indices don't fit"),
        ([0, 1], (2, 3), "its indices don't fit"),
        ([0, 1, 2], (2**32, 2**32), "is too large to be made dense"),
        ([0, 1, 2], (-2, -3), "is too large to be made dense"),
    ],
)
def test_sparse_weights_that_are_none_are_refused(indices: list, shape: tuple, reason: str) -> None:
    proto = onnx.parser.parse_model(HEADER + "g (float[2,3] x) => (float[2,3] y) { y = Mul(x, w) }")
    tensor = sparse(np.array([0, 1, 2], np.int64), np.ones(3, np.float32), (3,))
    tensor.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64)))
    tensor.dims[:] = shape
    add_as_initializer(proto, tensor)
    with pytest.raises(WootzError, match=f"the sparse tensor 'w'.* {reason}"):
        Model.from_proto(proto)


# What a model says of itself, and constants that NumPy has no numbers for


def test_what_a_model_says_of_itself_survives() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18], producer_name: "pytorch", producer_version: "2.13",
        domain: "my.domain", model_version: 7, doc_string: "doc", metadata_props: ["author": "me"]>
        g (float x) => (float y) { a = Relu(x) y = Abs(a) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.doc_string, proto.graph.node[0].doc_string = "of the graph", "of the node"
    found = Model.from_proto(proto).copy().to_proto()
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props"):
        assert getattr(found, field) == getattr(proto, field)
    assert (found.graph.doc_string, found.graph.node[0].doc_string) == ("of the graph", "of the node")
    assert found.graph.node[1].doc_string == ""


def test_strings_and_bfloat16_survive() -> None:
    model = parse_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (string[N] x) => (string[N] y, string u, bfloat16[2] h, string[2] s)
        <string[2] s = {"a", "b"}, bfloat16[2] h = {16256, 16384}> {
            t = Constant<value_string = "cat">()  u = Identity(t)  y = Identity(x)
        }"""
    )
    found = {t.name: numpy_helper.to_array(t).tolist() for t in model.copy().to_proto().graph.initializer}
    assert found == {"t": "cat", "s": ["a", "b"], "h": [1, 2]}
    assert model.graph.tensors()["h"].dtype.name == "bfloat16"
    assert print_text(parse_text(print_text(model))) == print_text(model)


def test_an_initializer_may_be_an_output() -> None:
    model = read("g (float[2] x) => (float[2] y, float[2] w) <float[2] w = {1, 2}> { y = Add(x, w) }")
    session = onnxruntime.InferenceSession(model.to_proto().SerializeToString())
    assert [r.tolist() for r in session.run(None, {"x": np.ones(2, np.float32)})] == [[2, 3], [1, 2]]


def test_nothing_is_said_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    parse_text(HEADER.replace('"" : 18', '"x" : 1') + "g (bfloat16[2] x) => (bfloat16[2] y) { [a] y = x.Op(x) }")
    assert capfd.readouterr() == ("", "")


SHARED = """g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
    a = Mul(x, w)
    y = If(c) <then_branch = t () => (float[2] p) { p = Mul(a, w) }, else_branch = e () => (float[2] q) { q = Neg(a) }>
}"""


def test_a_weight_that_a_branch_reads_is_written_once() -> None:
    model = read(SHARED).copy()
    branches = [a.g for a in model.to_proto().graph.node[1].attribute]
    assert [len(b.initializer) for b in branches] == [0, 0]
    feeds = {"x": np.array([1, 1], np.float32), "c": np.array(True)}
    assert evaluate(model, feeds)["y"].tolist() == [1, 4]


def test_a_weight_that_a_pass_changes_stays_as_it_was_in_a_branch() -> None:
    model = read(SHARED).copy()
    model.graph.tensors()["w"].values = np.array([5, 5], np.float32)
    verify(model)
    feeds = {"x": np.array([1, 1], np.float32), "c": np.array(True)}
    assert evaluate(model, feeds)["y"].tolist() == [5, 10]
    assert print_text(parse_text(print_text(model))) == print_text(model)


@pytest.mark.parametrize("text", ["optional(float[2]) x", "map(int64, float) x"])
def test_values_that_are_no_tensors_are_refused(text: str) -> None:
    with pytest.raises(WootzError, match=r"'x' is of a type that the IR can't hold: (optional|map)_type"):
        parse_text(HEADER + f"g ({text}) => (float[2] y) {{ y = OptionalGetElement(x) }}")


SEQUENCE = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
NOT_HELD = {
    "optional_type": helper.make_optional_type_proto(SEQUENCE),
    "sparse_tensor_type": helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]),
    "a sequence of sequence_type": helper.make_sequence_type_proto(SEQUENCE),
    "a sequence of nothing": onnx.TypeProto(sequence_type=onnx.TypeProto.Sequence()),
}
CALLING = """<ir_version: 10, opset_import: ["" : 18, "local" : 1]> g (float[2] x) => (float[2] y) { y = local.f(x) }
<domain: "local", opset_import: ["" : 18]> f (a) => (b) { t = Relu(a) b = Neg(t) }"""


@pytest.mark.parametrize("kind", NOT_HELD)
def test_annotations_of_other_types_are_refused_in_functions_too(kind: str) -> None:
    for annotated in ("graph", "function"):
        proto = onnx.parser.parse_model(CALLING)
        place = proto.graph if annotated == "graph" else proto.functions[0]
        place.value_info.append(helper.make_value_info("t", NOT_HELD[kind]))
        with pytest.raises(WootzError, match=f"'t' is of a type that the IR can't hold: {kind}$"):
            Model.from_proto(proto)


CHOSEN_SEQUENCE = """g (seq(float[2]) s, bool c) => (float[N] y) {
    chosen = If(c) <then_branch = t () => (seq(float[2]) p) { p = Identity(s) },
                    else_branch = e () => (seq(float[2]) q) { q = Identity(s) }>
    y = ConcatFromSequence<axis = 0>(chosen)
}"""


def test_a_sequence_stays_one_in_copies_of_graphs_with_branches() -> None:
    model = read(CHOSEN_SEQUENCE).copy()
    verify(model)
    written = model.to_proto()
    assert written.graph.input[0].type.HasField("sequence_type")
    session = onnxruntime.InferenceSession(written.SerializeToString())
    found = session.run(None, {"s": [np.ones(2, np.float32), np.zeros(2, np.float32)], "c": np.array(True)})[0]
    assert found.tolist() == [1, 1, 0, 0]


def test_a_constant_of_negative_extent_is_refused() -> None:
    proto = onnx.parser.parse_model(HEADER + "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }")
    proto.graph.initializer[0].dims[0] = -2
    with pytest.raises(WootzError, match=r"the constant 'w' has a negative extent: \[-2\]"):
        Model.from_proto(proto)
