"""Rewiring a graph: what comes out is said as text."""

from __future__ import annotations

import pytest

from wootz.passes.ir import rewrite
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Node, Tensor, Variable
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify

NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2] x) => (float[2] y, float[2] a) {
  [one] a = Relu (x)
  [two] b = Neg (a)
  [three] c = Add (a, b)
  [four] y = Abs (c)
}
"""


@pytest.fixture
def model() -> Model:
    return parse_text(NETWORK)


def equations(graph: Graph) -> list[str]:
    """A line a node, and the outputs."""
    lines = [
        f"{','.join(t.name for t in n.outputs)} = {n.op}({','.join(t.name for t in n.inputs)})" for n in graph.nodes
    ]
    return [*lines, f"=> {','.join(t.name for t in graph.outputs)}"]


def tensor(model: Model, name: str) -> Tensor:
    found: Tensor = model.graph.tensors()[name]
    return found


def test_all_uses_are_operands_and_outputs(model: Model) -> None:
    rewrite.replace_all_uses(model.graph, tensor(model, "a"), tensor(model, "x"))
    assert equations(model.graph) == ["a = Relu(x)", "b = Neg(x)", "c = Add(x,b)", "y = Abs(c)", "=> y,x"]


def test_readers_are_nodes_alone(model: Model) -> None:
    rewrite.redirect_readers(tensor(model, "a"), tensor(model, "x"))
    assert equations(model.graph) == ["a = Relu(x)", "b = Neg(x)", "c = Add(x,b)", "y = Abs(c)", "=> y,a"]


def test_a_replaced_node_leaves_its_names_to_others(model: Model) -> None:
    builder = Builder(model.graph)
    one, three = model.graph.nodes[0], model.graph.nodes[2]
    for node in rewrite.rewriting(model.graph):
        if node in (one, three):
            rewrite.replace_node(node, [builder.op("Exp", builder.op("Log", node.inputs[0], hint="log"))])
    assert equations(model.graph) == [
        *("log = Log(x)", "a = Exp(log)", "b = Neg(a)", "log_1 = Log(a)", "c = Exp(log_1)", "y = Abs(c)"),
        "=> y,a",
    ]
    verify(model)


def test_what_else_reads_a_result_reads_it_by_its_new_name(model: Model) -> None:
    graph, builder = model.graph, Builder(model.graph)
    square = builder.op("Mul", tensor(model, "b"), tensor(model, "b"), hint="square")
    builder.op("Sqrt", square, hint="root")
    rewrite.disconnect(graph.nodes[3])
    rewrite.compute_as(square, graph.outputs[0])
    rewrite.erase_nodes(graph, [graph.nodes[3]])
    assert equations(graph) == ["a = Relu(x)", "b = Neg(a)", "c = Add(a,b)", "y = Mul(b,b)", "root = Sqrt(y)", "=> y,a"]


def test_erased_nodes_are_forgotten_by_their_operands(model: Model) -> None:
    rewrite.erase_nodes(model.graph, tensor(model, "a").outputs)
    assert equations(model.graph) == ["a = Relu(x)", "y = Abs(c)", "=> y,a"]
    assert not tensor(model, "a").outputs
    assert not tensor(model, "c").inputs


def test_what_no_output_depends_on_is_dead(model: Model) -> None:
    model.graph.outputs = [tensor(model, "b")]
    rewrite.erase_dead_nodes(model.graph)
    assert equations(model.graph) == ["a = Relu(x)", "b = Neg(a)", "=> b"]
    assert [n.name for n in tensor(model, "a").outputs] == ["two"]


def test_unread_nodes_go_up_to_what_is_read(model: Model) -> None:
    """`c` and `b` were computed for `y` alone; `a` is an output."""
    model.graph.outputs = [tensor(model, "a")]
    rewrite.erase_unread(model.graph, tensor(model, "c"))
    assert len(model.graph.nodes) == 4, "y reads c"
    rewrite.erase_unread(model.graph, tensor(model, "y"), tensor(model, "x"))
    assert equations(model.graph) == ["a = Relu(x)", "=> a"]


def test_nodes_are_inserted_before_another_or_at_the_end(model: Model) -> None:
    nodes = [Node("Exp", name, {}, [tensor(model, "x")], [Variable(name)]) for name in ("p", "q", "r")]
    rewrite.insert_nodes(model.graph, nodes[:2], before=model.graph.nodes[1])
    rewrite.insert_nodes(model.graph, nodes[2:], before=None)
    assert [n.name for n in model.graph.nodes] == ["one", "p", "q", "two", "three", "four", "r"]
