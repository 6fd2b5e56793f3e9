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
