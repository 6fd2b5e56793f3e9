import numpy as np
from onnx.reference import ReferenceEvaluator

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
