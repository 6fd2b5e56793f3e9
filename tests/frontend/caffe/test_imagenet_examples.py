"""The networks of the paper: their depth, modules and parameters."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.model import Constant, Graph, Node
from wootz.passes.ir.verifier import verify

IMAGENET = Path(__file__).parents[3] / "examples" / "imagenet"


def depth(graph: Graph) -> int:
    """The largest number of layers with weights on a path through the network."""
    longest: dict[int, int] = {}

    def before(node: Node) -> int:
        return max((longest[id(t.inputs[0])] for t in node.inputs if t.inputs), default=0)

    for node in graph.nodes:
        longest[id(node)] = before(node) + (node.op in ("Conv", "Gemm"))
    return max(longest.values())


@pytest.mark.parametrize(
    ("name", "layers", "modules", "parameters"),
    [
        ("resnet50", 50, 16, 25_557_032),
        ("resnet101", 101, 33, 44_549_160),
        ("inception_v2", 34, 10, 11_295_240 - 10_016),  # without the biases that BatchNorm makes superfluous
        ("inception_v3", 48, 11, 23_834_568),
    ],
)
def test_counts_are_those_of_the_paper(name, layers, modules, parameters) -> None:
    model = import_caffe(IMAGENET / f"{name}.prototxt").model
    onnx.checker.check_model(model.to_proto(), full_check=True)
    verify(model)
    statistics = (".mean", ".variance")
    tensors = model.graph.tensors().items()
    sizes = {n: t.values.size for n, t in tensors if isinstance(t, Constant) and not n.endswith(statistics)}
    assert (depth(model.graph), len(model.modules)) == (layers, modules)
    assert [m.entry for m in model.modules[1:]] == [m.exit for m in model.modules[:-1]]
    assert sum(sizes.values()) == parameters
