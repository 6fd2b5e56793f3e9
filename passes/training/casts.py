"""Casts to a wider type and back, which change nothing."""

from __future__ import annotations

import numpy as np

from wootz.passes.ir.model import Graph, Node, Tensor, producer
from wootz.passes.ir.rewrite import redirect_readers
from wootz.passes.training.expression import np_to_onnx_type

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def behind_widening(tensor: Tensor) -> Tensor:
    """The float16 tensor that `tensor` was cast from to float32, or `tensor` itself."""
    cast = producer(tensor)
    return cast.inputs[0] if cast is not None and _casts(cast, HALF, SINGLE) else tensor


def cancel_casts(graph: Graph) -> int:
    """Lets what reads a float16 tensor that was float32 and float16 before read the first one; gives their number."""
    outputs = {id(t) for t in graph.outputs}
    cancelled = 0
    for node in graph.nodes:
        if not _casts(node, SINGLE, HALF) or id(node.outputs[0]) in outputs:
            continue
        source = behind_widening(node.inputs[0])
        if source is node.inputs[0]:
            continue
        redirect_readers(node.outputs[0], source)
        cancelled += 1
    return cancelled


def _casts(node: Node, source: np.dtype, result: np.dtype) -> bool:
    return (
        node.op == "Cast"
        and node.inputs[0].dtype is not None
        and np.dtype(node.inputs[0].dtype) == source
        and node.attrs["to"] == np_to_onnx_type(result)
    )
