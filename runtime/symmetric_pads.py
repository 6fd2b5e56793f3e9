"""Convolutions for the CUDA provider of ONNX Runtime, with the same pads before and behind each axis.

For others cuDNN may have no kernel ("No valid engine configs for ConvFwd", onnxruntime issue 26274). TensorFlow's SAME
padding of strided convolutions makes them.
"""

from __future__ import annotations

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Model, Node
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.geometry import Window

AUTOMATIC = ("SAME_UPPER", "SAME_LOWER")


def with_symmetric_pads(model: Model) -> Model:
    """`model` with a Pad before each convolution whose pads differ. Where sizes are symbolic, `auto_pad` stays."""
    if not any(_is_to_pad(node) for node in model.graph.nodes):
        return model
    result = model.copy()
    graph = result.graph
    annotate_shapes(graph)
    builder = Builder(graph)
    nodes, graph.nodes = list(graph.nodes), []
    for node in nodes:
        if _is_to_pad(node):
            builder.prefix = f"{node.name}/"
            _pad_before(node, builder)
        graph.nodes.append(node)
    return result


def _is_to_pad(node: Node) -> bool:
    return node.op == "Conv" and not node.domain and pads_may_differ(node)


def pads_may_differ(node: Node) -> bool:
    """Whether a convolution or pooling may have other pads before an axis than behind it."""
    pads = node.attrs.get("pads") or []
    return node.attrs.get("auto_pad", "NOTSET") in AUTOMATIC or pads[: len(pads) // 2] != pads[len(pads) // 2 :]


def _pad_before(node: Node, builder: Builder) -> None:
    data = Expression.of(node.inputs[0], builder)
    begin, end = _pads(node, data)
    if begin == end:
        return
    node.inputs[0] = data.op("Pad", data.integers([0, 0, *begin, 0, 0, *end])).tensor
    node.attrs = {k: v for k, v in node.attrs.items() if k != "auto_pad"} | {"pads": [0] * 2 * len(begin)}


def _pads(node: Node, data: Expression) -> tuple[list[int], list[int]]:
    """What is added before each axis and behind it; nothing where that is not known."""
    if node.attrs.get("auto_pad", "NOTSET") not in AUTOMATIC:
        pads = node.attrs["pads"]
        return pads[: len(pads) // 2], pads[len(pads) // 2 :]
    kernel, result = node.inputs[1].shape, node.outputs[0]
    sizes = [data.tensor.shape, result.shape, kernel]
    if any(shape is None or not all(isinstance(n, int) for n in shape[2:]) for shape in sizes):
        return [], []
    window = Window.of(node, data, Expression.of(result, data.builder), kernel[2:])
    return list(window.pads_begin), [max(p, 0) for p in window.pads_end]
