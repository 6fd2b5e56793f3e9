"""Copies of a model: the same network, nothing shared but the arrays of the weights."""

from __future__ import annotations

import onnx
import pytest

from wootz.passes.ir.model import Constant, Model, Node, Tensor, Variable, constants
from wootz.passes.ir.rewrite import replace_all_uses
from wootz.passes.ir.text import parse_text, print_text

NETWORK = """<ir_version: 8, opset_import: ["" : 18, "custom" : 1]>
net (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[4,3,1,1] w = {0,1,2,3,4,5,6,7,8,9,10,11}, float[4] b = {1,2,3,4}, float low = {0}>
{
  [one] c = Conv <kernel_shape = [1, 1]> (x, w, b)
  [two] d = Add (c, c)
  [three] e = Clip (d, , low)
  [four] y = custom.Twice (e)
}
"""
WITH_SUBGRAPH = """<ir_version: 8, opset_import: ["" : 18]>
net (float[N,4] x, bool choice) => (float[N,4] y)
{
  z = Relu (x)
  y = If (choice) <
    then_branch = yes () => (float[N,4] a) { a = Neg (z) },
    else_branch = no () => (float[N,4] b) { b = Identity (z) }
  >
}
"""


def parts(model: Model) -> list[Node | Tensor]:
    graph = model.graph
    tensors = [t for node in graph.nodes for t in [*node.inputs, *node.outputs]]
    return [*graph.nodes, *tensors, *graph.inputs, *graph.outputs]


@pytest.mark.parametrize("text", [NETWORK, WITH_SUBGRAPH])
def test_a_copy_is_the_same_network(text: str) -> None:
    model = parse_text(text)
    assert print_text(model.copy()) == print_text(model)
    onnx.checker.check_model(model.copy().to_proto(), full_check=True)


@pytest.mark.parametrize("text", [NETWORK, WITH_SUBGRAPH])
def test_a_copy_shares_nothing_but_arrays(text: str) -> None:
    model = parse_text(text)
    copied = model.copy()
    originals = {id(part) for part in parts(model)}
    assert not any(id(part) in originals for part in parts(copied))
    lists = {id(values) for part in parts(model) for values in (part.inputs, part.outputs)}
    assert not any(id(values) in lists for part in parts(copied) for values in (part.inputs, part.outputs))
    assert not {id(n.attrs) for n in model.graph.nodes} & {id(n.attrs) for n in copied.graph.nodes}
    shapes = {id(part.shape) for part in parts(model) if isinstance(part, Variable)} - {id(None)}
    assert not any(id(part.shape) in shapes for part in parts(copied) if isinstance(part, Variable))
    for name, values in constants(model.graph).items():
        assert constants(copied.graph)[name] is values


def test_the_two_sides_of_a_copy_agree() -> None:
    """Every tensor knows each of its readers as often as it is read, and the node that computes it."""
    graph = parse_text(NETWORK).copy().graph
    for node in graph.nodes:
        for tensor in node.inputs:
            assert [n is node for n in tensor.outputs].count(True) == [t is tensor for t in node.inputs].count(True)
        assert all(len(t.inputs) == 1 and t.inputs[0] is node for t in node.outputs)


def test_a_copy_can_be_changed_and_the_original_stays() -> None:
    model = parse_text(NETWORK)
    before = print_text(model)
    graph = model.copy().graph
    tensors = graph.tensors()
    replace_all_uses(graph, tensors["c"], tensors["x"])
    graph.nodes[0].attrs["kernel_shape"] = [2, 2]
    graph.nodes[1].inputs[0] = Constant("other", constants(graph)["b"])
    graph.nodes[2].outputs.clear()
    tensors["x"].shape[0] = 7
    tensors["b"].values = constants(graph)["b"] + 1
    del graph.nodes[3]
    assert print_text(model) == before


def test_lists_of_a_copy_stay_in_step() -> None:
    """Assigning, appending and removing on one side shows on the other, as with graphsurgeon's own lists."""
    graph = parse_text(NETWORK).copy().graph
    add, x, c = graph.nodes[1], graph.tensors()["x"], graph.tensors()["c"]
    add.inputs = [x]
    assert [n.name for n in x.outputs] == ["one", "two"]
    assert not c.outputs
    x.outputs.remove(add)
    assert not add.inputs
    add.inputs.append(c)
    assert c.outputs[0] is add


def test_nodes_that_left_the_graph_are_not_copied() -> None:
    model = parse_text(NETWORK)
    del model.graph.nodes[3]
    model.graph.outputs = [model.graph.tensors()["e"]]
    copied = model.copy().graph
    assert not copied.outputs[0].outputs
    assert model.graph.outputs[0].outputs
