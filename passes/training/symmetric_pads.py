"""symmetric-pads: convolutions with the same pads before and behind each axis."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Model, Node
from wootz.passes.ir.rewrite import rewriting
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.geometry import Window
from wootz.passes.training.rules.rule import NoRule

AUTOMATIC = ("SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class SymmetricPads(Pass):
    """Puts a Pad before each convolution whose pads before and behind an axis differ.

    1. A Conv with such pads, or whose `auto_pad` comes to such, reads its operand behind a Pad and has no pads itself.
    2. Where `auto_pad` comes to equal pads, or sizes are symbolic, it stays; so does a ConvTranspose.

    The outputs of the network are the same. cuDNN may have no kernel for other pads ("No valid engine configs for
    ConvFwd", onnxruntime issue 26274), which TensorFlow's SAME padding of strided convolutions makes; sessions on CUDA
    run this pass by themselves.
    """

    name = "symmetric-pads"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        if not any(_is_to_pad(node) for node in model.graph.nodes):
            return PassResult(model, False, {"padded": 0})
        result = model.copy()
        annotate_shapes(result.graph)
        builder = Builder(result.graph)
        padded = 0
        for node in rewriting(result.graph):
            if _is_to_pad(node):
                builder.prefix = f"{node.name}/"
                padded += _pad_before(node, builder)
        return PassResult(result if padded else model, padded > 0, {"padded": padded})


def _is_to_pad(node: Node) -> bool:
    return node.op == "Conv" and not node.domain and pads_may_differ(node)


def pads_may_differ(node: Node) -> bool:
    """Whether a convolution or pooling may have other pads before an axis than behind it."""
    pads = node.attrs.get("pads") or []
    return node.attrs.get("auto_pad", "NOTSET") in AUTOMATIC or pads[: len(pads) // 2] != pads[len(pads) // 2 :]


def _pad_before(node: Node, builder: Builder) -> bool:
    """Whether that was needed."""
    data = Expression.of(node.inputs[0], builder)
    begin, end = _pads(node, data)
    if begin == end:
        return False
    node.inputs[0] = data.op("Pad", data.integers([0, 0, *begin, 0, 0, *end])).tensor
    node.attrs = {k: v for k, v in node.attrs.items() if k != "auto_pad"} | {"pads": [0] * 2 * len(begin)}
    return True


def _pads(node: Node, data: Expression) -> tuple[list[int], list[int]]:
    """What is added before each axis and behind it; nothing where that is not known."""
    if node.attrs.get("auto_pad", "NOTSET") not in AUTOMATIC:
        pads = node.attrs["pads"]
        return pads[: len(pads) // 2], pads[len(pads) // 2 :]
    kernel, result = node.inputs[1].shape, node.outputs[0]
    if any(shape is None for shape in (data.tensor.shape, result.shape, kernel)):
        return [], []
    try:
        window = Window.of(node, data, Expression.of(result, data.builder), kernel[2:])
    except NoRule:  # symbolic sizes, or elements that are left out: nothing is padded there
        return [], []
    return list(window.pads_begin), [max(p, 0) for p in window.pads_end]
