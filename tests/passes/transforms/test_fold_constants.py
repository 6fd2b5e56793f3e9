import numpy as np
from onnx.reference import ReferenceEvaluator

from wootz.passes.ir.model import Constant
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.fold_constants import FoldConstants

NETWORK = """<ir_version: 8, opset_import: ["" : 18]> g (float[4,2] x) => (float[4,2] y) <float[2,2] w = {1,2,3,4}> {
  [fc] y = MatMul(x, w)
}"""


def test_the_state_of_a_training_graph_is_no_constant_though_it_has_an_initial_value():
    trained = build_training_graph(parse_text(NETWORK), Solver(type=SolverType.ADAM))
    folded = FoldConstants().apply(trained).model.graph
    read = {t.name for node in folded.nodes for t in node.inputs}
    assert {"w", "w.mean", "w.mean_square", "optimizer.iteration"} <= read
    assert [t.name for t in folded.inputs] == [t.name for t in trained.graph.inputs]
    assert not {"Shape", "Size"} & {node.op for node in folded.nodes}


CHOICE = """<ir_version: 8, opset_import: ["" : 18]> g (float[2,%s] x) => (float[2,A] y) <float[3] w = {1,2,3}> {
  shape = Shape<start=1>(x)
  three = Constant<value_ints=[3]>()
  is_three = Equal(shape, three)
  h = Mul(x, w)
  [choice] c = If (is_three) <
    then_branch = t () => (float[2,A] d) { s = Neg(h) d = Mul(s, w) },
    else_branch = e () => (float[2,A] d) { d = Identity(h) }>
  y = Relu(c)
}"""


def test_an_if_with_a_known_condition_becomes_its_branch():
    model = parse_text(CHOICE % "3")
    folded = FoldConstants().apply(model).model
    assert [n.op for n in folded.graph.nodes] == ["Mul", "Neg", "Mul", "Identity", "Relu"]
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    (y,) = ReferenceEvaluator(folded.to_proto()).run(None, {"x": x})
    w = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(y, np.maximum(-(x * w) * w, 0))
    assert [t.name for n in folded.graph.nodes if n.op == "Mul" for t in n.inputs].count("w") == 2


def test_an_if_with_an_open_condition_stays():
    folded = FoldConstants().apply(parse_text(CHOICE % "N")).model
    assert "If" in {n.op for n in folded.graph.nodes}


SYMBOLIC = """<ir_version: 8, opset_import: ["" : 18]> g (float[N,6,4,4] x) => (y)
<int64[1] one = {1}, int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}, int64[1] minus = {-1}> {
  s = Shape(x)
  c = Gather(s, one)
  half = Div(c, two)
  n = Slice(s, zero, one)
  %s
}"""


def folded(body, **options):
    """The folded model of `body`, which gives the same as before whatever the batch is."""
    model = parse_text(SYMBOLIC % body)
    result = FoldConstants(**options).apply(model).model
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, 6, 4, 4)).astype(np.float32)
        (expected,) = ReferenceEvaluator(model.to_proto()).run(None, {"x": x})
        (found,) = ReferenceEvaluator(result.to_proto()).run(None, {"x": x})
        np.testing.assert_array_equal(found, expected)
    return {n.op: [t.values.tolist() for t in n.inputs if isinstance(t, Constant)] for n in result.graph.nodes}


def test_numbers_from_a_shape_with_a_symbolic_batch():
    assert folded("y = Slice(x, half, c, one)") == {"Slice": [[3], [6], [1]]}


def test_the_target_of_a_reshape():
    assert folded("t = Concat<axis=0>(n, two, half, minus) y = Reshape(x, t)") == {"Reshape": [[0, 2, 3, 16]]}
    assert folded("t = Concat<axis=0>(minus, half, n, two) y = Reshape(x, t)") == {"Reshape": [[16, 3, -1, 2]]}
    rows = "nc = Mul(n, c) t = Concat<axis=0>(nc, minus) r = Reshape(x, t) "
    assert folded(f"{rows} u = Concat<axis=0>(n, c, minus) y = Reshape(r, u)") == {"Reshape": [[-1, 6, 16]]}


def test_the_target_of_an_expand_and_the_sizes_of_a_resize():
    expand = "m = ReduceMean<keepdims=1>(x, one) t = Concat<axis=0>(n, three, minus, minus) "
    assert folded(expand.replace("minus", "one") + "y = Expand(m, t)") == {
        "ReduceMean": [[1]],
        "Expand": [[1, 3, 1, 1]],
    }
    resize = 'h = Add(c, two) t = Concat<axis=0>(n, c, h, h) y = Resize<mode="nearest">(x, , , t)'
    assert folded(resize) == {"Resize": [[8, 8]]}


def test_what_depends_on_the_batch_stays():
    assert "Shape" in folded("many = Tile(one, n) p = ReduceSum(many) f = Cast<to=1>(p) y = Mul(x, f)")


def test_weights_that_are_computed_stay_where_that_is_asked_for():
    text = NETWORK.replace("y = MatMul(x, w)", "v = Mul(w, w) y = MatMul(x, v)")
    whole = FoldConstants().apply(parse_text(text)).model
    shapes = FoldConstants(weights=False).apply(parse_text(text)).model
    assert [n.op for n in whole.graph.nodes] == ["MatMul"]
    assert [n.op for n in shapes.graph.nodes] == ["Mul", "MatMul"]


def test_a_scale_from_a_shape_is_no_weight():
    body = "f = Cast<to=1>(c) r = Sqrt(f) y = Div(x, r)"
    assert folded(body, weights=False) == {"Div": [[float(np.sqrt(np.float32(6)))]]}
